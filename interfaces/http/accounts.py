"""`/v1/pki/acme/accounts`: accounts at CAs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from application.caller import Caller
from application.ports import ExternalAccountBinding
from application.secret_value import SecretValue
from domain.account import Environment
from domain.order import KeyType
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Name, RequestBody, WithOptionalBody
from interfaces.http.outside import outside_call
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one
from projections.accounts import ACCOUNTS, AccountView


class Eab(RequestBody, frozen=True):
    """RFC 8555 §7.3.4, as the CA gave it."""

    kid: str
    hmac_key: str


class RegisterAccount(RequestBody, frozen=True):
    name: Name
    provider: str
    environment: Environment
    email: str
    directory_url: str | None = None
    eab: Eab | None = None
    key_type: KeyType = "ec256"
    ca_bundle_pem: str | None = None


class ReviseAccount(RequestBody, frozen=True):
    """What is left out stays. `agree_to_terms` answers a CA whose terms have changed."""

    email: str | UnsetType = UNSET
    agree_to_terms: bool = False


class RollOver(RequestBody, frozen=True):
    """Of the new key."""

    key_type: KeyType = "ec256"


class AccountList(msgspec.Struct, frozen=True):
    data: Sequence[AccountView]
    cursor: str | None
    has_more: bool


@post("/pki/acme/accounts", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def register_account(data: JSONBody[RegisterAccount], caller: FromToken, services: FromApp) -> Response[AccountView]:
    """Registered at the CA before the answer; agrees to the CA's terms."""
    with outside_call(services):
        account_id = services.accounts.register(
            name=data.name,
            provider=data.provider,
            environment=data.environment,
            email=data.email,
            directory_url=data.directory_url,
            eab=ExternalAccountBinding(data.eab.kid, SecretValue(data.eab.hmac_key)) if data.eab else None,
            key_type=data.key_type,
            ca_bundle_pem=data.ca_bundle_pem,
            caller=caller,
        )
    return Response(
        account_view(services, caller, account_id),
        status_code=201,
        headers={"Location": f"/v1/pki/acme/accounts/{account_id}"},
    )


@get("/pki/acme/accounts", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def list_accounts(caller: FromToken, services: FromApp, page: FromPage) -> AccountList:
    accounts, cursor = listed(ACCOUNTS, services, caller, page)
    return AccountList(accounts, cursor, cursor is not None)


@get("/pki/acme/accounts/{account_id:str}", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def get_account(account_id: FromPath[str], caller: FromToken, services: FromApp) -> AccountView:
    return account_view(services, caller, account_id)


@patch("/pki/acme/accounts/{account_id:str}", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def revise_account(
    account_id: FromPath[str], data: JSONBody[ReviseAccount], caller: FromToken, services: FromApp
) -> AccountView:
    """Changed at the CA before the answer."""
    account_view(services, caller, account_id)
    with outside_call(services):
        services.accounts.revise(
            account_id,
            email=None if data.email is UNSET else data.email,
            agree_to_terms=data.agree_to_terms,
            caller=caller,
        )
    return account_view(services, caller, account_id)


@post(
    "/pki/acme/accounts/{account_id:str}/rollover",
    operation_class=WithOptionalBody,
    opt={"scope": "pki:admin"},
    status_code=202,
    responses=ERRORS,
    sync_to_thread=True,
)
def roll_over(
    account_id: FromPath[str], caller: FromToken, services: FromApp, data: JSONBody[RollOver | None] = None
) -> Response[AccountView]:
    """A new account key. The account's `rollover` says how far it is; the old key is destroyed in the end."""
    services.accounts.begin_key_change(account_id, (data or RollOver()).key_type, caller)
    location = {"Location": f"/v1/pki/acme/accounts/{account_id}"}
    return Response(account_view(services, caller, account_id), status_code=202, headers=location)


@delete("/pki/acme/accounts/{account_id:str}", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def deactivate_account(account_id: FromPath[str], caller: FromToken, services: FromApp) -> None:
    """Deactivated at the CA before the answer, for good; 409 while certificates are renewed through it."""
    account_view(services, caller, account_id)
    with outside_call(services):
        services.accounts.deactivate(account_id, caller)


def account_view(services: Services, caller: Caller, account_id: str) -> AccountView:
    view: AccountView = one(ACCOUNTS, "account", services, caller, account_id)
    return view

"""`/v1/pki/acme/accounts`: accounts at CAs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from application.caller import Caller
from application.ports import ExternalAccountBinding
from application.secret_value import SecretValue
from domain.account import Environment
from domain.order import KeyType
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Name, RequestBody
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


def account_view(services: Services, caller: Caller, account_id: str) -> AccountView:
    view: AccountView = one(ACCOUNTS, "account", services, caller, account_id)
    return view

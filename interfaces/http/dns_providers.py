"""`/v1/dns/providers`: connecting DNS providers and verifying them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, UnsetType

from application.caller import Caller
from application.dns_providers import Changes, Verification
from interfaces.dns.providers import TYPES
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.bodies import Name, RequestBody, WithOptionalBody
from interfaces.http.outside import outside_call
from interfaces.http.pages import FromPage
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import listed, one
from projections.dns_providers import DNS_PROVIDERS, DnsProviderView


class ConnectProvider(RequestBody, frozen=True):
    name: Name
    provider_type: str
    managed_zones: list[str]
    credentials: dict[str, str] | None = None
    credentials_path: str | None = None
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    verify: bool = False


class ReviseProvider(RequestBody, frozen=True):
    """What is left out stays. `credentials` take the place of all that were there."""

    name: Name | UnsetType = UNSET
    managed_zones: list[str] | UnsetType = UNSET
    credentials: dict[str, str] | UnsetType = UNSET
    credentials_path: str | UnsetType = UNSET
    config: dict[str, Any] | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET


class VerifyProvider(RequestBody, frozen=True):
    write_test: bool = False


class ProviderTypeView(msgspec.Struct, frozen=True):
    """How to connect a provider of that type: the JSON Schemas of its credentials and of what its `config` takes beside what
    all types do; what the credentials may do at least, in words and as `policy` in the vendor's own form; what `verify` does."""

    provider_type: str
    title: str
    credentials_schema: Mapping[str, Any]
    config_schema: Mapping[str, Any]
    least_privilege: str
    policy: Mapping[str, Any]
    verify_checks: str


class ProviderTypeList(msgspec.Struct, frozen=True):
    data: Sequence[ProviderTypeView]


class ProviderList(msgspec.Struct, frozen=True):
    data: Sequence[DnsProviderView]
    cursor: str | None
    has_more: bool


@get("/dns/provider-types", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=False)
def list_provider_types(caller: FromToken) -> ProviderTypeList:
    """What can be connected, and how."""
    del caller
    return ProviderTypeList(
        [
            ProviderTypeView(
                provider_type=kind.name,
                title=kind.title,
                credentials_schema=kind.credentials_schema,
                config_schema=kind.config_schema,
                least_privilege=kind.least_privilege,
                policy=kind.policy,
                verify_checks=kind.verify_checks,
            )
            for kind in TYPES
        ]
    )


@post("/dns/providers", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def connect_provider(
    data: JSONBody[ConnectProvider], caller: FromToken, services: FromApp
) -> Response[DnsProviderView]:
    """With `verify` it is connected only when its zones can be listed."""
    with outside_call(services) if data.verify else nullcontext():
        provider_id = services.providers.connect(
            name=data.name,
            provider_type=data.provider_type,
            credentials=data.credentials,
            credentials_path=data.credentials_path,
            config=data.config,
            managed_zones=data.managed_zones,
            verify=data.verify,
            caller=caller,
        )
    return Response(
        provider_view(services, caller, provider_id),
        status_code=201,
        headers={"Location": f"/v1/dns/providers/{provider_id}"},
    )


@get("/dns/providers", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def list_providers(caller: FromToken, services: FromApp, page: FromPage) -> ProviderList:
    providers, cursor = listed(DNS_PROVIDERS, services, caller, page)
    return ProviderList(providers, cursor, cursor is not None)


@get("/dns/providers/{provider_id:str}", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def get_provider(provider_id: FromPath[str], caller: FromToken, services: FromApp) -> DnsProviderView:
    return provider_view(services, caller, provider_id)


@patch("/dns/providers/{provider_id:str}", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def revise_provider(
    provider_id: FromPath[str], data: JSONBody[ReviseProvider], caller: FromToken, services: FromApp
) -> DnsProviderView:
    """Orders in progress go on with it as it is now. One that is not active manages no names of new orders."""
    changes = Changes(**{field: getattr(data, field) for field in ReviseProvider.__struct_fields__})
    services.providers.revise(provider_id, changes, caller)
    return provider_view(services, caller, provider_id)


@delete("/dns/providers/{provider_id:str}", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def disconnect_provider(provider_id: FromPath[str], caller: FromToken, services: FromApp) -> None:
    """Its credentials are destroyed; 409 while an order uses it."""
    services.providers.disconnect(provider_id, caller)


@post(
    "/dns/providers/{provider_id:str}/verify",
    operation_class=WithOptionalBody,
    opt={"scope": "pki:admin"},
    responses=ERRORS,
    status_code=200,
    sync_to_thread=True,
)
def verify_provider(
    provider_id: FromPath[str], caller: FromToken, services: FromApp, data: JSONBody[VerifyProvider | None] = None
) -> Verification:
    """Lists the zones; with `write_test` it also writes and removes a value in each managed one."""
    with outside_call(services):
        return services.providers.verify(provider_id, write_test=data is not None and data.write_test, caller=caller)


def provider_view(services: Services, caller: Caller, provider_id: str) -> DnsProviderView:
    view: DnsProviderView = one(DNS_PROVIDERS, "dns_provider", services, caller, provider_id)
    return view

"""The whole application on a real database, asked over HTTP without a socket; and things put into it by their events.

A CA in memory stands where the network would begin, and names have the addresses that are written here."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
from eventsourcing.domain import BaseAggregate
from litestar import Litestar
from psycopg.sql import SQL, Identifier

from application.accounts import SEALED_KIND as ACCOUNT_KEY_KIND
from application.certificates import SEALED_KIND
from application.errors import ResolverFailed
from application.secret_value import SecretValue
from application.x509 import new_private_key
from domain.account import Account, Offer
from domain.certificate import Certificate, Version
from domain.delivery import Delivery, delivery_id
from domain.order import Assignment, Order
from domain.provenance import DEFAULT_TENANT, Provenance
from domain.token import Limits, Scope
from interfaces.egress import Egress
from interfaces.http.app import build_app
from interfaces.http.envelope import Envelope
from interfaces.http.idempotency import KeepingAnswers
from interfaces.main import assemble
from interfaces.parts import Parts
from interfaces.settings import settings_from
from projections.views import FOLLOWING, INLINE
from tests.fakes_ca import FakeCa

MASTER_KEY = "test:" + base64.b64encode(bytes(range(32))).decode()
UNLIMITED = Limits()
JSON = {"content-type": "application/json"}
KEY_PEM = "-----BEGIN PRIVATE KEY-----\nthe key of {}\n-----END PRIVATE KEY-----\n"
ADDRESSES = {"receiver.example": "127.0.0.1", "private.example": "10.0.0.1", "public.example": "8.8.8.8"}
"""All that is looked up: other names have none."""
SUBSCRIPTION: Mapping[str, Any] = {
    "name": "renewals",
    "paths": ["pki/certificates/*"],
    "events": ["certificate.renewed"],
    "delivery": {"type": "webhook", "url": "https://hooks.example/scaivault"},
}
POLLING: Mapping[str, Any] = {
    **SUBSCRIPTION,
    "events": ["certificate.issued", "certificate.renewed"],
    "delivery": {"type": "polling"},
}
BLOCK = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


def environment(database: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database,
        "SCAIVAULT_MASTER_KEY": MASTER_KEY,
        "SCAIVAULT_EGRESS_ALLOW": "127.0.0.0/8",
        "SCAIVAULT_LOG_FORMAT": "json",
    }


@dataclass(frozen=True)
class Api:
    """`app` is what uvicorn would serve; `routes` the framework's part of it. Tokens and things are the tenant's, or those
    of another tenant where one is named."""

    tenant_id: str
    parts: Parts
    app: Envelope
    routes: Litestar
    run: Callable[..., Any]
    client: httpx.AsyncClient

    def ask(
        self,
        request_line: str,
        token: str | None = None,
        body: object = msgspec.UNSET,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """`request_line` is the method and the path; `body` is sent as JSON, and bytes as they are."""
        method, path = request_line.split(" ", 1)
        content = body if isinstance(body, bytes) else None if body is msgspec.UNSET else msgspec.json.encode(body)
        said = dict(JSON) if content is not None else {}
        if token is not None:
            said["authorization"] = f"Bearer {token}"
        said.update(headers or {})
        raw = [(name.encode(), value.encode("latin-1")) for name, value in said.items()]
        answer: httpx.Response = self.run(self.client.request(method, path, content=content, headers=raw))
        return answer

    def token(
        self,
        *scopes: Scope,
        tenant_id: str | None = None,
        limits: Limits = UNLIMITED,
        valid_for: timedelta = timedelta(hours=1),
    ) -> str:
        tenant_id = tenant_id or self.tenant_id
        by = operator(tenant_id)
        issued = self.parts.tokens.issue(
            tenant_id=tenant_id, name=None, scopes=scopes, limits=limits, valid_for=valid_for, by=by
        )
        return issued.reveal_text()

    def new_id(self, prefix: str) -> str:
        return self.parts.services.ids.new(prefix)


@contextmanager
def running_api(database: str) -> Iterator[Api]:
    with assemble(settings_from(environment(database))) as parts, asyncio.Runner() as runner:
        parts.services.accounts._ca = parts.services.revocations._ca = FakeCa(lambda _: ())
        egress_of(parts)._lookups._resolve = look_up
        app = build_app(parts.services)
        assert isinstance(app, Envelope)
        assert isinstance(app._app, KeepingAnswers)
        routes = app._app._app
        assert isinstance(routes, Litestar)
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 50000))
        client = httpx.AsyncClient(transport=transport, base_url="http://scaivault.example")
        yield Api(DEFAULT_TENANT, parts, app, routes, runner.run, client)
        runner.run(client.aclose())


def egress_of(parts: Parts) -> Egress:
    egress = getattr(parts.services.subscriptions._require_dialable, "__self__", None)
    assert isinstance(egress, Egress)
    return egress


def look_up(host: str, _port: int) -> Sequence[str]:
    if host not in ADDRESSES:
        raise ResolverFailed(f"{host!r} does not resolve")
    return [ADDRESSES[host]]


def operator(tenant_id: str) -> Provenance:
    return Provenance(tenant_id, "operator", "tests")


def token_id(token: str) -> str:
    return "tok_" + token.split("_")[1]


def error_code(answer: httpx.Response) -> str:
    """The code of an answer that must be an error in the contract's form."""
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["message"]
    assert set(answer.json()) == {"error"}
    assert set(error) <= {"code", "message", "details", "retry_after", "request_id"}
    code: str = error["code"]
    return code


def wrong_fields(answer: Any, status: int = 422, code: str = "validation_error") -> Mapping[str, str]:
    """By field what is wrong with it."""
    assert (answer.status_code, error_code(answer)) == (status, code), answer.text
    return {field["field"]: field["code"] for field in answer.json()["error"]["details"]["fields"]}


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, error_code(answer)


def actions(api: Api, token: str) -> Sequence[tuple[str, str, bool]]:
    """The audit log but for tokens: what was done, to what, and whether it was granted."""
    rows = api.ask("GET /v1/audit/logs", token).json()["logs"]
    return [
        (row["action"], row["resource_path"], row["success"]) for row in rows if not row["action"].startswith("token")
    ]


def stored_text(api: Api) -> str:
    """All that is in the events and views, as text."""
    tables = ("events", "delivery_responses", *(view.name for view in (*INLINE, *FOLLOWING)))
    with api.parts.pool.connection() as connection:
        queries = [SQL("SELECT t::text FROM {} t").format(Identifier(table)) for table in tables]
        rows = [row for query in queries for row in connection.execute(query).fetchall()]
    return "\n".join(text for (text,) in rows)


def subscribe(api: Api, token: str, body: Mapping[str, Any] = SUBSCRIPTION, **changes: Any) -> Mapping[str, Any]:
    """What was answered."""
    answer = api.ask("POST /v1/subscriptions", token, {**body, **changes})
    assert answer.status_code == 201, answer.text
    subscription: Mapping[str, Any] = answer.json()
    return subscription


def record_delivery(
    api: Api, subscription_id: str, position: int = 1, now: datetime | None = None, tenant_id: str | None = None
) -> Delivery:
    """As if the event at that position were owed to the subscription, and the first attempt had yet to be made."""
    now = now or datetime.now(UTC)
    tenant_id = tenant_id or api.tenant_id
    delivery = Delivery.owe(
        delivery_id(subscription_id, position, None, now),
        tenant_id=tenant_id,
        subscription_id=subscription_id,
        position=position,
        event_type="certificate.renewed",
        event_id=api.new_id("evt"),
        path="pki/certificates/cert_1",
        ordered=False,
        replay_id=None,
        now=now,
    )
    record(api, delivery)
    return delivery


def record(api: Api, aggregate: BaseAggregate[str]) -> None:
    """What is pending in it."""
    api.parts.store.record(aggregate, by=operator(aggregate.tenant_id))  # type: ignore[attr-defined]


ACCOUNT_KEY = new_private_key("ec256")


def record_account(api: Api, tenant_id: str | None = None, name: str = "le") -> str:
    """The id of an account as if a CA had registered it."""
    tenant_id = tenant_id or api.tenant_id
    account_id = api.new_id("acme_staging")
    sealed_key_id = api.parts.services.accounts._keys.seal(ACCOUNT_KEY_KIND, tenant_id, account_id, ACCOUNT_KEY)
    account = Account.register(
        account_id,
        tenant_id=tenant_id,
        name=name,
        provider="custom",
        environment="staging",
        email="tls@acme.example",
        directory_url="https://ca.example/directory",
        ca_bundle_pem=None,
        account_url=f"https://ca.example/accounts/{account_id}",
        sealed_key_id=sealed_key_id,
        key_thumbprint="thumbprint",
        offer=Offer(ari=True, profiles=(), eab_required=False, caa_identities=()),
        now=datetime.now(UTC),
    )
    api.parts.store.record(account, by=operator(tenant_id))
    return account_id


def record_order(
    api: Api, tenant_id: str | None = None, account_id: str | None = None, name: str = "www.acme.example"
) -> str:
    """The id of an order that was placed and waits for a worker, for a name that no provider manages."""
    tenant_id = tenant_id or api.tenant_id
    order_id = api.new_id("acme_order")
    order = Order.place(
        order_id,
        tenant_id=tenant_id,
        account_id=account_id or f"acme_staging_of_{tenant_id}",
        certificate_id=api.new_id("cert"),
        assignments=(Assignment(name, "dnsp_1"),),
        challenge_type="dns-01",
        key_type="ec256",
        auto_renew=True,
        name=None,
        profile=None,
        preferred_chain=None,
        renewal_reason=None,
        kept_key_id=None,
        replaces=None,
        ca="",
        charges=(),
        csr_der=b"",
        now=datetime.now(UTC),
    )
    api.parts.store.record(order, by=operator(tenant_id))
    return order_id


def record_certificate(
    api: Api,
    tenant_id: str | None = None,
    *,
    account_id: str | None = None,
    versions: int = 1,
    with_key: bool = True,
    valid_for: timedelta = timedelta(days=90),
) -> str:
    """The id of a certificate line with so many versions, whose PEM says which version it is."""
    tenant_id = tenant_id or api.tenant_id
    certificate_id = api.new_id("cert")
    account_id = account_id or record_account(api, tenant_id, f"for {certificate_id}")

    def version(number: int) -> Version:
        key = SecretValue(KEY_PEM.format(number))
        keys = api.parts.services.certificates._keys
        now = datetime.now(UTC).replace(microsecond=0)
        return Version(
            number=number,
            order_id=record_order(api, tenant_id, account_id, f"{certificate_id[-12:]}-{number}.acme.example"),
            serial_number=f"{number:02x}",
            fingerprint_sha256=f"{number:02x}" * 32,
            issuer="CN=Test CA",
            key_type="ec256",
            not_before=now - timedelta(days=1),
            not_after=now + valid_for,
            chain_pem=BLOCK.format(f"leaf {number}") + BLOCK.format("issuer"),
            sealed_key_id=keys.seal(SEALED_KIND, tenant_id, certificate_id, key) if with_key else None,
        )

    certificate = Certificate.issue(
        certificate_id,
        tenant_id=tenant_id,
        account_id=account_id,
        name="www",
        dns_names=("www.acme.example",),
        auto_renew=True,
        version=version(1),
        now=datetime.now(UTC),
    )
    for number in range(2, versions + 1):
        certificate.renew(version(number), "ari", datetime.now(UTC))
    api.parts.store.record(certificate, by=operator(tenant_id))
    return certificate_id


def connect_provider(api: Api, token: str, name: str = "dns", zone: str = "acme.example") -> str:
    """The id of a provider that is not dialled before it is used."""
    body = {
        "name": name,
        "provider_type": "rfc2136",
        "managed_zones": [zone],
        "credentials": {"tsig_key_name": "key", "tsig_secret": "c2VjcmV0LXNlY3JldA=="},
        "config": {"server": "127.0.0.1"},
    }
    answer = api.ask("POST /v1/dns/providers", token, body)
    assert answer.status_code == 201, answer.text
    provider_id: str = answer.json()["id"]
    return provider_id

"""The service before a CA that fails: `scaivault serve` with the embedded DNS, or before BIND, on a PostgreSQL of its own,
and a real CA behind the proxy of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from psycopg.sql import SQL, Identifier

from application.provider_config import host_and_port
from application.x509 import ari_id
from domain.names import base_name
from tests.prove.fault_scenarios.findings import Findings
from tests.prove.fault_scenarios.hosted_dns import HostedDns
from tests.prove.tutorial import account_at, by_rfc2136
from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.authoritative import ask_txt
from tests.servers.bind import Bind
from tests.servers.ca_proxy import CaProxy, Exchange, Suggest, proxied
from tests.servers.pebble import Pebble
from tests.servers.process import LOOPBACK, free_port, wait_until
from tests.system.service import Client, Process, running_database

ZONE = "faults.example"
DEADLINE_SECONDS = 60.0
TOKEN_SCOPES = "pki:issue pki:admin pki:export audit:read"

Ca = Callable[[Path, str], Pebble | Acme2Certifier]


def pebble(folder: Path, dns_address: str) -> Pebble:
    """With neither of its tricks: what is counted here is what the service does by itself."""
    return Pebble(folder, dns_address, nonce_reject_percent=0, authz_reuse_percent=0)


class Serve(Process):
    """`scaivault serve`, ready each time that it says so anew, with variables that are no settings of ours."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder, "serve", settings)
        self.variables: dict[str, str] = {}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.variables}


@dataclass
class Stage:
    """`rows` is the service's own database, for what is due when: no minute has to be waited for to see that. `foreign` are
    TXT values that somebody else has in our zone."""

    ca: Pebble | Acme2Certifier
    service: Serve
    proxy: CaProxy
    client: Client
    rows: psycopg.Connection
    dns_address: str
    account_id: str
    placed: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)

    # --- what clients do ---

    def try_register(self, name: str, eab: Mapping[str, str] | None = None) -> httpx.Response:
        body = {**account_at(self.proxy.directory_url, self.proxy.ca_bundle_pem), "name": name, "eab": eab}
        return self.client.try_post("/v1/pki/acme/accounts", body)

    def register(self, name: str, eab: Mapping[str, str] | None = None) -> str:
        """Another account at the same CA."""
        return str(self.try_register(name, eab).raise_for_status().json()["id"])

    def try_issue(self, label: str, account_id: str | None = None, profile: str | None = None) -> httpx.Response:
        """For one name in our zone."""
        return self._try_issue([f"{label}.{ZONE}"], account_id, profile)

    def place(self, label: str, account_id: str | None = None, profile: str | None = None) -> str:
        """The order's id."""
        return str(self.try_issue(label, account_id, profile).raise_for_status().json()["order_id"])

    def place_for(self, dns_names: Sequence[str], account_id: str | None = None) -> str:
        """For several names. The order's id."""
        return str(self._try_issue(dns_names, account_id).raise_for_status().json()["order_id"])

    def issue(self, label: str, account_id: str | None = None, profile: str | None = None) -> str:
        """The id of a certificate."""
        order = self.ended(self.place(label, account_id, profile))
        if order["status"] != "valid":
            raise AssertionError(order)
        return str(order["certificate_id"])

    def renew(self, certificate_id: str) -> str:
        """The id of the order for the next version."""
        answer = self._noted(self.client.try_post(f"/v1/pki/certificates/{certificate_id}/renew"))
        return str(answer.raise_for_status().json()["order_id"])

    def certificate_id_meant(self, order_id: str) -> str:
        """The id that the certificate of an order has, or would have had."""
        query = "SELECT state->>'certificate_id' FROM events WHERE originator_id = %s AND topic = 'order.placed'"
        row = self.rows.execute(query, [order_id]).fetchone()
        if row is None:
            raise LookupError(order_id)
        return str(row[0])

    def order(self, order_id: str) -> Any:
        return self.client.get(f"/v1/pki/acme/orders/{order_id}")

    def ended(self, order_id: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """The order once it has ended and cleaned up."""
        self.wait_for_row("orders", order_id, lambda order: bool(order["phase"] == "done"), "it is done", seconds)
        return self.order(order_id)

    def certificate(self, certificate_id: str) -> Any:
        return self.client.get(f"/v1/pki/certificates/{certificate_id}")

    def wait_for_version(self, certificate_id: str, number: int, seconds: float = DEADLINE_SECONDS) -> Any:
        """The certificate, as soon as there is that version."""
        return self.wait_for(certificate_id, lambda shown: shown["version"] >= number, f"version {number}", seconds)

    def wait_for(
        self, certificate_id: str, is_so: Callable[[Any], bool], what: str, seconds: float = DEADLINE_SECONDS
    ) -> Any:
        """The certificate, as soon as it is so."""
        self.wait_for_row("certificates", certificate_id, is_so, what, seconds)
        return self.certificate(certificate_id)

    def wait_for_row(
        self, view: str, subject: str, is_so: Callable[[Any], bool], what: str, seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Looks at the row that the API answers from: to ask over HTTP for so long costs more than what is shown here."""
        query = SQL("SELECT document FROM {} WHERE id = %s").format(Identifier(view))

        def look() -> bool:
            row = self.rows.execute(query, [subject]).fetchone()
            return row is not None and is_so(row[0])

        wait_until(look, what=f"{subject}: {what}", deadline_seconds=seconds)

    def chain_pem(self, certificate_id: str, number: int) -> str:
        return str(self.client.get(f"/v1/pki/certificates/{certificate_id}/pem", version=number)["certificate_pem"])

    def ari_id(self, certificate_id: str, number: int) -> str | None:
        return ari_id(self.chain_pem(certificate_id, number))

    def public_key(self, certificate_id: str, number: int) -> bytes:
        (leaf, *_) = x509.load_pem_x509_certificates(self.chain_pem(certificate_id, number).encode())
        return leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def key_fits(self, certificate_id: str, number: int) -> bool:
        """Whether the private key that clients get is that of the leaf."""
        given = self.client.post(f"/v1/pki/certificates/{certificate_id}/private-key", {"version": number})
        key = load_pem_private_key(given["private_key_pem"].encode(), password=None).public_key()
        public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return public == self.public_key(certificate_id, number)

    # --- what the CA saw ---

    def new_orders(self, *labels: str) -> list[Exchange]:
        """Those for the names, or all."""
        names = {f"{label}.{ZONE}" for label in labels}
        found = self.proxy.since(0).at("new-order")
        return [each for each in found if not names or names & set(each.dns_names)]

    # --- what is due ---

    def due_at(self, process: str, certificate_id: str) -> datetime:
        """When the next step of that process is due."""
        query = "SELECT due_at FROM todo WHERE process = %s AND subject = %s"
        row = self.rows.execute(query, [process, certificate_id]).fetchone()
        if row is None:
            raise LookupError(f"no {process} for {certificate_id}")
        due_at: datetime = row[0]
        return due_at.astimezone(UTC)

    def asked_again_at(self, certificate_id: str) -> datetime:
        """When the CA is asked for its window again, as soon as it was asked."""

        def is_put_off() -> bool:
            query = (
                "SELECT FROM todo WHERE process = 'renewal_info' AND subject = %s AND lease_until IS NULL"
                " AND due_at > now() + interval '50 seconds'"
            )
            return self.rows.execute(query, [certificate_id]).fetchone() is not None

        wait_until(is_put_off, what=f"the CA was asked about {certificate_id}", deadline_seconds=DEADLINE_SECONDS)
        return self.due_at("renewal_info", certificate_id)

    def ask_now(self, certificate_id: str) -> None:
        """Has the CA be asked for its window although it wanted to be left alone for longer."""
        self.rows.execute(
            "UPDATE todo SET due_at = now() WHERE process = 'renewal_info' AND subject = %s", [certificate_id]
        )

    def has_steps(self, subject: str) -> bool:
        """Whether anything is still to be done for it, at any time."""
        return self.rows.execute("SELECT FROM todo WHERE subject = %s", [subject]).fetchone() is not None

    def do_now(self, process: str, subject: str) -> None:
        """Has it take its next step although that is not due yet."""
        self.rows.execute("UPDATE todo SET due_at = now() WHERE process = %s AND subject = %s", [process, subject])

    def topics(self, subject: str) -> list[str]:
        """Of the events, in order."""
        rows = self.rows.execute("SELECT topic FROM events WHERE originator_id = %s ORDER BY position", [subject])
        return [topic for (topic,) in rows.fetchall()]

    def event(self, subject: str, topic: str) -> Any:
        """What the only event of that kind says."""
        query = "SELECT state FROM events WHERE originator_id = %s AND topic = %s"
        ((state,),) = self.rows.execute(query, [subject, topic]).fetchall()
        return state

    # --- at the end ---

    def tally(self, findings: Findings, refused: Sequence[str] = ()) -> None:
        """Adds up what no fault may cause. `refused` are the orders that had to end without a certificate: it is a fault
        where one did not, and where another one did."""
        orders: list[Any] = []

        def all_ended() -> bool:
            orders[:] = self.client.get("/v1/pki/acme/orders", limit=1000)["data"]
            return all(order["phase"] == "done" for order in orders)

        try:
            wait_until(all_ended, what="all orders have ended", deadline_seconds=DEADLINE_SECONDS)
        except TimeoutError as failure:
            findings.check("all orders have ended", failure, holds=False)
        known = {order["order_id"] for order in orders}
        ended_wrong = [order for order in orders if (order["status"] == "valid") == (order["order_id"] in refused)]
        for order in ended_wrong:
            findings.check("no order ended otherwise than it must", order, holds=False)
        findings.lost_orders += len(ended_wrong) + len(set(self.placed) - known)
        findings.finalized_twice += sum(count > 1 for count in self.proxy.since(0).finalizations().values())
        host, port = host_and_port(self.dns_address)
        for name in self.names:
            left = set(ask_txt(host, port, f"_acme-challenge.{name}")) - self.foreign
            findings.orphan_values += len(left)
        findings.are_counted = True

    def _try_issue(
        self, dns_names: Sequence[str], account_id: str | None, profile: str | None = None
    ) -> httpx.Response:
        self.names |= {base_name(name) for name in dns_names}
        body = {
            "account_id": account_id or self.account_id,
            "domains": dns_names,
            "challenge_type": "dns-01",
            "profile": profile,
        }
        return self._noted(self.client.try_post("/v1/pki/acme/issue", body))

    def _noted(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            self.placed.append(answer.json()["order_id"])
        return answer


@contextmanager
def stage(
    folder: Path,
    ca: Ca = pebble,
    suggest: Suggest | None = None,
    dns: Bind | HostedDns | None = None,
    eab: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """One account, with that binding, and a provider for ZONE: the embedded one, or one at `dns`, which serves already. `suggest` gives the CA renewal information, if it has none."""
    with ExitStack() as stack:
        dns_address = dns.address if dns else f"{LOOPBACK}:{free_port()}"
        settings = stack.enter_context(running_database(folder))
        server = ca(folder / "ca", dns_address)
        stack.enter_context(server)
        proxy = stack.enter_context(proxied(server.directory_url, server.ca_bundle_pem))
        proxy.suggest_renewal(suggest)
        own_dns = {} if dns else {"SCAIVAULT_DNS_BIND": dns_address}
        service = stack.enter_context(Serve(folder / "service", {**settings, **own_dns}))
        client = stack.enter_context(Client(service.url, service.token(TOKEN_SCOPES)))
        rows = stack.enter_context(psycopg.connect(settings["DATABASE_URL"], autocommit=True))
        client.post("/v1/dns/providers", _provider(dns, dns_address))
        made = Stage(server, service, proxy, client, rows, dns_address, "")
        made.account_id = made.register("first", eab)
        yield made


def _provider(dns: Bind | HostedDns | None, dns_address: str) -> Mapping[str, Any]:
    if isinstance(dns, Bind):
        return by_rfc2136(dns)
    if dns is not None:
        return dns.provider
    return {
        "name": "own",
        "provider_type": "embedded",
        "managed_zones": [ZONE],
        "config": {"nameservers": [dns_address]},
    }

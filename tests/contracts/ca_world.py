"""A CA with the DNS that it looks at, and the way of an order through them."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from application.ports import CaAccount, CertificateAuthority
from application.secret_value import SecretValue
from application.x509 import new_private_key
from domain.acme import AuthorizationObject, OrderObject
from interfaces.acme.account_key import thumbprint
from interfaces.egress import Egress
from tests.servers.process import wait_until

LOOPBACK = ip_network("127.0.0.0/8")


class TxtZone:
    """The whole DNS of these tests: TXT values by name."""

    def __init__(self) -> None:
        self._values: defaultdict[str, set[str]] = defaultdict(set)
        self._lock = threading.Lock()

    def publish(self, record_name: str, value: str) -> None:
        with self._lock:
            self._values[record_name].add(value)

    def values(self, record_name: str) -> Collection[str]:
        with self._lock:
            return set(self._values[record_name])

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        question = query.question[0]
        values = self.values(question.name.to_text(omit_final_dot=True).lower())
        if values and question.rdtype == dns.rdatatype.TXT:
            response.answer.append(
                dns.rrset.from_text(question.name, 1, "IN", "TXT", *(f'"{each}"' for each in values))
            )
        return response


class CountingEgress(Egress):
    """Counts the POSTs that reached a server and were not refused for their nonce."""

    def __init__(self) -> None:
        super().__init__([LOOPBACK])
        self.posted: list[str] = []

    def client(self, *args: Any, **kwargs: Any) -> httpx.Client:
        client = super().client(*args, **kwargs)
        client.event_hooks = {"response": [self._count]}
        return client

    def _count(self, response: httpx.Response) -> None:
        if response.request.method == "POST" and "badNonce" not in response.read().decode():
            self.posted.append(str(response.url))


@dataclass
class World:
    """One CA and the DNS that it looks at."""

    ca: CertificateAuthority
    directory_url: str
    zone: TxtZone
    posts: Callable[[], int]
    """How many requests it has answered by now."""
    other_root: str = ""
    ca_bundle_pem: str | None = None
    ari: bool = False
    """Whether it has renewal information."""
    looks_at_replaces: bool = False
    changes_keys: bool = True
    revokes_by_key: bool = True
    """What some CAs do not do."""
    polls: int = 0
    dns_name: str = field(default_factory=lambda: f"{secrets.token_hex(6)}.acme.example")

    def register(self, key_pem: SecretValue | None = None) -> CaAccount:
        key_pem = key_pem or new_private_key("ec256")
        url = self.ca.register(self.directory_url, key_pem, "ops@acme.example", None, self.ca_bundle_pem)
        return CaAccount(self.directory_url, url, key_pem, self.ca_bundle_pem)

    def publish(self, account: CaAccount, authorizations: Sequence[AuthorizationObject]) -> list[str]:
        """Writes the values of the pending ones. Gives their challenges' URLs."""
        urls = []
        for each in authorizations:
            challenge = next(each for each in each.challenges if each.type == "dns-01")
            if each.status == "pending":
                digest = hashlib.sha256(f"{challenge.token}.{thumbprint(account.key_pem)}".encode()).digest()
                value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                self.zone.publish(f"_acme-challenge.{each.dns_name}", value)
                urls.append(challenge.url)
        return urls

    def ready_order(self, account: CaAccount, dns_names: Sequence[str], replaces: str | None = None) -> OrderObject:
        order = self.ca.new_order(account, dns_names, None, replaces)
        authorizations = self.ca.authorizations(account, order.authorization_urls)
        self.ca.answer(account, self.publish(account, authorizations))
        return self.poll(account, order.url, "ready")

    def poll(self, account: CaAccount, order_url: str, status: str) -> OrderObject:
        said: list[OrderObject] = []

        def reached() -> bool:
            self.polls += 1
            said.append(self.ca.order(account, order_url))
            return said[-1].status in {status, "invalid"}

        wait_until(reached, what=f"the order is {status}")
        assert said[-1].status == status, said[-1]
        return said[-1]

    def issue(
        self,
        account: CaAccount,
        key: ec.EllipticCurvePrivateKey,
        dns_names: Sequence[str],
        replaces: str | None = None,
    ) -> str:
        """The certificate's URL."""
        order = self.ready_order(account, dns_names, replaces)
        order = self.ca.finalize(account, order, csr_der(key, dns_names))
        if order.status != "valid":
            order = self.poll(account, order.url, "valid")
        assert order.certificate_url is not None
        return order.certificate_url


def csr_der(key: ec.EllipticCurvePrivateKey, dns_names: Sequence[str]) -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName(each) for each in dns_names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

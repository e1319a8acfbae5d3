"""A CA in memory: the port's fake, held to the same contract as the adapter. A test turns its knobs and reads its counts."""

from __future__ import annotations

import base64
import hashlib
import itertools
import secrets
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from application.errors import CaRefused, CaUnavailable, Failure
from application.ports import CaAccount, Capabilities, ExternalAccountBinding
from application.secret_value import SecretValue
from application.x509 import ari_id
from domain.acme import (
    ERROR_NAMESPACE,
    AuthorizationObject,
    ChallengeObject,
    OrderObject,
    OrderStatus,
    Problem,
    RenewalInfo,
)
from interfaces.acme.account_key import thumbprint
from tests.fakes_ca_issuance import OTHER_ROOT, authority, issue, pem, read_csr
from tests.fakes_ca_knobs import Call, Knobs, Method

DIRECTORY_URL = "https://ca.fake/directory"


def refused(name: str, detail: str, status: int) -> CaRefused:
    return CaRefused(Problem(ERROR_NAMESPACE + name, detail), status)


@dataclass
class _Order:
    account_url: str
    dns_names: frozenset[str]
    said: OrderObject
    replaces: str | None
    polls_left: int = 0
    chain_pem: str = ""


@dataclass
class _Issued:
    account_url: str
    dns_names: frozenset[str]
    certificate: x509.Certificate
    replaced: bool = False


@dataclass
class _Authorization:
    account_url: str
    said: AuthorizationObject


class FakeCa:
    """`txt_values` gives the TXT values visible at an absolute name without its final dot."""

    def __init__(
        self, txt_values: Callable[[str], Collection[str]], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.knobs = Knobs()
        self.requests: Counter[str] = Counter()
        """By kind: directory, newAccount, newOrder, order, authorization, challenge, finalize, certificate, renewalInfo."""
        self.finalized: Counter[str] = Counter()
        """How often each order was finalized, by its URL, refused attempts included."""
        self.issued: list[x509.Certificate] = []
        self.replaces: list[str | None] = []
        """What each order that was placed replaces, by its ARI id; those of refused ones are not among them."""
        self._txt_values = txt_values
        self._now = now
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._before: dict[Method, deque[Failure]] = defaultdict(deque)
        self._after: dict[Method, deque[Failure]] = defaultdict(deque)
        self._account_urls: dict[str, str] = {}
        self._orders: dict[str, _Order] = {}
        self._authorizations: dict[str, _Authorization] = {}
        self._issued: dict[str, _Issued] = {}
        self.emails: dict[str, str] = {}
        """By account URL, where it was said."""
        self.deactivated: set[str] = set()
        """The URLs of accounts."""
        self.revoked: dict[int, int] = {}
        """By serial number the reason."""

    # --- what a test may do ---

    def fail(self, method: Method, *failures: Failure) -> None:
        """The next calls fail, one by one, and nothing happens."""
        self._before[method].extend(failures)

    def lose_answer(self, method: Method, *failures: Failure) -> None:
        """The next calls do their work, and then fail."""
        self._after[method].extend(failures)

    def forget_everything(self) -> None:
        """As a CA does that was set up anew: accounts, orders, authorizations and certificates are gone."""
        with self._lock:
            for memory in (self._account_urls, self._orders, self._authorizations, self._issued):
                memory.clear()

    def invalidate(self, order_url: str, problem: Problem) -> None:
        with self._lock:
            order = self._orders[order_url]
            order.said = replace(order.said, status="invalid", error=problem)

    # --- the port ---

    def capabilities(self, directory_url: str, ca_bundle_pem: str | None) -> Capabilities:
        del directory_url, ca_bundle_pem
        with self._called("capabilities", "directory"):
            return self.knobs.offers

    def register(
        self,
        directory_url: str,
        key_pem: SecretValue,
        email: str,
        eab: ExternalAccountBinding | None,
        ca_bundle_pem: str | None,
    ) -> str:
        del directory_url, ca_bundle_pem
        with self._called("register", "newAccount"):
            if self.knobs.eab_kids and (eab is None or eab.kid not in self.knobs.eab_kids):
                raise refused("externalAccountRequired", "a known external account is required", 403)
            url = self._account_urls.setdefault(thumbprint(key_pem), self._url("account"))
            self.emails.setdefault(url, email)
            return url

    def find_account(self, directory_url: str, key_pem: SecretValue, ca_bundle_pem: str | None) -> str | None:
        del directory_url, ca_bundle_pem
        with self._called("find_account", "newAccount"):
            url = self._account_urls.get(thumbprint(key_pem))
            if url in self.deactivated:
                raise refused("unauthorized", "the account is deactivated", 403)
            return url

    def update_account(self, account: CaAccount, email: str | None, *, agree_to_terms: bool = False) -> None:
        with self._called("update_account", "account"):
            self._check(account, agrees=agree_to_terms)
            if email is not None:
                self.emails[account.account_url] = email
            if agree_to_terms:
                self.knobs.terms_changed = False

    def change_key(self, account: CaAccount, new_key_pem: SecretValue) -> None:
        with self._called("change_key", "keyChange"):
            self._check(account)
            if thumbprint(new_key_pem) in self._account_urls:
                raise refused("malformed", "the key is another account's", 409)
            self._account_urls[thumbprint(new_key_pem)] = self._account_urls.pop(thumbprint(account.key_pem))

    def deactivate_account(self, account: CaAccount) -> None:
        with self._called("deactivate_account", "account"):
            self._check(account)
            self.deactivated.add(account.account_url)

    def revoke(self, account: CaAccount, certificate_pem: str, reason: int, key_pem: SecretValue | None = None) -> None:
        with self._called("revoke", "revokeCert"):
            if key_pem is None:
                self._check(account)
            known = next((each for each in self._issued.values() if pem(each.certificate) in certificate_pem), None)
            if known is None:
                raise refused("malformed", "the certificate is unknown", 404)
            if key_pem is None and known.account_url != account.account_url:
                raise refused("unauthorized", "the certificate is another account's", 403)
            if key_pem is not None and not _is_key_of(key_pem, known.certificate):
                raise refused("unauthorized", "the key is another certificate's", 403)
            if known.certificate.serial_number in self.revoked:
                raise refused("alreadyRevoked", "the certificate is revoked", 400)
            self.revoked[known.certificate.serial_number] = reason

    def new_order(
        self, account: CaAccount, dns_names: Sequence[str], profile: str | None, replaces: str | None = None
    ) -> OrderObject:
        with self._called("new_order", "newOrder"):
            self._check(account)
            if profile is not None and profile not in self.knobs.offers.profiles:
                raise refused("invalidProfile", f"there is no profile {profile}", 400)
            if replaces is not None and self.knobs.offers.ari:
                self._check_replaced(account, frozenset(dns_names), replaces)
            self.replaces.append(replaces)
            expires_at = self._now() + self.knobs.order_lifetime
            urls = tuple(self._new_authorization(account, dns_name, expires_at) for dns_name in dns_names)
            url = self._url("order")
            said = OrderObject(url, "pending", f"{url}/finalize", urls, expires_at=expires_at)
            self._orders[url] = _Order(account.account_url, frozenset(dns_names), said, replaces)
            return self._said(self._orders[url])

    def order(self, account: CaAccount, order_url: str) -> OrderObject:
        with self._called("order", "order"):
            order = self._order_of(account, order_url)
            said = self._said(order)
            if order.said.status == "processing":
                order.polls_left -= 1
                if order.polls_left == 0:
                    order.said = replace(order.said, status="valid", certificate_url=f"{order_url}/certificate")
            return said

    def authorizations(self, account: CaAccount, urls: Sequence[str]) -> Sequence[AuthorizationObject]:
        with self._called("authorizations", "authorization", len(urls)):
            self._check(account)
            return [self._authorizations[url].said for url in urls]

    def answer(self, account: CaAccount, challenge_urls: Sequence[str]) -> None:
        with self._called("answer", "challenge", len(challenge_urls)):
            self._check(account)
            for url in challenge_urls:
                self._validate(account, self._authorizations[url.removesuffix("/challenge")])

    def finalize(self, account: CaAccount, order: OrderObject, csr_der: bytes) -> OrderObject:
        with self._called("finalize", "finalize"):
            kept = self._order_of(account, order.url)
            self.finalized[order.url] += 1
            if self._said(kept).status != "ready":
                raise refused("orderNotReady", f"the order is {self._said(kept).status}", 403)
            kept.chain_pem = self._issue(kept, csr_der)
            kept.polls_left = self.knobs.processing_polls
            status: OrderStatus = "processing" if kept.polls_left else "valid"
            certificate_url = None if kept.polls_left else f"{order.url}/certificate"
            kept.said = replace(kept.said, status=status, certificate_url=certificate_url)
            return self._said(kept)

    def chain(self, account: CaAccount, certificate_url: str, preferred_chain: str | None) -> str:
        with self._called("chain", "certificate"):
            order = self._order_of(account, certificate_url.removesuffix("/certificate"))
            if self.knobs.certificate_fault == "garbage":
                raise CaUnavailable(f"{certificate_url} is no PEM chain of certificates alone")
            if preferred_chain == OTHER_ROOT:
                self.requests["certificate"] += 1
                return order.chain_pem.replace(pem(authority().intermediate), pem(authority().cross_signed))
            return order.chain_pem

    def renewal_info(self, account: CaAccount, ari_id: str) -> RenewalInfo | None:
        del account
        if not self.knobs.offers.ari:
            return None
        with self._called("renewal_info", "renewalInfo"):
            known = self._known(ari_id)
            return self.knobs.windows.get(ari_id) or self.knobs.window(known.certificate)

    # --- inside ---

    def _called(self, method: Method, kind: str, requests: int = 1) -> Call:
        return Call(self._lock, self._before[method], self._after[method], self.requests, kind, requests)

    def _url(self, kind: str) -> str:
        return f"https://ca.fake/{kind}/{next(self._numbers)}"

    def _check(self, account: CaAccount, *, agrees: bool = False) -> None:
        if self._account_urls.get(thumbprint(account.key_pem)) != account.account_url:
            raise refused("accountDoesNotExist", "the account is unknown", 400)
        if account.account_url in self.deactivated:
            raise refused("unauthorized", "the account is deactivated", 403)
        if self.knobs.terms_changed and not agrees:
            raise refused("userActionRequired", "the terms have changed (https://ca.fake/terms)", 403)

    def _order_of(self, account: CaAccount, url: str) -> _Order:
        self._check(account)
        order = self._orders.get(url)
        if order is None or order.account_url != account.account_url:
            raise refused("malformed", "the order is unknown", 404)
        return order

    def _known(self, ari_id: str) -> _Issued:
        if ari_id not in self._issued:
            raise refused("malformed", f"there is no certificate {ari_id}", 404)
        return self._issued[ari_id]

    def _check_replaced(self, account: CaAccount, dns_names: frozenset[str], ari_id: str) -> None:
        """RFC 9773 §5."""
        known = self._known(ari_id)
        if known.account_url != account.account_url:
            raise refused("unauthorized", "the certificate that is replaced is another account's", 403)
        if not known.dns_names & dns_names:
            raise refused("malformed", "the certificate that is replaced shares no name", 400)
        if known.replaced:
            raise refused("alreadyReplaced", f"the certificate {ari_id} has been replaced", 409)

    def _new_authorization(self, account: CaAccount, identifier: str, expires_at: datetime) -> str:
        url, dns_name = self._url("authorization"), identifier.removeprefix("*.")
        challenge = ChallengeObject("dns-01", f"{url}/challenge", "pending", secrets.token_urlsafe(32))
        said = AuthorizationObject(url, dns_name, identifier != dns_name, "pending", (challenge,), expires_at)
        if dns_name in self.knobs.preauthorized:
            said = replace(said, status="valid", challenges=(replace(challenge, status="valid"),))
        self._authorizations[url] = _Authorization(account.account_url, said)
        return url

    def _validate(self, account: CaAccount, authorization: _Authorization) -> None:
        said = authorization.said
        if said.status != "pending":
            return
        challenge = said.challenges[0]
        digest = hashlib.sha256(f"{challenge.token}.{thumbprint(account.key_pem)}".encode()).digest()
        wanted = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        problem = self.knobs.invalid.get(said.dns_name)
        if problem is None and wanted not in self._txt_values(f"_acme-challenge.{said.dns_name}"):
            problem = Problem(ERROR_NAMESPACE + "unauthorized", f"no TXT value {wanted}")
        status: Literal["valid", "invalid"] = "invalid" if problem else "valid"
        challenge = replace(challenge, status=status, error=problem)
        authorization.said = replace(said, status=status, challenges=(challenge,))

    def _said(self, order: _Order) -> OrderObject:
        said = order.said
        if said.status == "pending":
            statuses = {self._authorizations[url].said.status for url in said.authorization_urls}
            if said.expires_at is not None and self._now() >= said.expires_at:
                said = replace(said, status="invalid")
            elif statuses == {"valid"}:
                said = replace(said, status="ready")
            elif "invalid" in statuses:
                said = replace(said, status="invalid")
        retry_after = self.knobs.retry_after_seconds if said.status == "processing" else None
        return replace(said, retry_after_seconds=retry_after)

    def _issue(self, order: _Order, csr_der: bytes) -> str:
        public_key, dns_names = self._accept(csr_der, order.dns_names), sorted(order.dns_names)
        if self.knobs.certificate_fault == "wrong_key":
            public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
        if self.knobs.certificate_fault == "wrong_names":
            dns_names = ["wrong.example"]
        certificate = issue(public_key, dns_names, self._now(), self.knobs.certificate_lifetime)
        self.issued.append(certificate)
        chain_pem = pem(certificate) + pem(authority().intermediate)
        self._issued[ari_id(chain_pem) or ""] = _Issued(order.account_url, order.dns_names, certificate)
        if order.replaces in self._issued:
            self._issued[order.replaces].replaced = True
        return chain_pem

    def _accept(self, csr_der: bytes, dns_names: frozenset[str]) -> CertificatePublicKeyTypes:
        try:
            public_key, asked_for = read_csr(csr_der)
        except ValueError as error:
            raise refused("badCSR", "the CSR cannot be read", 400) from error
        if asked_for != dns_names:
            raise refused("badCSR", "the CSR is not for the order's names", 400)
        return public_key


def _is_key_of(key_pem: SecretValue, certificate: x509.Certificate) -> bool:
    key = serialization.load_pem_private_key(key_pem.reveal(), password=None)
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)

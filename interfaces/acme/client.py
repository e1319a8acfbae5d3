"""The adapter of `CertificateAuthority`: each method is one resource of RFC 8555 §7, and sends no request too many."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx
import msgspec
from acme import messages
from acme.jws import JWS
from cryptography import x509
from josepy.json_util import encode_b64jose

from application.errors import CaRefused
from application.ports import CaAccount, Capabilities, ExternalAccountBinding
from application.secret_value import SecretValue
from domain.acme import AuthorizationObject, OrderObject, Problem, RenewalInfo
from interfaces.acme import resources
from interfaces.acme.account_key import signing_key
from interfaces.acme.chains import chain_in, topmost_issuer
from interfaces.acme.external_account import binding
from interfaces.acme.links import alternate_urls
from interfaces.acme.server import AcmeServer, system_now
from interfaces.egress import Egress
from interfaces.retry_after import retry_after_seconds

_POST_AS_GET = b""
_MOST_SERVERS = 64
_NO_ACCOUNT = frozenset({"accountDoesNotExist", "externalAccountRequired"})
"""What CAs say of a key that nobody has; the second where a new account would need a binding."""


class AcmeClient:
    """`timeout_seconds` is for one exchange; some servers validate or issue before they answer.

    The servers used last are kept, with their connections, directories and nonces."""

    def __init__(
        self,
        egress: Egress,
        user_agent: str,
        timeout_seconds: float = 60,
        now: Callable[[], datetime] = system_now,
    ) -> None:
        self._egress = egress
        self._user_agent = user_agent
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._lock = threading.Lock()
        self._servers: OrderedDict[tuple[str, str | None], AcmeServer] = OrderedDict()

    def capabilities(self, directory_url: str, ca_bundle_pem: str | None) -> Capabilities:
        directory = self._server(directory_url, ca_bundle_pem).directory(anew=True)
        meta = directory.meta
        profiles = (meta.profiles if meta else None) or {}
        return Capabilities(
            ari=bool(directory.renewal_info),
            profiles={name: said if isinstance(said, str) else "" for name, said in profiles.items()},
            eab_required=bool(meta and meta.external_account_required),
            caa_identities=(meta.caa_identities if meta else None) or (),
            terms_of_service=meta.terms_of_service if meta else None,
        )

    def register(
        self,
        directory_url: str,
        key_pem: SecretValue,
        email: str,
        eab: ExternalAccountBinding | None,
        ca_bundle_pem: str | None,
    ) -> str:
        """RFC 8555 §7.3. Raises also `domain.errors.InvalidFields` for an HMAC key that is no base64."""
        server, key = self._server(directory_url, ca_bundle_pem), signing_key(key_pem)
        url = server.directory().new_account
        registration = messages.NewRegistration.from_data(
            email=email or None,
            terms_of_service_agreed=True,
            external_account_binding=binding(eab, key.jwk.public_key(), url) if eab else None,
        )
        return server.location(server.post(url, registration.json_dumps().encode(), key, account_url=None))

    def find_account(self, directory_url: str, key_pem: SecretValue, ca_bundle_pem: str | None) -> str | None:
        server, key = self._server(directory_url, ca_bundle_pem), signing_key(key_pem)
        try:
            asked = server.post(server.directory().new_account, b'{"onlyReturnExisting":true}', key, account_url=None)
        except CaRefused as refused:
            if refused.problem.name in _NO_ACCOUNT:
                return None
            raise
        return server.location(asked)

    def update_account(self, account: CaAccount, email: str | None, *, agree_to_terms: bool = False) -> None:
        contact = None if email is None else [f"mailto:{email}"] if email else []
        changes = {"contact": contact, "termsOfServiceAgreed": agree_to_terms or None}
        self._post(account, account.account_url, _json({name: v for name, v in changes.items() if v is not None}))

    def change_key(self, account: CaAccount, new_key_pem: SecretValue) -> None:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        url = _offered(server.directory().key_change, "key changes")
        old, new = signing_key(account.key_pem), signing_key(new_key_pem)
        change = _json({"account": account.account_url, "oldKey": old.jwk.public_key().to_json()})
        inner = JWS.sign(change, new.jwk, new.algorithm, None, url, None)
        server.post(url, inner.json_dumps().encode(), old, account.account_url)

    def deactivate_account(self, account: CaAccount) -> None:
        self._post(account, account.account_url, b'{"status":"deactivated"}')

    def revoke(self, account: CaAccount, certificate_pem: str, reason: int, key_pem: SecretValue | None = None) -> None:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        url = _offered(server.directory().revoke_cert, "revocation")
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        request = messages.Revocation(certificate=certificate, reason=reason).json_dumps().encode()
        if key_pem is not None:
            server.post(url, request, signing_key(key_pem), account_url=None)
        else:
            server.post(url, request, signing_key(account.key_pem), account.account_url)

    def new_order(
        self, account: CaAccount, dns_names: Sequence[str], profile: str | None, replaces: str | None = None
    ) -> OrderObject:
        # Not as messages.NewOrder, which knows no `replaces`.
        identifiers = tuple(resources.NewIdentifier(dns_name) for dns_name in dns_names)
        wanted = msgspec.json.encode(resources.NewOrder(identifiers, profile, replaces))
        server = self._server(account.directory_url, account.ca_bundle_pem)
        response = self._post(account, server.directory().new_order, wanted)
        return self._order(account, response, server.location(response))

    def order(self, account: CaAccount, order_url: str) -> OrderObject:
        return self._order(account, self._post(account, order_url, _POST_AS_GET), order_url)

    def authorizations(self, account: CaAccount, urls: Sequence[str]) -> Sequence[AuthorizationObject]:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        return server.at_the_same_time(lambda url: self._authorization(account, url), urls)

    def answer(self, account: CaAccount, challenge_urls: Sequence[str]) -> None:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        server.at_the_same_time(lambda url: self._post(account, url, b"{}"), challenge_urls)

    def finalize(self, account: CaAccount, order: OrderObject, csr_der: bytes) -> OrderObject:
        # Not as messages.CertificateRequest, which would have to read the CSR: judging it is the server's part.
        request = msgspec.json.encode({"csr": encode_b64jose(csr_der)})
        return self._order(account, self._post(account, order.finalize_url, request), order.url)

    def chain(self, account: CaAccount, certificate_url: str, preferred_chain: str | None) -> str:
        response = self._download(account, certificate_url)
        chain_pem = chain_in(response)
        if preferred_chain is None or topmost_issuer(chain_pem) == preferred_chain:
            return chain_pem
        alternates = (chain_in(self._download(account, url)) for url in alternate_urls(response))
        return next((each for each in alternates if topmost_issuer(each) == preferred_chain), chain_pem)

    def renewal_info(self, account: CaAccount, ari_id: str) -> RenewalInfo | None:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        if not (renewal_info_url := server.directory().renewal_info):
            return None
        response = server.get(f"{renewal_info_url.rstrip('/')}/{ari_id}")
        return server.resource(response, resources.Renewal).at(retry_after_seconds(response.headers))

    def close(self) -> None:
        """Ends the threads and the connections. Nothing may be asked afterwards."""
        for server in self._servers.values():
            server.close()

    def _server(self, directory_url: str, ca_bundle_pem: str | None) -> AcmeServer:
        place = (directory_url, ca_bundle_pem)
        with self._lock:
            if place not in self._servers:
                http = self._egress.client(ca_bundle_pem, self._timeout_seconds, measured_as=directory_url)
                self._servers[place] = AcmeServer(directory_url, http, self._user_agent, now=self._now)
            self._servers.move_to_end(place)
            while len(self._servers) > _MOST_SERVERS:
                self._servers.popitem(last=False)  # it ends with whoever is still asking it
            return self._servers[place]

    def _post(self, account: CaAccount, url: str, payload: bytes, accept: str = "application/json") -> httpx.Response:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        return server.post(url, payload, signing_key(account.key_pem), account.account_url, accept)

    def _download(self, account: CaAccount, url: str) -> httpx.Response:
        return self._post(account, url, _POST_AS_GET, accept="application/pem-certificate-chain")

    def _order(self, account: CaAccount, response: httpx.Response, url: str) -> OrderObject:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        return server.resource(response, resources.Order).at(url, retry_after_seconds(response.headers))

    def _authorization(self, account: CaAccount, url: str) -> AuthorizationObject:
        server = self._server(account.directory_url, account.ca_bundle_pem)
        return server.resource(self._post(account, url, _POST_AS_GET), resources.Authorization).at(url)


def _json(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document)


def _offered(url: str | None, what: str) -> str:
    """Raises CaRefused where the directory does not name it (RFC 8555 §7.1.1)."""
    if url is None:
        raise CaRefused(Problem("about:blank", f"the CA's directory offers no {what}"), 501)
    return url

"""Making, checking and revoking API tokens.

A token is `skt_` + its id's ULID + `_` + 32 random bytes. Only a SHA-256 of it is kept, sealed; a random token needs no
slow hash."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from datetime import timedelta
from typing import Literal

from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore
from application.secret_value import SecretValue
from domain.errors import Denied, NotFound, Refusal, SealBroken
from domain.provenance import Provenance
from domain.token import Limits, Scope, Token

PREFIX = "skt_"
SEALED_KIND = "token"

RejectionCode = Literal["authentication_required", "token_invalid", "token_expired", "token_revoked"]


class NotAuthenticated(Refusal):
    """No token, or none that is good. `known` is set where it is known whose token it was."""

    def __init__(self, code: RejectionCode, message: str, known: Caller | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.known = known


class Tokens:
    def __init__(self, store: EventStore, keys: KeyStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def issue(
        self,
        *,
        tenant_id: str,
        name: str | None,
        scopes: tuple[Scope, ...],
        limits: Limits,
        valid_for: timedelta,
        by: Provenance,
    ) -> SecretValue:
        """The token, which is shown this once."""
        token_id = self._ids.new("tok")
        random_part = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        token = SecretValue(PREFIX + token_id.removeprefix("tok_") + "_" + random_part)
        sealed_id = self._keys.seal(SEALED_KIND, tenant_id, token_id, _verifier(token))
        now = self._clock.now()
        self._store.record(
            Token.issue(
                token_id,
                tenant_id=tenant_id,
                name=name,
                scopes=scopes,
                limits=limits,
                expires_at=now + valid_for,
                sealed_verifier_id=sealed_id,
                now=now,
            ),
            by=by,
        )
        return token

    def authenticate(
        self, presented: SecretValue, request_id: str, source_ip: str | None, user_agent: str | None
    ) -> Caller:
        """Who presents this token. Raises NotAuthenticated. The networks are looked at apart (`require_network`)."""
        text = presented.reveal_text()
        ulid, _, _ = text.removeprefix(PREFIX).partition("_")
        invalid = NotAuthenticated("token_invalid", "this token is not valid")
        if not text.startswith(PREFIX):
            raise invalid
        try:
            token = self._store.load(Token, "tok_" + ulid)
            verifier = self._keys.open(SEALED_KIND, token.tenant_id, token.id, token.sealed_verifier_id)
        except (NotFound, SealBroken):
            raise invalid from None
        if verifier != _verifier(presented):
            raise invalid
        caller = Caller(
            tenant_id=token.tenant_id,
            token_id=token.id,
            scopes=token.scopes,
            limits=token.limits,
            request_id=request_id,
            source_ip=source_ip,
            user_agent=user_agent,
        )
        self._require_valid(token, caller)
        return caller

    def require_still_valid(self, caller: Caller) -> None:
        """For one who was authenticated a while ago. Raises NotAuthenticated."""
        self._require_valid(self._store.load(Token, caller.token_id), caller)

    def _require_valid(self, token: Token, caller: Caller) -> None:
        if token.is_revoked:
            raise NotAuthenticated("token_revoked", "this token was revoked", caller)
        if self._clock.now() >= token.expires_at:
            raise NotAuthenticated("token_expired", "this token has expired", caller)

    def revoke(self, token_id: str, by: Provenance) -> None:
        """Takes effect at once. Raises NotFound."""
        token = self._store.load(Token, token_id)
        token.revoke(self._clock.now())
        self._store.record(token, by=by)


def require_network(caller: Caller) -> None:
    """Raises Denied where the token is limited to networks and the request came from elsewhere."""
    networks = caller.limits.networks
    if not networks:
        return
    address = ipaddress.ip_address(caller.source_ip) if caller.source_ip else None
    if address is None or not any(address in ipaddress.ip_network(network) for network in networks):
        raise Denied("access_denied", "this token is not valid from this network")


def _verifier(token: SecretValue) -> SecretValue:
    return SecretValue(hashlib.sha256(token.reveal()).digest())

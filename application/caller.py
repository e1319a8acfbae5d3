"""Who asks, and what their token lets them have."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.errors import Denied
from domain.provenance import Provenance
from domain.token import Limits, Scope, effective_scopes


class Caller(msgspec.Struct, frozen=True):
    """The bearer of a valid token, in one request."""

    tenant_id: str
    token_id: str
    scopes: tuple[Scope, ...]
    limits: Limits
    request_id: str
    source_ip: str | None = None
    user_agent: str | None = None

    @property
    def provenance(self) -> Provenance:
        return Provenance(
            self.tenant_id,
            "token",
            self.token_id,
            request_id=self.request_id,
            source_ip=self.source_ip,
            user_agent=self.user_agent,
        )

    def may(self, scope: Scope) -> bool:
        return scope in effective_scopes(self.scopes)

    def require(self, scope: Scope) -> None:
        """Raises Denied."""
        if not self.may(scope):
            raise Denied("insufficient_scope", f"the scope {scope} is needed", scope)

    def require_names(self, dns_names: Sequence[str]) -> None:
        """Raises Denied for a name outside the token's limits."""
        forbidden = self.limits.forbidden_name(dns_names)
        if forbidden is not None:
            raise Denied("access_denied", f"this token may not have certificates for {forbidden}")

    def require_certificate(self, certificate_id: str | None) -> None:
        """Raises Denied. None stands for one that does not exist yet."""
        if not self.limits.allow_certificate(certificate_id):
            raise Denied("access_denied", "this token is for other certificates")

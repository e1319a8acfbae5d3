"""Who asks, and what their token lets them have."""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from domain.errors import Denied
from domain.names import WILDCARD
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

    def require_names(self, dns_names: tuple[str, ...]) -> None:
        """Every name must match one of the token's globs, where it has any. Raises Denied."""
        for name in dns_names:
            if self.limits.dns_names and not any(_covers(glob, name) for glob in self.limits.dns_names):
                raise Denied("access_denied", f"this token may not have certificates for {name}")

    def sees_certificate(self, certificate_id: str) -> bool:
        return not self.limits.certificate_ids or certificate_id in self.limits.certificate_ids

    def require_certificate(self, certificate_id: str) -> None:
        """Raises Denied."""
        if not self.sees_certificate(certificate_id):
            raise Denied("access_denied", "this token is for other certificates")


def _covers(glob: str, dns_name: str) -> bool:
    """A wildcard stands for every label, so that it takes more than a glob that lets a single `*` through."""
    return fnmatchcase(dns_name, glob) and (glob.startswith("*") or not dns_name.startswith(WILDCARD))

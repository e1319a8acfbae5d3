"""Who may have a subscription, and who may see it.

`pki:admin` suffices where all paths lie under `pki/`; more needs the scope of its own. A token for certain certificates
hears of those alone, each named; what a name limit lets through no path can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from application.caller import Caller
from domain.errors import Denied
from domain.globs import lies_under

Scope = Literal["subscriptions:read", "subscriptions:write"]


def may_see(caller: Caller, paths: Sequence[str]) -> bool:
    return _has("subscriptions:read", caller, paths) and is_within_limits(paths, caller)


def require_may_see(caller: Caller, paths: Sequence[str]) -> None:
    """Raises Denied."""
    _require("subscriptions:read", caller, paths)


def require_may_write(caller: Caller, paths: Sequence[str]) -> None:
    """Raises Denied."""
    _require("subscriptions:write", caller, paths)


def is_within_limits(paths: Sequence[str], caller: Caller) -> bool:
    limits = caller.limits
    allowed = {f"pki/certificates/{certificate_id}" for certificate_id in limits.certificate_ids}
    return not limits.dns_names and (not allowed or allowed.issuperset(paths))


def require_within_limits(paths: Sequence[str], caller: Caller) -> None:
    """Raises Denied."""
    if not is_within_limits(paths, caller):
        raise Denied("access_denied", "this token may not hear of other certificates")


def _has(scope: Scope, caller: Caller, paths: Sequence[str]) -> bool:
    return caller.may(scope) or (caller.may("pki:admin") and all(lies_under(path, "pki") for path in paths))


def _require(scope: Scope, caller: Caller, paths: Sequence[str]) -> None:
    if not _has(scope, caller, paths):
        caller.require(scope)
    require_within_limits(paths, caller)

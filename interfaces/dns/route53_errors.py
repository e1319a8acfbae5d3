"""What the codes of AWS's errors mean to us (Route 53 API reference, "Common Errors" and each action's own)."""

from __future__ import annotations

from application.errors import Failure, ZoneConflict, ZoneRefused, ZoneThrottled, ZoneUnreachable
from interfaces.foreign_text import clean

NOT_PERMITTED = frozenset({
    "AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired", "UnauthorizedOperation",
})  # fmt: skip
NOT_BELIEVED = frozenset({
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch", "TokenRefreshRequired",
    "UnrecognizedClientException",
})  # fmt: skip
TOO_MANY = frozenset({
    "BandwidthLimitExceeded", "LimitExceededException", "RequestLimitExceeded", "RequestThrottled",
    "RequestThrottledException", "SlowDown", "Throttling", "ThrottledException", "ThrottlingException",
    "TooManyRequestsException",
})  # fmt: skip
NO_SUCH_ZONE = frozenset({"HostedZoneNotFound", "NoSuchHostedZone"})
TOO_MANY_REQUESTS = 429


class EarlierChangeUnfinished(ZoneThrottled):
    """`PriorRequestNotComplete`: Route 53 takes one change of a zone after the other."""


def failure_of(code: str, message: str, status: int) -> Failure:
    """`message` holds no credential. A code that nobody knows counts as no usable answer."""
    detail = clean(f"Route 53: {code}: {message}")
    if code in NOT_BELIEVED:
        return ZoneRefused("credentials_rejected", detail)
    if code in NOT_PERMITTED:
        return ZoneRefused("permission_missing", detail)
    if code in NO_SUCH_ZONE or (code == "InvalidChangeBatch" and "is not permitted in zone" in message):
        return ZoneRefused("zone_not_found", detail)
    if code == "PriorRequestNotComplete":
        return EarlierChangeUnfinished(detail)
    if code in TOO_MANY or status == TOO_MANY_REQUESTS:
        return ZoneThrottled(detail)
    if code == "InvalidChangeBatch":
        return ZoneConflict(detail)
    return ZoneUnreachable(detail)

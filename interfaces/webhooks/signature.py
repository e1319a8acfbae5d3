"""The headers that prove to a receiver who sent an event: our own form, and that of Standard Webhooks beside it."""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from application.secret_value import SecretValue

_STANDARD_PREFIX = b"whsec_"


def signed_headers(
    event_id: str, event_type: str, timestamp_seconds: int, body: bytes, secrets: Sequence[SecretValue]
) -> Mapping[str, str]:
    """All headers of one delivery. `timestamp_seconds` is Unix time; `secrets` are those in force, the newest first."""
    ours = f"{timestamp_seconds}.".encode() + body
    standard = f"{event_id}.{timestamp_seconds}.".encode() + body
    return {
        "Content-Type": "application/json",
        "User-Agent": "ScaiVault-Webhook/1.0",
        "X-ScaiVault-Event-Id": event_id,
        "X-ScaiVault-Event-Type": event_type,
        "X-ScaiVault-Timestamp": str(timestamp_seconds),
        "X-ScaiVault-Signature": " ".join(f"sha256={_mac(secret.reveal(), ours).hex()}" for secret in secrets),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_seconds),
        "webhook-signature": " ".join(
            f"v1,{b64encode(_mac(key, standard)).decode()}" for secret in secrets for key in _standard_keys(secret)
        ),
    }


def _standard_keys(secret: SecretValue) -> Sequence[bytes]:
    """What Standard Webhooks' libraries take for the key: the base64 after `whsec_`, or the bytes as they are. A secret
    without the prefix can mean either, so that both are signed with; a receiver accepts any value that fits."""
    written = secret.reveal()
    encoded = written.removeprefix(_STANDARD_PREFIX).rstrip(b"=")
    try:
        decoded = b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        return [written]
    if not decoded:
        return [written]
    return [decoded] if written.startswith(_STANDARD_PREFIX) else [written, decoded]


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)

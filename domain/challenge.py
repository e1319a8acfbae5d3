"""What a challenge asks to be shown (RFC 8555 §8.1, §8.4)."""

from __future__ import annotations

import base64
import hashlib

DNS_01 = "dns-01"
CHALLENGE_LABEL = "_acme-challenge"


LONGEST_NAME = 253 - len(CHALLENGE_LABEL) - 1  # so that the record's name is a DNS name too (RFC 1035 §2.3.4)


def dns01_record_name(dns_name: str) -> str:
    """Where the TXT value goes. `dns_name` is without a wildcard's `*.`."""
    return f"{CHALLENGE_LABEL}.{dns_name}"


def dns01_record_value(token: str, key_thumbprint: str) -> str:
    """The unpadded base64url SHA-256 of the key authorization. `key_thumbprint` is RFC 7638's, in base64url."""
    digest = hashlib.sha256(f"{token}.{key_thumbprint}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

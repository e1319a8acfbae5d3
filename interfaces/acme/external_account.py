"""External account binding: a CA's customer account vouches for the ACME account (RFC 8555 §7.3.4)."""

from __future__ import annotations

from typing import Any

from acme import messages
from josepy.b64 import b64decode
from josepy.json_util import encode_b64jose
from josepy.jwk import JWK

from application.ports import ExternalAccountBinding
from domain.errors import FieldProblem, InvalidFields


def binding(eab: ExternalAccountBinding, public_key: JWK, new_account_url: str) -> dict[str, Any]:
    """The account's public key, signed with the CA's HMAC key (HS256). Raises InvalidFields for one that is no base64."""
    directory = messages.Directory({"newAccount": new_account_url})
    return messages.ExternalAccountBinding.from_data(public_key, eab.kid, _base64url(eab), directory)


def _base64url(eab: ExternalAccountBinding) -> str:
    """CAs hand the key out in either alphabet, padded or not, and people paste it with blanks."""
    refused = InvalidFields(FieldProblem("eab.hmac_key", "invalid_base64", "is no base64"))
    try:
        written = "".join(eab.hmac_key.reveal_text().split()).translate(str.maketrans("+/", "-_")).rstrip("=")
        octets = b64decode(written)
    except ValueError:
        raise refused from None
    if not octets or len(encode_b64jose(octets)) != len(written):
        raise refused
    return written

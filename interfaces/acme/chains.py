"""Certificate chains as downloaded (RFC 8555 §7.4.2, §9.1)."""

from __future__ import annotations

import re

import httpx
from cryptography import x509

from application.errors import CaUnavailable

_ONLY_CERTIFICATES = re.compile(
    r"\s*(?:-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+", re.ASCII
)


def chain_in(response: httpx.Response) -> str:
    """The PEM, refused if it holds anything but certificates: a key would be another's, and text could be a script."""
    pem = response.text.replace("\r\n", "\n").strip() + "\n"
    if not _ONLY_CERTIFICATES.fullmatch(pem):
        raise CaUnavailable(f"{response.url} is no PEM chain of certificates alone")
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise CaUnavailable(f"{response.url} holds a certificate that cannot be read") from error
    return pem


def topmost_issuer(chain_pem: str) -> str:
    """The common name of who issued the chain's last certificate; "" where it has none."""
    last = x509.load_pem_x509_certificates(chain_pem.encode())[-1]
    names = last.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""

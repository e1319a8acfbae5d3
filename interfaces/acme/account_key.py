"""Account keys: read, and named by their thumbprint (RFC 8555 §6.2, RFC 7638)."""

from __future__ import annotations

from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.json_util import encode_b64jose
from josepy.jwa import ES256, ES384, RS256, JWASignature
from josepy.jwk import JWK, JWKEC, JWKRSA

from application.secret_value import SecretValue


class SigningKey(NamedTuple):
    """A key in the form that signs a JWS, and the algorithm that goes with it. Lives no longer than one call."""

    jwk: JWK
    algorithm: JWASignature


def signing_key(key_pem: SecretValue) -> SigningKey:
    """Not checked for weakness: the keys are our own, and checking an RSA key takes 50 to 300 ms."""
    key = load_pem_private_key(key_pem.reveal(), password=None, unsafe_skip_rsa_key_validation=True)
    match key:
        case rsa.RSAPrivateKey():
            return SigningKey(JWKRSA(key=key), RS256)
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return SigningKey(JWKEC(key=key), ES256)
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return SigningKey(JWKEC(key=key), ES384)
        case _:
            raise ValueError("an account key is RSA, P-256 or P-384")


def thumbprint(key_pem: SecretValue) -> str:
    """The second half of each key authorization (RFC 8555 §8.1): base64url without padding, 43 characters."""
    return encode_b64jose(signing_key(key_pem).jwk.public_key().thumbprint())

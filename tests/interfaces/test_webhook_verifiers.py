"""Deliveries as receivers check them who know nothing of our code: the libraries of Standard Webhooks and of Svix, and
openssl. Svix's library hands the arithmetic to that of Standard Webhooks; what it adds is its own headers' names."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from typing import Protocol

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook as StandardWebhook
from standardwebhooks import WebhookVerificationError
from svix.webhooks import Webhook as SvixWebhook

from application.secret_value import SecretValue
from interfaces.webhooks.signature import signed_headers

EVENT_ID = "evt_01m844f2t87q3cbd8hc4qxf5d1"
BODY = '{"event_id":"evt_01m844f2t87q3cbd8hc4qxf5d1","domains":["bücher.example"]}'.encode()
PREFIX = "whsec_"
SHORTEST = 16
HMAC_BLOCK_BYTES = 64
OPENSSL = settings(deadline=None, max_examples=25)  # a child process or two for each example
LIBRARY = settings(deadline=None)


class Verifier(Protocol):
    def __init__(self, whsecret: str | bytes) -> None: ...

    def verify(self, data: bytes, headers: dict[str, str]) -> object: ...


VERIFIERS: list[type[Verifier]] = [StandardWebhook, SvixWebhook]


def base64_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


# No zero byte and no half of a surrogate pair: openssl takes the secret as an argument.
plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=SHORTEST, max_size=80)
bodies = st.text().map(lambda text: json.dumps({"domains": [text]}, ensure_ascii=False).encode())
generated = st.binary(min_size=32, max_size=32).map(lambda key: PREFIX + base64_of(key))
looking_like_base64 = st.one_of(
    st.binary(min_size=12, max_size=60).map(base64_of),
    st.binary(min_size=12, max_size=60).map(base64_of).map(lambda text: text.rstrip("=")),
    st.binary(min_size=12, max_size=60).map(lambda key: base64.urlsafe_b64encode(key).decode()),
    st.binary(min_size=8, max_size=40).map(bytes.hex),
    st.from_regex(r"[A-Za-z0-9+/]{16,40}={0,3}", fullmatch=True),
)
own = st.one_of(plain, looking_like_base64, plain.map(lambda text: PREFIX + text)).filter(
    lambda secret: len(secret) >= SHORTEST
)
secrets = st.one_of(generated, own)


def delivery(*secrets: str, body: bytes = BODY, age_seconds: int = 0) -> dict[str, str]:
    timestamp_seconds = int(time.time()) - age_seconds
    values = [SecretValue(secret) for secret in secrets]
    return dict(signed_headers(EVENT_ID, "certificate.renewed", timestamp_seconds, body, values))


def known_as(secret: str) -> str | bytes:
    """How the documentation says that a library be given it: `whsec_` and base64 as a string, all else as bytes."""
    rest = secret.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True)
    except ValueError:
        return secret.encode()
    return secret if secret.startswith(PREFIX) and key else secret.encode()


def key_of(secret: str) -> bytes:
    """Standard Webhooks' key, where it is told as the documentation says."""
    known = known_as(secret)
    return known if isinstance(known, bytes) else base64.b64decode(known.removeprefix(PREFIX) + "==")


def block_of(secret: str) -> bytes:
    """What HMAC makes of the key: others that differ by zero bytes at the end are the same to it (RFC 2104 §2)."""
    key = key_of(secret)
    return (hashlib.sha256(key).digest() if len(key) > HMAC_BLOCK_BYTES else key).ljust(HMAC_BLOCK_BYTES, b"\0")


def refuses(verifier: type[Verifier], known: str | bytes, headers: Mapping[str, str], body: bytes = BODY) -> bool:
    try:
        verifier(known).verify(body, dict(headers))
    except (WebhookVerificationError, UnicodeDecodeError):  # the libraries decode a body before they look at it
        return True
    return False


def openssl(message: bytes, *arguments: str) -> bytes:
    command = ["openssl", "dgst", "-sha256", "-binary", *arguments]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


def openssl_accepts_ours(secret: str, headers: Mapping[str, str], body: bytes = BODY) -> bool:
    mac = openssl(headers["X-ScaiVault-Timestamp"].encode() + b"." + body, "-hmac", secret)
    return f"sha256={mac.hex()}" in headers["X-ScaiVault-Signature"].split(" ")


def openssl_accepts_standard(key: bytes, headers: Mapping[str, str], body: bytes = BODY) -> bool:
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = openssl(message, "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}")
    return f"v1,{base64_of(mac)}" in headers["webhook-signature"].split(" ")


# --- one secret ---


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(secret=secrets, body=bodies)
def test_the_libraries_verify_each_secret_and_body(verifier: type[Verifier], secret: str, body: bytes) -> None:
    verifier(known_as(secret)).verify(body, delivery(secret, body=body))


@OPENSSL
@given(secret=secrets, body=bodies)
def test_openssl_computes_both_signatures(secret: str, body: bytes) -> None:
    headers = delivery(secret, body=body)
    assert openssl_accepts_ours(secret, headers, body)
    assert openssl_accepts_standard(key_of(secret), headers, body)


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(secret=st.binary(min_size=12, max_size=60).map(base64_of))
def test_base64_without_the_prefix_is_verified_however_a_library_is_given_it(
    verifier: type[Verifier], secret: str
) -> None:
    for known in (secret, PREFIX + secret, secret.encode()):
        verifier(known).verify(BODY, delivery(secret))


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(secret=generated)
def test_base64_with_the_prefix_is_verified_without_its_padding_too(verifier: type[Verifier], secret: str) -> None:
    for one, other in [(secret, secret.rstrip("=")), (secret.rstrip("="), secret)]:
        verifier(one).verify(BODY, delivery(other))


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize(
    "secret",
    [
        "correct horse battery staple",
        "correct horse battery staples!",
        "my-own_secret-with_dashes",
        "whsec_my-own_secret_value",
        "0123=456789abcdef",
        "0123456789abcdef\n",
    ],
)
def test_a_text_that_a_library_mistakes_for_base64_is_verified_as_bytes_and_refused_as_a_string(
    verifier: type[Verifier], secret: str
) -> None:
    """Python's passes over the characters that do not belong there: another key than anybody meant."""
    headers = delivery(secret)
    verifier(secret.encode()).verify(BODY, headers)
    with pytest.raises((WebhookVerificationError, binascii.Error)):
        verifier(secret).verify(BODY, headers)


@given(secret=secrets)
def test_only_a_secret_that_can_be_read_in_two_ways_is_signed_with_twice(secret: str) -> None:
    headers = delivery(secret)
    assert len(headers["X-ScaiVault-Signature"].split(" ")) == 1
    values = headers["webhook-signature"].split(" ")
    assert len(values) == 1 or (len(values) == 2 and not secret.startswith(PREFIX))


def test_svixs_library_reads_its_own_headers_first_and_else_those_of_the_standard() -> None:
    secret = PREFIX + base64_of(bytes(range(32)))
    headers = delivery(secret)
    renamed = {name.replace("webhook-", "svix-"): value for name, value in headers.items()}
    assert {"svix-id", "svix-timestamp", "svix-signature"} <= renamed.keys()
    SvixWebhook(secret).verify(BODY, headers)
    SvixWebhook(secret).verify(BODY, renamed)
    assert refuses(SvixWebhook, secret, {**headers, "svix-id": "evt_other"})
    assert refuses(StandardWebhook, secret, renamed)


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_header_names_are_read_in_any_case(verifier: type[Verifier]) -> None:
    secret = PREFIX + base64_of(bytes(range(32)))
    verifier(secret).verify(BODY, {name.upper(): value for name, value in delivery(secret).items()})


# --- while secrets overlap ---


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(pair=st.lists(secrets, min_size=2, max_size=2, unique_by=block_of), third=secrets)
def test_the_libraries_verify_with_the_new_or_the_old_secret_and_no_third(
    verifier: type[Verifier], pair: list[str], third: str
) -> None:
    new, old = pair
    headers = delivery(new, old)
    for secret in (new, old):
        verifier(known_as(secret)).verify(BODY, headers)
    readings = {block_of(spelled) for secret in pair for spelled in (secret, PREFIX + secret)}
    assume(block_of(third) not in readings)
    assert refuses(verifier, known_as(third), headers)


@OPENSSL
@given(pair=st.lists(secrets, min_size=2, max_size=2, unique_by=block_of), third=generated)
def test_openssl_accepts_the_new_and_the_old_secret_and_no_third(pair: list[str], third: str) -> None:
    headers = delivery(*pair)
    for secret in pair:
        assert openssl_accepts_ours(secret, headers)
        assert openssl_accepts_standard(key_of(secret), headers)
    assume(third not in pair)
    assert not openssl_accepts_ours(third, headers)


# --- tampering ---


@st.composite
def tampered(draw: st.DrawFn, original: bytes, replacements: st.SearchStrategy[int]) -> bytes:
    """With one byte another."""
    at = draw(st.integers(0, len(original) - 1))
    byte = draw(replacements.filter(lambda byte: byte != original[at]))
    return original[:at] + bytes([byte]) + original[at + 1 :]


any_byte = st.integers(0, 255)
digits = st.integers(ord("0"), ord("9"))
printable = st.integers(0x21, 0x7E)
resized = st.sampled_from([b"", BODY[:-1], BODY + b" ", BODY + b"\n", b"\xef\xbb\xbf" + BODY])


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(secret=secrets, body=st.one_of(tampered(BODY, any_byte), resized))
def test_the_libraries_refuse_another_body(verifier: type[Verifier], secret: str, body: bytes) -> None:
    assert refuses(verifier, known_as(secret), delivery(secret), body)


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(secret=secrets, event_id=tampered(EVENT_ID.encode(), printable).map(bytes.decode))
def test_the_libraries_refuse_another_id(verifier: type[Verifier], secret: str, event_id: str) -> None:
    assert refuses(verifier, known_as(secret), {**delivery(secret), "webhook-id": event_id})


@pytest.mark.parametrize("verifier", VERIFIERS)
@LIBRARY
@given(secret=secrets, data=st.data())
def test_the_libraries_refuse_another_timestamp(verifier: type[Verifier], secret: str, data: st.DataObject) -> None:
    headers = delivery(secret)
    near = st.integers(1, 240).map(lambda seconds: str(int(headers["webhook-timestamp"]) - seconds))
    changed = tampered(headers["webhook-timestamp"].encode(), digits).map(bytes.decode)
    timestamp = data.draw(st.one_of(near, changed))
    assert refuses(verifier, known_as(secret), {**headers, "webhook-timestamp": timestamp})


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize(("age_seconds", "is_refused"), [(-310, True), (-290, False), (290, False), (310, True)])
def test_the_libraries_keep_to_five_minutes_either_way(
    verifier: type[Verifier], age_seconds: int, is_refused: bool
) -> None:
    secret = PREFIX + base64_of(bytes(range(32)))
    assert refuses(verifier, secret, delivery(secret, age_seconds=age_seconds)) is is_refused


@OPENSSL
@given(
    secret=secrets,
    body=st.one_of(tampered(BODY, any_byte), resized),
    shift_seconds=st.integers(1, 10**6),
    event_id=tampered(EVENT_ID.encode(), printable).map(bytes.decode),
)
def test_openssl_finds_no_value_for_another_body_time_or_id(
    secret: str, body: bytes, shift_seconds: int, event_id: str
) -> None:
    headers = delivery(secret)
    later = str(int(headers["webhook-timestamp"]) + shift_seconds)
    key = key_of(secret)
    assert not openssl_accepts_ours(secret, headers, body)
    assert not openssl_accepts_ours(secret, {**headers, "X-ScaiVault-Timestamp": later})
    assert not openssl_accepts_standard(key, headers, body)
    assert not openssl_accepts_standard(key, {**headers, "webhook-timestamp": later})
    assert not openssl_accepts_standard(key, {**headers, "webhook-id": event_id})

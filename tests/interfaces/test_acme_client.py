"""The client's resources: what is sent, and what is made of what comes back."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from acme.jws import JWS
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.jwk import JWKOct

from application.errors import CaRefused, CaThrottled, CaUnavailable
from application.ports import Capabilities, ExternalAccountBinding
from application.secret_value import SecretValue
from application.x509 import new_private_key
from domain.acme import ERROR_NAMESPACE, ChallengeObject, OrderObject, Problem, RenewalInfo
from domain.errors import InvalidFields
from domain.order import KeyType
from interfaces.acme.account_key import signing_key, thumbprint
from tests.fakes_ca_issuance import OTHER_ROOT, ROOT, authority, pem
from tests.interfaces.scripted_ca import ORDER, PEM_KEY, Stage, json_answer, problem_answer, staged
from tests.servers.https import Answer, Asked, ca_bundle_pem

HMAC_KEY = bytes(range(0xE0, 0x100))
NAMED = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
CHALLENGE = {"type": "dns-01", "url": "https://localhost/challenge/1", "status": "pending", "token": "abc"}
AUTHORIZATION: dict[str, Any] = {
    "identifier": {"type": "dns", "value": "acme.example"},
    "status": "pending",
    "challenges": [CHALLENGE],
}


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


# --- directory and account ---


def test_a_directory_becomes_capabilities(stage: Stage) -> None:
    stage.ca.directory = {
        "renewalInfo": "https://localhost/ari",
        "meta": {
            "termsOfService": "https://localhost/terms",
            "caaIdentities": ["ca.example"],
            "externalAccountRequired": True,
            "profiles": {"classic": "as ever", "odd": {"any": "thing"}},
            "website": None,
        },
    }
    assert stage.client.capabilities(stage.account.directory_url, ca_bundle_pem()) == Capabilities(
        ari=True,
        profiles={"classic": "as ever", "odd": ""},
        eab_required=True,
        caa_identities=("ca.example",),
        terms_of_service="https://localhost/terms",
    )


def test_a_directory_without_extras_offers_none(stage: Stage) -> None:
    stage.ca.directory = {"meta": None}
    assert stage.client.capabilities(stage.account.directory_url, ca_bundle_pem()) == Capabilities(
        ari=False, profiles={}, eab_required=False, caa_identities=()
    )


def register(stage: Stage, eab: ExternalAccountBinding | None = None) -> str:
    return stage.client.register(stage.account.directory_url, PEM_KEY, "ops@acme.example", eab, ca_bundle_pem())


def test_an_account_is_registered_with_its_public_key_and_contact(stage: Stage) -> None:
    stage.ca.replies["/newAccount"] = [json_answer({}, 201, {"Location": "/account/7"})]
    assert register(stage) == stage.url("/account/7")
    (sent,) = stage.posted()
    assert sent["jwk"] == signing_key(PEM_KEY).jwk.public_key().to_json()
    assert "kid" not in sent
    assert msgspec.json.decode(sent["payload"]) == {
        "termsOfServiceAgreed": True,
        "contact": ["mailto:ops@acme.example"],
    }


@pytest.mark.parametrize("headers", [{}, {"Location": "https://0177.0.0.1/"}])
def test_an_account_without_a_location_is_none(stage: Stage, headers: dict[str, str]) -> None:
    stage.ca.replies["/newAccount"] = [json_answer({}, 201, headers)]
    with pytest.raises(CaUnavailable, match="named no"):
        register(stage)


@pytest.mark.parametrize(
    "written",
    [
        base64.b64encode(HMAC_KEY),
        base64.b64encode(HMAC_KEY).rstrip(b"="),
        base64.urlsafe_b64encode(HMAC_KEY),
        base64.urlsafe_b64encode(HMAC_KEY).rstrip(b"="),
        b" " + base64.b64encode(HMAC_KEY) + b"\n",
    ],
)
def test_an_external_account_is_bound_with_its_key_in_any_form(stage: Stage, written: bytes) -> None:
    stage.ca.replies["/newAccount"] = [json_answer({}, 201, {"Location": "/account/7"})]
    register(stage, ExternalAccountBinding("kid-1", SecretValue(written)))
    bound = msgspec.json.decode(stage.posted()[0]["payload"])["externalAccountBinding"]
    jws = JWS.from_json(bound)
    assert jws.verify(JWKOct(key=HMAC_KEY))
    protected = {"alg": "HS256", "kid": "kid-1", "url": stage.url("/newAccount")}
    assert msgspec.json.decode(jws.signature.protected) == protected
    assert msgspec.json.decode(jws.payload) == signing_key(PEM_KEY).jwk.public_key().to_json()


@pytest.mark.parametrize("written", ["", "not base64!", "A", "é" * 8, "====", b"\xff\xff"])
def test_an_external_account_key_that_is_no_base64_is_named(stage: Stage, written: str | bytes) -> None:
    with pytest.raises(InvalidFields) as refusal:
        register(stage, ExternalAccountBinding("kid-1", SecretValue(written)))
    assert [each.field for each in refusal.value.fields] == ["eab.hmac_key"]
    assert stage.posted() == []


@pytest.mark.parametrize(("key_type", "algorithm"), [("ec256", "ES256"), ("ec384", "ES384"), ("rsa2048", "RS256")])
def test_each_kind_of_account_key_has_its_algorithm(key_type: KeyType, algorithm: str) -> None:
    assert signing_key(new_private_key(key_type)).algorithm.name == algorithm


def test_the_thumbprint_is_the_one_of_rfc_7638() -> None:
    key = load_pem_private_key(PEM_KEY.reveal(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    numbers = key.public_key().public_numbers()
    x, y = (base64url(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    assert thumbprint(PEM_KEY) == base64url(hashlib.sha256(canonical.encode()).digest())


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


# --- orders ---


def test_an_order_is_placed_with_its_names_and_profile(stage: Stage) -> None:
    said = {**ORDER, "expires": "2026-11-30T12:00:00.123456789Z", "notBefore": None, "extra": 1}
    stage.ca.replies["/newOrder"] = [json_answer(said, 201, {"Location": stage.url("/order/9")})]
    order = stage.client.new_order(stage.account, ["acme.example", "*.acme.example"], "shortlived")
    assert (order.url, order.status) == (stage.url("/order/9"), "pending")
    assert order.expires_at == datetime(2026, 11, 30, 12, 0, 0, 123457, tzinfo=UTC)
    assert msgspec.json.decode(stage.posted()[0]["payload"]) == {
        "identifiers": [{"type": "dns", "value": "acme.example"}, {"type": "dns", "value": "*.acme.example"}],
        "profile": "shortlived",
    }


def test_an_order_names_the_certificate_that_it_replaces(stage: Stage) -> None:
    stage.ca.replies["/newOrder"] = [json_answer(ORDER, 201, {"Location": stage.url("/order/9")})]
    stage.client.new_order(stage.account, ["acme.example"], None, NAMED)
    assert msgspec.json.decode(stage.posted()[0]["payload"]) == {
        "identifiers": [{"type": "dns", "value": "acme.example"}],
        "replaces": NAMED,
    }


def test_an_order_without_a_profile_or_predecessor_names_none(stage: Stage) -> None:
    stage.ca.replies["/newOrder"] = [json_answer(ORDER, 201, {"Location": stage.url("/order/9")})]
    stage.client.new_order(stage.account, ["acme.example"], None)
    assert set(msgspec.json.decode(stage.posted()[0]["payload"])) == {"identifiers"}


def test_an_order_says_when_to_ask_again_and_what_went_wrong(stage: Stage) -> None:
    error = {"type": ERROR_NAMESPACE + "caa", "detail": "forbidden"}
    stage.ca.replies["/order"] = [
        json_answer({**ORDER, "status": "processing", "certificate": ""}, headers={"Retry-After": "7"}),
        json_answer({**ORDER, "status": "invalid", "error": error}),
    ]
    processing, invalid = (stage.client.order(stage.account, stage.url("/order")) for _ in range(2))
    assert (processing.status, processing.retry_after_seconds) == ("processing", 7)
    assert processing.certificate_url is None
    assert (invalid.retry_after_seconds, invalid.error) == (None, Problem(ERROR_NAMESPACE + "caa", "forbidden"))


@pytest.mark.parametrize(("count", "taken"), [(100, True), (101, False)])
def test_an_order_has_at_most_as_many_authorizations_as_names(stage: Stage, count: int, taken: bool) -> None:
    stage.ca.replies["/order"] = [json_answer({**ORDER, "authorizations": [stage.url("/authz")] * count})]
    with nullcontext() if taken else pytest.raises(CaUnavailable, match="100"):
        assert len(stage.client.order(stage.account, stage.url("/order")).authorization_urls) == count


def test_a_finalized_order_keeps_its_url_when_the_answer_names_none(stage: Stage) -> None:
    stage.ca.replies["/finalize"] = [json_answer({**ORDER, "status": "processing"}, headers={"Retry-After": "1"})]
    order = OrderObject(stage.url("/order/9"), "ready", stage.url("/finalize"), ())
    finalized = stage.client.finalize(stage.account, order, b"\x30\x03csr")
    assert (finalized.url, finalized.status, finalized.retry_after_seconds) == (order.url, "processing", 1)
    assert msgspec.json.decode(stage.posted()[0]["payload"]) == {"csr": base64url(b"\x30\x03csr")}


# --- authorizations and challenges ---


def test_challenges_of_unknown_types_are_tolerated(stage: Stage) -> None:
    others: list[object] = [
        {"type": "dns-persist-01", "url": "https://localhost/challenge/2", "status": "pending"},
        {"type": "bgp-01", "url": None, "status": "dreaming", "token": 7},
        {"type": None},
        {},
    ]
    failed = {**CHALLENGE, "status": "invalid", "error": {"type": ERROR_NAMESPACE + "dns", "detail": "no TXT"}}
    stage.ca.replies["/authz"] = [json_answer({**AUTHORIZATION, "challenges": [*others, failed]})]
    (said,) = stage.client.authorizations(stage.account, [stage.url("/authz")])
    assert said.challenges == (
        ChallengeObject("dns-persist-01", "https://localhost/challenge/2", "pending"),
        ChallengeObject("dns-01", CHALLENGE["url"], "invalid", "abc", Problem(ERROR_NAMESPACE + "dns", "no TXT")),
    )


@pytest.mark.parametrize(
    ("identifier", "members", "expected"),
    [
        ("acme.example", {}, ("acme.example", False)),
        ("acme.example", {"wildcard": True}, ("acme.example", True)),
        ("*.Acme.example", {"wildcard": None}, ("acme.example", True)),
    ],
)
def test_a_wildcard_is_told_apart_from_its_name(
    stage: Stage, identifier: str, members: dict[str, object], expected: tuple[str, bool]
) -> None:
    said = {**AUTHORIZATION, "identifier": {"type": "dns", "value": identifier}, **members}
    stage.ca.replies["/authz"] = [json_answer(said)]
    (authorization,) = stage.client.authorizations(stage.account, [stage.url("/authz")])
    assert (authorization.dns_name, authorization.wildcard) == expected


@pytest.mark.parametrize("status", ["pending", "valid", "invalid", "deactivated", "expired", "revoked"])
def test_an_authorization_has_any_status_of_the_rfc(stage: Stage, status: str) -> None:
    stage.ca.replies["/authz"] = [json_answer({**AUTHORIZATION, "status": status})]
    (authorization,) = stage.client.authorizations(stage.account, [stage.url("/authz")])
    assert authorization.status == status


def test_authorizations_are_asked_for_at_the_same_time_and_come_in_order(stage: Stage) -> None:
    together = threading.Barrier(8, timeout=20)

    def answer(asked: Asked) -> Answer:
        together.wait()
        return json_answer({**AUTHORIZATION, "identifier": {"type": "dns", "value": asked.path.removeprefix("/")}})

    paths = [f"/{number}.example" for number in range(8)]
    for path in paths:
        stage.ca.replies[path] = [answer]
    said = stage.client.authorizations(stage.account, [stage.url(path) for path in paths])
    assert [each.url for each in said] == [stage.url(path) for path in paths]
    assert [each.dns_name for each in said] == [path.removeprefix("/") for path in paths]


def test_a_slow_server_keeps_nobody_from_asking_others(stage: Stage) -> None:
    over = threading.Event()

    def hesitate(_asked: Asked) -> Answer:
        over.wait(20)
        return json_answer(AUTHORIZATION)

    with staged(client=stage.client) as slow:
        slow.ca.replies["/authz"] = [hesitate]
        asking = threading.Thread(target=slow.client.authorizations, args=(slow.account, [slow.url("/authz")] * 50))
        asking.start()
        stage.ca.replies["/authz"] = [json_answer(AUTHORIZATION)]
        assert len(stage.client.authorizations(stage.account, [stage.url("/authz")] * 3)) == 3
        assert not over.is_set()
        over.set()
        asking.join()


def test_challenges_are_all_answered_though_one_is_refused(stage: Stage) -> None:
    paths = ["/challenge/1", "/challenge/2", "/challenge/3"]
    for path in paths:
        stage.ca.replies[path] = [json_answer(CHALLENGE)]
    stage.ca.replies["/challenge/1"] = [problem_answer("malformed")]
    with pytest.raises(CaRefused):
        stage.client.answer(stage.account, [stage.url(path) for path in paths])
    assert sorted(each["url"] for each in stage.posted()) == [stage.url(path) for path in paths]
    assert {each["payload"] for each in stage.posted()} == {b"{}"}


def test_nothing_to_ask_for_asks_nothing(stage: Stage) -> None:
    assert stage.client.authorizations(stage.account, []) == []
    stage.client.answer(stage.account, [])
    assert stage.server.asked == []


# --- renewal information ---

WINDOW = {"start": "2026-11-20T12:00:00Z", "end": "2026-11-21T14:00:00.5+02:00"}
SUGGESTED: dict[str, object] = {"suggestedWindow": WINDOW}


def suggested(stage: Stage, answer: Answer, url: str = "/ari") -> RenewalInfo | None:
    stage.ca.directory["renewalInfo"] = stage.url(url)
    stage.ca.replies[f"/ari/{NAMED}"] = [answer]
    return stage.client.renewal_info(stage.account, NAMED)


@pytest.mark.parametrize("url", ["/ari", "/ari/"])
def test_the_suggested_window_is_told_in_utc_as_it_was_said(stage: Stage, url: str) -> None:
    said = {**SUGGESTED, "explanationURL": "https://ca.example/why?a=1#b", "more": 1}
    assert suggested(stage, json_answer(said, headers={"Retry-After": "21600"}), url) == RenewalInfo(
        datetime(2026, 11, 20, 12, tzinfo=UTC),
        datetime(2026, 11, 21, 12, 0, 0, 500_000, tzinfo=UTC),
        "https://ca.example/why?a=1#b",
        21600,
    )


def test_a_window_that_ends_before_it_starts_is_told_too(stage: Stage) -> None:
    backwards = {"start": "9998-01-01T00:00:00Z", "end": "1970-01-01T00:00:00Z"}
    told = suggested(stage, json_answer({"suggestedWindow": backwards}))
    assert told == RenewalInfo(datetime(9998, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC))


def test_renewal_information_is_asked_for_without_a_nonce_or_an_account(stage: Stage) -> None:
    suggested(stage, json_answer(SUGGESTED))
    assert [(asked.method, asked.path) for asked in stage.server.asked] == [
        ("GET", "/directory"),
        ("GET", f"/ari/{NAMED}"),
    ]
    assert {asked.headers["User-Agent"] for asked in stage.server.asked} == {"ScaiVault/0.1.0"}


@pytest.mark.parametrize("renewal_info", [{}, {"renewalInfo": None}, {"renewalInfo": ""}])
def test_a_ca_without_renewal_information_is_not_asked(stage: Stage, renewal_info: dict[str, object]) -> None:
    stage.ca.directory = renewal_info
    assert stage.client.renewal_info(stage.account, NAMED) is None
    assert stage.count("GET", f"/ari/{NAMED}") == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}, b"<html>"),
        Answer(200, {}, b""),
        json_answer({}),
        json_answer({"suggestedWindow": {"start": WINDOW["start"]}}),
        json_answer({"suggestedWindow": {**WINDOW, "end": "2026-11-21T12:00:00"}}),
        json_answer({"suggestedWindow": {**WINDOW, "end": "tomorrow"}}),
        json_answer({"suggestedWindow": {**WINDOW, "end": 1_795_435_200}}),
        json_answer({"suggestedWindow": {**WINDOW, "start": "0001-01-01T00:00:00+14:00"}}),
        Answer(404),
        Answer(503),
        Answer(302, {"Location": "/elsewhere"}),
    ],
    ids=range(11),
)
def test_renewal_information_that_is_none_may_be_better_later(stage: Stage, answer: Answer) -> None:
    with pytest.raises(CaUnavailable):
        suggested(stage, answer)


def test_renewal_information_is_refused_with_the_cas_reason(stage: Stage) -> None:
    with pytest.raises(CaRefused) as refusal:
        suggested(stage, problem_answer("malformed", 404))
    assert (refusal.value.problem.name, refusal.value.status) == ("malformed", 404)
    with pytest.raises(CaThrottled) as throttled:
        suggested(stage, problem_answer("rateLimited", 429, {"Retry-After": "60"}))
    assert throttled.value.retry_after_seconds == 60


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (" https://ca.example/why\n", "https://ca.example/why"),
        ("HTTP://[::1]:8080/?q=%20", "HTTP://[::1]:8080/?q=%20"),
        ("https://ca.example/" + "x" * 981, "https://ca.example/" + "x" * 981),
        ("https://ca.example/" + "x" * 982, None),
        ("javascript:alert(1)", None),
        ("https://user:secret@ca.example/", None),
        ("https://ca.example/a b", None),
        ('https://ca.example/"><script>', None),
        ("https://ca.example/\x1b[31m", None),
        ("https://cå.example/", None),
        ("https://", None),
        ("/why", None),
        ("", None),
        (7, None),
        (None, None),
        (["https://ca.example/"], None),
    ],
)
def test_an_explanation_is_a_plain_web_address_or_none(stage: Stage, said: object, told: str | None) -> None:
    renewal_info = suggested(stage, json_answer({**SUGGESTED, "explanationURL": said}))
    assert renewal_info is not None
    assert renewal_info.explanation_url == told


# --- chains ---

DEFAULT, OTHER = pem(authority().intermediate), pem(authority().cross_signed)


def chain_answer(body: str, *links: str) -> Answer:
    return Answer(200, {"Content-Type": "application/pem-certificate-chain", "Link": ", ".join(links)}, body.encode())


def download(stage: Stage, preferred_chain: str | None = None) -> str:
    return stage.client.chain(stage.account, stage.url("/cert"), preferred_chain)


def test_a_chain_is_asked_for_as_pem(stage: Stage) -> None:
    stage.ca.replies["/cert"] = [chain_answer("\r\n" + (DEFAULT * 2).replace("\n", "\r\n"))]
    assert download(stage) == DEFAULT * 2
    assert stage.server.asked[-1].headers["Accept"] == "application/pem-certificate-chain"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "garbage",
        "subject=CN = acme.example\n" + DEFAULT,
        DEFAULT + new_private_key("ec256").reveal_text(),
        DEFAULT + "rm -rf /\n",
        DEFAULT[:-30],
        "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
        DEFAULT + "\n" * 50_000 + "x",
    ],
    ids=range(8),
)
def test_a_chain_of_anything_but_certificates_is_not_taken(stage: Stage, body: str) -> None:
    stage.ca.replies["/cert"] = [chain_answer(body)]
    with pytest.raises(CaUnavailable):
        download(stage)


@pytest.mark.parametrize("preferred_chain", [None, ROOT])
def test_alternates_are_not_fetched_where_the_default_will_do(stage: Stage, preferred_chain: str | None) -> None:
    stage.ca.replies["/cert"] = [chain_answer(DEFAULT, '</cert/1>;rel="alternate"')]
    assert download(stage, preferred_chain) == DEFAULT
    assert len(stage.posted()) == 1


def test_the_first_alternate_that_fits_is_taken_among_other_links(stage: Stage) -> None:
    stage.ca.replies["/cert"] = [
        chain_answer(
            DEFAULT,
            '</directory>;rel="index"',
            '</cert/1>; title="x"; rel="alternate"',
            "</cert/2>;rel=alternate",
            '</cert/3>;rel="alternate"',
        )
    ]
    stage.ca.replies["/cert/1"] = [chain_answer(DEFAULT)]
    stage.ca.replies["/cert/2"] = [chain_answer(OTHER)]
    assert download(stage, OTHER_ROOT) == OTHER
    assert [each["url"] for each in stage.posted()] == [stage.url(path) for path in ("/cert", "/cert/1", "/cert/2")]


def test_without_a_fitting_alternate_the_default_is_taken(stage: Stage) -> None:
    stage.ca.replies["/cert"] = [chain_answer(DEFAULT, '</cert/1>;rel="alternate"')]
    stage.ca.replies["/cert/1"] = [chain_answer(OTHER)]
    assert download(stage, "No Such Root") == DEFAULT

"""One attempt: signed with the secrets in force, and what becomes of the answer."""

from __future__ import annotations

import base64
import hmac
from datetime import timedelta

import pytest

from application import webhooks
from application.errors import EgressRefused, EndpointUnreachable, Failure, StoreUnavailable
from application.ports import WebhookResponse
from application.redaction import HIDDEN
from application.secret_value import SecretValue
from application.webhooks import Outcome, Webhooks
from interfaces.webhooks.signature import signed_headers
from tests.application.calls import Death
from tests.application.world import HOOK, OWNER, SIGNED_WITH, World
from tests.servers.https import ca_bundle_pem

HOUR = timedelta(hours=1)
SECOND_SECRET = SecretValue("whsec_" + base64.b64encode(b"the second secret").decode())
THIRD_SECRET = SecretValue("the third secret")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """How long an attempt takes is told by its clock."""
    world = World()
    monkeypatch.setattr(webhooks, "monotonic", lambda: world.clock.now().timestamp())
    return world


def send(world: World, subscription_id: str) -> Outcome:
    keys, sender = world.calls.of("keys", world.sealed), world.calls.of("webhook", world.sender)
    sending = Webhooks(keys, sender, signed_headers, world.clock)
    return sending.send(world.subscription(subscription_id), "evt_1", "certificate.issued", '{"a": "é"}')


def answered(world: World, status: int, said: bytes = b"", retry_after_seconds: float | None = None) -> Outcome:
    world.sender.answers.append(WebhookResponse(status, retry_after_seconds, said))
    return send(world, world.subscribe())


def rotate(world: World, subscription_id: str, secret: SecretValue, overlap: timedelta = HOUR) -> None:
    world.subscriptions.rotate_secret(subscription_id, secret, overlap, OWNER)


STANDARD_KEYS = [
    (SIGNED_WITH, SIGNED_WITH.reveal()),
    (SECOND_SECRET, b"the second secret"),
    (THIRD_SECRET, THIRD_SECRET.reveal()),
]


def signers(world: World) -> list[SecretValue]:
    """Whose signatures the last request carries, in their order. Both forms must say the same."""
    request = world.sender.sent[-1]
    headers = request.headers
    ours = f"{headers['X-ScaiVault-Timestamp']}.".encode() + request.body
    standard = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    known = {
        **{f"sha256={hmac.digest(secret.reveal(), ours, 'sha256').hex()}": secret for secret, _ in STANDARD_KEYS},
        **{"v1," + base64.b64encode(hmac.digest(key, standard, "sha256")).decode(): s for s, key in STANDARD_KEYS},
    }
    by_ours = [known[value] for value in headers["X-ScaiVault-Signature"].split()]
    assert [known[value] for value in headers["webhook-signature"].split()] == by_ours
    return by_ours


# --- the request ----------------------------------------------------------------------------------------------------


def test_the_body_goes_to_the_subscription_s_address_as_it_is(world: World) -> None:
    bundle = ca_bundle_pem()
    send(world, world.subscribe(ca_bundle_pem=bundle))
    (request,) = world.sender.sent
    assert (request.url, request.ca_bundle_pem, request.body) == (HOOK, bundle, '{"a": "é"}'.encode())


def test_the_headers_name_the_event_and_the_time_of_the_attempt(world: World) -> None:
    subscription_id = world.subscribe()
    world.clock.advance(timedelta(seconds=3.7))
    send(world, subscription_id)
    (request,) = world.sender.sent
    now = str(int(world.clock.now().timestamp()))
    assert (request.headers["X-ScaiVault-Event-Id"], request.headers["X-ScaiVault-Event-Type"]) == (
        "evt_1",
        "certificate.issued",
    )
    assert (request.headers["X-ScaiVault-Timestamp"], request.headers["webhook-timestamp"]) == (now, now)


def test_the_body_is_signed_with_the_secret(world: World) -> None:
    send(world, world.subscribe())
    assert signers(world) == [SIGNED_WITH]


def test_during_an_overlap_it_is_signed_with_both_the_newest_first(world: World) -> None:
    subscription_id = world.subscribe()
    rotate(world, subscription_id, SECOND_SECRET)
    world.clock.advance(HOUR - timedelta(microseconds=1))
    send(world, subscription_id)
    assert signers(world) == [SECOND_SECRET, SIGNED_WITH]


def test_after_the_overlap_it_is_signed_with_the_new_one_alone_also_where_the_old_one_is_still_there(
    world: World,
) -> None:
    subscription_id = world.subscribe()
    rotate(world, subscription_id, SECOND_SECRET)
    world.clock.advance(HOUR)
    assert world.sealed.sealed == 2
    send(world, subscription_id)
    assert signers(world) == [SECOND_SECRET]


def test_a_second_rotation_during_the_overlap_leaves_the_last_two(world: World) -> None:
    subscription_id = world.subscribe()
    rotate(world, subscription_id, SECOND_SECRET)
    rotate(world, subscription_id, THIRD_SECRET)
    send(world, subscription_id)
    assert signers(world) == [THIRD_SECRET, SECOND_SECRET]


def test_secrets_that_were_destroyed_are_not_asked_for(world: World) -> None:
    subscription_id = world.subscribe()
    rotate(world, subscription_id, SECOND_SECRET)
    world.run_until_quiet()
    assert world.sealed.sealed == 1
    assert send(world, subscription_id).is_taken
    assert signers(world) == [SECOND_SECRET]


# --- the outcome ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "taken", "gone"),
    [(199, False, False), (200, True, False), (299, True, False), (300, False, False), (410, False, True)],
)
def test_a_status_says_whether_it_was_taken_or_the_receiver_is_gone(
    world: World, status: int, *, taken: bool, gone: bool
) -> None:
    outcome = answered(world, status, retry_after_seconds=7)
    assert (outcome.is_taken, outcome.is_gone) == (taken, gone)
    assert (outcome.status, outcome.retry_after_seconds) == (status, 7)
    assert outcome.detail == f"the receiver answered {status}"


@pytest.mark.parametrize(
    "failure", [EndpointUnreachable("connection refused"), EgressRefused("10.0.0.1 must not be dialled")]
)
def test_without_an_answer_there_is_no_status(world: World, failure: Failure) -> None:
    world.sender.answers.append(failure)
    outcome = send(world, world.subscribe())
    assert (outcome.status, outcome.detail, outcome.text) == (None, failure.detail, "")
    assert (outcome.is_taken, outcome.is_gone) == (False, False)


def test_a_secret_that_does_not_open_is_a_failed_attempt_and_nothing_is_sent_unsigned(world: World) -> None:
    subscription_id = world.subscribe()
    world.sealed.shred([secret.sealed_id for secret in world.subscription(subscription_id).secrets])
    outcome = send(world, subscription_id)
    assert (outcome.status, outcome.detail) == (None, "the signing secret does not open")
    assert world.sender.sent == []


def test_without_the_store_there_is_no_attempt(world: World) -> None:
    subscription_id = world.subscribe()
    world.calls.kill(Death(1, acted=False, of=StoreUnavailable("gone")))
    with pytest.raises(StoreUnavailable):
        send(world, subscription_id)
    assert world.sender.sent == []


@pytest.mark.parametrize("answer", [WebhookResponse(500, None), EndpointUnreachable("no answer in time")])
def test_it_is_measured_how_long_it_took(world: World, answer: WebhookResponse | Failure) -> None:
    subscription_id = world.subscribe()
    world.sender.answers.append(answer)
    world.calls.before("webhook.send", lambda: world.clock.advance(timedelta(seconds=14.25)))
    assert send(world, subscription_id).duration_ms == 14_250


# --- what the receiver said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"", ""),
        (b"out of disk", "out of disk"),
        ("außer Betrieb".encode(), "außer Betrieb"),
        (b"\xff\xfe cut of\xc3", "�� cut of�"),
        (b"a\0b", "ab"),
        (
            b"evt_1 of type certificate.issued as application/json",
            "evt_1 of type certificate.issued as application/json",
        ),
    ],
)
def test_what_it_said_is_told_as_text(world: World, said: bytes, text: str) -> None:
    assert answered(world, 500, said).text == text


def test_the_secrets_it_was_signed_with_are_not_told(world: World) -> None:
    subscription_id = world.subscribe()
    rotate(world, subscription_id, THIRD_SECRET)
    said = f"neither {SIGNED_WITH.reveal_text()} nor {THIRD_SECRET.reveal_text()}!"
    world.sender.answers.append(WebhookResponse(401, None, said.encode()))
    assert send(world, subscription_id).text == f"neither {HIDDEN} nor {HIDDEN}!"


def test_signatures_are_not_told_neither_all_nor_one_of_them(world: World) -> None:
    subscription_id = world.subscribe()
    rotate(world, subscription_id, THIRD_SECRET)
    send(world, subscription_id)
    headers = world.sender.sent[-1].headers
    signatures = [*headers["X-ScaiVault-Signature"].split(), *headers["webhook-signature"].split()]
    said = " and ".join(["I got", *signatures, headers["X-ScaiVault-Signature"]])
    world.sender.answers.append(WebhookResponse(401, None, said.encode()))
    text = send(world, subscription_id).text
    assert text.count(HIDDEN) == len(signatures) + 2
    assert not any(signature in text for signature in signatures)


def test_what_else_looks_like_a_secret_is_not_told(world: World) -> None:
    assert answered(world, 500, b'{"user": "me", "password": "hunter2"}').text == (
        f'{{"user": "me", "password": {HIDDEN}}}'
    )

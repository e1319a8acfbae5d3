"""From a placed order to a stored certificate, whatever the outside does meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from application.ports import TxtValue
from application.process.issuance import (
    AnswerChallenges,
    CheckPropagation,
    Finalize,
    FollowOrder,
    PlaceAtCa,
    PublishRecords,
    ReadAuthorizations,
    RemoveRecords,
    SealKey,
    StoreCertificate,
    next_step,
)
from application.process.todo import Step
from domain.acme import (
    ERROR_NAMESPACE,
    AuthorizationObject,
    AuthorizationStatus,
    ChallengeObject,
    OrderObject,
    OrderStatus,
    Problem,
)
from domain.certificate import Certificate
from domain.order import Assignment, Order, OrderError, UnseenRecord
from tests.application.world import NAMES, RECORD, ZONE, World, public_key
from tests.fakes import NEW_YEAR
from tests.fakes_ca_issuance import OTHER_ROOT, ROOT


@pytest.fixture
def world() -> World:
    return World()


# --- decide ---

Told = Callable[[Order], object]

KEY: Told = lambda order: order.seal_key("sealed_1", b"csr", NEW_YEAR)  # noqa: E731
PUBLISHED: Told = lambda order: order.record_published(order.outstanding_records[0], NEW_YEAR)  # noqa: E731
PROPAGATED: Told = lambda order: order.observe_propagation((), NEW_YEAR)  # noqa: E731
ANSWERED: Told = lambda order: order.challenges_answered(NEW_YEAR)  # noqa: E731
COMPLETED: Told = lambda order: order.complete(1, NEW_YEAR)  # noqa: E731
FAILED: Told = lambda order: order.fail(OrderError("backend_error", "no"), NEW_YEAR)  # noqa: E731
WAITED: Told = lambda order: order.wait(60, NEW_YEAR)  # noqa: E731
REMOVED: Told = lambda order: order.record_removed(order.outstanding_records[0], NEW_YEAR)  # noqa: E731


def at_ca(status: OrderStatus) -> OrderObject:
    certificate_url = "https://ca.fake/certificate" if status == "valid" else None
    return OrderObject(
        "https://ca.fake/order", status, "https://ca.fake/finalize", ("https://ca.fake/1",), certificate_url
    )


def authorization(
    status: AuthorizationStatus, dns_name: str = ZONE, error: Problem | None = None
) -> AuthorizationObject:
    challenge = ChallengeObject("dns-01", f"https://ca.fake/{dns_name}", "pending", "token", error)
    return AuthorizationObject("https://ca.fake/1", dns_name, wildcard=False, status=status, challenges=(challenge,))


def accepted(status: OrderStatus = "pending") -> Told:
    return lambda order: order.accept(at_ca(status), NEW_YEAR)


def follows(status: OrderStatus) -> Told:
    return lambda order: order.follow(at_ca(status), (), NEW_YEAR)


def offered(*statuses: AuthorizationStatus) -> Told:
    names = [ZONE, f"www.{ZONE}"]
    return lambda order: order.offer_challenges(
        [authorization(status, name) for status, name in zip(statuses, names, strict=False)], "thumb", NEW_YEAR
    )


def unseen(order: Order) -> None:
    late = UnseenRecord("ns2:53", order.outstanding_records[0], strict=True, wait_for=timedelta(hours=1))
    order.observe_propagation([late], NEW_YEAR)


def reopened(order: Order) -> None:
    stuck = authorization("pending", error=Problem(ERROR_NAMESPACE + "dns", "SERVFAIL"))
    order.follow(at_ca("pending"), [stuck], NEW_YEAR)


TO_THE_ANSWER = (KEY, accepted(), offered("pending"), PUBLISHED, PROPAGATED, ANSWERED)
WRITTEN = TO_THE_ANSWER[:4]


@pytest.mark.parametrize(
    ("told", "step"),
    [
        ((), SealKey),
        ((KEY,), PlaceAtCa),
        ((KEY, accepted()), ReadAuthorizations),
        ((KEY, accepted("ready")), Finalize),
        ((KEY, accepted("processing")), FollowOrder),
        ((KEY, accepted("valid")), StoreCertificate),
        ((KEY, accepted("invalid")), None),
        ((KEY, accepted(), offered("valid")), FollowOrder),
        ((KEY, accepted(), offered("pending")), PublishRecords),
        ((KEY, accepted(), offered("valid", "pending")), PublishRecords),
        ((KEY, accepted(), offered("expired")), RemoveRecords),
        (WRITTEN, CheckPropagation),
        ((*WRITTEN, unseen), CheckPropagation),
        ((*WRITTEN, PROPAGATED), AnswerChallenges),
        (TO_THE_ANSWER, FollowOrder),
        ((*TO_THE_ANSWER, follows("pending")), FollowOrder),
        ((*TO_THE_ANSWER, reopened), AnswerChallenges),
        ((*TO_THE_ANSWER, follows("ready")), Finalize),
        ((*TO_THE_ANSWER, follows("ready"), WAITED), Finalize),
        ((*TO_THE_ANSWER, follows("ready"), follows("processing")), FollowOrder),
        ((*TO_THE_ANSWER, follows("ready"), follows("valid")), StoreCertificate),
        ((*TO_THE_ANSWER, follows("valid"), COMPLETED), RemoveRecords),
        ((*TO_THE_ANSWER, follows("valid"), COMPLETED, WAITED), RemoveRecords),
        ((*TO_THE_ANSWER, follows("valid"), COMPLETED, REMOVED), None),
        ((*TO_THE_ANSWER, follows("invalid")), RemoveRecords),
        ((KEY, FAILED), None),
    ],
)
def test_what_is_to_be_done_follows_from_what_the_order_was_told(told: Sequence[Told], step: type[Step] | None) -> None:
    order = Order.place(
        "acme_order_1",
        tenant_id="tnt_default",
        account_id="acme_staging_1",
        certificate_id="cert_1",
        assignments=(Assignment(ZONE, "dnsp_1"), Assignment(f"www.{ZONE}", "dnsp_1")),
        challenge_type="dns-01",
        key_type="ec256",
        auto_renew=True,
        name=None,
        profile=None,
        preferred_chain=None,
        renewal_reason=None,
        kept_key_id=None,
        replaces=None,
        ca="",
        charges=(),
        csr_der=b"",
        now=NEW_YEAR,
    )
    for tell in told:
        tell(order)
    decided = next_step(order)
    assert type(decided) is (step or type(None))
    assert decided is None or decided.due_at == order.due_at


# --- the whole way ---


def test_a_name_and_its_wildcard_cost_eight_requests_and_two_changes(world: World) -> None:
    world.issued()
    assert world.ca.requests == {
        "newOrder": 1,
        "authorization": 2,
        "challenge": 2,
        "order": 1,
        "finalize": 1,
        "certificate": 1,
    }
    (added, what), (removed, same) = world.zones.of(ZONE).changes
    assert (added, removed, len(what)) == ("add", "remove", 2)
    assert what == same
    world.require_sound()


def test_a_ca_that_takes_its_time_is_asked_once_more(world: World) -> None:
    world.ca.knobs.processing_polls = 1
    world.issued()
    assert world.ca.requests["order"] == 3  # ready, processing, valid
    assert world.ca.requests["finalize"] == 1


def test_both_values_are_there_when_the_ca_looks(world: World) -> None:
    world.issued()
    (name, values), again = world.validated_with
    assert (name, len(values)) == (RECORD, 2)
    assert again == (name, values)


def test_the_certificate_is_stored_with_what_the_ca_said(world: World) -> None:
    order_id = world.issued()
    certificate = world.certificate(order_id)
    (leaf,) = world.ca.issued
    assert certificate.dns_names == NAMES
    assert certificate.current.number == 1
    assert int(certificate.current.serial_number, 16) == leaf.serial_number
    assert certificate.current.not_after == leaf.not_valid_after_utc
    assert certificate.current.order_id == order_id
    world.require_sound()


def test_values_of_others_stay(world: World) -> None:
    world.foreign = {TxtValue(RECORD, "of another client"), TxtValue(f"other.{ZONE}", "v=spf1")}
    world.zones.of(ZONE).add(list(world.foreign))
    world.issued()
    assert world.zones.held == world.foreign


def test_the_chain_that_was_preferred_is_stored(world: World) -> None:
    account_id = world.ready()
    chains = []
    for preferred_chain in (ROOT, OTHER_ROOT):
        order_id, _ = world.place(account_id, ZONE, preferred_chain=preferred_chain)
        world.run_until_quiet()
        chains.append(world.certificate(order_id).current.chain_pem)
    assert chains[0] != chains[1]


def test_names_in_two_providers_are_written_at_both(world: World) -> None:
    world.connect_provider("other.example", name="second")
    world.issued(ZONE, "other.example")
    assert [change for change, _ in world.zones.of(ZONE).changes] == ["add", "remove"]
    assert [change for change, _ in world.zones.of("other.example").changes] == ["add", "remove"]
    world.require_sound()


# --- renewals ---


@pytest.mark.parametrize("new_key", [True, False])
def test_a_renewal_adds_a_version_under_the_same_id(world: World, *, new_key: bool) -> None:
    first = world.issued()
    second = world.renewal_of(first, new_key=new_key)
    world.run_until_quiet()
    certificate = world.certificate(second)
    assert world.order(second).certificate_id == world.order(first).certificate_id
    assert [version.number for version in certificate.versions] == [1, 2]
    assert certificate.dns_names == NAMES
    old, new = world.ca.issued
    assert (public_key(old) != public_key(new)) is new_key
    world.require_sound()


def test_a_renewal_that_fails_is_told_and_the_certificate_stays(world: World) -> None:
    first = world.issued()
    forbidden = Problem(ERROR_NAMESPACE + "caa", "CAA forbids it")
    world.ca.knobs.invalid[ZONE] = forbidden
    for attempt in (1, 2):
        order_id = world.renewal_of(first)
        world.run_until_quiet()
        told = world.recorded[-1 - len(world.events(order_id)) :]
        (failed,) = (event for event in told if isinstance(event, Certificate.RenewalFailed))
        assert (failed.order_id, failed.attempt, failed.error.code) == (order_id, attempt, "caa_forbids")
        assert failed.not_after == world.ca.issued[0].not_valid_after_utc
    assert [version.number for version in world.certificate(first).versions] == [1]
    world.ca.knobs.invalid.clear()
    world.renewal_of(first)
    world.run_until_quiet()
    assert world.certificate(first).current.number == 2
    assert world.certificate(first).failed_renewals == 0
    world.require_sound()

"""What subscribers are told: the contract's fields, and ids that stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from application.process.announcements import Announcement, announcement_of, event_id
from domain.access import private_key_read
from domain.acme import ERROR_NAMESPACE, Problem
from domain.certificate import Certificate
from domain.provenance import Recorded
from domain.subscription import EVENT_TYPES, EventType
from tests.application.world import NAMES, OWNER, ZONE, World
from tests.fakes import NEW_YEAR

VERSION = ["version", "serial_number", "fingerprint_sha256", "issuer", "not_before", "not_after", "order_id"]
FIELDS: dict[EventType, list[str]] = {
    "certificate.issued": ["certificate_id", "domains", *VERSION],
    "certificate.renewed": ["certificate_id", "domains", *VERSION, "old_serial_number", "old_not_after", "reason"],
    "certificate.renewal_failed": [
        "certificate_id",
        "domains",
        "order_id",
        "attempt",
        "error",
        "retry_after",
        "next_attempt_at",
        "not_after",
        "days_remaining",
    ],
    "order.invalid": ["order_id", "domains", "error"],
}


@pytest.fixture(scope="module")
def world() -> World:
    """A certificate that was renewed once, and could not be renewed a second time, 80 days before its end."""
    world = World()
    first = world.issued()
    world.clock.advance(timedelta(days=5))
    world.renewal_of(first)
    world.run_until_quiet()
    world.clock.advance(timedelta(days=10))
    world.ca.knobs.invalid[ZONE] = Problem(ERROR_NAMESPACE + "caa", "forbidden by CAA")
    world.renewal_of(first)
    world.run_until_quiet()
    return world


def announcements(world: World) -> dict[EventType, Announcement]:
    told = [announcement_of(recorded) for recorded in world.recorder.history]
    return {each.event_type: each for each in told if each is not None}


def test_there_is_one_announcement_of_each_type_to_look_at(world: World) -> None:
    told = [announcement_of(recorded) for recorded in world.recorder.history]
    assert sorted(each.event_type for each in told if each is not None) == sorted(EVENT_TYPES)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_data_has_exactly_the_fields_of_the_contract(world: World, event_type: EventType) -> None:
    assert sorted(announcements(world)[event_type].data) == sorted(FIELDS[event_type])


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_envelope_has_exactly_the_fields_of_the_contract(world: World, event_type: EventType) -> None:
    told = msgspec.json.decode(msgspec.json.encode(announcements(world)[event_type]))
    assert sorted(told) == sorted(
        [
            "event_id",
            "event_type",
            "timestamp",
            "tenant_id",
            "identity_id",
            "path",
            "sequence",
            "data",
            "request_id",
        ]
    )
    assert told["timestamp"].endswith("Z")
    request_id = OWNER.provenance.request_id  # of the request that began it all
    assert (told["tenant_id"], told["identity_id"], told["request_id"]) == (OWNER.tenant_id, "issuance", request_id)
    recorded = world.recorder.history[told["sequence"] - 1]
    assert recorded.event.timestamp == datetime.fromisoformat(told["timestamp"])


def test_a_certificate_and_its_renewal_are_told_as_they_are(world: World) -> None:
    issued, renewed = (announcements(world)[kind] for kind in ("certificate.issued", "certificate.renewed"))
    certificate = world.store.load(Certificate, issued.data["certificate_id"])
    old, new = certificate.versions
    assert issued.path == renewed.path == f"pki/certificates/{certificate.id}"
    assert (issued.data["version"], issued.data["serial_number"], issued.data["order_id"]) == (
        1,
        old.serial_number,
        old.order_id,
    )
    assert (renewed.data["version"], renewed.data["serial_number"], renewed.data["not_after"]) == (
        2,
        new.serial_number,
        new.not_after,
    )
    assert (renewed.data["old_serial_number"], renewed.data["old_not_after"]) == (old.serial_number, old.not_after)
    assert (renewed.data["reason"], renewed.data["domains"]) == ("requested", NAMES)


def test_a_failed_renewal_is_told_with_what_is_left(world: World) -> None:
    failed, invalid = (announcements(world)[kind] for kind in ("certificate.renewal_failed", "order.invalid"))
    assert failed.data["error"] == {"code": "caa_forbids", "message": f"{ZONE}: forbidden by CAA"}
    assert (failed.data["attempt"], failed.data["days_remaining"]) == (1, 79)
    assert invalid.data["error"] == {**failed.data["error"], "retry_after": None}
    assert invalid.path == f"pki/acme/orders/{failed.data['order_id']}"


def test_nothing_secret_is_told(world: World) -> None:
    for told in announcements(world).values():
        text = msgspec.json.encode(told).decode()
        assert "sealed" not in text
        assert "PRIVATE KEY" not in text


def test_an_id_is_a_ulid_of_the_events_time(world: World) -> None:
    ids = [announcement.event_id for announcement in announcements(world).values()]
    assert len(set(ids)) == len(ids)
    for announcement in announcements(world).values():
        prefix, _, ulid = announcement.event_id.partition("_")
        assert (prefix, ulid) == ("evt", ulid.lower())
        told_at = ULID.from_str(ulid.upper()).datetime
        assert abs(told_at - announcement.timestamp) <= timedelta(milliseconds=1)


@given(
    st.datetimes(NEW_YEAR.replace(tzinfo=None), datetime(2100, 1, 1)),  # noqa: DTZ001  made aware below
    st.integers(1, 2**40),
    st.text(min_size=1),
)
def test_an_id_depends_on_the_event_alone(at: datetime, position: int, originator_id: str) -> None:
    event = private_key_read(originator_id, "cert_1", 1, at.replace(tzinfo=UTC))
    ids = {
        event_id(Recorded(position, event, OWNER.provenance)),
        event_id(Recorded(position + 1, event, replace(OWNER.provenance, request_id="req_2"))),
    }
    assert len(ids) == 1
    (same,) = ids
    assert str(ULID.from_str(same.removeprefix("evt_").upper())).lower() == same.removeprefix("evt_")
    another = replace(event, originator_version=event.originator_version + 1)
    assert event_id(Recorded(position, another, OWNER.provenance)) != same

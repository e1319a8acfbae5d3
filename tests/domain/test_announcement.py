"""What subscribers are told: the contract's fields, and ids that stay."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from domain.access import private_key_read
from domain.acme import ERROR_NAMESPACE, Problem
from domain.announcement import (
    CATALOGUE,
    EVENT_TYPES,
    TEST,
    Announcement,
    CertificateIssued,
    CertificateRenewalFailed,
    CertificateRenewed,
    EventType,
    FailedOrderError,
    OrderInvalid,
    RenewalError,
    announcement_of,
    causation,
    event_id,
)
from domain.certificate import Certificate
from domain.provenance import Recorded, of_process
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
    "certificate.expiring": ["certificate_id", "domains", "not_after", "days_remaining", "threshold"],
    "certificate.expired": ["certificate_id", "version", "domains", "serial_number"],
    "certificate.revoked": ["certificate_id", "version", "domains", "serial_number", "reason", "revoked_by"],
    "order.invalid": ["order_id", "domains", "error"],
    "dns_provider.degraded": ["dns_provider_id", "reason"],
    "dns_provider.recovered": ["dns_provider_id", "reason"],
}


@pytest.fixture(scope="module")
def world() -> World:
    """A certificate that was renewed once, and could not be renewed a second time, 80 days before its end, which then
    came."""
    world = World()
    first = world.issued()
    world.clock.advance(timedelta(days=5))
    world.renewal_of(first)
    world.run_until_quiet()
    world.clock.advance(timedelta(days=10))
    world.ca.knobs.invalid[ZONE] = Problem(ERROR_NAMESPACE + "caa", "forbidden by CAA")
    world.renewal_of(first)
    world.run_until_quiet()
    provider_id = world.order(first).provider_of_first_name or ""
    by = of_process("issuance", OWNER.provenance, provider_id, 1)
    provider = world.providers.load(provider_id)
    provider.refused("credentials_rejected", "expired", world.clock.now())
    provider.served(world.clock.now())
    world.store.record(provider, by=by)
    certificate = world.certificate(first)
    certificate.revoke(1, "superseded", world.clock.now())
    world.store.record(certificate, by=of_process("issuance", OWNER.provenance, certificate.id, 1))
    for at in (certificate.current.not_after - timedelta(days=6), certificate.current.not_after):
        certificate.near_expiry(at) if at < certificate.current.not_after else certificate.expire(at)
        world.store.record(certificate, by=of_process("issuance", OWNER.provenance, certificate.id, 1))
    return world


def all_announcements(world: World) -> list[Announcement]:
    told = [announcement_of(recorded) for recorded in world.recorder.history]
    return [each for each in told if each is not None]


def announcements(world: World) -> dict[str, Announcement]:
    return {each.event_type: each for each in all_announcements(world)}


def body(world: World, event_type: EventType) -> dict[str, Any]:
    """As a subscriber reads it."""
    told: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(announcements(world)[event_type]))
    return told


def test_each_type_of_the_catalogue_is_told_when_what_it_tells_of_happens_and_no_other(world: World) -> None:
    assert sorted(each.event_type for each in all_announcements(world)) == sorted(EVENT_TYPES)
    assert sorted(CATALOGUE) == sorted(FIELDS) == sorted(EVENT_TYPES)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_data_has_exactly_the_declared_shape(world: World, event_type: EventType) -> None:
    data, declared = body(world, event_type)["data"], CATALOGUE[event_type]
    read = msgspec.convert(data, declared, strict=True)
    assert type(read) is type(announcements(world)[event_type].data) is declared
    assert read == announcements(world)[event_type].data
    assert msgspec.json.decode(msgspec.json.encode(read)) == data


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_declared_shape_has_exactly_the_fields_of_the_contract(event_type: EventType) -> None:
    assert sorted(field.name for field in fields(CATALOGUE[event_type])) == sorted(FIELDS[event_type])


def test_an_event_that_only_tries_a_receiver_is_in_no_catalogue() -> None:
    assert TEST not in CATALOGUE


def test_what_nobody_can_subscribe_to_is_not_told() -> None:
    read = private_key_read("access_1", "cert_1", 1, NEW_YEAR)
    assert announcement_of(Recorded(1, read, OWNER.provenance)) is None


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_envelope_has_exactly_the_fields_of_the_contract(world: World, event_type: EventType) -> None:
    told = body(world, event_type)
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
    assert isinstance(issued.data, CertificateIssued)
    certificate = world.store.load(Certificate, issued.data.certificate_id)
    old, new = certificate.versions
    assert issued.path == renewed.path == f"pki/certificates/{certificate.id}"
    assert issued.data == CertificateIssued(
        certificate_id=certificate.id,
        version=1,
        domains=NAMES,
        serial_number=old.serial_number,
        fingerprint_sha256=old.fingerprint_sha256,
        issuer=old.issuer,
        not_before=old.not_before,
        not_after=old.not_after,
        order_id=old.order_id,
    )
    assert renewed.data == CertificateRenewed(
        certificate_id=certificate.id,
        version=2,
        domains=NAMES,
        serial_number=new.serial_number,
        fingerprint_sha256=new.fingerprint_sha256,
        issuer=new.issuer,
        not_before=new.not_before,
        not_after=new.not_after,
        order_id=new.order_id,
        old_serial_number=old.serial_number,
        old_not_after=old.not_after,
        reason="requested",
    )


def test_a_failed_renewal_is_told_with_what_is_left(world: World) -> None:
    failed, invalid = (announcements(world)[kind] for kind in ("certificate.renewal_failed", "order.invalid"))
    message = f"{ZONE}: forbidden by CAA"
    assert isinstance(failed.data, CertificateRenewalFailed)
    assert failed.data.order_id is not None
    assert failed.data.error == RenewalError("caa_forbids", message)
    assert (failed.data.attempt, failed.data.days_remaining, failed.data.retry_after) == (1, 79, None)
    assert invalid.data == OrderInvalid(failed.data.order_id, NAMES, FailedOrderError("caa_forbids", message, None))
    assert failed.path == f"pki/certificates/{failed.data.certificate_id}"
    assert invalid.path == f"pki/acme/orders/{failed.data.order_id}"


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


def test_what_it_tells_of_is_named_by_its_stream_and_version() -> None:
    event = replace(private_key_read("access_1", "cert_1", 1, NEW_YEAR), originator_version=7)
    assert causation(Recorded(1, event, OWNER.provenance)) == "access_1@7"

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from eventsourcing.domain import BaseAggregate

from domain.announcement import EVENT_TYPES, Announced, announcement_of, event_id
from domain.order import OrderError
from domain.provenance import Provenance, Recorded
from domain.terms import Candidate, Heading, Terms
from interfaces.postgres.pool import Pool
from projections.announcements import ANNOUNCEMENTS
from tests.projections.folding import apply, recorded, rows
from tests.projections.story import (
    BEGIN,
    BY,
    BY_OTHER,
    CAA,
    OTHER_TENANT,
    TENANT,
    issued,
    placed,
    subscription,
    token,
    told_in_memory,
    version,
)

MINUTE = timedelta(minutes=1)
ALL = 2**62
TYPES = {
    1: EVENT_TYPES[0],
    2: EVENT_TYPES[1],
    3: EVENT_TYPES[2],
    4: EVENT_TYPES[0],
    5: "order.invalid",
    7: EVENT_TYPES[0],
}
"""Of the announcements of `told`, by position."""


def at(minutes: int) -> datetime:
    return BEGIN + minutes * MINUTE


def tell(pool: Pool, subject: BaseAggregate[str], position: int, by: Provenance = BY) -> list[Recorded]:
    """The aggregate's pending events, from that position on."""
    events = recorded(subject, by=by, after=position - 1)
    apply(pool, ANNOUNCEMENTS, events)
    return events


@pytest.fixture
def told(pool: Pool) -> list[Recorded]:
    """A certificate is issued (1), renewed (2) and not renewed (3), a minute each; another is issued (4), an order fails
    (5), a token is issued, of which nobody is told (6), and another tenant's certificate is issued (7)."""
    certificate = issued("cert_1", at(1), "acme_order_1")
    certificate.renew(version(2, "acme_order_2"), "ari", at(2))
    certificate.renewal_failed("acme_order_3", OrderError("caa_forbids", "CAA forbids it", 60), at(3))
    failed = placed("acme_order_4", at(5), "cert_3", "c.example")
    failed.refused_by_ca(CAA, at(5))
    placed_before, *failure = recorded(failed, after=3)
    assert announcement_of(placed_before) is None
    apply(pool, ANNOUNCEMENTS, failure)
    return [
        *tell(pool, certificate, 1),
        *tell(pool, issued("cert_2", at(4), "acme_order_5"), 4),
        *failure,
        *tell(pool, token("tok_1", at(6)), 6),
        *tell(pool, issued("cert_1", at(7), "acme_order_6"), 7, BY_OTHER),
    ]


def read(pool: Pool, after: int = 0, limit: int = 100) -> Sequence[Announced]:
    return ANNOUNCEMENTS.read(pool, after, limit)


def positions(announced: Sequence[Heading]) -> list[int]:
    return [each.position for each in announced]


def terms(*paths: str, tenant_id: str = TENANT, types: Sequence[str] = EVENT_TYPES) -> Terms:
    return Terms("sub_1", tenant_id, paths, tuple(types), (), ordered=False, after=0, upto=None)


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("told")
def test_those_events_are_told_that_somebody_can_subscribe_to(pool: Pool) -> None:
    assert {each.position: each.event_type for each in read(pool)} == TYPES
    assert set(TYPES.values()) < set(EVENT_TYPES)


def test_an_announcement_is_kept_with_what_finds_it(pool: Pool, told: list[Recorded]) -> None:
    renewed = read(pool)[1]

    assert renewed == Announced(
        position=2,
        event_id=event_id(told[1]),
        tenant_id=TENANT,
        event_type="certificate.renewed",
        path="pki/certificates/cert_1",
        dns_names=("a.example", "*.a.example"),
        at=at(2),
        causation="cert_1@2",
        request_id="req_1",
        body=renewed.body,
    )
    assert ANNOUNCEMENTS.at(pool, [2]) == [renewed]


def test_the_body_is_the_json_of_the_announcement_byte_by_byte(pool: Pool) -> None:
    history = told_in_memory()
    apply(pool, ANNOUNCEMENTS, history)

    announcements = [announcement_of(each) for each in history]
    bodies = [msgspec.json.encode(each).decode() for each in announcements if each is not None]
    assert [each.body for each in read(pool)] == bodies
    assert len(bodies) >= len(EVENT_TYPES)


@pytest.mark.usefixtures("told")
def test_the_body_says_what_the_contract_says(pool: Pool) -> None:
    of_certificate = {
        "tenant_id": TENANT,
        "identity_id": "tok_1",
        "path": "pki/certificates/cert_1",
        "request_id": "req_1",
    }
    issued_body, renewed_body, failed_body, _, invalid_body, _ = [json.loads(each.body) for each in read(pool)]
    first: dict[str, Any] = {
        "certificate_id": "cert_1",
        "version": 1,
        "domains": ["a.example", "*.a.example"],
        "serial_number": "01",
        "fingerprint_sha256": "1" * 64,
        "issuer": "CN=CA",
        "not_before": "2026-03-01T10:30:15Z",
        "not_after": "2026-05-30T10:30:15Z",
        "order_id": "acme_order_1",
    }
    assert issued_body == of_certificate | {
        "event_id": read(pool)[0].event_id,
        "event_type": "certificate.issued",
        "timestamp": "2026-03-01T10:31:15.123456Z",
        "sequence": 1,
        "data": first,
    }
    assert renewed_body == of_certificate | {
        "event_id": read(pool)[1].event_id,
        "event_type": "certificate.renewed",
        "timestamp": "2026-03-01T10:32:15.123456Z",
        "sequence": 2,
        "data": first
        | {
            "version": 2,
            "serial_number": "02",
            "fingerprint_sha256": "2" * 64,
            "not_after": "2026-08-28T10:30:15Z",
            "order_id": "acme_order_2",
            "old_serial_number": "01",
            "old_not_after": "2026-05-30T10:30:15Z",
            "reason": "ari",
        },
    }
    assert failed_body["data"] == {
        "certificate_id": "cert_1",
        "domains": ["a.example", "*.a.example"],
        "order_id": "acme_order_3",
        "attempt": 1,
        "error": {"code": "caa_forbids", "message": "CAA forbids it"},
        "retry_after": 60,
        "next_attempt_at": f"{version(2, '').plan.at:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": "2026-08-28T10:30:15Z",
        "days_remaining": 179,
    }
    assert invalid_body["path"] == "pki/acme/orders/acme_order_4"
    assert invalid_body["data"] == {
        "order_id": "acme_order_4",
        "domains": ["c.example"],
        "error": invalid_body["data"]["error"],
    }
    assert set(invalid_body["data"]["error"]) == {"code", "message", "retry_after"}


def test_what_nobody_asked_for_has_no_request_id(pool: Pool) -> None:
    tell(pool, issued("cert_1", at(1), "acme_order_1"), 1, BY_OTHER)

    (announced,) = read(pool)
    assert announced.request_id is None
    assert json.loads(announced.body)["request_id"] is None


def test_events_of_which_nobody_is_told_leave_no_rows(pool: Pool) -> None:
    tell(pool, token("tok_1", at(1)), 1)
    tell(pool, subscription("sub_1", at(1)), 2)

    assert rows(pool, ANNOUNCEMENTS) == []


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("told")
def test_all_tenants_announcements_are_read_in_order_from_behind_a_position(pool: Pool) -> None:
    assert positions(read(pool)) == [1, 2, 3, 4, 5, 7]
    assert positions(read(pool, after=2)) == [3, 4, 5, 7]
    assert positions(read(pool, after=2, limit=2)) == [3, 4]
    assert positions(read(pool, after=7)) == []


@pytest.mark.usefixtures("told")
def test_those_at_some_positions_are_told_in_order_as_far_as_there_are_any(pool: Pool) -> None:
    assert positions(ANNOUNCEMENTS.at(pool, [8, 4, 0, 6, 1])) == [1, 4]
    assert positions(ANNOUNCEMENTS.at(pool, [])) == []


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (terms("pki/certificates/cert_1"), [1, 2, 3]),
        (terms("pki/certificates/cert_1", "pki/acme/orders/acme_order_4"), [1, 2, 3, 5]),
        (terms("pki/certificates/cert_9"), []),
        (terms("pki/certificates/cert_2", types=["certificate.renewed"]), []),
        (terms("pki/certificates/cert_1", types=["certificate.renewed"]), [2]),
        (terms("pki/certificates/cert_1", tenant_id=OTHER_TENANT), [7]),
        (terms("pki/certificates/cert_1", tenant_id="tnt_3"), []),
    ],
    ids=["one path", "two paths", "no such path", "no such type", "type", "other tenant", "no such tenant"],
)
def test_with_literal_paths_the_candidates_are_exactly_those_asked_for(
    asked: Terms, found: list[int], pool: Pool
) -> None:
    assert positions(ANNOUNCEMENTS.candidates(pool, asked, 0, ALL, 100)) == found


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("glob", "prefix"),
    [
        ("pki/certificates/*", "pki/certificates/"),
        ("**", ""),
        ("pki/certificates/cert_?", "pki/certificates/cert_"),
        ("pki/*/cert_1", "pki/"),
        ("elsewhere/**", "elsewhere/"),
        ("pki/certificates/cert_1*", "pki/certificates/cert_1"),
    ],
)
def test_with_a_wildcard_in_any_path_those_are_told_that_begin_alike(glob: str, prefix: str, pool: Pool) -> None:
    def found(asked: Terms) -> list[int]:
        return positions(ANNOUNCEMENTS.candidates(pool, asked, 0, ALL, 100))

    def beginning(tenant_id: str = TENANT, types: Sequence[str] = EVENT_TYPES) -> list[int]:
        return [
            each.position
            for each in read(pool)
            if each.tenant_id == tenant_id and each.event_type in types and each.path.startswith(prefix)
        ]

    assert found(terms("pki/certificates/cert_9", glob)) == beginning()
    assert found(terms(glob, types=["certificate.issued"] * 2)) == beginning(types=["certificate.issued"])
    assert found(terms(glob, tenant_id=OTHER_TENANT)) == beginning(OTHER_TENANT)


def test_a_candidate_is_all_but_the_body(told: list[Recorded], pool: Pool) -> None:
    for asked in (terms("pki/certificates/cert_1"), terms("pki/certificates/cert_1*")):
        first, *_ = ANNOUNCEMENTS.candidates(pool, asked, 1, ALL, 1)
        assert first == Candidate(
            2, TENANT, "certificate.renewed", "pki/certificates/cert_1", ("a.example", "*.a.example")
        )
    assert told


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("path", ["pki/certificates/cert_1", "pki/certificates/cert_*"])
def test_candidates_lie_behind_the_one_position_and_not_behind_the_other(path: str, pool: Pool) -> None:
    def found(after: int, upto: int, limit: int = 100) -> list[int]:
        wanted = terms(path, types=["certificate.issued", "certificate.renewed", "certificate.renewal_failed"])
        return [at for at in positions(ANNOUNCEMENTS.candidates(pool, wanted, after, upto, limit)) if at < 4]

    assert found(0, 3) == [1, 2, 3]
    assert found(1, 3) == [2, 3]
    assert found(0, 2) == [1, 2]
    assert found(0, ALL, limit=2) == [1, 2]
    assert found(2, 2) == []
    assert found(3, 2) == []


def test_positions_are_told_of_the_tenants_events_that_there_are(pool: Pool, told: list[Recorded]) -> None:
    ids = [event_id(each) for each in told]

    assert ANNOUNCEMENTS.positions(pool, TENANT, [ids[0], "evt_nobody", ids[3]]) == {ids[0]: 1, ids[3]: 4}
    assert ANNOUNCEMENTS.positions(pool, TENANT, [ids[-1]]) == {}
    assert ANNOUNCEMENTS.positions(pool, OTHER_TENANT, ids) == {ids[-1]: 7}
    assert ANNOUNCEMENTS.positions(pool, TENANT, []) == {}


@pytest.mark.usefixtures("told")
def test_a_time_is_found_among_the_tenants_own_with_both_ends(pool: Pool) -> None:
    moment = timedelta(microseconds=1)
    assert [ANNOUNCEMENTS.first_since(pool, TENANT, at(minutes)) for minutes in (0, 1, 2, 99)] == [1, 1, 2, None]
    assert ANNOUNCEMENTS.first_since(pool, TENANT, at(1) + moment) == 2
    assert [ANNOUNCEMENTS.last_until(pool, TENANT, at(minutes)) for minutes in (0, 1, 2, 99)] == [0, 1, 2, 5]
    assert ANNOUNCEMENTS.last_until(pool, TENANT, at(2) - moment) == 1
    assert ANNOUNCEMENTS.first_since(pool, OTHER_TENANT, at(0)) == 7
    assert (ANNOUNCEMENTS.first_since(pool, "tnt_3", at(0)), ANNOUNCEMENTS.last_until(pool, "tnt_3", at(99))) == (
        None,
        0,
    )


def test_the_last_position_is_that_of_all_tenants(pool: Pool, told: list[Recorded]) -> None:
    assert ANNOUNCEMENTS.last(pool) == 7
    assert told


def test_where_nothing_was_announced_all_is_empty(pool: Pool) -> None:
    assert ANNOUNCEMENTS.last(pool) == 0
    assert read(pool) == []
    assert ANNOUNCEMENTS.candidates(pool, terms("**"), 0, ALL, 100) == []

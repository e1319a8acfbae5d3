from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from domain.access import request_refused, subscription_tested
from domain.acknowledgement import acknowledged, rewound
from domain.event import DomainEvent
from domain.provenance import Provenance
from interfaces.postgres.pool import Pool
from projections.audit_log import AUDIT_LOG, NO_ACT, RULES, AuditRow, Criteria, audit_row
from tests.projections.folding import apply, recorded
from tests.projections.folding import rows as rows_as_text
from tests.projections.live import Live
from tests.projections.story import (
    BEGIN,
    BY,
    BY_OTHER,
    OTHER_TENANT,
    TENANT,
    Story,
    at_ca,
    authorizations,
    owed,
    placed,
    revise,
    stored_secret,
    subscription,
    token,
    told_in_memory,
)

NOW = BEGIN
ALL = Criteria()


def event_classes(base: type[DomainEvent] = DomainEvent) -> Iterator[type[DomainEvent]]:
    """All that can be stored, those of the tests' own aggregates left out."""
    for event_class in base.__subclasses__():
        if "TOPIC" in vars(event_class) and event_class.__module__.startswith("domain."):
            yield event_class
        yield from event_classes(event_class)


def page(pool: Pool, criteria: Criteria, tenant_id: str = TENANT) -> list[AuditRow]:
    return list(AUDIT_LOG.page(pool, tenant_id, -1, 1000, criteria))


def test_every_event_has_a_rule_or_is_no_act_and_never_both() -> None:
    known = set(event_classes())
    assert len(known) > 30
    assert RULES.keys() & NO_ACT == set()
    assert RULES.keys() | NO_ACT == known


def test_the_story_has_every_event_in_it() -> None:
    assert {type(told.event) for told in told_in_memory()} == set(event_classes())


def test_a_row_says_who_did_what_to_which_resource_and_when(pool: Pool) -> None:
    apply(pool, AUDIT_LOG, recorded(token("tok_9", NOW), after=6))

    (row,) = page(pool, ALL)
    assert re.fullmatch("log_[0-7][0-9a-hjkmnp-tv-z]{25}", row.id)
    assert row == AuditRow(
        id=row.id,
        index=0,
        timestamp=NOW,
        action="token_create",
        identity_type="token",
        identity_id="tok_1",
        tenant_id=TENANT,
        resource_path="tokens/tok_9",
        source_ip="192.0.2.1",
        user_agent="curl/8",
        success=True,
        duration_ms=None,
        request_id="req_1",
        event_position=7,
        extra_data={"scopes": ["pki:read", "pki:export"]},
    )


def test_indexes_have_no_gaps_and_positions_grow(live: Live) -> None:
    for number in range(3):
        Story(live.store, number).tell()
        live.catch_up()

    mine, others = page(live.pool, ALL), page(live.pool, ALL, OTHER_TENANT)
    both = sorted([*mine, *others], key=lambda row: row.index)
    assert others
    assert [row.index for row in both] == list(range(len(both)))
    acts = [told.position for told in live.history if type(told.event) in RULES]
    assert [row.event_position for row in both] == acts
    assert len({row.id for row in both}) == len(both)


def test_every_act_of_the_story_has_its_row_as_its_rule_says(pool: Pool) -> None:
    events = told_in_memory()
    apply(pool, AUDIT_LOG, events)

    rows = sorted([*page(pool, ALL), *page(pool, ALL, OTHER_TENANT)], key=lambda row: row.index)
    acts = [told for told in events if type(told.event) in RULES]
    for row, told in zip(rows, acts, strict=True):
        rule = RULES[type(told.event)]
        assert row.success == rule.is_success(told.event)
        assert row.resource_path == rule.path(told.event)
        assert row.identity_id == told.by.identity_id
        assert row.timestamp == told.event.timestamp
    actions = {row.action for row in rows}
    assert actions == {rule.action for rule in RULES.values()} | {"acme_order_cancel"}


def test_a_cancelled_order_is_an_act_of_its_own_and_a_failed_one_is_not(pool: Pool) -> None:
    cancelled = placed("acme_order_1", NOW, "cert_1", "a.example")
    cancelled.cancel(NOW)
    homeless = placed("acme_order_2", NOW, "cert_2", "b.example", homeless=("b.example",))

    apply(pool, AUDIT_LOG, recorded(cancelled, homeless))

    assert [(row.action, row.success) for row in page(pool, ALL)] == [
        ("acme_order_create", True),
        ("acme_order_cancel", False),
        ("acme_order_create", True),
        ("acme_order_fail", False),
    ]


def test_paths_are_those_of_the_api_without_its_version(pool: Pool) -> None:
    secret = stored_secret("app/db", NOW)
    secret.add_version("kv", {}, "sealed_2", NOW)
    refused = request_refused("acc_1", "GET", "/v1/pki/certificates/cert_1", "access_denied", NOW)

    apply(pool, AUDIT_LOG, recorded(secret, refused))

    paths = [row.resource_path for row in page(pool, ALL)]
    assert paths == ["secrets/app/db", "secrets/app/db", "pki/certificates/cert_1"]


def test_a_written_value_is_on_record_with_its_name_and_provider(pool: Pool) -> None:
    order = placed("acme_order_1", NOW, "cert_1")
    order.accept(at_ca("pending"), NOW)
    order.offer_challenges(authorizations(), "thumb", NOW)
    record = order.outstanding_records[0]
    order.record_published(record, NOW)

    apply(pool, AUDIT_LOG, recorded(order))

    (row,) = page(pool, Criteria(action="dns_record_create"))
    assert row.extra_data == {
        "record_name": "_acme-challenge.a.example",
        "record_value": record.value,
        "dns_provider_id": "dns_1",
    }


def test_what_is_done_with_a_subscription_is_on_record(pool: Pool) -> None:
    webhook = subscription("sub_1", NOW)
    revise(webhook, NOW, url="https://new.example/", paths=("pki/a",))
    webhook.pause(NOW)
    webhook.resume(NOW)
    webhook.rotate_secret("sealed_2", timedelta(hours=24), NOW)
    webhook.secrets_shredded(("sealed_1",), NOW)
    webhook.request_replay("replay_1", 4, 9, NOW)
    webhook.replay_advanced("replay_1", 9, NOW)
    webhook.disable("only_failures", NOW)
    webhook.resume(NOW)
    webhook.unsubscribe(NOW)

    apply(pool, AUDIT_LOG, recorded(webhook))

    rows = page(pool, ALL)
    events = ["certificate.issued", "order.invalid"]
    assert {(row.resource_path, row.success) for row in rows} == {("subscriptions/sub_1", True)}
    assert [(row.action.removeprefix("subscription_"), row.extra_data) for row in rows] == [
        ("create", {"url": "https://hook.example/"}),
        ("update", {"url": "https://new.example/", "paths": ["pki/a"], "events": events, "identity_id": "tok_1"}),
        ("update", {"status": "paused"}),
        ("update", {"status": "active"}),
        ("update", {"secret": "rotated"}),
        ("update", {"secret": "destroyed"}),
        ("update", {"replay_id": "replay_1", "first": 5, "last": 9}),
        ("update", {"status": "disabled", "reason": "only_failures"}),
        ("update", {"status": "active"}),
        ("delete", {}),
    ]


def test_polling_is_on_record_where_it_was_taken_back_and_not_where_it_went_on(pool: Pool) -> None:
    polling = subscription("sub_1", NOW, url=None)

    apply(
        pool,
        AUDIT_LOG,
        recorded(polling, acknowledged("ack_1", "sub_1", (5,), 4, 5, NOW), rewound("ack_2", "sub_1", 2, NOW)),
    )

    assert [(row.action, row.resource_path, row.extra_data) for row in page(pool, ALL)] == [
        ("subscription_create", "subscriptions/sub_1", {"url": None}),
        ("subscription_update", "subscriptions/sub_1", {"first": 3}),
    ]


def test_each_attempt_of_a_delivery_is_on_record_and_what_somebody_made_of_it(pool: Pool) -> None:
    delivery, abandoned = owed("del_1", NOW), owed("del_2", NOW)
    delivery.attempt_failed(None, "no answer", None, 15000, 0.5, NOW)
    delivery.give_up(410, "the receiver answered 410", 7, NOW)
    delivery.reopen(NOW)
    delivery.delivered(204, 5, NOW)
    abandoned.abandon("the subscription is ended", NOW)
    tested = [
        subscription_tested(f"access_{number}", "sub_1", status, "an answer", NOW)
        for number, status in enumerate((None, 199, 200, 299, 300))
    ]

    apply(pool, AUDIT_LOG, recorded(delivery, abandoned, *tested))

    rows = page(pool, Criteria(action="webhook_delivery"))
    assert [(row.resource_path, row.success, row.extra_data) for row in rows] == [
        ("deliveries/del_1", False, {"status": None, "detail": "no answer"}),
        ("deliveries/del_1", False, {"status": 410, "detail": "the receiver answered 410", "given_up": True}),
        ("deliveries/del_1", True, {"reopened": True}),
        ("deliveries/del_1", True, {"status": 204}),
        ("deliveries/del_2", False, {"detail": "the subscription is ended", "given_up": True}),
        *(
            ("subscriptions/sub_1", is_taken, {"status": status, "detail": "an answer", "test": True})
            for status, is_taken in ((None, False), (199, False), (200, True), (299, True), (300, False))
        ),
    ]
    assert len(page(pool, ALL)) == len(rows)


def test_no_row_shows_a_secret_or_where_it_is_sealed(pool: Pool) -> None:
    apply(pool, AUDIT_LOG, told_in_memory())

    assert "sealed_" not in "".join(rows_as_text(pool, AUDIT_LOG))


# --- asking ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(pool: Pool) -> list[AuditRow]:
    """Five rows of one tenant, each different from the others, and one of another tenant."""
    provenances = [
        replace(BY, request_id=f"req_{number}", source_ip=f"192.0.2.{number}", identity_id=f"tok_{number}")
        for number in range(5)
    ]
    seconds = timedelta(seconds=1)
    subjects: list[Any] = [
        token("tok_a", NOW),
        request_refused("acc_1", "GET", "/v1/secrets/app_1", "access_denied", NOW + seconds),
        stored_secret("app/1", NOW + 2 * seconds),
        stored_secret("app/2", NOW + 3 * seconds),
        token("tok_b", NOW + 4 * seconds),
    ]
    for position, (subject, by) in enumerate(zip(subjects, provenances, strict=True)):
        apply(pool, AUDIT_LOG, recorded(subject, by=by, after=position))
    apply(pool, AUDIT_LOG, recorded(token("tok_c", NOW, OTHER_TENANT), by=BY_OTHER, after=5))
    return page(pool, ALL)


@pytest.mark.parametrize(
    ("criteria", "indexes"),
    [
        (ALL, [0, 1, 2, 3, 4]),
        (Criteria(since=NOW + timedelta(seconds=2)), [2, 3, 4]),
        (Criteria(until=NOW + timedelta(seconds=2)), [0, 1]),
        (Criteria(since=NOW + timedelta(seconds=1), until=NOW + timedelta(seconds=3)), [1, 2]),
        (Criteria(action="token_create"), [0, 4]),
        (Criteria(action="nothing_like_it"), []),
        (Criteria(identity_id="tok_3"), [3]),
        (Criteria(path_prefix="secrets/app/"), [2, 3]),
        (Criteria(path_prefix="secrets/app_"), [1]),
        (Criteria(path_prefix="secrets/%"), []),
        (Criteria(success=False), [1]),
        (Criteria(success=True), [0, 2, 3, 4]),
        (Criteria(request_id="req_2"), [2]),
        (Criteria(source_ip="192.0.2.4"), [4]),
        (Criteria(action="write", success=True, source_ip="192.0.2.3"), [3]),
    ],
)
def test_rows_are_found_by_all_the_criteria_given(
    criteria: Criteria, indexes: list[int], told: list[AuditRow], pool: Pool
) -> None:
    assert len(told) == 5
    assert [row.index for row in page(pool, criteria)] == indexes


def test_rows_come_in_pages(told: list[AuditRow], pool: Pool) -> None:
    pages = [AUDIT_LOG.page(pool, TENANT, after, 2, ALL) for after in (-1, 1, 3, 4)]

    assert [list(rows) for rows in pages] == [told[0:2], told[2:4], told[4:5], []]


def test_another_tenants_rows_are_not_shown(told: list[AuditRow], pool: Pool) -> None:
    assert {row.tenant_id for row in told} == {TENANT}
    assert [row.resource_path for row in page(pool, ALL, OTHER_TENANT)] == ["tokens/tok_c"]
    assert page(pool, ALL, "tnt_3") == []


def test_the_system_acts_without_request_or_address() -> None:
    (event,) = recorded(token("tok_1", NOW), by=Provenance(TENANT, "system", "issuance", causation="acme_order_1@3"))

    row = audit_row(3, event, RULES[type(event.event)])

    assert (row.identity_type, row.identity_id) == ("system", "issuance")
    assert (row.request_id, row.source_ip, row.user_agent) == (None, None, None)

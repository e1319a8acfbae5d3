"""How deliveries went, and sending again. No worker runs here: what is owed stays owed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.delivery import Delivery
from domain.subscription import Subscription
from domain.token import SCOPES
from tests.interfaces.http.client import (
    POLLING,
    Api,
    actions,
    record,
    record_certificate,
    record_delivery,
    refused,
    subscribe,
    wrong_fields,
)

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
FAR = 2**64


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


@pytest.fixture
def subscription_id(api: Api, token: str) -> str:
    identifier: str = subscribe(api, token)["id"]
    return identifier


def now() -> datetime:
    return datetime.now(UTC)


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def deliveries(api: Api, token: str, subscription_id: str, query: str = "") -> Mapping[str, Any]:
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/deliveries{query}", token)
    assert answer.status_code == 200, answer.text
    page: Mapping[str, Any] = answer.json()
    assert set(page) == {"data", "cursor", "has_more"}
    assert page["has_more"] is (page["cursor"] is not None)
    return page


def ids(page: Mapping[str, Any]) -> Sequence[str]:
    return [delivery["id"] for delivery in page["data"]]


def delivered(api: Api, subscription_id: str, at: datetime, position: int = 1) -> Delivery:
    delivery = record_delivery(api, subscription_id, position, at)
    delivery.delivered(204, 23, at)
    record(api, delivery)
    return delivery


def dead(api: Api, subscription_id: str, at: datetime, position: int = 1) -> Delivery:
    delivery = record_delivery(api, subscription_id, position, at)
    delivery.give_up(410, "the receiver answered 410", 41, at)
    record(api, delivery)
    return delivery


def failed(api: Api, subscription_id: str, at: datetime, position: int = 1) -> Delivery:
    delivery = record_delivery(api, subscription_id, position, at)
    delivery.attempt_failed(503, "the receiver answered 503", None, 87, 0.5, at)
    record(api, delivery)
    return delivery


# --- how they went ---


def test_each_delivery_says_of_what_it_is_and_how_it_went(api: Api, token: str, subscription_id: str) -> None:
    at = now()
    delivery = failed(api, subscription_id, at)
    (shown,) = deliveries(api, token, subscription_id)["data"]
    assert shown == {
        "id": delivery.id,
        "subscription_id": subscription_id,
        "event_id": shown["event_id"],
        "event_type": "certificate.renewed",
        "path": "pki/certificates/cert_1",
        "sequence": 1,
        "replay_id": None,
        "status": "pending",
        "attempts": 1,
        "last_attempt": {
            "at": text(at),
            "status": 503,
            "error": "the receiver answered 503",
            "duration_ms": 87,
        },
        "next_attempt_at": text(at + timedelta(seconds=5)),
        "created_at": text(at),
        "abandoned_reason": None,
        "completed_at": None,
        "response_body": None,
    }


def test_they_are_listed_the_earliest_first_and_by_status(api: Api, token: str, subscription_id: str) -> None:
    at = now()
    waiting = failed(api, subscription_id, at, 1).id
    taken = delivered(api, subscription_id, at, 2).id
    given_up = dead(api, subscription_id, at, 3).id
    untried = record_delivery(api, subscription_id, 4).id
    record_delivery(api, subscribe(api, token)["id"], 5)

    assert ids(deliveries(api, token, subscription_id)) == [waiting, taken, given_up, untried]
    assert ids(deliveries(api, token, subscription_id, "?status=pending")) == [waiting, untried]
    assert ids(deliveries(api, token, subscription_id, "?status=delivered")) == [taken]
    assert ids(deliveries(api, token, subscription_id, "?status=dead")) == [given_up]


@pytest.mark.parametrize("status", ["lost", "", "Dead", "active"])
def test_there_is_no_other_status(api: Api, token: str, subscription_id: str, status: str) -> None:
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/deliveries?status={status}", token)
    assert wrong_fields(answer, 400, "invalid_request") == {"status": "shape"}


def test_the_pages_give_each_once_and_in_order(api: Api, token: str, subscription_id: str) -> None:
    at = now()
    whole = [delivered(api, subscription_id, at, position).id for position in range(1, 6)]
    for limit in (1, 2, 4, 5, 6):
        found, query = list[str](), f"?limit={limit}"
        while True:
            page = deliveries(api, token, subscription_id, query)
            found.extend(ids(page))
            assert len(page["data"]) <= limit
            if not page["has_more"]:
                break
            query = f"?limit={limit}&cursor={page['cursor']}"
        assert found == whole


def test_a_page_of_a_status_goes_on_within_it(api: Api, token: str, subscription_id: str) -> None:
    at = now()
    mixed = [(delivered if position % 2 else dead)(api, subscription_id, at, position).id for position in range(1, 7)]
    first = deliveries(api, token, subscription_id, "?status=delivered&limit=2")
    rest = deliveries(api, token, subscription_id, f"?status=delivered&limit=2&cursor={first['cursor']}")
    assert [*ids(first), *ids(rest)] == mixed[0::2]
    assert not rest["has_more"]


@pytest.mark.parametrize("limit", [0, 1001, -1, 10**20])
def test_a_page_holds_one_to_a_thousand(api: Api, token: str, subscription_id: str, limit: int) -> None:
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/deliveries?limit={limit}", token)
    assert wrong_fields(answer) == {"limit": "out_of_range"}


@pytest.mark.parametrize("cursor", ["", "x", "5", "%C3%A9"])
def test_a_cursor_that_no_list_gave_is_refused(api: Api, token: str, subscription_id: str, cursor: str) -> None:
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/deliveries?cursor={cursor}", token)
    assert refused(answer) == (400, "invalid_cursor")


def test_dead_letters_are_listed_for_thirty_days_and_all_else_for_ever(
    api: Api, token: str, subscription_id: str
) -> None:
    long_ago, just_now = now() - 30 * DAY - MINUTE, now() - 30 * DAY + MINUTE
    forgotten = dead(api, subscription_id, long_ago, 1).id
    kept = dead(api, subscription_id, just_now, 2).id
    taken = delivered(api, subscription_id, long_ago, 3).id
    waiting = failed(api, subscription_id, long_ago, 4).id

    assert ids(deliveries(api, token, subscription_id)) == [kept, taken, waiting]
    assert ids(deliveries(api, token, subscription_id, "?status=dead")) == [kept]
    assert forgotten not in str(deliveries(api, token, subscription_id))


def test_a_page_of_nothing_but_forgotten_ones_still_says_how_to_go_on(
    api: Api, token: str, subscription_id: str
) -> None:
    for position in (1, 2):
        dead(api, subscription_id, now() - 31 * DAY, position)
    kept = dead(api, subscription_id, now(), 3).id
    first = deliveries(api, token, subscription_id, "?limit=2")
    assert (first["data"], first["has_more"]) == ([], True)
    assert ids(deliveries(api, token, subscription_id, f"?limit=2&cursor={first['cursor']}")) == [kept]


def test_a_polling_subscription_has_none(api: Api, token: str) -> None:
    assert deliveries(api, token, subscribe(api, token, POLLING)["id"])["data"] == []


# --- what receivers said ---


def test_what_the_receiver_said_last_is_shown_until_its_time_is_over(
    api: Api, token: str, subscription_id: str
) -> None:
    at = now()
    one, other = failed(api, subscription_id, at, 1), delivered(api, subscription_id, at, 2)
    responses = api.parts.services.responses
    responses.keep(one.id, 500, "try")
    responses.keep(one.id, 503, "try later")
    responses.keep(other.id, 204, "thank you")
    assert bodies(api, token, subscription_id) == {one.id: "try later", other.id: "thank you"}

    with api.parts.pool.connection() as connection:
        statement = "UPDATE delivery_responses SET expires_at = now() - interval '1 s' WHERE delivery_id = %s"
        connection.execute(statement, [one.id])
    assert bodies(api, token, subscription_id) == {one.id: None, other.id: "thank you"}


def bodies(api: Api, token: str, subscription_id: str) -> Mapping[str, str | None]:
    data = deliveries(api, token, subscription_id)["data"]
    return {delivery["id"]: delivery["response_body"] for delivery in data}


# --- again ---


def redeliver(api: Api, token: str, subscription_id: str, delivery_id: str) -> Any:
    return api.ask(f"POST /v1/subscriptions/{subscription_id}/deliveries/{delivery_id}/redeliver", token)


@pytest.mark.parametrize("make", [delivered, dead, failed])
def test_whatever_became_of_it_it_is_sent_again_from_the_first_attempt_on(
    api: Api, token: str, subscription_id: str, make: Any
) -> None:
    delivery = make(api, subscription_id, now() - DAY)
    before = deliveries(api, token, subscription_id)["data"][0]
    answer = redeliver(api, token, subscription_id, delivery.id)
    assert answer.status_code == 202
    shown = answer.json()
    assert (shown["status"], shown["attempts"], shown["completed_at"]) == ("pending", 0, None)
    assert shown["next_attempt_at"] > before["created_at"]
    assert shown["last_attempt"] == before["last_attempt"]
    assert deliveries(api, token, subscription_id)["data"] == [{**shown, "response_body": None}]
    with api.parts.pool.connection() as connection:
        row = connection.execute("SELECT due_at <= now(), lane FROM todo WHERE subject = %s", [delivery.id]).fetchone()
    assert row == (True, subscription_id)


def test_a_dead_letter_is_listed_as_pending_when_it_was_asked_for_again(
    api: Api, token: str, subscription_id: str
) -> None:
    delivery_id = dead(api, subscription_id, now() - 29 * DAY).id
    assert redeliver(api, token, subscription_id, delivery_id).status_code == 202
    assert ids(deliveries(api, token, subscription_id, "?status=pending")) == [delivery_id]


def test_a_dead_letter_that_is_listed_no_more_cannot_be_asked_for_either(
    api: Api, token: str, subscription_id: str
) -> None:
    delivery_id = dead(api, subscription_id, now() - 31 * DAY).id
    assert ids(deliveries(api, token, subscription_id)) == []
    assert refused(redeliver(api, token, subscription_id, delivery_id)) == (404, "delivery_not_found")


def test_one_can_be_asked_for_again_while_the_subscription_is_paused_but_not_when_it_is_disabled(
    api: Api, token: str, subscription_id: str
) -> None:
    delivery_id = dead(api, subscription_id, now()).id
    api.ask(f"PATCH /v1/subscriptions/{subscription_id}", token, {"status": "paused"})
    assert redeliver(api, token, subscription_id, delivery_id).status_code == 202

    disable(api, subscription_id)
    assert wrong_fields(redeliver(api, token, subscription_id, delivery_id)) == {"status": "disabled"}
    assert wrong_fields(replay(api, token, subscription_id, since=1)) == {"status": "disabled"}


def disable(api: Api, subscription_id: str) -> None:
    subscription = api.parts.store.load(Subscription, subscription_id)
    subscription.disable("gone", now())
    record(api, subscription)


def test_what_is_no_delivery_of_the_subscription_is_not_found(
    api: Api, token: str, subscription_id: str, elsewhere: str
) -> None:
    of_another = record_delivery(api, subscribe(api, token)["id"]).id
    theirs = subscribe(api, api.token(*SCOPES, tenant_id=elsewhere))["id"]
    of_a_stranger = record_delivery(api, theirs, tenant_id=elsewhere).id
    for delivery_id in ("del_x", subscription_id, of_another, of_a_stranger):
        answer = redeliver(api, token, subscription_id, delivery_id)
        assert refused(answer) == (404, "delivery_not_found"), delivery_id
    assert refused(redeliver(api, token, "sub_x", of_another)) == (404, "subscription_not_found")


def test_who_asked_for_it_again_is_on_record(api: Api, token: str, subscription_id: str) -> None:
    delivery_id = dead(api, subscription_id, now()).id
    redeliver(api, token, subscription_id, delivery_id)
    rows = api.ask("GET /v1/audit/logs?action=webhook_delivery", token).json()["logs"]
    assert [row["extra_data"] for row in rows if row["identity_type"] == "token"] == [{"reopened": True}]


# --- replaying ---


def replay(api: Api, token: str, subscription_id: str, since: Any, **more: Any) -> Any:
    return api.ask(f"POST /v1/subscriptions/{subscription_id}/replay", token, {"from": since, **more})


def told(api: Api, count: int = 1) -> list[tuple[int, datetime]]:
    """Where and when what is told of now stands; each is a certificate that was issued and renewed at once."""
    before = api.parts.services.polling._announcements.last_position()
    for _ in range(count):
        record_certificate(api, versions=2)
    with api.parts.pool.connection() as connection:
        query = (
            "SELECT position, at FROM announcements WHERE position > %s AND event_type = 'certificate.renewed' "
            "ORDER BY position"
        )
        return connection.execute(query, [before]).fetchall()


def replays(api: Api, subscription_id: str) -> list[tuple[int, int]]:
    """The first and last position of each that is asked for and not done."""
    subscription = api.parts.store.load(Subscription, subscription_id)
    return [(asked.after + 1, asked.upto) for asked in subscription.replays]


def test_what_happened_from_a_position_on_is_owed_again(api: Api, token: str, subscription_id: str) -> None:
    (first, _), (last, _) = told(api, 2)
    answer = replay(api, token, subscription_id, first)
    assert answer.status_code == 202
    assert answer.json() == {"first": first, "last": last, "count": 2, "counted_upto": last, "dry_run": False}
    assert replays(api, subscription_id) == [(first, last)]
    assert actions(api, token)[-1] == ("subscription_update", f"subscriptions/{subscription_id}", True)


def test_a_dry_run_counts_and_asks_for_nothing(api: Api, token: str, subscription_id: str) -> None:
    (first, _), (last, _) = told(api, 2)
    before = actions(api, token)
    answer = replay(api, token, subscription_id, first, dry_run=True)
    assert answer.status_code == 200
    assert answer.json() == {"first": first, "last": last, "count": 2, "counted_upto": last, "dry_run": True}
    assert replays(api, subscription_id) == []
    assert actions(api, token) == before


def test_both_ends_are_included_be_they_positions_or_times(api: Api, token: str, subscription_id: str) -> None:
    (first, at_first), (second, at_second), (third, at_third) = told(api, 3)

    def counted(since: Any, until: Any = None) -> int:
        more = {} if until is None else {"to": until}
        answer = replay(api, token, subscription_id, since, dry_run=True, **more)
        assert answer.status_code == 200, answer.text
        count: int = answer.json()["count"]
        return count

    assert [counted(since) for since in (first, first + 1, second, third, third + 1)] == [3, 2, 2, 1, 0]
    assert [counted(since.isoformat()) for since in (at_first, at_second, at_third)] == [3, 2, 1]
    assert counted((at_third + timedelta(microseconds=1)).isoformat()) == 0
    assert [counted(first, until) for until in (first, second - 1, second, third, third + 99)] == [1, 1, 2, 3, 3]
    assert [counted(first, until.isoformat()) for until in (at_first, at_second, at_third)] == [1, 2, 3]
    assert counted(first, (at_second - timedelta(microseconds=1)).isoformat()) == 1
    assert counted(at_second.isoformat(), second) == 1
    assert counted(second, at_first.isoformat()) == 0
    assert counted(third, first) == 0
    assert counted(at_third.isoformat(), at_first.isoformat()) == 0
    assert counted("0001-01-01T00:00:00Z") == counted(0) == counted(-5) == 3


def test_only_what_the_subscription_wants_today_counts(api: Api, token: str) -> None:
    wanted = api.ask("GET /v1/subscriptions", token).json()["data"]
    assert wanted == []
    (first, _), *_ = told(api, 2)
    nothing = subscribe(api, token, paths=["pki/certificates/cert_x"])["id"]
    named = subscribe(api, token, filters={"domains": ["other.example"]})["id"]
    issued = subscribe(api, token, events=["certificate.issued", "certificate.renewed"])["id"]
    counts = [
        replay(api, token, subscription_id, first - 1, dry_run=True).json()["count"]
        for subscription_id in (nothing, named, issued)
    ]
    assert counts == [0, 0, 4]


def test_another_tenants_events_are_not_replayed(api: Api, token: str, elsewhere: str) -> None:
    stranger = subscribe(api, api.token(*SCOPES, tenant_id=elsewhere))["id"]
    (first, at), *_ = told(api)
    theirs = api.token(*SCOPES, tenant_id=elsewhere)
    for since in (first, at.isoformat(), 0):
        assert replay(api, theirs, stranger, since, dry_run=True).json()["count"] == 0
    assert refused(replay(api, token, stranger, first)) == (404, "subscription_not_found")


def test_where_there_is_nothing_to_send_nothing_is_recorded(api: Api, token: str, subscription_id: str) -> None:
    told(api)
    before = actions(api, token)
    for since in (FAR, "2100-01-01T00:00:00Z"):
        answer = replay(api, token, subscription_id, since)
        assert (answer.status_code, answer.json()["count"]) == (202, 0)
    assert actions(api, token) == before
    assert replays(api, subscription_id) == []


BAD = ["yesterday", "", "5", "2026-13-01T00:00:00Z", "2026-01-01", 1.5, True, None, [], {}]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_neither_a_position_nor_a_time_is_a_400(
    api: Api, token: str, subscription_id: str, bad: object
) -> None:
    assert wrong_fields(replay(api, token, subscription_id, bad), 400, "invalid_request") == {"from": "shape"}
    if bad is not None:
        answer = replay(api, token, subscription_id, 1, to=bad)
        assert wrong_fields(answer, 400, "invalid_request") == {"to": "shape"}


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "from"), ({"to": 1}, "from"), ({"from": 1, "since": 2}, "since"), ({"from": 1, "dry_run": 1}, "dry_run")],
)
def test_what_is_no_replay_is_a_400_that_names_the_field(
    api: Api, token: str, subscription_id: str, body: dict[str, Any], field: str
) -> None:
    answer = api.ask(f"POST /v1/subscriptions/{subscription_id}/replay", token, body)
    assert wrong_fields(answer, 400, "invalid_request") == {field: "shape"}


@pytest.mark.parametrize("since", [FAR, -FAR, 10**400, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z"])
def test_however_far_away_its_beginning_is_a_place(api: Api, token: str, subscription_id: str, since: object) -> None:
    assert replay(api, token, subscription_id, since).status_code == 202


@pytest.mark.parametrize("until", [FAR, -FAR, 10**400, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_so_is_its_end(api: Api, token: str, subscription_id: str, until: object) -> None:
    assert replay(api, token, subscription_id, 1, to=until).status_code == 202


def test_so_is_the_last_time_there_is(api: Api, token: str, subscription_id: str) -> None:
    assert replay(api, token, subscription_id, 1, to="9999-12-31T23:59:59.999999Z").status_code == 202


# --- tenants and scopes ---


def test_deliveries_are_shown_to_those_who_may_read_the_subscription(
    api: Api, subscription_id: str, elsewhere: str
) -> None:
    delivery_id = record_delivery(api, subscription_id).id
    for reader in (api.token("subscriptions:read"), api.token("pki:admin")):
        assert ids(deliveries(api, reader, subscription_id)) == [delivery_id]
    for scopes in (("subscriptions:write",), ("pki:read",), ("audit:read",)):
        answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/deliveries", api.token(*scopes))
        assert refused(answer) == (403, "insufficient_scope")
    stranger = api.token("subscriptions:read", tenant_id=elsewhere)
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/deliveries", stranger)
    assert refused(answer) == (404, "subscription_not_found")


def test_sending_again_needs_to_write(api: Api, subscription_id: str) -> None:
    delivery_id = record_delivery(api, subscription_id).id
    reader, writer = api.token("subscriptions:read"), api.token("subscriptions:write")
    assert refused(redeliver(api, reader, subscription_id, delivery_id)) == (403, "insufficient_scope")
    assert refused(replay(api, reader, subscription_id, 1)) == (403, "insufficient_scope")
    assert redeliver(api, writer, subscription_id, delivery_id).status_code == 202
    assert replay(api, writer, subscription_id, 1).status_code == 202

"""Events for those who ask, without waiting for them: `test_long_polls.py` is about that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from domain.token import SCOPES
from interfaces.http.polling import MOST_AT_ONCE
from tests.interfaces.http.client import (
    POLLING,
    Api,
    actions,
    operator,
    record_certificate,
    record_order,
    refused,
    subscribe,
    token_id,
    wrong_fields,
)


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


@pytest.fixture
def polled(api: Api, token: str) -> str:
    """The id of a subscription to all certificates that are issued or renewed."""
    return polling(api, token)


def polling(api: Api, token: str, **delivery: Any) -> str:
    identifier: str = subscribe(api, token, POLLING, delivery={"type": "polling", **delivery})["id"]
    return identifier


def happen(api: Api, count: int) -> Sequence[str]:
    """The ids of so many events, in their order."""
    before = api.parts.services.polling._announcements.last_position()
    for _ in range(count):
        record_certificate(api)
    with api.parts.pool.connection() as connection:
        query = "SELECT event_id FROM announcements WHERE position > %s ORDER BY position"
        found = [event_id for (event_id,) in connection.execute(query, [before]).fetchall()]
    assert len(found) == count
    return found


def poll(api: Api, token: str, subscription_id: str, query: str = "") -> Mapping[str, Any]:
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/poll?timeout=0{query}", token)
    assert answer.status_code == 200, answer.text
    page: Mapping[str, Any] = answer.json()
    assert set(page) == {"data", "cursor", "has_more"}
    assert page["cursor"] == (page["data"][-1]["event_id"] if page["data"] else None)
    return page


def ids(page: Mapping[str, Any]) -> Sequence[str]:
    return [event["event_id"] for event in page["data"]]


def given(api: Api, token: str, subscription_id: str, query: str = "") -> Sequence[str]:
    return ids(poll(api, token, subscription_id, query))


def ack(api: Api, token: str, subscription_id: str, *event_ids: str) -> Any:
    return api.ask(f"POST /v1/subscriptions/{subscription_id}/ack", token, {"event_ids": event_ids})


def acked(api: Api, token: str, subscription_id: str, *event_ids: str) -> None:
    answer = ack(api, token, subscription_id, *event_ids)
    assert (answer.status_code, answer.json()) == (200, {"acknowledged": len(event_ids)})


def replayed(api: Api, token: str, subscription_id: str, since: Any) -> None:
    answer = api.ask(f"POST /v1/subscriptions/{subscription_id}/replay", token, {"from": since})
    assert answer.status_code == 202, answer.text


def position(api: Api, event_id: str) -> int:
    return api.parts.services.polling._announcements.positions(api.tenant_id, [event_id])[event_id]


# --- what is given out ---


def test_where_nothing_happened_there_is_nothing(api: Api, token: str, polled: str) -> None:
    assert poll(api, token, polled) == {"data": [], "cursor": None, "has_more": False}


def test_what_happens_is_given_out_as_it_is_sent_to_webhooks(api: Api, token: str, polled: str) -> None:
    first, second = happen(api, 2)
    answer = api.ask(f"GET /v1/subscriptions/{polled}/poll?timeout=0", token)
    with api.parts.pool.connection() as connection:
        query = "SELECT body FROM announcements WHERE event_id = ANY(%s) ORDER BY position"
        bodies = [body for (body,) in connection.execute(query, [[first, second]]).fetchall()]
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == f'{{"data":[{",".join(bodies)}],"cursor":"{second}","has_more":false}}'
    event = answer.json()["data"][0]
    assert (event["event_id"], event["event_type"], event["tenant_id"]) == (first, "certificate.issued", api.tenant_id)


def test_what_was_not_acknowledged_is_given_out_again(api: Api, token: str, polled: str) -> None:
    events = happen(api, 2)
    assert given(api, token, polled) == given(api, token, polled) == events


def test_what_happened_before_it_was_subscribed_to_is_not_given_out(api: Api, token: str) -> None:
    happen(api, 2)
    assert given(api, token, polling(api, token)) == []


def test_only_what_is_asked_for_is_given_out(api: Api, token: str, elsewhere: str) -> None:
    orders = subscribe(api, token, POLLING, paths=["pki/acme/orders/*"], events=["order.invalid"])["id"]
    renewals = subscribe(api, token, POLLING, events=["certificate.renewed"])["id"]
    named = subscribe(api, token, POLLING, filters={"domains": ["*.other.example"]})["id"]
    stranger = api.token(*SCOPES, tenant_id=elsewhere)
    theirs = polling(api, stranger)
    order_id = record_order(api)
    api.ask(f"POST /v1/pki/acme/orders/{order_id}/cancel", token)
    certificate_id = record_certificate(api, versions=2)

    assert [event["path"] for event in poll(api, token, orders)["data"]] == [f"pki/acme/orders/{order_id}"]
    assert [event["path"] for event in poll(api, token, renewals)["data"]] == [f"pki/certificates/{certificate_id}"]
    assert given(api, token, named) == []
    assert given(api, stranger, theirs) == []


def test_revised_terms_hold_for_what_comes_after_them(api: Api, token: str, polled: str) -> None:
    before = list(happen(api, 2))
    api.ask(f"PATCH /v1/subscriptions/{polled}", token, {"events": ["certificate.renewed"]})
    assert given(api, token, polled) == before
    happen(api, 1)
    assert given(api, token, polled) == before
    api.ask(f"PATCH /v1/subscriptions/{polled}", token, {"events": ["certificate.issued"]})
    assert given(api, token, polled) == before


def test_no_more_are_given_out_at_once_than_asked_for(api: Api, token: str, polled: str) -> None:
    events = happen(api, 3)
    page = poll(api, token, polled, "&max_events=2")
    assert (ids(page), page["cursor"], page["has_more"]) == (events[:2], events[1], True)
    page = poll(api, token, polled, "&max_events=3")
    assert (ids(page), page["has_more"]) == (events, False)


@pytest.mark.parametrize("most", [0, -1, 1001, 10**20])
def test_between_one_and_a_thousand_can_be_asked_for(api: Api, token: str, polled: str, most: int) -> None:
    answer = api.ask(f"GET /v1/subscriptions/{polled}/poll?timeout=0&max_events={most}", token)
    assert wrong_fields(answer) == {"max_events": "out_of_range"}


@pytest.mark.parametrize("timeout", [-1, 61, 10**20])
def test_nobody_waits_longer_than_a_minute_or_less_than_not_at_all(
    api: Api, token: str, polled: str, timeout: int
) -> None:
    answer = api.ask(f"GET /v1/subscriptions/{polled}/poll?timeout={timeout}", token)
    assert wrong_fields(answer) == {"timeout": "out_of_range"}


@pytest.mark.parametrize("query", ["timeout=1.5", "timeout=", "timeout=soon", "max_events=1.5", "max_events=many"])
def test_a_query_of_a_wrong_type_is_named(api: Api, token: str, polled: str, query: str) -> None:
    answer = api.ask(f"GET /v1/subscriptions/{polled}/poll?{query}", token)
    assert wrong_fields(answer, 400, "invalid_request") == {query.partition("=")[0]: "shape"}


@pytest.mark.parametrize("timeout", ["", "?timeout=60"])
def test_where_there_is_something_nobody_waits(api: Api, token: str, polled: str, timeout: str) -> None:
    events = happen(api, 1)
    assert ids(api.ask(f"GET /v1/subscriptions/{polled}/poll{timeout}", token).json()) == events


# --- from an event on ---


def test_who_keeps_their_own_place_gets_what_is_behind_it(api: Api, token: str, polled: str) -> None:
    events = happen(api, 4)
    acked(api, token, polled, *events[:3])
    assert given(api, token, polled, f"&since_event_id={events[0]}") == events[1:]
    page = poll(api, token, polled, f"&since_event_id={events[0]}&max_events=2")
    assert (ids(page), page["has_more"]) == (events[1:3], True)
    assert given(api, token, polled, f"&since_event_id={page['cursor']}") == events[3:]
    assert given(api, token, polled, f"&since_event_id={events[-1]}") == []


def test_a_place_may_be_an_event_that_was_not_asked_for_or_came_before(api: Api, token: str) -> None:
    before = happen(api, 2)
    subscription_id = subscribe(api, token, POLLING, events=["certificate.renewed"])["id"]
    assert given(api, token, subscription_id, f"&since_event_id={before[0]}") == []
    record_certificate(api, versions=2)
    assert len(given(api, token, subscription_id, f"&since_event_id={before[0]}")) == 1


def test_a_place_is_an_event_of_the_tenant(api: Api, token: str, polled: str, elsewhere: str) -> None:
    (mine,) = happen(api, 1)
    stranger = api.token(*SCOPES, tenant_id=elsewhere)
    theirs = polling(api, stranger)
    for subscription_id, asking, event_id in ((polled, token, "evt_x"), (polled, token, ""), (theirs, stranger, mine)):
        answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/poll?timeout=0&since_event_id={event_id}", asking)
        assert wrong_fields(answer) == {"since_event_id": "unknown"}


# --- acknowledging ---


def test_what_is_acknowledged_is_not_given_out_again(api: Api, token: str, polled: str) -> None:
    events = happen(api, 3)
    acked(api, token, polled, events[0])
    assert given(api, token, polled) == events[1:]
    acked(api, token, polled, *events[1:])
    assert given(api, token, polled) == []
    later = happen(api, 1)
    assert given(api, token, polled) == later


def test_it_may_be_acknowledged_in_any_order(api: Api, token: str, polled: str) -> None:
    events = happen(api, 4)
    acked(api, token, polled, events[2])
    assert given(api, token, polled) == [*events[:2], events[3]]
    acked(api, token, polled, events[3], events[0])
    assert given(api, token, polled) == [events[1]]
    acked(api, token, polled, events[1])
    assert given(api, token, polled) == []


def test_acknowledging_twice_is_no_error_and_records_nothing(api: Api, token: str, polled: str) -> None:
    events = happen(api, 2)
    acked(api, token, polled, *events)
    before = api.parts.store.recorder.max_notification_id()
    acked(api, token, polled, *events)
    acked(api, token, polled, events[0])
    assert api.parts.store.recorder.max_notification_id() == before


def test_an_event_that_was_never_given_out_here_changes_nothing(api: Api, token: str) -> None:
    (before,) = happen(api, 1)
    subscription_id = subscribe(api, token, POLLING, events=["certificate.renewed"])["id"]
    record_certificate(api, versions=2)
    waiting = given(api, token, subscription_id)
    acked(api, token, subscription_id, before)
    assert given(api, token, subscription_id) == waiting


def test_an_event_that_nobody_knows_is_named_and_none_is_acknowledged(
    api: Api, token: str, polled: str, elsewhere: str
) -> None:
    events = happen(api, 1)
    answer = ack(api, token, polled, events[0], "evt_x")
    assert wrong_fields(answer) == {"event_ids": "unknown"}
    assert "evt_x" in answer.json()["error"]["message"]
    assert given(api, token, polled) == events

    stranger = api.token(*SCOPES, tenant_id=elsewhere)
    assert wrong_fields(ack(api, stranger, polling(api, stranger), *events)) == {"event_ids": "unknown"}


@pytest.mark.parametrize("count", [0, MOST_AT_ONCE + 1])
def test_one_to_a_thousand_are_acknowledged_at_once(api: Api, token: str, polled: str, count: int) -> None:
    assert wrong_fields(ack(api, token, polled, *["evt_x"] * count)) == {"event_ids": "out_of_range"}


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "event_ids"), ({"event_ids": "evt_x"}, "event_ids"), ({"event_ids": [1]}, "event_ids[0]")],
)
def test_what_is_no_acknowledgement_is_a_400_that_names_the_field(
    api: Api, token: str, polled: str, body: dict[str, Any], field: str
) -> None:
    answer = api.ask(f"POST /v1/subscriptions/{polled}/ack", token, body)
    assert wrong_fields(answer, 400, "invalid_request") == {field: "shape"}


def test_each_subscription_has_a_place_of_its_own(api: Api, token: str, polled: str) -> None:
    other = polling(api, token)
    events = happen(api, 2)
    acked(api, token, polled, *events)
    assert (given(api, token, polled), given(api, token, other)) == ([], events)


# --- the buffer ---


def test_no_more_are_given_out_than_the_buffer_holds_until_they_are_acknowledged(api: Api, token: str) -> None:
    subscription_id = polling(api, token, buffer_size=2)
    events = happen(api, 4)
    page = poll(api, token, subscription_id)
    assert (ids(page), page["has_more"]) == (events[:2], False)
    acked(api, token, subscription_id, events[1])
    assert given(api, token, subscription_id)[0] == events[0]
    assert len(given(api, token, subscription_id)) <= 2
    acked(api, token, subscription_id, events[0])
    assert given(api, token, subscription_id) == events[2:]


def test_what_is_beyond_the_buffer_can_be_acknowledged_too(api: Api, token: str) -> None:
    """Somebody who keeps their own place has seen it."""
    subscription_id = polling(api, token, buffer_size=1)
    events = happen(api, 3)
    acked(api, token, subscription_id, events[2])
    assert given(api, token, subscription_id) == events[:1]
    acked(api, token, subscription_id, events[0], events[1])
    assert given(api, token, subscription_id) == []


def test_it_goes_on_behind_a_buffer_full_of_what_was_acknowledged_before(api: Api, token: str) -> None:
    subscription_id = polling(api, token, buffer_size=1)
    events = happen(api, 3)
    acked(api, token, subscription_id, events[1])
    acked(api, token, subscription_id, events[0])
    assert given(api, token, subscription_id) == events[2:]


def test_a_smaller_buffer_goes_on_where_others_were_acknowledged_out_of_order(api: Api, token: str) -> None:
    subscription_id = polling(api, token, buffer_size=3)
    events = happen(api, 4)
    acked(api, token, subscription_id, events[1], events[2])
    api.ask(f"PATCH /v1/subscriptions/{subscription_id}", token, {"delivery": {"buffer_size": 1}})
    acked(api, token, subscription_id, events[0])
    assert given(api, token, subscription_id) == events[3:]


# --- again ---


def test_from_a_position_on_all_are_given_out_again(api: Api, token: str, polled: str) -> None:
    events = happen(api, 3)
    acked(api, token, polled, *events)
    replayed(api, token, polled, position(api, events[1]))
    assert given(api, token, polled) == events[1:]
    acked(api, token, polled, *events[1:])
    assert given(api, token, polled) == []


def test_also_what_happened_before_it_was_subscribed_to(api: Api, token: str) -> None:
    events = happen(api, 2)
    subscription_id = polling(api, token)
    replayed(api, token, subscription_id, position(api, events[0]))
    assert given(api, token, subscription_id) == events


def test_a_time_is_as_good_as_a_position(api: Api, token: str, polled: str) -> None:
    events = happen(api, 2)
    acked(api, token, polled, *events)
    replayed(api, token, polled, poll(api, token, polled, f"&since_event_id={events[0]}")["data"][0]["timestamp"])
    assert given(api, token, polled) == events[1:]


def test_a_replay_of_polling_has_no_end_and_counting_takes_nothing_back(api: Api, token: str, polled: str) -> None:
    events = happen(api, 2)
    acked(api, token, polled, *events)
    line, first = f"POST /v1/subscriptions/{polled}/replay", position(api, events[0])
    answer = api.ask(line, token, {"from": first, "dry_run": True})
    assert (answer.status_code, answer.json()["count"]) == (200, 2)
    assert wrong_fields(api.ask(line, token, {"from": first, "to": first})) == {"to": "invalid"}
    assert given(api, token, polled) == []


def test_who_had_it_given_out_again_is_on_record(api: Api, token: str, polled: str) -> None:
    events = happen(api, 1)
    replayed(api, token, polled, position(api, events[0]))
    path = f"subscriptions/{polled}"
    assert [act for act in actions(api, token) if act[1] == path] == [
        ("subscription_create", path, True),
        ("subscription_update", path, True),
    ]


def test_a_replay_from_later_on_loses_nothing_that_was_not_acknowledged(api: Api, token: str, polled: str) -> None:
    events = happen(api, 3)
    replayed(api, token, polled, position(api, events[2]))
    assert given(api, token, polled) == events


@pytest.mark.parametrize("ahead", [50, 2**62])
def test_a_replay_from_what_has_not_happened_yet_loses_nothing_of_it(
    api: Api, token: str, polled: str, ahead: int
) -> None:
    replayed(api, token, polled, api.parts.services.polling._announcements.last_position() + ahead)
    events = happen(api, 2)
    assert given(api, token, polled) == events


def test_however_far_away_its_beginning_is_a_place(api: Api, token: str, polled: str) -> None:
    replayed(api, token, polled, 2**64)


# --- whose they are ---


def test_a_subscription_is_polled_by_its_owner_alone(api: Api, token: str, polled: str) -> None:
    (event_id,) = happen(api, 1)
    for other in (api.token(*SCOPES), api.token("admin", "subscriptions:read"), api.token("pki:admin")):
        answer = api.ask(f"GET /v1/subscriptions/{polled}/poll?timeout=0", other)
        assert refused(answer) == (403, "access_denied")
        assert refused(ack(api, other, polled, event_id)) == (403, "access_denied")
    assert given(api, token, polled) == [event_id]


def test_it_goes_on_with_whom_it_is_handed_over_to(api: Api, token: str, polled: str) -> None:
    events = happen(api, 2)
    acked(api, token, polled, events[0])
    heir = api.token("subscriptions:read")
    changed = api.ask(f"PATCH /v1/subscriptions/{polled}", token, {"identity_id": token_id(heir)})
    assert changed.status_code == 200
    assert given(api, heir, polled) == events[1:]
    assert refused(api.ask(f"GET /v1/subscriptions/{polled}/poll?timeout=0", token)) == (403, "access_denied")


def test_reading_is_enough_to_poll_and_to_acknowledge(api: Api) -> None:
    for scopes in (("pki:admin",), ("subscriptions:read", "subscriptions:write")):
        token = api.token(*scopes)
        subscription_id = polling(api, token)
        events = happen(api, 1)
        assert given(api, token, subscription_id) == events
        acked(api, token, subscription_id, *events)
    writer = api.token("subscriptions:write")
    answer = api.ask(f"GET /v1/subscriptions/{polling(api, writer)}/poll?timeout=0", writer)
    assert refused(answer) == (403, "insufficient_scope")
    assert answer.json()["error"]["details"] == {"required": "subscriptions:read"}


def test_a_webhook_is_not_polled(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token)["id"]
    (event_id,) = happen(api, 1)
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/poll?timeout=0", token)
    assert wrong_fields(answer) == {"delivery.type": "not_polling"}
    assert wrong_fields(ack(api, token, subscription_id, event_id)) == {"delivery.type": "not_polling"}


def test_a_token_that_was_revoked_gets_nothing_more(api: Api, token: str, polled: str) -> None:
    happen(api, 1)
    api.parts.tokens.revoke(token_id(token), operator(api.tenant_id))
    assert refused(api.ask(f"GET /v1/subscriptions/{polled}/poll?timeout=0", token)) == (401, "token_revoked")

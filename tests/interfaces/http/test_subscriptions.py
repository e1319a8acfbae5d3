"""Who is told of what: subscribing, and all that can be done with a subscription."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from application.ports import WebhookRequest, WebhookResponse
from domain.announcement import EVENT_TYPES
from domain.subscription import Subscription
from domain.token import SCOPES, Limits
from projections.catch_up import catch_up
from projections.delivery_statistics import DELIVERY_STATISTICS
from tests.interfaces.http.client import (
    ADDRESSES,
    POLLING,
    SUBSCRIPTION,
    Api,
    actions,
    record,
    record_certificate,
    record_delivery,
    refused,
    stored_text,
    subscribe,
    token_id,
    wrong_fields,
)
from tests.servers.https import Answer, Asked, ca_bundle_pem, serving

OWN_SECRET = "0123456789abcdef"
STATISTICS = {"deliveries_24h": 0, "success_rate_24h": None, "mean_latency_ms_24h": None, "last_delivery_at": None}
FORBIDDEN = ["https://10.0.0.1/", "https://[::1]/", "https://private.example/", "http://8.8.8.8/", "http://127.1/"]


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


def webhook(**delivery: Any) -> dict[str, Any]:
    return {"delivery": {**SUBSCRIPTION["delivery"], **delivery}}


def shown(api: Api, token: str, subscription_id: str) -> Mapping[str, Any]:
    answer = api.ask(f"GET /v1/subscriptions/{subscription_id}", token)
    assert answer.status_code == 200, answer.text
    document: Mapping[str, Any] = answer.json()
    return document


def revise(api: Api, token: str, subscription_id: str, **changes: Any) -> Any:
    return api.ask(f"PATCH /v1/subscriptions/{subscription_id}", token, changes)


def revised(api: Api, token: str, subscription_id: str, **changes: Any) -> Mapping[str, Any]:
    answer = revise(api, token, subscription_id, **changes)
    assert answer.status_code == 200, answer.text
    document: Mapping[str, Any] = answer.json()
    return document


def ids(api: Api, token: str) -> Sequence[str]:
    return [subscription["id"] for subscription in api.ask("GET /v1/subscriptions", token).json()["data"]]


def disable(api: Api, subscription_id: str) -> None:
    """As a receiver does that answers 410."""
    subscription = api.parts.store.load(Subscription, subscription_id)
    subscription.disable("gone", datetime.now(UTC))
    record(api, subscription)


def events(api: Api) -> int:
    return api.parts.store.recorder.max_notification_id() or 0


# --- subscribing ---


def test_a_generated_secret_is_shown_this_once(api: Api, token: str) -> None:
    answer = api.ask("POST /v1/subscriptions", token, SUBSCRIPTION)
    assert answer.status_code == 201
    subscription = answer.json()
    assert answer.headers["location"] == f"/v1/subscriptions/{subscription['id']}"
    secret = subscription["delivery"].pop("secret")
    assert secret.startswith("whsec_")
    assert len(secret) == len("whsec_") + 44
    assert subscription == {
        "id": subscription["id"],
        "name": "renewals",
        "status": "active",
        "disabled_reason": None,
        "paths": ["pki/certificates/*"],
        "events": ["certificate.renewed"],
        "filters": {"domains": []},
        "delivery": {"type": "webhook", "url": "https://hooks.example/scaivault", "ordered": False},
        "identity_id": token_id(token),
        "created_at": subscription["created_at"],
        "statistics": STATISTICS,
    }
    assert subscription["id"].startswith("sub_")
    later = api.ask(f"GET {answer.headers['location']}", token)
    assert later.json() == subscription
    (listed,) = api.ask("GET /v1/subscriptions", token).json()["data"]
    assert listed == {name: value for name, value in subscription.items() if name != "statistics"}
    assert secret not in stored_text(api)


def test_a_secret_of_ones_own_is_never_shown(api: Api, token: str) -> None:
    answer = api.ask("POST /v1/subscriptions", token, {**SUBSCRIPTION, **webhook(secret=OWN_SECRET)})
    assert answer.status_code == 201
    assert "secret" not in answer.json()["delivery"]
    assert OWN_SECRET not in answer.text
    assert OWN_SECRET not in stored_text(api)


def test_a_polling_subscription_has_no_address_and_no_secret(api: Api, token: str) -> None:
    subscription = subscribe(api, token, POLLING, delivery={"type": "polling", "buffer_size": 50})
    assert subscription["delivery"] == {"type": "polling", "buffer_size": 50}
    assert subscription["statistics"] is None
    assert shown(api, token, subscription["id"]) == subscription
    assert subscribe(api, token, POLLING)["delivery"] == {"type": "polling", "buffer_size": 1000}


def test_all_that_can_be_wished_for_is_shown(api: Api, token: str) -> None:
    delivery = {"type": "webhook", "url": "https://hooks.example/", "ca_bundle_pem": ca_bundle_pem(), "ordered": True}
    wish = {
        "name": "everything",
        "paths": ["pki/**", "pki/certificates/cert_?"],
        "events": list(EVENT_TYPES),
        "filters": {"domains": ["*.acme.example", "acme.example"]},
    }
    subscription = subscribe(api, token, {**wish, "delivery": {**delivery, "secret": OWN_SECRET}})
    assert {name: subscription[name] for name in wish} == wish
    assert subscription["delivery"] == delivery


def test_event_types_are_kept_once_and_in_the_catalogues_order(api: Api, token: str) -> None:
    asked = ["order.invalid", "certificate.issued", "order.invalid"]
    assert subscribe(api, token, events=asked)["events"] == ["certificate.issued", "order.invalid"]


@pytest.mark.parametrize("domain", ["", "x" * 254, "[ab].example", "a b", "*ü.example"])
def test_what_can_take_no_name_is_no_glob(api: Api, token: str, domain: str) -> None:
    filters = {"domains": ["a.example", domain]}
    answer = api.ask("POST /v1/subscriptions", token, {**SUBSCRIPTION, "filters": filters})
    assert wrong_fields(answer, 400, "invalid_glob") == {"filters.domains[1]": "invalid_glob"}
    subscription_id = subscribe(api, token)["id"]
    answer = revise(api, token, subscription_id, filters=filters)
    assert wrong_fields(answer, 400, "invalid_glob") == {"filters.domains[1]": "invalid_glob"}


def test_domains_are_shown_in_the_form_in_which_names_are(api: Api, token: str) -> None:
    subscribed = subscribe(api, token, filters={"domains": ["*.ACME.example", "bücher.example."]})
    assert subscribed["filters"] == {"domains": ["*.acme.example", "xn--bcher-kva.example"]}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"paths": []}, {"paths": "required"}),
        ({"events": []}, {"events": "required"}),
        ({"paths": [f"pki/{number}" for number in range(101)]}, {"paths": "too_many"}),
        ({"events": ["certificate.renewed"] * 101}, {"events": "too_many"}),
        ({"filters": {"domains": ["a.example"] * 101}}, {"filters.domains": "too_many"}),
        ({"events": ["certificate.renewed", "certificate.lost"]}, {"events[1]": "unknown"}),
        ({"events": ["subscription.test"]}, {"events[0]": "unknown"}),
        (webhook(url="ftp://hooks.example/"), {"delivery.url": "invalid"}),
        (webhook(url="https://"), {"delivery.url": "invalid"}),
        (webhook(url="https://u:p@hooks.example/"), {"delivery.url": "invalid"}),
        (webhook(url=None), {"delivery.url": "required"}),
        (webhook(secret="0123456789abcde"), {"delivery.secret": "length"}),
        (webhook(secret="x" * 513), {"delivery.secret": "length"}),
        (webhook(ca_bundle_pem="no bundle"), {"delivery.ca_bundle_pem": "invalid"}),
        ({"delivery": {"type": "polling", "url": "https://hooks.example/"}}, {"delivery.url": "not_a_webhook"}),
        ({"delivery": {"type": "polling", "secret": OWN_SECRET}}, {"delivery.secret": "not_a_webhook"}),
        ({"delivery": {"type": "polling", "ca_bundle_pem": "x"}}, {"delivery.ca_bundle_pem": "not_a_webhook"}),
        ({"delivery": {"type": "polling", "ordered": False}}, {"delivery.ordered": "not_a_webhook"}),
        (webhook(buffer_size=1000), {"delivery.buffer_size": "not_polling"}),
        ({"delivery": {"type": "polling", "buffer_size": 0}}, {"delivery.buffer_size": "out_of_range"}),
        ({"delivery": {"type": "polling", "buffer_size": 10_001}}, {"delivery.buffer_size": "out_of_range"}),
        ({"paths": ["/pki"], "events": []}, {"paths[0]": "invalid_glob", "events": "required"}),
    ],
)
def test_what_a_subscription_cannot_be_is_said_by_field(
    api: Api, token: str, change: dict[str, Any], wrong: dict[str, str]
) -> None:
    answer = api.ask("POST /v1/subscriptions", token, {**SUBSCRIPTION, **change})
    assert wrong_fields(answer) == wrong
    assert "0123456789abcde" not in answer.text
    assert ids(api, token) == []


GLOBS = ["/pki/**", "pki//x", "", "pki/***", "pki/a**", "pki/[ab]", "pki/ä", "x" * 513, "pki/" + "*a" * 17]


@pytest.mark.parametrize("glob", GLOBS)
def test_a_glob_that_is_none_is_a_400(api: Api, token: str, glob: str) -> None:
    answer = api.ask("POST /v1/subscriptions", token, {**SUBSCRIPTION, "paths": ["pki/**", glob]})
    assert wrong_fields(answer, 400, "invalid_glob") == {"paths[1]": "invalid_glob"}


@pytest.mark.parametrize("url", FORBIDDEN)
def test_an_address_that_must_not_be_dialled_is_refused_at_once(api: Api, token: str, url: str) -> None:
    answer = api.ask("POST /v1/subscriptions", token, {**SUBSCRIPTION, **webhook(url=url)})
    assert wrong_fields(answer) == {"delivery.url": "forbidden_address"}
    if "private" in url:
        assert "10.0.0.1" not in answer.text  # which address a name has is ours to know
    assert ids(api, token) == []


@pytest.mark.parametrize("url", ["https://nowhere.example/", "https://public.example/", "http://127.0.0.1:1/"])
def test_a_name_without_an_address_may_have_one_later(api: Api, token: str, url: str) -> None:
    assert subscribe(api, token, **webhook(url=url))["delivery"]["url"] == url


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"delivery": {"type": "email", "url": "https://hooks.example/"}}, "delivery.type"),
        ({"delivery": {"url": "https://hooks.example/"}}, "delivery.type"),
        (webhook(surprise=1), "delivery.surprise"),
        (webhook(ordered="true"), "delivery.ordered"),
        (webhook(buffer_size="5"), "delivery.buffer_size"),
        (webhook(secret=1), "delivery.secret"),
        ({"filters": {"domain": ["a.example"]}}, "filters.domain"),
        ({"filters": {"domains": "a.example"}}, "filters.domains"),
        ({"filters": {"domains": [1]}}, "filters.domains[0]"),
        ({"status": "paused"}, "status"),
    ],
)
def test_what_is_no_subscription_is_a_400_that_names_the_field(
    api: Api, token: str, change: dict[str, Any], field: str
) -> None:
    answer = api.ask("POST /v1/subscriptions", token, {**SUBSCRIPTION, **change})
    assert wrong_fields(answer, 400, "invalid_request") == {field: "shape"}


# --- who may ---


@pytest.mark.parametrize("glob", ["pki/**", "pki/certificates/*", "pki/certificates/cert_?", "pki/x"])
def test_who_administers_the_pki_may_do_all_to_what_lies_under_it(api: Api, glob: str) -> None:
    admin = api.token("pki:admin")
    subscription_id = subscribe(api, admin, paths=[glob])["id"]
    assert ids(api, admin) == [subscription_id]
    assert shown(api, admin, subscription_id)["paths"] == [glob]
    assert revised(api, admin, subscription_id, paths=["pki/y"])["paths"] == ["pki/y"]
    for line, status in (
        (f"POST /v1/subscriptions/{subscription_id}/rotate-secret", 200),
        (f"POST /v1/subscriptions/{subscription_id}/test", 200),
        (f"GET /v1/subscriptions/{subscription_id}/deliveries", 200),
        (f"DELETE /v1/subscriptions/{subscription_id}", 204),
    ):
        assert api.ask(line, admin).status_code == status, line


@pytest.mark.parametrize("paths", [["**"], ["secrets/**"], ["pki/**", "secrets/a"], ["pki*/x"], ["pki"], ["*/x"]])
def test_more_than_that_needs_the_scope(api: Api, paths: list[str]) -> None:
    admin, writer, reader = api.token("pki:admin"), api.token("subscriptions:write"), api.token("subscriptions:read")
    answer = api.ask("POST /v1/subscriptions", admin, {**SUBSCRIPTION, "paths": paths})
    assert refused(answer) == (403, "insufficient_scope")
    assert answer.json()["error"]["details"] == {"required": "subscriptions:write"}

    beyond = subscribe(api, writer, paths=paths)["id"]
    below = subscribe(api, admin)["id"]
    delivery_id = record_delivery(api, beyond).id
    assert (ids(api, admin), ids(api, reader)) == ([below], [beyond, below])
    for line in (f"GET /v1/subscriptions/{beyond}", f"GET /v1/subscriptions/{beyond}/deliveries"):
        answer = api.ask(line, admin)
        assert answer.json()["error"]["details"] == {"required": "subscriptions:read"}, line
        assert refused(answer) == (403, "insufficient_scope")
        assert api.ask(line, reader).status_code == 200
    for line, body in (
        (f"PATCH /v1/subscriptions/{beyond}", {"paths": ["pki/x"]}),
        (f"PATCH /v1/subscriptions/{below}", {"paths": paths}),
        (f"POST /v1/subscriptions/{beyond}/rotate-secret", {}),
        (f"POST /v1/subscriptions/{beyond}/test", None),
        (f"POST /v1/subscriptions/{beyond}/replay", {"from": 1}),
        (f"POST /v1/subscriptions/{beyond}/deliveries/{delivery_id}/redeliver", None),
        (f"DELETE /v1/subscriptions/{beyond}", None),
    ):
        answer = api.ask(line, admin) if body is None else api.ask(line, admin, body)
        assert refused(answer) == (403, "insufficient_scope"), line
        assert answer.json()["error"]["details"] == {"required": "subscriptions:write"}


def test_reading_the_pki_is_not_enough_to_subscribe_to_it(api: Api) -> None:
    for token in (api.token("pki:read"), api.token("pki:issue"), api.token("subscriptions:read")):
        assert api.ask("POST /v1/subscriptions", token, SUBSCRIPTION).status_code == 403


def test_a_token_for_certain_certificates_hears_of_those_alone(api: Api, token: str) -> None:
    mine, other = record_certificate(api), record_certificate(api)
    edge = api.token("pki:admin", "subscriptions:write", limits=Limits(certificate_ids=(mine,)))
    for paths in (["pki/**"], ["pki/certificates/*"], [f"pki/certificates/{other}"], ["pki/acme/orders/*"]):
        body = {**SUBSCRIPTION, "paths": [f"pki/certificates/{mine}", *paths]}
        assert refused(api.ask("POST /v1/subscriptions", edge, body)) == (403, "access_denied")

    subscription_id = subscribe(api, edge, paths=[f"pki/certificates/{mine}"])["id"]
    assert revised(api, edge, subscription_id, name="mine")["name"] == "mine"
    assert refused(revise(api, edge, subscription_id, paths=["pki/**"])) == (403, "access_denied")

    wide = subscribe(api, token, paths=["pki/**"])["id"]
    assert refused(revise(api, edge, wide, delivery={"url": "https://mine.example/"})) == (403, "access_denied")
    assert shown(api, token, wide)["delivery"]["url"] == SUBSCRIPTION["delivery"]["url"]


def test_a_token_for_certain_names_cannot_subscribe_as_no_path_says_which(api: Api) -> None:
    limited = api.token("subscriptions:write", limits=Limits(dns_names=("*.acme.example",)))
    for paths in (["pki/**"], ["pki/certificates/cert_1"]):
        answer = api.ask("POST /v1/subscriptions", limited, {**SUBSCRIPTION, "paths": paths})
        assert refused(answer) == (403, "access_denied")


# --- revising ---


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"name": "revised"}, "name", "revised"),
        ({"paths": ["pki/a", "pki/b"]}, "paths", ["pki/a", "pki/b"]),
        ({"events": ["order.invalid"]}, "events", ["order.invalid"]),
        ({"filters": {"domains": ["b.example"]}}, "filters", {"domains": ["b.example"]}),
        ({"filters": {}}, "filters", {"domains": []}),
        ({"status": "paused"}, "status", "paused"),
    ],
)
def test_what_is_left_out_stays(api: Api, token: str, change: dict[str, Any], field: str, value: Any) -> None:
    made = subscribe(api, token, filters={"domains": ["a.example"]}, **webhook(secret=OWN_SECRET, ordered=True))
    changed = revised(api, token, made["id"], **change)
    assert changed == {**made, field: value}
    assert shown(api, token, made["id"]) == changed


@pytest.mark.parametrize(
    ("change", "delivery"),
    [
        ({"url": "https://new.example/"}, {"url": "https://new.example/"}),
        ({"ordered": False}, {"ordered": False}),
        ({"ca_bundle_pem": None}, {"ca_bundle_pem": None}),
        ({}, {}),
    ],
)
def test_so_it_does_within_the_delivery(api: Api, token: str, change: dict[str, Any], delivery: dict[str, Any]) -> None:
    made = subscribe(api, token, **webhook(secret=OWN_SECRET, ordered=True, ca_bundle_pem=ca_bundle_pem()))
    changed = revised(api, token, made["id"], delivery=change)
    expected = {name: value for name, value in {**made["delivery"], **delivery}.items() if value is not None}
    assert changed == {**made, "delivery": expected}


def test_the_buffer_of_a_polling_subscription_can_be_revised(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token, POLLING)["id"]
    delivery = revised(api, token, subscription_id, delivery={"buffer_size": 7})["delivery"]
    assert delivery == {"type": "polling", "buffer_size": 7}


def test_a_revision_that_changes_nothing_records_nothing(api: Api, token: str) -> None:
    made = subscribe(api, token)
    before = events(api)
    same = {"name": made["name"], "paths": made["paths"], "status": "active", "identity_id": made["identity_id"]}
    for changes in ({}, same, {"delivery": {"url": made["delivery"]["url"]}}):
        assert revise(api, token, made["id"], **changes).status_code == 200
    assert events(api) == before


def test_it_is_paused_and_resumed(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token)["id"]
    statuses = [
        revised(api, token, subscription_id, status=status)["status"]
        for status in ("paused", "paused", "active", "active")
    ]
    assert statuses == ["paused", "paused", "active", "active"]
    assert [action for action, _, _ in actions(api, token)] == [
        "subscription_create",
        "subscription_update",
        "subscription_update",
    ]


def test_one_that_was_disabled_says_why_and_is_made_active_again(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token)["id"]
    disable(api, subscription_id)
    found = shown(api, token, subscription_id)
    assert (found["status"], found["disabled_reason"]) == ("disabled", "gone")

    assert revised(api, token, subscription_id, status="paused")["status"] == "disabled"
    active = revised(api, token, subscription_id, status="active")
    assert (active["status"], active["disabled_reason"]) == ("active", None)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"paths": []}, {"paths": "required"}),
        ({"events": []}, {"events": "required"}),
        ({"events": ["certificate.lost"]}, {"events[0]": "unknown"}),
        ({"delivery": {"url": "ftp://hooks.example/"}}, {"delivery.url": "invalid"}),
        ({"delivery": {"url": "https://private.example/"}}, {"delivery.url": "forbidden_address"}),
        ({"delivery": {"ca_bundle_pem": "no bundle"}}, {"delivery.ca_bundle_pem": "invalid"}),
        ({"delivery": {"buffer_size": 5}}, {"delivery.buffer_size": "not_polling"}),
        ({"identity_id": "tok_nobody"}, {"identity_id": "unknown"}),
    ],
)
def test_what_it_cannot_become_is_said_by_field_and_it_stays_as_it_was(
    api: Api, token: str, change: dict[str, Any], wrong: dict[str, str]
) -> None:
    subscription_id = subscribe(api, token)["id"]
    before = shown(api, token, subscription_id)
    assert wrong_fields(revise(api, token, subscription_id, name="revised", **change)) == wrong
    assert shown(api, token, subscription_id) == before


@pytest.mark.parametrize("glob", GLOBS)
def test_a_revised_glob_that_is_none_is_a_400(api: Api, token: str, glob: str) -> None:
    answer = revise(api, token, subscribe(api, token)["id"], paths=[glob])
    assert wrong_fields(answer, 400, "invalid_glob") == {"paths[0]": "invalid_glob"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": None}, "name"),
        ({"paths": None}, "paths"),
        ({"status": "disabled"}, "status"),
        ({"status": None}, "status"),
        ({"delivery": {"url": None}}, "delivery.url"),
        ({"delivery": {"type": "polling"}}, "delivery.type"),
        ({"delivery": {"secret": OWN_SECRET}}, "delivery.secret"),
        ({"delivery": {"ordered": None}}, "delivery.ordered"),
        ({"identity_id": None}, "identity_id"),
        ({"created_at": "2026-01-01T00:00:00Z"}, "created_at"),
    ],
)
def test_what_is_no_revision_is_a_400_that_names_the_field(
    api: Api, token: str, change: dict[str, Any], field: str
) -> None:
    answer = revise(api, token, subscribe(api, token)["id"], **change)
    assert wrong_fields(answer, 400, "invalid_request") == {field: "shape"}
    assert OWN_SECRET not in answer.text


def test_a_subscription_stays_what_it_is(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token, POLLING)["id"]
    answer = revise(api, token, subscription_id, delivery={"url": "https://hooks.example/"})
    assert wrong_fields(answer) == {"delivery.url": "invalid"}


def test_polling_takes_no_bundle_later_either(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token, POLLING)["id"]
    answer = revise(api, token, subscription_id, delivery={"ca_bundle_pem": ca_bundle_pem()})
    assert "delivery.ca_bundle_pem" in wrong_fields(answer)


def test_an_address_that_stays_is_not_judged_again(api: Api, token: str) -> None:
    """Each attempt looks again: here it only stands in nobody's way."""
    subscription_id = subscribe(api, token, **webhook(url="https://nowhere.example/"))["id"]
    subscription = api.parts.store.load(Subscription, subscription_id)
    terms = {name: getattr(subscription, name) for name in ("identity_id", "name", "paths", "event_types")}
    subscription.revise(
        **terms,
        dns_names=(),
        ordered=False,
        buffer_size=1000,
        url="https://private.example/",
        ca_bundle_pem=None,
        now=datetime.now(UTC),
    )
    record(api, subscription)
    assert revised(api, token, subscription_id, status="paused")["status"] == "paused"


def test_who_owns_it_may_hand_it_over_and_others_need_to_be_admin(api: Api) -> None:
    owner, heir, other = (api.token("subscriptions:read", "subscriptions:write") for _ in range(3))
    admin = api.token("subscriptions:write", "admin")
    subscription_id = subscribe(api, owner)["id"]
    owner_id, heir_id = token_id(owner), token_id(heir)

    answer = revise(api, other, subscription_id, identity_id=token_id(other))
    assert refused(answer) == (403, "insufficient_scope")
    assert answer.json()["error"]["details"] == {"required": "admin"}
    assert revised(api, owner, subscription_id, identity_id=heir_id)["identity_id"] == heir_id
    assert refused(revise(api, owner, subscription_id, identity_id=owner_id)) == (403, "insufficient_scope")
    assert revised(api, owner, subscription_id, identity_id=heir_id, name="named")["name"] == "named"
    assert revise(api, admin, subscription_id, identity_id=owner_id).status_code == 200
    assert shown(api, owner, subscription_id)["identity_id"] == owner_id


def test_it_is_handed_to_no_token_of_another_tenant(api: Api, token: str, elsewhere: str) -> None:
    stranger = api.token("subscriptions:read", tenant_id=elsewhere)
    answer = revise(api, token, subscribe(api, token)["id"], identity_id=token_id(stranger))
    assert wrong_fields(answer) == {"identity_id": "unknown"}


# --- the end ---


def test_a_deleted_one_is_there_no_longer(api: Api, token: str) -> None:
    webhook_id, polling_id = subscribe(api, token)["id"], subscribe(api, token, POLLING)["id"]
    delivery_id = record_delivery(api, webhook_id).id
    for subscription_id in (webhook_id, polling_id):
        answer = api.ask(f"DELETE /v1/subscriptions/{subscription_id}", token)
        assert (answer.status_code, answer.content) == (204, b"")
    assert ids(api, token) == []
    for subscription_id in (webhook_id, polling_id, "sub_x"):
        base = f"/v1/subscriptions/{subscription_id}"
        for line, body in (
            (f"GET {base}", None),
            (f"PATCH {base}", {"status": "active"}),
            (f"DELETE {base}", None),
            (f"POST {base}/rotate-secret", {}),
            (f"POST {base}/test", None),
            (f"GET {base}/deliveries", None),
            (f"POST {base}/deliveries/{delivery_id}/redeliver", None),
            (f"POST {base}/replay", {"from": 1}),
            (f"GET {base}/poll?timeout=0", None),
            (f"POST {base}/ack", {"event_ids": ["evt_x"]}),
        ):
            answer = api.ask(line, token) if body is None else api.ask(line, token, body)
            assert refused(answer) == (404, "subscription_not_found"), line


def test_what_is_done_with_one_is_on_record(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token)["id"]
    revise(api, token, subscription_id, name="revised")
    api.ask(f"POST /v1/subscriptions/{subscription_id}/rotate-secret", token)
    api.ask(f"DELETE /v1/subscriptions/{subscription_id}", token)
    acts = ["subscription_create", "subscription_update", "subscription_update", "subscription_delete"]
    assert actions(api, token) == [(act, f"subscriptions/{subscription_id}", True) for act in acts]


# --- tenants ---


def test_tenants_see_and_change_nothing_of_each_other(api: Api, token: str, elsewhere: str) -> None:
    stranger = api.token(*SCOPES, tenant_id=elsewhere)
    webhook_id, polling_id = subscribe(api, token)["id"], subscribe(api, token, POLLING)["id"]
    delivery_id = record_delivery(api, webhook_id).id
    before = [shown(api, token, subscription_id) for subscription_id in (webhook_id, polling_id)]
    for subscription_id in (webhook_id, polling_id):
        base = f"/v1/subscriptions/{subscription_id}"
        for line, body in (
            (f"PATCH {base}", {"name": "theirs"}),
            (f"DELETE {base}", None),
            (f"POST {base}/rotate-secret", {}),
            (f"POST {base}/test", None),
            (f"GET {base}/deliveries", None),
            (f"POST {base}/deliveries/{delivery_id}/redeliver", None),
            (f"POST {base}/replay", {"from": 1}),
            (f"GET {base}/poll?timeout=0", None),
            (f"POST {base}/ack", {"event_ids": ["evt_x"]}),
        ):
            answer = api.ask(line, stranger) if body is None else api.ask(line, stranger, body)
            assert refused(answer) == (404, "subscription_not_found"), line
    assert ids(api, stranger) == []
    assert [shown(api, token, subscription_id) for subscription_id in (webhook_id, polling_id)] == before


# --- secrets ---


def rotate(api: Api, token: str, subscription_id: str, **body: Any) -> Any:
    return api.ask(f"POST /v1/subscriptions/{subscription_id}/rotate-secret", token, body)


def test_a_rotated_secret_is_shown_this_once_with_the_end_of_the_one_before(api: Api, token: str) -> None:
    made = subscribe(api, token)
    begun = datetime.now(UTC).replace(microsecond=0)
    answer = api.ask(f"POST /v1/subscriptions/{made['id']}/rotate-secret", token)
    assert answer.status_code == 200
    rotated = answer.json()
    assert set(rotated) == {"secret", "previous_secret_until"}
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["delivery"]["secret"]
    until = datetime.fromisoformat(rotated["previous_secret_until"])
    assert begun + timedelta(hours=24) <= until <= datetime.now(UTC) + timedelta(hours=24)
    delivery = shown(api, token, made["id"])["delivery"]
    assert delivery["previous_secret_until"] == rotated["previous_secret_until"]
    assert "secret" not in delivery
    assert rotated["secret"] not in stored_text(api)


def test_a_secret_of_ones_own_comes_in_its_place_and_is_not_shown(api: Api, token: str) -> None:
    answer = rotate(api, token, subscribe(api, token)["id"], secret=OWN_SECRET, overlap="1h")
    assert answer.status_code == 200
    assert set(answer.json()) == {"previous_secret_until"}
    assert OWN_SECRET not in stored_text(api)


@pytest.mark.parametrize("overlap", ["", "0h", "1", "h", "1 h", "-1h", "1w", "1.5h", "99999999999h", "1H"])
def test_an_overlap_that_is_no_duration_is_a_400(api: Api, token: str, overlap: str) -> None:
    subscription_id = subscribe(api, token)["id"]
    answer = rotate(api, token, subscription_id, overlap=overlap)
    assert wrong_fields(answer, 400, "invalid_duration") == {"overlap": "invalid_duration"}
    assert "previous_secret_until" not in shown(api, token, subscription_id)["delivery"]


@pytest.mark.parametrize(("overlap", "status"), [("30d", 200), ("720h", 200), ("31d", 422), ("36500d", 422)])
def test_an_overlap_is_at_most_thirty_days(api: Api, token: str, overlap: str, status: int) -> None:
    answer = rotate(api, token, subscribe(api, token)["id"], overlap=overlap)
    assert answer.status_code == status
    if status == 422:
        assert wrong_fields(answer) == {"overlap": "too_long"}


@pytest.mark.parametrize("secret", ["", "0123456789abcde", "x" * 513])
def test_a_new_secret_is_no_shorter_and_no_longer_than_the_first(api: Api, token: str, secret: str) -> None:
    answer = rotate(api, token, subscribe(api, token)["id"], secret=secret)
    assert wrong_fields(answer) == {"secret": "length"}


@pytest.mark.parametrize("action", ["rotate-secret", "test"])
def test_polling_has_no_secret_and_nothing_to_try(api: Api, token: str, action: str) -> None:
    answer = api.ask(f"POST /v1/subscriptions/{subscribe(api, token, POLLING)['id']}/{action}", token)
    assert wrong_fields(answer) == {"delivery.type": "not_a_webhook"}


# --- trying a receiver ---


def try_it(api: Api, token: str, subscription_id: str) -> Mapping[str, Any]:
    answer = api.ask(f"POST /v1/subscriptions/{subscription_id}/test", token)
    assert answer.status_code == 200, answer.text
    document: Mapping[str, Any] = answer.json()
    return document


def signature(secret: str, asked: Asked) -> str:
    signed = f"{asked.headers['X-ScaiVault-Timestamp']}.".encode() + asked.body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def test_a_trial_is_sent_at_once_and_its_outcome_told(api: Api, token: str) -> None:
    with serving(lambda _: Answer(202, body=b"thank you"), tls=False) as receiver:
        made = subscribe(api, token, **webhook(url=f"http://receiver.example:{receiver.port}/hook"))
        tried = try_it(api, token, made["id"])
        (asked,) = receiver.asked
    assert tried == {
        "delivered": True,
        "event_id": asked.headers["X-ScaiVault-Event-Id"],
        "status": 202,
        "error": None,
        "duration_ms": tried["duration_ms"],
        "response_body": "thank you",
    }
    assert (asked.method, asked.path) == ("POST", "/hook")
    assert asked.headers["X-ScaiVault-Event-Type"] == "subscription.test"
    assert asked.headers["X-ScaiVault-Signature"] == signature(made["delivery"]["secret"], asked)


def test_what_is_sent_to_try_it_looks_like_any_event_and_is_in_no_history(api: Api, token: str) -> None:
    before = api.parts.services.polling._announcements.last_position()
    with serving(lambda _: Answer(), tls=False) as receiver:
        made = subscribe(api, token, **webhook(url=f"http://127.0.0.1:{receiver.port}/"))
        answer = api.ask(f"POST /v1/subscriptions/{made['id']}/test", token)
        body = json.loads(receiver.asked[0].body)
    assert body == {
        "event_id": answer.json()["event_id"],
        "event_type": "subscription.test",
        "timestamp": body["timestamp"],
        "tenant_id": api.tenant_id,
        "identity_id": token_id(token),
        "path": f"subscriptions/{made['id']}",
        "sequence": 0,
        "data": {"subscription_id": made["id"]},
        "request_id": answer.headers["x-request-id"],
    }
    assert api.parts.services.polling._announcements.last_position() == before
    assert api.ask(f"GET /v1/subscriptions/{made['id']}/deliveries", token).json()["data"] == []


def test_during_an_overlap_it_is_signed_with_both_secrets_the_new_one_first(api: Api, token: str) -> None:
    with serving(lambda _: Answer(), tls=False) as receiver:
        made = subscribe(api, token, **webhook(url=f"http://127.0.0.1:{receiver.port}/"))
        rotated = rotate(api, token, made["id"]).json()
        try_it(api, token, made["id"])
        rotate(api, token, made["id"], secret=OWN_SECRET)
        try_it(api, token, made["id"])
    first, second = receiver.asked
    signed = first.headers["X-ScaiVault-Signature"].split()
    assert signed == [signature(rotated["secret"], first), signature(made["delivery"]["secret"], first)]
    signed = second.headers["X-ScaiVault-Signature"].split()
    assert signed == [signature(OWN_SECRET, second), signature(rotated["secret"], second)]


def test_a_receiver_that_does_not_take_it_is_no_error_of_ours(api: Api, token: str) -> None:
    with serving(lambda _: Answer(503, body=b"try later"), tls=False) as receiver:
        subscription_id = subscribe(api, token, **webhook(url=f"http://127.0.0.1:{receiver.port}/"))["id"]
        tried = try_it(api, token, subscription_id)
    assert (tried["delivered"], tried["status"], tried["response_body"]) == (False, 503, "try later")
    assert tried["error"] == "the receiver answered 503"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://nowhere.example/"])
def test_neither_is_one_that_cannot_be_reached(api: Api, token: str, url: str) -> None:
    tried = try_it(api, token, subscribe(api, token, **webhook(url=url))["id"])
    assert (tried["delivered"], tried["status"], tried["response_body"]) == (False, None, "")
    assert tried["error"]


def test_a_trial_that_is_answered_with_410_disables_nothing(api: Api, token: str) -> None:
    with serving(lambda _: Answer(410), tls=False) as receiver:
        subscription_id = subscribe(api, token, **webhook(url=f"http://127.0.0.1:{receiver.port}/"))["id"]
        assert try_it(api, token, subscription_id)["status"] == 410
    assert shown(api, token, subscription_id)["status"] == "active"


def test_a_receiver_may_have_a_root_of_its_own(api: Api, token: str) -> None:
    with serving(lambda _: Answer()) as receiver:
        url = f"https://127.0.0.1:{receiver.port}/"
        trusted = subscribe(api, token, **webhook(url=url, ca_bundle_pem=ca_bundle_pem()))["id"]
        unknown = subscribe(api, token, **webhook(url=url))["id"]
        assert try_it(api, token, trusted)["delivered"] is True
        assert try_it(api, token, unknown)["delivered"] is False
    assert len(receiver.asked) == 1


def test_what_a_receiver_says_is_told_without_secrets(api: Api, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Talkative:
        def send(self, request: WebhookRequest) -> WebhookResponse:
            said = f"{request.headers['X-ScaiVault-Signature']} {OWN_SECRET} Bearer skt_0123_x \0\xff".encode("latin-1")
            return WebhookResponse(500, None, said)

    made = subscribe(api, token, **webhook(secret="whsec_" + OWN_SECRET))
    monkeypatch.setattr(api.parts.services.subscriptions._webhooks, "_sender", Talkative())
    body = try_it(api, token, made["id"])["response_body"]
    assert "sha256=" not in body
    assert "skt_" not in body
    assert "\0" not in body


def test_a_trial_is_on_record_whatever_came_of_it(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token, **webhook(url="https://nowhere.example/"))["id"]
    try_it(api, token, subscription_id)
    rows = api.ask("GET /v1/audit/logs?action=webhook_delivery", token).json()["logs"]
    assert [(row["resource_path"], row["identity_id"]) for row in rows] == [
        (f"subscriptions/{subscription_id}", token_id(token))
    ]
    assert rows[0]["extra_data"] == {"status": None, "detail": rows[0]["extra_data"]["detail"], "test": True}


def test_an_address_that_came_to_be_forbidden_is_not_dialled(
    api: Api, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription_id = subscribe(api, token, **webhook(url="https://nowhere.example/"))["id"]
    monkeypatch.setitem(ADDRESSES, "nowhere.example", "10.0.0.1")
    tried = try_it(api, token, subscription_id)
    assert (tried["delivered"], tried["status"]) == (False, None)
    assert "10.0.0.1" not in tried["error"]


# --- statistics ---


def test_the_statistics_tell_of_the_last_day(api: Api, token: str) -> None:
    subscription_id = subscribe(api, token)["id"]
    now = datetime.now(UTC)
    delivery = record_delivery(api, subscription_id)
    delivery.attempt_failed(503, "the receiver answered 503", None, 40, 0.5, now)
    delivery.delivered(204, 20, now)
    record(api, delivery)
    old = record_delivery(api, subscription_id, position=2)
    old.delivered(204, 99, now - timedelta(days=2))
    record(api, old)
    catch_up(api.parts.pool, DELIVERY_STATISTICS, api.parts.history.read)

    assert shown(api, token, subscription_id)["statistics"] == {
        "deliveries_24h": 2,
        "success_rate_24h": 0.5,
        "mean_latency_ms_24h": 30.0,
        "last_delivery_at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def test_times_are_in_utc_with_a_z_and_whole_seconds(api: Api, token: str) -> None:
    made = subscribe(api, token)
    rotated = rotate(api, token, made["id"]).json()
    for time in (made["created_at"], rotated["previous_secret_until"]):
        assert len(time) == len("2026-01-01T00:00:00Z")
        assert time.endswith("Z")

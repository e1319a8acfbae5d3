"""C13: the CA has closed an account, does not know it, or has forgotten everything."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.rate_limits import of_account
from tests.prove.fault_scenarios.stage import Stage, stage
from tests.prove.fault_scenarios.suggested import Windows, from_now
from tests.servers.ca_faults import drop_after, problem, still_processing, untouched
from tests.servers.ca_proxy import SIGNED, Fault, Passing
from tests.servers.https import Answer

ORDERS = 3
HELD_SECONDS = 20.0
OPENS, CLOSES = timedelta(seconds=20), timedelta(seconds=21)
MOST_REQUESTS_EACH = 3  # the order's own, the question whether the account is there, and one that was on its way


def lost(folder: Path, findings: Findings, short: bool) -> None:
    del short
    windows = Windows()
    with stage(folder, suggest=windows) as on:
        refused = [
            *_closed(on, findings),
            *_unknown(on, findings),
            *_forgotten(on, findings, windows),
        ]
        on.tally(findings, refused=refused)


def _closed(on: Stage, findings: Findings) -> Sequence[str]:
    """At the CA, and nobody here knows of it: the answer to our own deactivation is lost."""
    account_id = on.register("closed")
    on.proxy.fail_next("account", drop_after)
    answer = on.client.try_delete(f"/v1/pki/acme/accounts/{account_id}")
    (told,) = on.proxy.since(0).at("account")
    findings.equal("deactivated: the CA's answer, and what was heard", (told.status, told.told), (200, 0))
    findings.equal(
        "deactivated: the account here", (answer.is_success, _account(on, account_id)["status"]), (False, "active")
    )
    begun = len(on.proxy.exchanges)
    orders = _placed_together(on, "closed", account_id, untouched)
    _stop(on, findings, "deactivated", account_id, orders, begun)
    on.proxy.recover()
    return orders


def _unknown(on: Stage, findings: Findings) -> Sequence[str]:
    """The CA knows the others, who are served."""
    account_id = on.register("unknown")
    is_its_own = of_account(_account(on, account_id)["account_url"])
    no_such = problem("accountDoesNotExist", 400)

    def fault(passing: Passing) -> Answer:
        return no_such(passing) if is_its_own(passing) else passing.pass_on()

    def look_up(passing: Passing) -> Answer:
        return no_such(passing) if passing.payload.get("onlyReturnExisting") else passing.pass_on()

    on.proxy.fail_at_rate(1.0, look_up, ["new-account"])
    on.proxy.fail_at_rate(1.0, fault, [each for each in SIGNED if each not in {"new-account", "new-order"}])
    begun = len(on.proxy.exchanges)
    orders = _placed_together(on, "unknown", account_id, fault)
    _stop(on, findings, "unknown", account_id, orders, begun)
    findings.equal("unknown: another account's order", on.ended(on.place("known"))["status"], "valid")
    on.proxy.recover()
    return orders


def _forgotten(on: Stage, findings: Findings, windows: Windows) -> Sequence[str]:
    """Orders are in progress, and a renewal falls due that was switched off for so long."""
    windows.rule = _soon
    certificate_id = on.issue("renewed")
    on.asked_again_at(certificate_id)
    _renews_by_itself(on, certificate_id, wanted=False)
    on.proxy.fail_at_rate(1.0, still_processing(2), ["finalize", "order"])
    orders = [on.place(f"in-progress-{number}") for number in range(ORDERS)]
    for order_id in orders:
        on.wait_for_row("orders", order_id, lambda order: bool(order["phase"] == "finalizing"), "it is finalized")
    on.ca.kill()
    on.proxy.recover()
    begun = len(on.proxy.exchanges)
    on.ca.start()
    _stop(on, findings, "forgotten", on.account_id, orders, begun)

    begun = len(on.proxy.exchanges)
    _renews_by_itself(on, certificate_id, wanted=True)
    on.wait_for(certificate_id, lambda shown: bool(shown["renewal"]["last_error"]), "its renewal fails")
    again = (on.due_at("renewal", certificate_id) - datetime.now(UTC)).total_seconds()
    findings.between("forgotten: s until a renewal that fell due is tried again", 30, again, 61)
    findings.equal("forgotten: signed requests for it", len(on.proxy.since(begun).at(*SIGNED)), 0)

    other = on.register("after")
    findings.equal("forgotten: an order of a new account", on.ended(on.place("after", other))["status"], "valid")
    return orders


def _placed_together(on: Stage, label: str, account_id: str, fault: Fault) -> Sequence[str]:
    """No newOrder is answered before all are placed, which would be refused afterwards."""
    are_placed = threading.Event()

    def held(passing: Passing) -> Answer:
        are_placed.wait(HELD_SECONDS)
        return fault(passing)

    on.proxy.fail_at_rate(1.0, held, ["new-order"])
    orders = [on.place(f"{label}-{number}", account_id) for number in range(ORDERS)]
    are_placed.set()
    return orders


def _soon() -> Answer:
    return from_now(OPENS, CLOSES)


def _renews_by_itself(on: Stage, certificate_id: str, *, wanted: bool) -> None:
    on.client.patch(f"/v1/pki/certificates/{certificate_id}", {"auto_renew": wanted})


def _stop(on: Stage, findings: Findings, what: str, account_id: str, orders: Sequence[str], begun: int) -> None:
    """They end, it is told once, and the CA is left alone."""
    ended = [on.ended(order_id) for order_id in orders]
    told = {(order["status"], order["error"]["code"]) for order in ended}
    findings.equal(f"{what}: {len(orders)} orders end", told, {("invalid", "backend_error")})
    shown = _account(on, account_id)
    findings.check(
        f"{what}: the account", f"{shown['status']}: {shown['status_message']}", holds=shown["status"] == "lost"
    )
    findings.equal(f"{what}: times that it is told", on.topics(account_id).count("account.lost"), 1)
    findings.equal(f"{what}: failures in the audit log", len(_alarms(on, account_id)), 1)
    requests = len(on.proxy.since(begun).at(*SIGNED))
    findings.between(f"{what}: signed requests in all", 2, requests, MOST_REQUESTS_EACH * len(orders))
    answer = on.try_issue(f"{what}-later", account_id)
    findings.equal(
        f"{what}: the next order", (answer.status_code, answer.json()["error"]["code"]), (422, "validation_error")
    )
    findings.equal(f"{what}: signed requests for it", len(on.proxy.since(begun).at(*SIGNED)) - requests, 0)


def _account(on: Stage, account_id: str) -> Any:
    return on.client.get(f"/v1/pki/acme/accounts/{account_id}")


def _alarms(on: Stage, account_id: str) -> Sequence[Any]:
    rows = on.client.get("/v1/audit/logs", action="acme_account_update", success="false")["logs"]
    return [row for row in rows if account_id in str(row)]


SCENARIOS = [Scenario("C13", "account deactivated, unknown, CA forgot everything", lost)]

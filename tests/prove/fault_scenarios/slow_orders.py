"""C5 and C6: the CA takes its time over an order that was finalized, or is not ready for what it had said to be ready for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf
from pathlib import Path
from urllib.parse import urlsplit

from tests.prove.fault_scenarios.by_name import ending_in, names_in, reworded_for
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Serve, Stage, stage
from tests.servers.ca_faults import as_processing, problem, reworded
from tests.servers.ca_proxy import NO_ANSWER, Exchange, Passing
from tests.servers.https import Answer
from tests.servers.process import wait_until

LATE_SECONDS = 10.0  # on a busy machine
LONGEST_WAIT_SECONDS = 300.0
TOLERANCE_SECONDS = 0.05
LEASE_SECONDS = 15.0
PROCESSING_ENDS_IN = timedelta(seconds=32)
NEVER_READY_ENDS_IN = timedelta(seconds=12)
TIMES_REFUSED = 3
MOST_TRIES = 7  # the waits double from half a second on


@dataclass(frozen=True)
class Span:
    """How long an order is `processing`, and when the CA wants to be asked about it."""

    seconds: float
    retry_after_seconds: float | None = None


class SlowCa:
    """Holds the orders for the names of `spans` in `processing`, each from its finalize on. The service dies as soon as the
    CA has acted upon the finalize of `fatal`."""

    def __init__(self, spans: Mapping[str, Span], fatal: str, service: Serve) -> None:
        self._spans, self._fatal, self._service = spans, fatal, service
        self.begun: dict[str, float] = {}
        """By name: when the CA was given the finalize (monotonic)."""
        self.has_killed = threading.Event()

    def finalize(self, passing: Passing) -> Answer:
        answer = self.order(passing)
        if self._fatal in self.begun and not self.has_killed.is_set():
            self._service.kill()
            self.has_killed.set()
            return NO_ANSWER
        return answer

    def order(self, passing: Passing) -> Answer:
        answer = passing.pass_on()
        said = json.loads(answer.body)
        (name, *_) = names_in(said) or [""]
        if name not in self._spans or said["status"] not in {"processing", "valid"}:
            return answer
        begun, span = self.begun.setdefault(name, time.monotonic()), self._spans[name]
        if time.monotonic() < begun + span.seconds:
            return as_processing(answer, span.retry_after_seconds)
        return answer


def processing(folder: Path, findings: Findings, short: bool) -> None:
    spans = {
        "second": Span(1),
        "minutes": Span(10, 2) if short else Span(600, 20),
        "unheard": Span(5, 2),
        "ever": Span(inf, 2),
    }
    with stage(folder) as on:
        slow = SlowCa({f"{label}.{ZONE}": span for label, span in spans.items()}, f"unheard.{ZONE}", on.service)
        on.proxy.fail_at_rate(1.0, reworded_for({f"ever.{ZONE}": ending_in(PROCESSING_ENDS_IN)}), ["new-order"])
        on.proxy.fail_at_rate(1.0, slow.finalize, ["finalize"])
        on.proxy.fail_at_rate(1.0, slow.order, ["order"])
        orders = {label: on.place(label) for label in spans if label != "unheard"}
        for label in orders:
            wait_until(lambda: bool(_polls(on, label)), what=f"{label} is polled", deadline_seconds=20)  # noqa: B023
        orders["unheard"] = on.place("unheard")
        wait_until(slow.has_killed.is_set, what="the service is killed", deadline_seconds=20)
        on.service.start()

        patience = spans["minutes"].seconds + LONGEST_WAIT_SECONDS
        ended = {label: on.ended(order_id, patience) for label, order_id in orders.items()}
        for label in ("second", "minutes", "unheard"):
            findings.equal(f"{label}: the order ends", ended[label]["status"], "valid")
            _was_fetched(on, findings, label, slow.begun[f"{label}.{ZONE}"] + spans[label].seconds)
        findings.equal(
            "ever: the order ends", (ended["ever"]["status"], (ended["ever"]["error"] or {}).get("code")),
            ("invalid", "order_expired"),
        )  # fmt: skip
        _ends_with_the_ca(on, findings, "ever", "ever", orders["ever"])
        for label, span in spans.items():
            findings.equal(f"{label}: finalize requests", len(_finalizes(on, label)), 1)
            findings.equal(f"{label}: newOrders", len(on.new_orders(label)), 1)
            if span.retry_after_seconds is not None:
                gaps = _gaps(on, label)
                findings.between(
                    f"{label}: s between requests at least, of {len(gaps)}",
                    span.retry_after_seconds - TOLERANCE_SECONDS,
                    min(gaps),
                    LONGEST_WAIT_SECONDS,
                )
        on.tally(findings, refused=[orders["ever"]])


def _was_fetched(on: Stage, findings: Findings, label: str, done: float) -> None:
    """The waits double, up to `LONGEST_WAIT_SECONDS`: none is longer than all before it together, but for the first, and
    for the lease of a process that died."""
    (order,) = on.new_orders(label)
    fetched = next(each for each in _about(on, order) if each.said.get("status") == "valid" and each.monotonic >= done)
    waited = done - _finalizes(on, label)[0].monotonic
    most = min(LONGEST_WAIT_SECONDS, waited + LEASE_SECONDS) + LATE_SECONDS
    findings.between(f"{label}: s from the CA's being done to the poll that sees it", 0, fetched.monotonic - done, most)


def _ends_with_the_ca(on: Stage, findings: Findings, what: str, label: str, order_id: str) -> None:
    """At `expires` and not before; the CA hears no more of it afterwards."""
    expires = datetime.fromisoformat(on.event(order_id, "order.accepted")["order"]["expires_at"])
    failed = datetime.fromisoformat(on.event(order_id, "order.failed")["timestamp"])
    late = (failed - expires).total_seconds()
    findings.between(f"{what}: s from the order's `expires` to its end here", 0, late, LATE_SECONDS)
    (order,) = on.new_orders(label)
    afterwards = [each for each in _about(on, order) if each.at > failed]
    findings.equal(f"{what}: requests after its end", len(afterwards), 0)


def _about(on: Stage, order: Exchange) -> Sequence[Exchange]:
    """What was asked about an order as a whole, from its finalize on."""
    asked = on.proxy.since(0).at("order", "finalize")
    paths = {order.location, urlsplit(str(order.said["finalize"])).path}
    mine = sorted((each for each in asked if each.path in paths), key=lambda each: each.monotonic)
    first = next((index for index, each in enumerate(mine) if each.endpoint == "finalize"), len(mine))
    return mine[first:]


def _polls(on: Stage, label: str) -> Sequence[Exchange]:
    return [each for order in on.new_orders(label) for each in _about(on, order) if each.endpoint == "order"]


def _finalizes(on: Stage, label: str) -> Sequence[Exchange]:
    return [each for order in on.new_orders(label) for each in _about(on, order) if each.endpoint == "finalize"]


def _gaps(on: Stage, label: str) -> Sequence[float]:
    (order,) = on.new_orders(label)
    times = [each.monotonic for each in _about(on, order)]
    return [later - earlier for earlier, later in pairwise(times)]


def not_ready(folder: Path, findings: Findings, short: bool) -> None:
    del short
    refuse = problem("orderNotReady", 403)

    def act_and_refuse(passing: Passing) -> Answer:
        passing.pass_on()
        return refuse(passing)

    with stage(folder) as on:
        on.proxy.fail_next("finalize", *[refuse] * TIMES_REFUSED)
        findings.equal("refused for a while: the order ends", on.ended(on.place("later"))["status"], "valid")
        _asks_in_between(on, findings, "refused for a while", "later", TIMES_REFUSED + 1)

        on.proxy.fail_next("finalize", act_and_refuse)
        findings.equal("refused, and acted upon: the order ends", on.ended(on.place("acted"))["status"], "valid")
        _asks_in_between(on, findings, "refused, and acted upon", "acted", 1)

        on.proxy.fail_next("new-order", reworded(ending_in(NEVER_READY_ENDS_IN)))
        on.proxy.fail_at_rate(1.0, refuse, ["finalize"])
        never = on.place("never")
        ended = on.ended(never)
        findings.equal(
            "refused for ever: the order ends", (ended["status"], ended["error"]["code"]), ("invalid", "order_expired")
        )
        _ends_with_the_ca(on, findings, "refused for ever", "never", never)
        tries = len(_finalizes(on, "never"))
        findings.between("refused for ever: finalize requests in its 12 s", 2, tries, MOST_TRIES)
        _asks_in_between(on, findings, "refused for ever", "never", tries)
        on.tally(findings, refused=[never])


def _asks_in_between(on: Stage, findings: Findings, what: str, label: str, finalizes: int) -> None:
    """The order is read before each further finalize, and no other one is placed."""
    (order,) = on.new_orders(label)
    asked = [each.endpoint for each in _about(on, order)]
    findings.equal(f"{what}: finalize requests", asked.count("finalize"), finalizes)
    blind = [pair for pair in pairwise(asked) if pair == ("finalize", "finalize")]
    findings.check(f"{what}: finalize requests without a look at the order before", len(blind), holds=not blind)
    findings.equal(f"{what}: newOrders", len(on.new_orders(label)), 1)


SCENARIOS = [
    Scenario("C5", "processing for a second, for ten minutes, for ever; the service dies meanwhile", processing),
    Scenario("C6", "ready, yet finalize says orderNotReady: for a while, though it acted, for ever", not_ready),
]

"""C7: an order, or the authorization of one of its names, becomes invalid or expires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from domain.acme import ERROR_NAMESPACE
from tests.prove.fault_scenarios.by_name import Change, Document, ending_in, reworded_for, with_a_wrong_token
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.servers.ca_faults import problem
from tests.servers.ca_proxy import Passing
from tests.servers.https import Answer

ENDS_IN = timedelta(seconds=15)
MOST_ANSWERS = 3
NXDOMAIN = {"type": f"{ERROR_NAMESPACE}dns", "detail": "NXDOMAIN looking up TXT", "status": 400}


def unchanged(said: Document) -> Document:
    return said


@dataclass(frozen=True)
class Loss:
    """What the CA says of an order and of the authorization of its bad name, and what has to come of it: the order's code,
    and code and type of the problem at the bad name, or at both where nothing tells them apart."""

    what: str
    code: str
    at_name: tuple[str, str | None]
    authorization: Change = unchanged
    order: Change = unchanged
    placed: Change = unchanged
    is_told_apart: bool = True


def becoming(status: str, *instead_of: str, **members: object) -> Change:
    """That status where the CA says one of the others."""
    return lambda said: {**said, "status": status, **members} if said["status"] in instead_of else said


def forbidden(order: Document) -> Document:
    """The CA looks at CAA again when it issues, and says at which name it was (RFC 8555 §6.7.1)."""
    at_name = {
        "type": f"{ERROR_NAMESPACE}caa",
        "detail": "CAA forbids",
        "identifier": {"type": "dns", "value": bad("forbidden")},
    }
    error = {"type": f"{ERROR_NAMESPACE}caa", "detail": "CAA forbids one", "status": 403, "subproblems": [at_name]}
    return becoming("invalid", "processing", "valid", error=error)(order)


@dataclass
class Lapsing:
    """The CA says ready; by the time of the finalize the authorization of a name has expired, and with it the order."""

    finalize_path: str = ""
    is_over: bool = False

    def order(self, order: Document) -> Document:
        self.finalize_path = urlsplit(order["finalize"]).path
        return becoming("invalid", "ready")(order) if self.is_over else order

    def authorization(self, authorization: Document) -> Document:
        return becoming("expired", "valid")(authorization) if self.is_over else authorization

    def finalize(self, passing: Passing) -> Answer:
        if passing.asked.path != self.finalize_path:
            return passing.pass_on()
        self.is_over = True
        return problem("orderNotReady", 403)(passing)


@dataclass
class Stuck:
    """The CA does not find the value, and leaves the challenge pending for another answer, as Caddy's does."""

    answers: Counter[str] = field(default_factory=Counter)
    """By the path of the challenge."""

    def authorization(self, authorization: Document) -> Document:
        challenges = [self._challenge(each) for each in authorization["challenges"]]
        return {**authorization, "challenges": challenges}

    def challenge(self, passing: Passing) -> Answer:
        if passing.asked.path not in self.answers:
            return passing.pass_on()
        self.answers[passing.asked.path] += 1
        return Answer(200, {"Content-Type": "application/json", "Replay-Nonce": passing.fresh_nonce()}, b"{}")

    def _challenge(self, challenge: Document) -> Document:
        path = urlsplit(challenge["url"]).path
        self.answers.setdefault(path, 0)
        return {**challenge, "error": NXDOMAIN} if self.answers[path] else challenge


def bad(label: str) -> str:
    return f"bad.{label}.{ZONE}"


def good(label: str) -> str:
    return f"good.{label}.{ZONE}"


def lost(folder: Path, findings: Findings, short: bool) -> None:
    del short
    lapsing, stuck = Lapsing(), Stuck()
    losses = {
        "wrong": Loss(
            "the CA does not find the value", "challenge_failed", ("challenge_failed", "unauthorized"),
            with_a_wrong_token,
        ),
        "expired": Loss(
            "expired, and the order invalid without a word", "challenge_failed", ("challenge_failed", None),
            becoming("expired", "valid"), becoming("invalid", "ready"),
        ),
        "revoked": Loss(
            "revoked, and the order pending", "challenge_failed", ("challenge_failed", None),
            becoming("revoked", "valid"), becoming("pending", "ready"),
        ),
        "forbidden": Loss(
            "the order invalid with a subproblem", "caa_forbids", ("caa_forbids", "caa"), order=forbidden
        ),
        "lapsed": Loss(
            "expired between ready and finalize", "challenge_failed", ("challenge_failed", None),
            lapsing.authorization, lapsing.order,
        ),
        "stuck": Loss(
            "pending with an error", "challenge_failed", ("challenge_failed", "dns"), stuck.authorization
        ),
        "forgotten": Loss(
            "pending until the order expires", "order_expired", ("order_expired", None),
            becoming("pending", "valid"), becoming("pending", "ready"), ending_in(ENDS_IN),
            is_told_apart=False,
        ),
    }  # fmt: skip
    with stage(folder) as on:
        _arrange(on, losses, lapsing, stuck)
        orders = {label: on.place_for([good(label), bad(label)]) for label in losses}
        for label, loss in losses.items():
            _is_told(findings, loss, on.ended(orders[label]), label)
        findings.equal("pending with an error: answers to the challenge", max(stuck.answers.values()), MOST_ANSWERS)
        findings.equal("newOrders", len(on.new_orders()), len(losses))
        on.tally(findings, refused=list(orders.values()))


def _arrange(on: Stage, losses: Mapping[str, Loss], lapsing: Lapsing, stuck: Stuck) -> None:
    of_orders = reworded_for({bad(label): loss.order for label, loss in losses.items()})
    of_placed = reworded_for({bad(label): loss.placed for label, loss in losses.items()})
    of_authorizations = reworded_for({bad(label): loss.authorization for label, loss in losses.items()})
    on.proxy.fail_at_rate(1.0, of_placed, ["new-order"])
    on.proxy.fail_at_rate(1.0, of_orders, ["order"])
    on.proxy.fail_at_rate(1.0, of_authorizations, ["authorization"])
    on.proxy.fail_at_rate(1.0, stuck.challenge, ["challenge"])
    on.proxy.fail_at_rate(1.0, lapsing.finalize, ["finalize"])


def _is_told(findings: Findings, loss: Loss, ended: Any, label: str) -> None:
    findings.equal(f"{loss.what}: the order", (ended["status"], ended["error"]["code"]), ("invalid", loss.code))
    told = {each["domain"]: each["error"] and _code_and_type(each["error"]) for each in ended["challenges"]}
    at_good = None if loss.is_told_apart else loss.at_name
    findings.equal(f"{loss.what}: errors at names", told, {good(label): at_good, bad(label): loss.at_name})


def _code_and_type(error: Any) -> tuple[str, str | None]:
    return error["code"], error["type"] and error["type"].removeprefix(ERROR_NAMESPACE)


SCENARIOS = [Scenario("C7", "an order or the authorization of one of its names invalid, expired, revoked, stuck", lost)]

"""C20: the CA refuses names, and says which (RFC 8555 §6.7.1), at each place where it can."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from domain.acme import ERROR_NAMESPACE
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.servers.ca_faults import reworded
from tests.servers.ca_proxy import CaProxy, Passing
from tests.servers.https import Answer

Place = Literal["newOrder", "challenge", "finalize", "order"]
"""The last is an order that becomes invalid while it is being worked on."""

CODES: Mapping[str, str] = {
    "caa": "caa_forbids",
    "rejectedIdentifier": "rejected_identifier",
    "unsupportedIdentifier": "rejected_identifier",
    "dns": "challenge_failed",
}
JSON = {"Content-Type": "application/json"}
PROBLEM = {"Content-Type": "application/problem+json"}


def label_of(place: Place, name: str) -> str:
    return f"{place}-{name}".lower()


def document(name: str, dns_names: Sequence[str]) -> dict[str, Any]:
    """A problem of that kind, at each of the names."""
    return {
        "type": ERROR_NAMESPACE + name,
        "detail": f"{len(dns_names)} names are refused",
        "subproblems": [
            {
                "type": ERROR_NAMESPACE + name,
                "detail": f"about {dns_name}",
                "identifier": {"type": "dns", "value": dns_name},
            }
            for dns_name in dns_names
        ],
    }


class Refusing:
    """Refuses of each order for good-, bad- and *.bad- the last two, by the kind of problem and the place that the names
    say: of a challenge or an authorization the single name, of all else both."""

    def __init__(self, proxy: CaProxy) -> None:
        self._proxy = proxy
        self._begun: set[str] = set()
        """Labels of orders for which a challenge was answered that is refused, or that were finalized."""

    def new_order(self, passing: Passing) -> Answer:
        asked = [str(each["value"]) for each in passing.payload["identifiers"]]
        return self._refusal("newOrder", asked) or passing.pass_on()

    def challenge(self, passing: Passing) -> Answer:
        asked = self._names_at(passing)
        label, name = self._refused("challenge", asked)
        if not name or not _is_bad(asked[0]):
            return passing.pass_on()
        self._begun.add(label)
        return Answer(200, JSON, b"{}")

    def authorization(self, passing: Passing) -> Answer:
        answer = passing.pass_on()
        said = json.loads(answer.body)
        dns_name = f"*.{said['identifier']['value']}" if said.get("wildcard") else said["identifier"]["value"]
        label, name = self._refused("challenge", [dns_name])
        if label not in self._begun or not _is_bad(dns_name):
            return answer
        error = document(name, [dns_name])
        challenges = [
            {**each, "status": "invalid", "error": error} for each in said["challenges"] if each["type"] == "dns-01"
        ]
        changed = {**said, "status": "invalid", "challenges": challenges}
        return Answer(answer.status, answer.headers, json.dumps(changed).encode())

    def finalize(self, passing: Passing) -> Answer:
        asked = self._names_at(passing)
        refusal = self._refusal("finalize", asked)
        if refusal is not None:
            return refusal
        label, name = self._refused("order", asked)
        if name:
            self._begun.add(label)
        return passing.pass_on()

    def order(self, passing: Passing) -> Answer:
        asked = self._names_at(passing)
        for place in ("challenge", "order"):
            label, name = self._refused(place, asked)
            if label in self._begun:
                error = {"error": document(name, _bad(asked))} if place == "order" else {}
                return reworded(lambda said, error=error: {**said, "status": "invalid", **error})(passing)  # type: ignore[misc]
        return passing.pass_on()

    def _names_at(self, passing: Passing) -> Sequence[str]:
        return self._proxy.since(0).dns_names_at(passing.asked.path)

    def _refused(self, place: Place, dns_names: Sequence[str]) -> tuple[str, str]:
        """Label and kind of the problem that the names are to meet there; both empty where they are to meet none."""
        label = dns_names[0].removeprefix("*.").partition("-")[2].removesuffix(f".{ZONE}")
        return next(((label, name) for name in CODES if label == label_of(place, name)), ("", ""))

    def _refusal(self, place: Place, dns_names: Sequence[str]) -> Answer | None:
        _, name = self._refused(place, dns_names)
        return Answer(403, PROBLEM, json.dumps(document(name, _bad(dns_names))).encode()) if name else None


def _is_bad(dns_name: str) -> bool:
    return dns_name.removeprefix("*.").startswith("bad-")


def _bad(dns_names: Sequence[str]) -> Sequence[str]:
    return [dns_name for dns_name in dns_names if _is_bad(dns_name)]


def refused_identifiers(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with stage(folder) as on:
        refusing = Refusing(on.proxy)
        on.proxy.fail_at_rate(1.0, refusing.new_order, ["new-order"])
        on.proxy.fail_at_rate(1.0, refusing.challenge, ["challenge"])
        on.proxy.fail_at_rate(1.0, refusing.authorization, ["authorization"])
        on.proxy.fail_at_rate(1.0, refusing.finalize, ["finalize"])
        on.proxy.fail_at_rate(1.0, refusing.order, ["order"])
        refused: dict[tuple[Place, str], str] = {}
        for place in get_args(Place):
            placed = {name: _placed(on, label_of(place, name)) for name in CODES}
            for name, order_id in placed.items():
                _ends(on, findings, place, name, order_id)
                refused[place, name] = order_id

        on.proxy.recover()
        other = on.issue("afterwards")
        findings.check("an order afterwards", other, holds=True)
        counts = {
            len(on.new_orders(f"good-{label_of(place, name)}")) for place, name in product(get_args(Place), CODES)
        }
        findings.equal("newOrders of each refused order", counts, {1})
        steps = [on.has_steps(order_id) for order_id in refused.values()]
        findings.equal("refused orders that have anything left to do", sum(steps), 0)
        on.tally(findings, refused=list(refused.values()))


def _placed(on: Stage, label: str) -> str:
    return on.place_for([f"{part}-{label}.{ZONE}" for part in ("good", "bad", "*.bad")])


def _ends(on: Stage, findings: Findings, place: Place, name: str, order_id: str) -> None:
    order, what = on.ended(order_id), f"{name} at the {place}"
    findings.equal(f"{what}: the order ends", (order["status"], order["error"]["code"]), ("invalid", CODES[name]))
    findings.equal(f"{what}: attempts", order["attempts"], 0)
    label = f"{label_of(place, name)}.{ZONE}"
    bad = [f"bad-{label}", f"*.bad-{label}"]
    told = {each["domain"]: each["error"] for each in order["challenges"]}
    at_names = {dns_name: error and (error["code"], error["type"]) for dns_name, error in told.items()}
    wanted = (CODES[name], ERROR_NAMESPACE + name)
    findings.equal(f"{what}: at the names", at_names, {f"good-{label}": None, **dict.fromkeys(bad, wanted)})
    if place == "challenge":
        detail = [[part["detail"] for part in told[dns_name]["subproblems"]] for dns_name in bad]
        findings.equal(f"{what}: its subproblems", detail, [[f"about {dns_name}"] for dns_name in bad])
    else:
        said = [told[dns_name]["message"] for dns_name in bad if told[dns_name]]
        findings.equal(f"{what}: the words", said, [f"about {dns_name}" for dns_name in bad])
        parts = {part["domain"] for part in order["error"]["details"]["subproblems"]}
        findings.equal(f"{what}: subproblems of the order", parts, set(bad))


SCENARIOS = [
    Scenario(
        "C20",
        "caa, rejectedIdentifier, unsupportedIdentifier, dns with subproblems: at newOrder, a challenge, finalize, later",
        refused_identifiers,
    )
]

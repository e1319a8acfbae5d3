"""C8: the CA has authorized names before: none of an order's, half of them, or all, and then the order is born ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.prove.fault_scenarios.by_name import Document, reworded_for
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.servers.bind import Bind
from tests.servers.ca_proxy import Exchange
from tests.servers.pebble import Pebble


def that_reuses(folder: Path, dns_address: str) -> Pebble:
    """Every authorization that is valid still."""
    return Pebble(folder, dns_address, nonce_reject_percent=0, authz_reuse_percent=100)


def by_http(authorization: Document) -> Document:
    """A valid authorization shows the challenge that it was won by alone (RFC 8555 §7.1.4), and that may be one of another
    type."""
    if authorization["status"] != "valid":
        return authorization
    challenges = [{**authorization["challenges"][0], "type": "http-01"}]
    return {**authorization, "challenges": challenges}


def known(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with Bind(folder / "dns", [ZONE]) as dns, stage(folder, that_reuses, dns=dns) as on:
        of = {label: f"{label}.{ZONE}" for label in ("a", "b", "c", "d", "e", "f", "g")}
        _issues(on, findings, dns, "none", [of["a"], of["b"]], [of["a"], of["b"]])
        _issues(on, findings, dns, "none, for others", [of["c"], of["d"]], [of["c"], of["d"]])
        _issues(on, findings, dns, "half", [of["a"], of["c"], of["e"], of["f"]], [of["e"], of["f"]])
        on.proxy.fail_at_rate(1.0, reworded_for({of["a"]: by_http}), ["authorization"])
        _issues(on, findings, dns, "half, by another challenge", [of["a"], of["g"]], [of["g"]])
        on.proxy.recover()
        placed = _issues(on, findings, dns, "all", [of["b"], of["d"]], [])
        findings.equal("all: the order is born", placed.said["status"], "ready")
        other = on.register("other")
        _issues(on, findings, dns, "none, for another account", [of["a"], of["b"]], [of["a"], of["b"]], other)
        on.tally(findings)


def _issues(
    on: Stage,
    findings: Findings,
    dns: Bind,
    what: str,
    dns_names: Sequence[str],
    to_show: Sequence[str],
    account_id: str | None = None,
) -> Exchange:
    """BIND's own log tells what is written. Gives the newOrder."""
    before, exchange = len(dns.added()), len(on.proxy.exchanges)
    order = on.ended(on.place_for(dns_names, account_id))
    findings.equal(f"{what}: the order ends", order["status"], "valid")
    wanted = [f"_acme-challenge.{name}" for name in to_show]
    findings.equal(f"{what}: TXT values written at", sorted(dns.added()[before:]), wanted)
    asked = on.proxy.since(exchange)
    findings.equal(f"{what}: challenges answered", len(asked.at("challenge")), len(to_show))
    (placed,) = asked.at("new-order")
    return placed


SCENARIOS = [Scenario("C8", "authorizations that are valid already: none, half, all", known)]

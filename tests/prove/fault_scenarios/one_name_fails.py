"""C24: the CA does not find one of 25 names authorized."""

from __future__ import annotations

from pathlib import Path

from application.provider_config import host_and_port
from tests.prove.fault_scenarios.by_name import Document, reworded_for, with_a_wrong_token
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Ca, Stage, pebble, stage
from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.authoritative import ask_txt

NAMES = 25
FAILING = f"n12.{ZONE}"
PATIENCE_SECONDS = 90.0


def failing(authorization: Document) -> Document:
    """Of the name itself; its wildcard, which is proven at the same place, is left alone."""
    return authorization if authorization.get("wildcard") else with_a_wrong_token(authorization)


def one_name_fails(folder: Path, findings: Findings, short: bool) -> None:
    del short
    cas: dict[str, Ca] = {"Pebble": pebble, "acme2certifier": Acme2Certifier}
    for name, ca in cas.items():
        with stage(folder / name.lower(), ca) as on:
            _at(on, findings, name)


def _at(on: Stage, findings: Findings, ca: str) -> None:
    dns_names = [*(f"n{number:02}.{ZONE}" for number in range(NAMES - 1)), f"*.{FAILING}"]
    on.proxy.fail_at_rate(1.0, reworded_for({FAILING: failing}), ["authorization"])
    order_id = on.place_for(dns_names)
    order = on.ended(order_id, PATIENCE_SECONDS)
    findings.equal(f"{ca}: names ordered", len(order["domains"]), NAMES)
    findings.equal(f"{ca}: the order ends", (order["status"], order["error"]["code"]), ("invalid", "challenge_failed"))
    told = {each["domain"]: each["error"]["code"] for each in order["challenges"] if each["error"]}
    findings.equal(f"{ca}: errors at names", told, {FAILING: "challenge_failed"})
    shown = {each["record_value"] for each in order["challenges"]}
    findings.equal(f"{ca}: values that were shown", len(shown - {None}), NAMES)
    findings.equal(f"{ca}: values removed", on.topics(order_id).count("order.record_removed"), NAMES)
    findings.equal(f"{ca}: values left in DNS", _left(on), 0)
    findings.equal(f"{ca}: certificates issued", sum(on.proxy.since(0).finalizations().values()), 0)
    on.proxy.recover()
    again = on.ended(on.place_for(dns_names), PATIENCE_SECONDS)
    findings.equal(f"{ca}: the same names afterwards", (again["status"], len(again["domains"])), ("valid", NAMES))
    findings.equal(f"{ca}: newOrders in all", len(on.new_orders()), 2)
    on.tally(findings, refused=[order_id])


def _left(on: Stage) -> int:
    host, port = host_and_port(on.dns_address)
    return sum(len(ask_txt(host, port, f"_acme-challenge.{dns_name}")) for dns_name in on.names)


SCENARIOS = [Scenario("C24", "1 of 25 names fails", one_name_fails)]

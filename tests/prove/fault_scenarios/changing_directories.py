"""C22: the CA's directory changes while the service runs: its endpoints move, its profiles and the rest of `meta` change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import Stage, stage
from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.ca_faults import problem, status
from tests.servers.ca_proxy import Fault
from tests.servers.https import Answer
from tests.servers.process import wait_until

PROFILES: Mapping[str, str] = {"classic": "90 days", "tlsserver": "45 days", "shortlived": "6 days"}
WITHOUT: Mapping[str, str] = {name: said for name, said in PROFILES.items() if name != "shortlived"}
IDENTITY = "ca.faults.example"
DAY = timedelta(days=1)
SLACK = timedelta(minutes=1)
MOST_TRIES = 3  # of a registration, each of which may find one thing that has moved

WHERE_IT_WAS: Mapping[str, Fault] = {
    "404": status(404),
    "404 with a problem": problem("malformed", 404, "Page not found"),
    "200 with a web page": lambda _passing: Answer(200, {"Content-Type": "text/html"}, b"<html>We have moved</html>"),
}


def changing_directories(folder: Path, findings: Findings, short: bool) -> None:
    del short
    made: list[Acme2Certifier] = []

    def ca(folder: Path, dns_address: str) -> Acme2Certifier:
        made.append(Acme2Certifier(folder, dns_address, profiles=PROFILES))
        return made[-1]

    with stage(folder, ca) as on:
        on.issue("before")
        for what, answer in WHERE_IT_WAS.items():
            _endpoints_move(on, findings, what, answer)
        _is_replaced_where_it_stays(on, findings)
        refused = _profile_vanishes(on, findings, made[-1])
        on.tally(findings, refused=[refused])


def _endpoints_move(on: Stage, findings: Findings, what: str, answer: Fault) -> None:
    label = what.lower().replace(" ", "-")
    begun = len(on.proxy.exchanges)
    on.proxy.move(f"/moved-{label}", answer)
    placed = [on.place(f"{label}-{number}") for number in range(2)]
    statuses = [on.ended(order_id)["status"] for order_id in placed]
    findings.equal(f"moved, {what} where it was: two orders end", statuses, ["valid", "valid"])
    since = on.proxy.since(begun)
    findings.between(f"moved, {what}: the directory was read", 1, len(since.at("directory")), 4)
    at_ca = [each.status for each in since.at("new-order")]
    findings.between(f"moved, {what}: newOrders where it was", 1, at_ca.count(0), 2)
    findings.equal(f"moved, {what}: newOrders that the CA took", at_ca.count(201), 2)

    on.proxy.move(f"/moved-again-{label}", answer)
    answers: list[int] = []

    def is_registered() -> bool:
        answers.append(on.try_register(label).status_code)
        return answers[-1] == 201

    wait_until(is_registered, what="another account is registered")
    in_time = len(answers) <= MOST_TRIES and set(answers[:-1]) <= {502, 503}
    findings.check(f"moved, {what}: answers to registrations", answers, holds=in_time)


def _is_replaced_where_it_stays(on: Stage, findings: Findings) -> None:
    """What is not found at an endpoint that has not moved is another thing: the certificate that is to be replaced."""
    certificate_id = on.issue("stays")
    on.asked_again_at(certificate_id)
    begun = len(on.proxy.exchanges)
    on.proxy.fail_next("new-order", problem("malformed", 404, "no current certificate with that serial exists"))
    findings.equal("404 of a renewal, nothing moved: it ends", on.ended(on.renew(certificate_id))["status"], "valid")
    told = [(each.replaces is not None, each.told) for each in on.proxy.since(begun).at("new-order")]
    findings.equal("404 of a renewal: newOrders (replaces, answer)", told, [(True, 404), (False, 201)])


def _profile_vanishes(on: Stage, findings: Findings, ca: Acme2Certifier) -> str:
    """Gives the order that the CA has to refuse."""
    certificate_id = on.issue("short", profile="shortlived")
    findings.equal("profiles as registered", set(_offered(on)["profiles"]), set(PROFILES))
    ca.stop()
    ca.offer(WITHOUT, caa_identities=[IDENTITY])
    ca.start()
    due_in = on.due_at("account", on.account_id) - datetime.now(UTC)
    findings.check("the directory is due to be read in", due_in, holds=due_in <= DAY + SLACK)

    on.do_now("account", on.account_id)
    on.wait_for_row("accounts", on.account_id, lambda shown: "shortlived" not in _profiles(shown), "its offer was seen")
    offered = _offered(on)
    findings.equal("profiles at the daily look", set(offered["profiles"]), set(WITHOUT))
    findings.equal("meta's caaIdentities at the daily look", offered["caa_identities"], [IDENTITY])
    due_in = on.due_at("account", on.account_id) - datetime.now(UTC)
    findings.check("the next one is due in", due_in, holds=DAY - SLACK <= due_in <= DAY + SLACK)

    begun = len(on.proxy.exchanges)
    answer = on.try_issue("too-late", profile="shortlived")
    findings.equal("an order with that profile is answered", answer.status_code, 422)
    fields = [each["field"] for each in answer.json()["error"]["details"]["fields"]]
    findings.equal("the field that is named", fields, ["profile"])
    findings.equal("requests at the CA for it", len(on.proxy.exchanges) - begun, 0)
    findings.check("an order with another profile", on.issue("in-time", profile="tlsserver"), holds=True)
    return _renewal_without_its_profile(on, findings, certificate_id)


def _renewal_without_its_profile(on: Stage, findings: Findings, certificate_id: str) -> str:
    """It fails and is told of. That it was asked for before its time brings no other one before its time."""
    on.asked_again_at(certificate_id)
    planned = on.certificate(certificate_id)["renewal"]["next_at"]
    order_id = on.renew(certificate_id)
    order = on.ended(order_id)
    findings.equal("its renewal ends", (order["status"], order["error"]["code"]), ("invalid", "backend_error"))
    findings.equal(
        "its renewal's error", order["error"]["details"]["type"], "urn:ietf:params:acme:error:invalidProfile"
    )
    shown = on.certificate(certificate_id)
    findings.equal("version, rule of the next attempt", (shown["version"], shown["renewal"]["reason"]), (1, "retry"))
    findings.equal("time of the next attempt", shown["renewal"]["next_at"], planned)
    findings.equal("what was told last", shown["renewal"]["last_error"]["code"], "backend_error")
    findings.equal("newOrders for the renewal", len(on.new_orders("short")) - 1, 1)
    on.client.patch(f"/v1/pki/certificates/{certificate_id}", {"auto_renew": False})
    return order_id


def _offered(on: Stage) -> Any:
    return on.client.get(f"/v1/pki/acme/accounts/{on.account_id}")["capabilities"]


def _profiles(account: Any) -> Any:
    return account["capabilities"]["profiles"]


SCENARIOS = [
    Scenario("C22", "the directory changes: endpoints move, meta changes, a profile vanishes", changing_directories)
]

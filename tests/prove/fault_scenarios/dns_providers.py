"""C11, C12: a DNS provider that fails, is slow or refuses, name servers that lag behind, and a clean-up that cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.dns_stand_ins.api import Answer, Fault, Request, acting, answering, no_answer_after_acting
from tests.dns_stand_ins.cloudflare import refused
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.hosted_dns import HostedDns, NameServer, hosted_dns
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.servers.process import wait_until

FOREIGN = "of another client"
PATIENCE_SECONDS = 3.0
LOOKS = 3
TRIES = 4


def at_writing(*faults: Fault) -> Fault:
    """One after the other at the requests that write; those that read are answered."""
    left = list(faults)

    def fault(request: Request, act: Callable[[], Answer]) -> Answer | None:
        return act() if request.method == "GET" or not left else left.pop(0)(request, act)

    return fault


def unbelieved(_request: Request, _act: Callable[[], Answer]) -> Answer:
    return refused(403, 9109, "Invalid access token")


def failing_providers(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with hosted_dns(ZONE) as dns, stage(folder, dns=dns) as on:
        _that_fail_for_a_moment(on, dns, findings)
        rejected = _that_refuse(on, dns, findings)
        for name, server in (("stale", dns.servers[2]), ("servfail", dns.servers[1])):
            _lagging(on, findings, name, server)
        on.tally(findings, refused=rejected)


def _that_fail_for_a_moment(on: Stage, dns: HostedDns, findings: Findings) -> None:
    broken = answering(500, {"errors": []})
    throttled = answering(429, {"errors": []}, Retry_After=f"{PATIENCE_SECONDS:.0f}")
    for label, fault in (
        ("broken", at_writing(broken, answering(502, "<html>"))),
        ("lost", at_writing(no_answer_after_acting)),
        ("throttled", at_writing(throttled)),
    ):
        before = len(dns.api.asked)
        dns.api.always = fault
        order = on.ended(on.place(label))
        dns.api.always = None
        asked = dns.api.asked[before:]
        findings.equal(f"{label}: the order ends", order["status"], "valid")
        findings.equal(f"{label}: values left at the provider", dns.api.txt(f"_acme-challenge.{label}.{ZONE}"), [])
        if label == "throttled":
            first = next(number for number, each in enumerate(asked) if each.method == "POST")
            pause = asked[first + 1].at - asked[first].at
            findings.between(f"{label}: s until the provider is asked again", PATIENCE_SECONDS, pause, 60)
    findings.equal("events of degradation by then", _health(on), [])


def _that_refuse(on: Stage, dns: HostedDns, findings: Findings) -> Sequence[str]:
    """Gives the orders that ended for it."""
    before = len(dns.api.asked)
    dns.api.always = unbelieved
    placed = [on.place(f"refused-{number}") for number in range(3)]
    errors: set[str] = set()

    def all_failed() -> bool:
        orders = [on.order(each) for each in placed]
        errors.update(order["error"]["code"] for order in orders if order["error"])
        return all(order["status"] == "invalid" for order in orders)

    wait_until(all_failed, what="all three have ended", deadline_seconds=60)
    findings.equal("refused: the orders end with", errors, {"provider_error"})
    findings.equal("refused: told", _health(on), ["dns_provider.degraded"])
    findings.between("refused: requests to the provider", 3, len(dns.api.asked) - before, 30)
    dns.api.always = None
    findings.equal("refused: the next order ends", on.ended(on.place("served"))["status"], "valid")
    findings.equal("refused: told afterwards", _health(on), ["dns_provider.degraded", "dns_provider.recovered"])
    for order_id in placed:
        on.do_now("issuance", order_id)
    return placed


def _lagging(on: Stage, findings: Findings, label: str, server: NameServer) -> None:
    """One of three does not show the value: nobody is told that it is there."""
    if label == "stale":
        server.freeze()
    else:
        server.ill = True
    order_id = on.place(label)
    wait_until(
        lambda: on.topics(order_id).count("order.postponed") >= LOOKS,
        what=f"{order_id} was looked for {LOOKS} times",
        deadline_seconds=60,
    )
    findings.equal(f"{label}: challenges answered meanwhile", on.topics(order_id).count("order.challenges_answered"), 0)
    server.thaw()
    server.ill = False
    order = on.ended(order_id)
    findings.equal(f"{label}: the order ends", (order["status"], order["warnings"]), ("valid", []))


def stubborn_values(folder: Path, findings: Findings, short: bool) -> None:
    """For an hour nothing can be removed, which the times at which it is tried are moved through."""
    del short
    with hosted_dns(ZONE) as dns, stage(folder, dns=dns) as on:
        name = f"_acme-challenge.stubborn.{ZONE}"
        dns.api.write(name, FOREIGN)
        on.foreign.add(FOREIGN)
        dns.api.always = lambda request, act: (
            Answer(503, {"errors": []}) if request.method == "DELETE" else acting(request, act)
        )
        order_id = on.place("stubborn")
        wait_until(lambda: bool(on.order(order_id)["status"] == "valid"), what="it is valid", deadline_seconds=60)
        for tries in range(1, TRIES + 1):
            wait_until(
                lambda tries=tries: on.topics(order_id).count("order.postponed") >= tries,  # type: ignore[misc]
                what=f"removing has failed {tries} times",
                deadline_seconds=60,
            )
            on.do_now("issuance", order_id)
        order = on.order(order_id)
        findings.equal("meanwhile the order is", (order["status"], order["phase"]), ("valid", "cleaning_up"))
        findings.equal("meanwhile the certificate is there", on.certificate(order["certificate_id"])["version"], 1)
        findings.equal("meanwhile values at the name", len(dns.api.txt(name)), 2)
        dns.api.always = None
        on.do_now("issuance", order_id)
        on.ended(order_id)
        findings.equal("afterwards values at the name", dns.api.txt(name), [FOREIGN])
        deleted = {each.path.rpartition("/")[2] for each in dns.api.asked if each.method == "DELETE"}
        findings.equal("records that were ever to be deleted", len(deleted), 1)
        on.tally(findings)


def _health(on: Stage) -> list[Any]:
    query = (
        "SELECT topic FROM events WHERE topic IN ('dns_provider.degraded', 'dns_provider.recovered') ORDER BY position"
    )
    return [topic for (topic,) in on.rows.execute(query).fetchall()]


SCENARIOS = [
    Scenario(
        "C11",
        "a provider's 500, lost answers, 429 and refusals; one name server of three stale or ill",
        failing_providers,
    ),
    Scenario("C12", "a clean-up that fails for long, beside somebody else's value", stubborn_values),
]

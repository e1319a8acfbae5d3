"""C17: the CA says that the certificate has been replaced already (RFC 9773 §5)."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import Stage, stage
from tests.prove.fault_scenarios.suggested import Windows
from tests.servers.ca_faults import already_replaced, drop_after, drop_before, reworded, when_replacing
from tests.servers.ca_proxy import Passing
from tests.servers.https import Answer

ENDS_IN = timedelta(seconds=10)


class Silence:
    """The CA issues, and says nothing more about any order."""

    def __init__(self) -> None:
        self._begun = threading.Event()

    def finalize(self, passing: Passing) -> Answer:
        self._begun.set()
        return drop_after(passing)

    def order(self, passing: Passing) -> Answer:
        return drop_before(passing) if self._begun.is_set() else passing.pass_on()


def ends_soon(order: dict[str, Any]) -> dict[str, Any]:
    return {**order, "expires": f"{datetime.now(UTC) + ENDS_IN:%Y-%m-%dT%H:%M:%SZ}"}


def replaced_already(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with stage(folder, suggest=Windows()) as on:
        lost = _by_us(on, findings)
        _by_nobody_we_know(on, findings)
        on.tally(findings, refused=[lost])


def _by_us(on: Stage, findings: Findings) -> str:
    """An earlier order of ours did it, whose end we never learned of. Gives that order."""
    certificate_id = on.issue("lost")
    on.asked_again_at(certificate_id)
    silence = Silence()
    on.proxy.fail_next("new-order", reworded(ends_soon))
    on.proxy.fail_at_rate(1.0, silence.finalize, ["finalize"])
    on.proxy.fail_at_rate(1.0, silence.order, ["order"])
    lost = on.renew(certificate_id)
    ended = on.ended(lost)
    findings.equal(
        "ours, lost: the order ends here", (ended["status"], ended["error"]["code"]), ("invalid", "backend_error")
    )
    finalized = on.proxy.since(0).finalizations()
    findings.equal("ours, lost: certificates issued by the CA by then", sum(finalized.values()), 2)

    on.proxy.recover()
    on.proxy.fail_next("new-order", when_replacing(already_replaced()))
    found = on.renew(certificate_id)
    findings.equal("ours: the next order ends", on.ended(found)["status"], "valid")
    findings.equal("ours: it was adopted", on.topics(found).count("order.adopted"), 1)
    finalized = on.proxy.since(0).finalizations()
    findings.equal("ours: certificates issued by the CA in the end", sum(finalized.values()), 2)
    told = [(each.replaces == on.ari_id(certificate_id, 1), each.told) for each in on.new_orders("lost")[1:]]
    findings.equal("ours: newOrders (replaces, answer)", told, [(True, 201), (True, 409)])
    findings.equal("ours: the stored key is the leaf's own", on.key_fits(certificate_id, 2), True)
    keys = {on.public_key(certificate_id, number) for number in (1, 2)}
    findings.equal("ours: different keys of the two versions", len(keys), 2)
    findings.equal("ours: version", on.certificate(certificate_id)["version"], 2)
    return lost


def _by_nobody_we_know(on: Stage, findings: Findings) -> None:
    certificate_id = on.issue("taken")
    on.asked_again_at(certificate_id)
    on.proxy.fail_next("new-order", when_replacing(already_replaced()))
    again = on.renew(certificate_id)
    findings.equal("nobody's: the order ends", on.ended(again)["status"], "valid")
    told = [(each.replaces == on.ari_id(certificate_id, 1), each.told) for each in on.new_orders("taken")[1:]]
    findings.equal("nobody's: newOrders (replaces, answer)", told, [(True, 409), (False, 201)])
    findings.equal("nobody's: nothing was adopted", on.topics(again).count("order.adopted"), 0)
    findings.equal("nobody's: version", on.certificate(certificate_id)["version"], 2)
    findings.equal("nobody's: the stored key is the leaf's own", on.key_fits(certificate_id, 2), True)


SCENARIOS = [Scenario("C17", "409 alreadyReplaced: by our own earlier order, and by nobody we know", replaced_already)]

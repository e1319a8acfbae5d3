"""ARI through the whole service, at a CA that has it: acme2certifier.

It passes over what a newOrder `replaces`, and never answers alreadyReplaced."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import stage
from tests.servers.acme2certifier import Acme2Certifier

PATIENCE_SECONDS = 90.0


def renewal_with_replaces(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with stage(folder, Acme2Certifier) as on:
        certificate_id = on.issue("ari")
        on.asked_again_at(certificate_id)
        shown = on.certificate(certificate_id)
        window = shown["renewal"]["ari_window"]
        start, end, next_at, not_before, not_after = (
            datetime.fromisoformat(each)
            for each in (
                window["start"],
                window["end"],
                shown["renewal"]["next_at"],
                shown["not_before"],
                shown["not_after"],
            )
        )
        begins = (start - not_before) / (not_after - not_before)
        findings.between("the window begins after % of the lifetime", 65, 100 * begins, 67)
        findings.equal("the rule that sets the renewal", shown["renewal"]["reason"] in {"ari", "last_line"}, True)
        findings.check("next_at lies in the window", next_at, holds=start <= next_at < end)
        old = on.ari_id(certificate_id, 1)
        order = on.ended(on.renew(certificate_id), PATIENCE_SECONDS)
        findings.equal("the renewal ends", order["status"], "valid")
        placed = on.new_orders("ari")
        findings.equal("`replaces` in newOrders", [each.replaces for each in placed], [None, old])
        renewed = on.certificate(certificate_id)
        findings.equal("version under the same id", (renewed["id"], renewed["version"]), (certificate_id, 2))
        findings.equal("the stored key is the leaf's own", on.key_fits(certificate_id, 2), True)
        on.asked_again_at(certificate_id)
        names = {on.ari_id(certificate_id, number) for number in (1, 2)}
        polled = {each.path.rpartition("/")[2] for each in on.proxy.since(0).at("renewal-info") if each.told == 200}
        findings.equal("certificates that the CA told a window for", len(names & polled), 2)
        on.tally(findings)


SCENARIOS = [Scenario("ARI", "a renewal with `replaces` at acme2certifier", renewal_with_replaces)]

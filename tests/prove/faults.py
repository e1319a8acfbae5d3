"""Claim: what goes wrong at a CA loses no order, issues none twice, and leaves nothing in DNS; each row of the table holds.

The service runs as an operator runs it, before a real CA behind a proxy that has it fail; the proxy's notes are the
witness. `--only C15` shows one row, `--short` leaves out waits of minutes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.prove.fault_scenarios import (
    a_ca_with_ari,
    already_replaced,
    bad_certificates,
    changing_directories,
    clocks,
    conditions_of_accounts,
    dns_providers,
    known_authorizations,
    lost_accounts,
    lost_authorizations,
    many_together,
    odd_renewal_info,
    one_name_fails,
    past_windows,
    rate_limits,
    refused_identifiers,
    slow_orders,
)
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.system.service import open_folder

SCENARIOS: Sequence[Scenario] = [
    *rate_limits.SCENARIOS,
    *slow_orders.SCENARIOS,
    *lost_authorizations.SCENARIOS,
    *known_authorizations.SCENARIOS,
    *many_together.SCENARIOS,
    *lost_accounts.SCENARIOS,
    *past_windows.SCENARIOS,
    *already_replaced.SCENARIOS,
    *odd_renewal_info.SCENARIOS,
    *bad_certificates.SCENARIOS,
    *refused_identifiers.SCENARIOS,
    *clocks.SCENARIOS,
    *dns_providers.SCENARIOS,
    *changing_directories.SCENARIOS,
    *conditions_of_accounts.SCENARIOS,
    *one_name_fails.SCENARIOS,
    *a_ca_with_ari.SCENARIOS,
]


def run(scenario: Scenario, *, short: bool) -> Findings:
    """In a folder of its own. What it could not even come to is a check that failed."""
    findings = Findings(scenario.row)
    with open_folder() as folder:
        try:
            scenario.run(folder, findings, short)
        except Exception as failure:  # noqa: BLE001  # the other rows are shown all the same
            findings.check("the scenario came to its end", repr(failure), holds=False)
    return findings


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted({scenario.row for scenario in SCENARIOS}))
    parser.add_argument("--short", action="store_true")
    wanted = parser.parse_args(words)
    shown = []
    for scenario in SCENARIOS:
        if wanted.only and scenario.row not in wanted.only:
            continue
        started = time.monotonic()
        findings = run(scenario, short=wanted.short)
        print(f"{scenario.row} {scenario.fault} ({time.monotonic() - started:.0f} s)")
        print("\n".join(findings.lines), flush=True)
        shown.append(findings)
    good = [findings.row for findings in shown if findings.holds]
    lost, twice, left = (sum(each) for each in zip(*(findings.counts for findings in shown), strict=True))
    print(
        f"faults: {len(good)} of {len(shown)} rows hold, {sum(len(findings.checks) for findings in shown)} checks;"
        f" lost orders {lost}, finalized twice {twice}, orphan TXT values {left}"
    )
    return 0 if len(good) == len(shown) else 1


if __name__ == "__main__":
    sys.exit(main())

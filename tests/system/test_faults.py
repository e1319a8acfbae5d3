"""The rows of the fault table that `scripts/prove faults` shows, without its waits of minutes."""

from __future__ import annotations

import pytest

from tests.prove import faults
from tests.prove.fault_scenarios.findings import Scenario


@pytest.mark.peers
@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenario", faults.SCENARIOS, ids=lambda scenario: scenario.row)
def test_what_goes_wrong_at_a_ca_loses_nothing_and_issues_nothing_twice(scenario: Scenario) -> None:
    findings = faults.run(scenario, short=True)
    assert findings.holds, "\n".join([scenario.fault, *findings.lines])

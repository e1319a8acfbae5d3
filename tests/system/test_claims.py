"""The claims that `scripts/prove` shows, in the size that every run of the tests can afford."""

from __future__ import annotations

import pytest

from tests.prove import burst, rebuild, tutorial, webhooks


@pytest.mark.peers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("pair", sorted(tutorial.PAIRS))
def test_the_tutorial_passes_as_a_user_types_it(pair: str) -> None:
    assert tutorial.passes(pair, quiet=True)


@pytest.mark.peers
@pytest.mark.timeout(600)
def test_forty_orders_at_once_end_valid_also_when_workers_are_killed(capsys: pytest.CaptureFixture[str]) -> None:
    assert burst.main(["--orders", "40", "--kills", "10"]) == 0, capsys.readouterr().out


@pytest.mark.timeout(240)
def test_views_and_todo_made_anew_equal_the_live_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert rebuild.main() == 0, capsys.readouterr().out


@pytest.mark.timeout(600)
def test_no_event_is_lost_on_faulty_receivers_and_killed_workers(capsys: pytest.CaptureFixture[str]) -> None:
    assert webhooks.main(["--events", "500"]) == 0, capsys.readouterr().out

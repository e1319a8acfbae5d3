"""The claims that `scripts/prove` shows, in the size that every run of the tests can afford."""

from __future__ import annotations

import pytest

from tests.prove import burst, preflight, rebuild, renewal, tutorial, webhooks
from tests.prove.preflight_fixtures import HOSTS


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


@pytest.mark.timeout(240)
def test_no_certificate_expires_and_no_limit_is_passed_in_two_simulated_years(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert renewal.main(["--only", "simulation", "--certificates", "300"]) == 0, capsys.readouterr().out


@pytest.mark.peers
@pytest.mark.long
@pytest.mark.timeout(600)
def test_certificates_of_two_minutes_are_renewed_in_time_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert renewal.main(["--only", "soak", "--certificates", "60", "--minutes", "6"]) == 0, capsys.readouterr().out


@pytest.mark.timeout(400)
def test_what_is_due_is_found_as_soon_among_many_certificates_as_among_few(capsys: pytest.CaptureFixture[str]) -> None:
    assert renewal.main(["--only", "due", "--sizes", "10000", "100000"]) == 0, capsys.readouterr().out


@pytest.mark.peers
@pytest.mark.allow_hosts(HOSTS)
@pytest.mark.timeout(240)
def test_what_is_wrong_with_zones_is_found_and_no_ca_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert preflight.main(["--names", "20"]) == 0, capsys.readouterr().out

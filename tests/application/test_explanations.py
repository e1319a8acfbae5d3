"""Each sentence names the event that it rests on, and they tell the whole story of the current version."""

from __future__ import annotations

from datetime import timedelta

import pytest

from application.errors import CaUnavailable
from application.explanations import Explanation
from domain.acme import ERROR_NAMESPACE, Problem, RenewalInfo
from domain.certificate import Certificate
from domain.errors import NotFound
from tests.application.world import OWNER, STRANGER, ZONE, World

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def world() -> World:
    world = World()
    world.issued()
    world.renew_by_itself()
    world.run_for(MINUTE)
    return world


def line(world: World) -> Certificate:
    first = next(event for event in world.recorded if isinstance(event, Certificate.Issued))
    return world.store.load(Certificate, first.originator_id)


def explained(world: World) -> Explanation:
    explanation = world.explanations.explain(line(world).id, OWNER)
    chain = explanation.last_failure.chain if explanation.last_failure else []
    for sentence in (*explanation.sentences, *chain):
        cited = world.recorder.history[sentence.rests_on.position - 1].event
        assert (cited.originator_id, cited.timestamp) == (sentence.rests_on.subject_id, sentence.rests_on.timestamp)
        assert sentence.rests_on.event == type(cited).TOPIC  # type: ignore[attr-defined]
        assert sentence.text.endswith(".") or sentence.rests_on.event.startswith(
            ("order.", "certificate.renewal_failed")
        )
    return explanation


def topics(explanation: Explanation) -> list[str]:
    return [sentence.rests_on.event for sentence in explanation.sentences]


def test_a_suggestion_is_told_with_its_window_and_when_it_was_seen(world: World) -> None:
    explanation = explained(world)
    suggestion = line(world).suggestion
    assert suggestion is not None
    assert explanation.window is not None
    assert (explanation.window.start, explanation.window.end) == (suggestion.window.start, suggestion.window.end)
    assert (explanation.next_at, explanation.rule) == (suggestion.renew_at, "ari")
    assert topics(explanation) == ["certificate.issued", "certificate.renewal_info_seen"]
    assert "drawn" in explanation.sentences[1].text
    assert explanation.last_failure is None


def test_without_a_suggestion_the_lifetime_s_rule_is_told() -> None:
    world = World()
    world.issued()
    explanation = explained(world)
    assert (explanation.window, explanation.rule) == (None, "lifetime")
    assert topics(explanation) == ["certificate.issued", "certificate.issued"]
    assert "a third of its lifetime" in explanation.sentences[1].text


def test_the_last_line_is_told(world: World) -> None:
    suggestion = line(world).suggestion
    assert suggestion is not None
    now = world.clock.now()
    world.ca.knobs.windows[suggestion.ari_id] = RenewalInfo(now + 85 * DAY, now + 86 * DAY)
    world.run_for(13 * HOUR)
    explanation = explained(world)
    assert explanation.rule == "last_line"
    assert "too late" in explanation.sentences[1].text


def test_a_failure_is_told_with_its_chain_to_what_the_order_met(world: World) -> None:
    world.ca.knobs.invalid[ZONE] = Problem(ERROR_NAMESPACE + "caa", "CAA record forbids it")
    world.ca.fail("new_order", CaUnavailable("502 from the CA"))
    world.renewals.renew(line(world).id, reason="requested", new_key=True, caller=OWNER)
    world.run_for(MINUTE)
    explanation = explained(world)
    failure = explanation.last_failure
    assert failure is not None
    assert (failure.code, failure.order_id) == ("caa_forbids", failure.chain[1].rests_on.subject_id)
    assert [sentence.rests_on.event for sentence in failure.chain[:3]] == [
        "certificate.renewal_failed",
        "order.postponed",
        "order.failed",
    ]
    assert any("CAA record forbids it" in sentence.text for sentence in failure.chain)
    assert topics(explanation)[2:] == ["certificate.renewal_began", "certificate.renewal_failed"]


def test_what_is_switched_off_says_so_whenever_that_was(world: World) -> None:
    world.certificates.revise(line(world).id, OWNER, auto_renew=False, new_name=None)
    world.renewals.renew(line(world).id, reason="requested", new_key=True, caller=OWNER)
    world.run_for(HOUR)
    explanation = explained(world)
    assert (explanation.version, explanation.next_at, explanation.rule) == (2, None, None)
    assert "certificate.auto_renewal_switched" in topics(explanation)


def test_the_breaker_is_told_while_it_holds_and_afterwards(world: World) -> None:
    world.ca.knobs.window = lambda _: RenewalInfo(world.clock.now() - 2 * HOUR, world.clock.now() - HOUR)
    suggestion = line(world).suggestion
    assert suggestion is not None
    world.ca.knobs.windows.clear()
    world.run_for(DAY)
    held = next(each for each in explained(world).sentences if each.rests_on.event == "certificate.renewal_held")
    assert "The breaker holds it" in held.text


def test_only_the_current_version_is_explained(world: World) -> None:
    world.renewals.renew(line(world).id, reason="requested", new_key=True, caller=OWNER)
    world.run_for(HOUR)
    assert topics(explained(world)) == ["certificate.renewed", "certificate.renewal_info_seen"]


def test_the_cost_of_renewing_now_is_told_beforehand(world: World) -> None:
    cost = explained(world).cost
    assert (cost.counts, cost.limits) == (None, [])
    assert "not known" in cost.why


def test_another_tenant_s_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        world.explanations.explain(line(world).id, STRANGER)

"""C15 and C16: the CA suggests a window that is over, once or for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from structlog.testing import capture_logs

from domain.acme import RenewalInfo
from domain.certificate import Certificate
from tests.application.world import World
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import DEADLINE_SECONDS, Stage, stage
from tests.prove.fault_scenarios.suggested import FAR, LATER, Windows, at_once, from_now
from tests.servers.https import Answer, LoopbackServer, serving
from tests.servers.process import wait_until

MOST_SECONDS = 60.0
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SOON = 60.0  # what a `Retry-After` says; a CA is asked no more often
WAKING_SECONDS = 5.0


def revoked_by_the_ca(folder: Path, findings: Findings, short: bool) -> None:
    windows = Windows(lambda: from_now(FAR, LATER, retry_after_seconds=SOON))
    with stage(folder, suggest=windows) as on:
        certificate_id = on.issue("revoked")
        asked_again_at = on.asked_again_at(certificate_id)
        shown = on.certificate(certificate_id)
        findings.equal("before: the rule that sets the renewal", shown["renewal"]["reason"], "ari")
        old = on.ari_id(certificate_id, 1)
        windows.set(old, at_once())
        if short:
            on.ask_now(certificate_id)
        on.wait_for_version(certificate_id, 2, MOST_SECONDS + SOON)
        polls = [each for each in on.proxy.since(0).at("renewal-info") if each.path.endswith(f"/{old}")]
        findings.equal("polls about the old certificate", len(polls), 2)
        if not short:
            late = (polls[-1].at - asked_again_at).total_seconds()
            findings.between("s from the time that the CA named to the poll", -1, late, WAKING_SECONDS)
        (placed,) = on.new_orders("revoked")[1:]
        begun = placed.monotonic - polls[-1].monotonic
        findings.between("s from the poll that showed it to the replacement's newOrder", 0, begun, MOST_SECONDS)
        findings.equal("`replaces` names the old certificate", placed.replaces, old)
        _is_new(on, findings, certificate_id)
        on.tally(findings)


def _is_new(on: Stage, findings: Findings, certificate_id: str) -> None:
    keys = {on.public_key(certificate_id, number) for number in (1, 2)}
    findings.equal("different keys of the two versions", len(keys), 2)
    fits = [on.key_fits(certificate_id, number) for number in (1, 2)]
    findings.equal("stored keys that are the leaves' own", sum(fits), 2)


def for_ever(folder: Path, findings: Findings, short: bool) -> None:
    del short
    _on_the_service(folder, findings)
    _through_eight_days(findings)


def _on_the_service(folder: Path, findings: Findings) -> None:
    windows = Windows(at_once)
    with stage(folder, suggest=windows) as on, serving(lambda _: Answer(204), tls=False) as receiver:
        subscription = {
            "name": "alarm",
            "paths": ["pki/certificates/*"],
            "events": ["certificate.renewal_failed"],
            "delivery": {"type": "webhook", "url": receiver.url},
        }
        on.client.post("/v1/subscriptions", subscription)
        certificate_id = on.issue("hasty")
        held = on.wait_for(certificate_id, lambda shown: shown["renewal"]["held"], "held back")
        findings.equal("versions when it is held", held["version"], 2)
        findings.equal("newOrders", len(on.new_orders("hasty")), 2)
        findings.equal("the view's reason", held["renewal"]["reason"], "breaker")
        topics = on.topics(certificate_id)
        findings.equal("RenewalHeld after the second wish", topics[-2:], _WISH_AND_HOLD)
        _alarmed(findings, receiver, times=1)
        renewed_at = datetime.fromisoformat(held["versions"][1]["not_before"])
        due_in = (on.due_at("renewal", certificate_id) - renewed_at) / HOUR
        findings.between("h from the automatic issuance to the next", 5.99, due_in, 6.01)

        on.client.post(f"/v1/pki/certificates/{certificate_id}/release-renewal", {"reason": "seen, let it"})
        freed = on.wait_for(
            certificate_id, lambda shown: shown["version"] > 2 and shown["renewal"]["held"], "held again"
        )
        findings.equal("versions after it was lifted, when it is held again", freed["version"], 3)
        findings.equal("newOrders then", len(on.new_orders("hasty")), 3)
        _alarmed(findings, receiver, times=2)
        on.tally(findings)


_WISH_AND_HOLD = ["certificate.renewal_info_seen", "certificate.renewal_held"]


def _alarmed(findings: Findings, receiver: LoopbackServer, times: int) -> None:
    wait_until(lambda: len(receiver.asked) >= times, what="the alarm came", deadline_seconds=DEADLINE_SECONDS)
    codes = [json.loads(asked.body)["data"]["error"]["code"] for asked in receiver.asked]
    findings.equal("codes of the webhooks certificate.renewal_failed", codes, ["renewal_held"] * times)


def _through_eight_days(findings: Findings) -> None:
    world = World()
    world.ca.knobs.window = _over
    with capture_logs():
        order_id = world.issued()
        world.renew_by_itself()
        world.run_for(8 * DAY)
    certificate_id = world.order(order_id).certificate_id
    renewed_at = _times(world, certificate_id, Certificate.Renewed)
    held_at = _times(world, certificate_id, Certificate.RenewalHeld)
    findings.check("automatic issuances of a line in 8 days (fake clock)", len(renewed_at), holds=len(renewed_at) > 1)
    findings.equal("most of them in any 6 hours", most_within(renewed_at, 6 * HOUR), 1)
    findings.equal("most of them in any 7 days", most_within(renewed_at, 7 * DAY), 4)
    findings.equal("alarms, one after each", len(held_at), len(renewed_at))
    findings.equal("certificates issued by the fake CA", len(world.ca.issued), len(renewed_at) + 1)
    world.require_sound()


def _over(certificate: x509.Certificate) -> RenewalInfo:
    begun = certificate.not_valid_before_utc
    return RenewalInfo(begun - 2 * HOUR, begun - HOUR, retry_after_seconds=6 * 3600.0)


def _times(world: World, certificate_id: str, event_class: type[Any]) -> Sequence[datetime]:
    return [event.timestamp for event in world.events(certificate_id) if isinstance(event, event_class)]


def most_within(moments: Sequence[datetime], span: timedelta) -> int:
    """The largest number of them in any stretch of that length, its end not included."""
    return max((sum(first <= moment < first + span for moment in moments) for first in moments), default=0)


SCENARIOS = [
    Scenario("C15", "a window in the past, as after a revocation", revoked_by_the_ca),
    Scenario("C16", "a window in the past for ever, also for each new certificate", for_ever),
]

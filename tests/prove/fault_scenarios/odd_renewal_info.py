"""C18: renewal information that is none, makes no sense, or names odd times to be asked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from application.errors import CaUnavailable, Failure
from application.ports import CaAccount
from domain.acme import RenewalInfo
from domain.renewal import Lifetime, fraction_of, plan_by_lifetime
from tests.application.world import World
from tests.fakes_ca import FakeCa, refused
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import Stage, stage
from tests.prove.fault_scenarios.suggested import FAR, LATER, Windows, from_now
from tests.servers.ca_faults import no_such_certificate
from tests.servers.https import Answer
from tests.servers.process import wait_until

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SLACK_SECONDS = 5.0
YEARS = timedelta(days=3650)
JSON = {"Content-Type": "application/json"}

UNUSABLE: Mapping[str, Callable[[], Answer]] = {
    "404": no_such_certificate,
    "bad JSON": lambda: Answer(200, JSON, b'{"suggestedWindow": {"start": "2026-'),
    "no window": lambda: Answer(200, JSON, json.dumps({"suggestedWindow": None}).encode()),
    "start after end": lambda: from_now(LATER, FAR),
    "years away": lambda: from_now(YEARS, YEARS + DAY),
}
ODD_TIMES: Mapping[str, float | None] = {"absent": None, "0": 0, "1e9": 1e9}


def odd_renewal_info(folder: Path, findings: Findings, short: bool) -> None:
    _on_the_service(folder, findings, short=short)
    _through_three_days(findings)


def _on_the_service(folder: Path, findings: Findings, *, short: bool) -> None:
    windows = Windows()
    with stage(folder, suggest=windows) as on:
        for name, answer in UNUSABLE.items():
            windows.rule = answer
            certificate_id = on.issue(_label(name))
            _asked_again(on, findings, name, certificate_id)
            _by_lifetime(on, findings, name, certificate_id)
        for said, seconds in ODD_TIMES.items():
            windows.rule = lambda seconds=seconds: from_now(FAR, LATER, retry_after_seconds=seconds)  # type: ignore[misc]
            certificate_id = on.issue(_label(said))
            _asked_again(on, findings, f"Retry-After {said}", certificate_id)
            reason = on.certificate(certificate_id)["renewal"]["reason"]
            findings.equal(f"Retry-After {said}: the rule that sets the renewal", reason, "ari")
            if said == "0" and not short:
                _second_poll(on, findings, certificate_id)
        findings.equal("newOrders", len(on.new_orders()), len(UNUSABLE) + len(ODD_TIMES))
        on.tally(findings)


def _label(name: str) -> str:
    return name.replace(" ", "-").lower()


def _asked_again(on: Stage, findings: Findings, what: str, certificate_id: str) -> None:
    due_at = on.asked_again_at(certificate_id)
    again = (due_at - _polls(on, certificate_id)[-1]).total_seconds()
    least, most = MINUTE.total_seconds(), DAY.total_seconds()
    findings.between(f"{what}: s from the poll to the next", least - 1, again, most + SLACK_SECONDS)


def _polls(on: Stage, certificate_id: str) -> Sequence[datetime]:
    name = on.ari_id(certificate_id, 1)
    return [each.at for each in on.proxy.since(0).at("renewal-info") if each.path.endswith(f"/{name}")]


def _by_lifetime(on: Stage, findings: Findings, what: str, certificate_id: str) -> None:
    """`next_at` is by the lifetime's rule, and so is the row that the renewal rests on."""
    shown = on.certificate(certificate_id)
    lifetime = Lifetime(*(datetime.fromisoformat(shown[each]) for each in ("not_before", "not_after")))
    planned = plan_by_lifetime(lifetime, fraction_of(shown["fingerprint_sha256"])).at
    findings.equal(
        f"{what}: the rule", (shown["renewal"]["reason"], shown["renewal"]["ari_window"]), ("lifetime", None)
    )
    next_at = datetime.fromisoformat(shown["renewal"]["next_at"])
    off = [abs(at - planned) for at in (next_at, on.due_at("renewal", certificate_id))]
    left = (lifetime.not_after - next_at) / lifetime.length
    findings.check(
        f"{what}: next_at by the lifetime",
        f"{next_at:%Y-%m-%d}, {left:.0%} of the lifetime left",
        holds=max(off) <= timedelta(seconds=1),
    )


def _second_poll(on: Stage, findings: Findings, certificate_id: str) -> None:
    wait_until(
        lambda: len(_polls(on, certificate_id)) > 1,
        what="the CA is asked again",
        deadline_seconds=2 * 60 + SLACK_SECONDS,
    )
    first, second = _polls(on, certificate_id)
    least = MINUTE.total_seconds()
    findings.between(
        "Retry-After 0: s to the next poll at the CA",
        least - 1,
        (second - first).total_seconds(),
        least + SLACK_SECONDS,
    )


class Answering(FakeCa):
    """Answers as `rule` says, and keeps when."""

    rule: Callable[[datetime], RenewalInfo | Failure | None] = lambda _: None

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.asked_at: list[datetime] = []

    def renewal_info(self, account: CaAccount, ari_id: str) -> RenewalInfo | None:
        del account, ari_id
        self.asked_at.append(self._now())
        said = type(self).rule(self._now())
        if isinstance(said, Failure):
            raise said
        return said


def _window(
    start: timedelta, end: timedelta, retry_after_seconds: float | None = None
) -> Callable[[datetime], RenewalInfo]:
    return lambda now: RenewalInfo(now + start, now + end, retry_after_seconds=retry_after_seconds)


RULES: Mapping[str, Callable[[datetime], RenewalInfo | Failure | None]] = {
    "404": lambda _: refused("malformed", "Certificate not found", 404),
    "bad JSON": lambda _: CaUnavailable("malformed"),
    "start after end": _window(LATER, FAR, 3600),
    "years away": _window(YEARS, YEARS + DAY, 3600),
    "Retry-After absent": _window(YEARS, YEARS + DAY),
    "Retry-After 0": _window(YEARS, YEARS + DAY, 0),
    "Retry-After 1e9": _window(YEARS, YEARS + DAY, 1e9),
}


def _through_three_days(findings: Findings) -> None:
    for name, rule in RULES.items():
        kind = type("OneAnswering", (Answering,), {"rule": staticmethod(rule)})
        world = World(kind)
        with capture_logs():
            order_id = world.issued()
            world.renew_by_itself()
            world.run_for(3 * DAY)
        asked_at: Sequence[datetime] = world.ca.asked_at  # type: ignore[attr-defined]
        between = [later - earlier for earlier, later in pairwise(asked_at)]
        certificate = world.certificate(order_id)
        findings.check(
            f"{name}, 3 days (fake clock)",
            f"{len(asked_at)} polls, {min(between)} to {max(between)} apart; renewal by {certificate.plan.rule}",
            holds=min(between) >= MINUTE and max(between) <= DAY and certificate.plan.rule == "lifetime",
        )


SCENARIOS = [
    Scenario("C18", "ARI: 404, bad JSON, start after end, years away, Retry-After absent, 0, 1e9", odd_renewal_info)
]

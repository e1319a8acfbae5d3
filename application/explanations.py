"""Why a certificate will be renewed when it will, or will not: told from its history, each sentence with its event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from application.caller import Caller
from application.certificates import load_certificate
from application.event_store import EventStore, History
from application.ports import Clock
from application.renewals import Renewals
from domain.certificate import Certificate
from domain.order import Order
from domain.provenance import Recorded
from domain.rate_limit import Cost, Kind, limits_of
from domain.renewal import SHORT_LIVED, Window


class Citation(msgspec.Struct, frozen=True):
    """An event of the history. `position` is its place in the order of all."""

    position: int
    subject_id: str
    event: str
    timestamp: datetime


class Sentence(msgspec.Struct, frozen=True):
    text: str
    rests_on: Citation


class LastFailure(msgspec.Struct, frozen=True):
    """`chain` goes from the failed renewal to what its order met."""

    code: str
    message: str
    order_id: str | None
    at: datetime
    chain: Sequence[Sentence]


class ShownWindow(msgspec.Struct, frozen=True):
    start: datetime
    end: datetime
    seen_at: datetime
    explanation_url: str | None


class ShownCost(msgspec.Struct, frozen=True):
    """`counts` says whether the CA counts the order for any rate limit, None where its limits are not known; `limits` for
    which."""

    counts: bool | None
    why: str
    limits: Sequence[str]


class Explanation(msgspec.Struct, frozen=True):
    """`next_at` and `rule` are None where no renewal is planned; the sentences say why. `cost` is that of renewing now."""

    certificate_id: str
    version: int
    not_after: datetime
    next_at: datetime | None
    rule: str | None
    window: ShownWindow | None
    cost: ShownCost
    last_failure: LastFailure | None
    sentences: Sequence[Sentence]


WHY: dict[Kind, str] = {
    "ari_renewal": "it replaces a certificate in the window that the CA suggests, which the CA exempts from its limits",
    "same_set": "it is for the same names again, which the CA counts for that set of names and for failures alone",
    "new": "it is for names that the CA has issued no certificate for of late",
}
UNKNOWN = "the limits of this CA are not known here; what it says is obeyed"


def shown_cost(cost: Cost, ca: str) -> ShownCost:
    if not limits_of(ca):
        return ShownCost(None, UNKNOWN, [])
    return ShownCost(bool(cost.taken), WHY[cost.kind], list(dict.fromkeys(bucket.limit for bucket in cost.taken)))


class Explanations:
    def __init__(self, store: EventStore, history: History, renewals: Renewals, clock: Clock) -> None:
        self._store = store
        self._history = history
        self._renewals = renewals
        self._clock = clock

    def explain(self, certificate_id: str, caller: Caller) -> Explanation:
        """Raises NotFound, Denied."""
        certificate = load_certificate(self._store, certificate_id, caller)
        history = _of_current_version(self._history.of(certificate_id))
        account, cost = self._renewals.cost(certificate, self._clock.now())
        seen = _last(history, Certificate.RenewalInfoSeen)
        planned = certificate.next_renewal
        return Explanation(
            certificate_id=certificate.id,
            version=certificate.current.number,
            not_after=certificate.current.not_after,
            next_at=planned.at if planned else None,
            rule=planned.rule if planned else None,
            window=_window(seen),
            cost=shown_cost(cost, account.directory_url),
            last_failure=self._last_failure(history),
            sentences=list(_sentences(certificate, history)),
        )

    def _last_failure(self, history: Sequence[Recorded]) -> LastFailure | None:
        failed = _last(history, Certificate.RenewalFailed)
        if failed is None or not isinstance(failed.event, Certificate.RenewalFailed):
            return None
        event = failed.event
        chain = [Sentence(f"Attempt {event.attempt} failed: {event.error.message}", _cited(failed))]
        if event.order_id is not None:
            chain += _chain(self._history.of(event.order_id))
        return LastFailure(event.error.code, event.error.message, event.order_id, event.timestamp, chain)


def _of_current_version(history: Sequence[Recorded]) -> Sequence[Recorded]:
    """From the event on that brought it, and whether it is renewed by itself, whenever that was said."""
    begin = max(
        index for index, each in enumerate(history) if isinstance(each.event, Certificate.Issued | Certificate.Renewed)
    )
    switch = _last(history, Certificate.AutoRenewalSwitched) or history[0]
    return [*([switch] if switch not in history[begin:] else []), *history[begin:]]


def _last(history: Sequence[Recorded], kind: type) -> Recorded | None:
    return next((each for each in reversed(history) if isinstance(each.event, kind)), None)


def _cited(recorded: Recorded) -> Citation:
    event = recorded.event
    return Citation(recorded.position, event.originator_id, type(event).TOPIC, event.timestamp)  # type: ignore[attr-defined]


def _window(seen: Recorded | None) -> ShownWindow | None:
    if seen is None or not isinstance(seen.event, Certificate.RenewalInfoSeen):
        return None
    window = seen.event.suggestion.window
    return ShownWindow(window.start, window.end, seen.event.timestamp, seen.event.explanation_url)


def _sentences(certificate: Certificate, history: Sequence[Recorded]) -> Iterator[Sentence]:
    version = certificate.current
    brought = next(each for each in history if _brings(each, version.number))
    yield Sentence(f"Version {version.number} is valid until {_time(version.not_after)}.", _cited(brought))
    yield _rule(certificate, history, brought)
    if not certificate.auto_renew:
        said = _last(history, Certificate.AutoRenewalSwitched) or history[0]
        yield Sentence("It is not renewed by itself: that is switched off.", _cited(said))
    for recorded in history:
        text = _told(recorded.event, certificate)
        if text is not None:
            yield Sentence(text, _cited(recorded))


def _rule(certificate: Certificate, history: Sequence[Recorded], brought: Recorded) -> Sentence:
    plan, lifetime = certificate.plan, certificate.current.lifetime
    revoked = _last(history, Certificate.Revoked)
    if plan.rule == "revoked" and revoked is not None:
        return Sentence(f"It was revoked at {_time(plan.at)}, so it is due at once.", _cited(revoked))
    seen = _last(history, Certificate.RenewalInfoSeen)
    if seen is None or certificate.suggestion is None:
        share = "half" if lifetime.length < SHORT_LIVED else "a third"
        text = f"The CA has suggested nothing, so it is due with {share} of its lifetime left, at {_time(plan.at)}."
        return Sentence(text, _cited(brought))
    window = certificate.suggestion.window
    text = f"The CA suggests {_span(window)}, of which {_time(certificate.suggestion.renew_at)} was drawn."
    if plan.rule == "last_line":
        text += f" That is too late: with a sixth of its lifetime left it is due, at {_time(plan.at)}."
    return Sentence(text, _cited(seen))


def _brings(recorded: Recorded, number: int) -> bool:
    event = recorded.event
    return isinstance(event, Certificate.Issued | Certificate.Renewed) and event.version.number == number


def _told(event: object, certificate: Certificate) -> str | None:
    match event:
        case Certificate.RenewalBegan(order_id=order_id, reason=reason):
            return f"A renewal was begun ({reason}) with the order {order_id}."
        case Certificate.RenewalFailed(attempt=attempt, error=error, next_attempt_at=at):
            after = f"the next is made at {_time(at)}" if at else "no other is made by itself"
            return f"Attempt {attempt} failed ({error.code}); {after}."
        case Certificate.RenewalPostponed(bucket=bucket, until=until):
            return f"The CA's rate limit {bucket.limit} had no room; it waits until {_time(until)}."
        case Certificate.RenewalHeld(renewals=renewals, since=since, until=until):
            text = f"The breaker holds it until {_time(until)}: renewed by itself {renewals} times since {_time(since)}"
            return f"{text}." if certificate.is_held else f"{text}; that is over."
        case Certificate.RenewalReleased(reason=reason):
            return f"The breaker was lifted: {reason}."
        case Certificate.ExpiryNeared(not_after=not_after):
            return f"That it ends at {_time(not_after)} was told."
        case Certificate.Expired():
            return "It has expired."
        case _:
            return None


def _chain(history: Sequence[Recorded]) -> Iterator[Sentence]:
    """What an order met that kept it from its certificate."""
    for recorded in history:
        match recorded.event:
            case Order.Throttled(bucket=bucket, until=until):
                text = f"The CA's rate limit {bucket.limit} was met, until {_time(until)}."
                yield Sentence(text, _cited(recorded))
            case Order.ReplacementRefused(problem=problem) | Order.ChallengesReopened(problem=problem):
                yield Sentence(f"The CA said: {problem.detail}", _cited(recorded))
            case Order.Postponed(error=error) if error is not None:
                yield Sentence(f"It had to wait: {error.message}", _cited(recorded))
            case Order.Failed(error=error, name_errors=name_errors):
                yield Sentence(f"The order failed ({error.code}): {error.message}", _cited(recorded))
                for at_name in name_errors:
                    yield Sentence(f"At {at_name.dns_name} ({at_name.code}): {at_name.message}", _cited(recorded))
            case _:
                pass


def _span(window: Window) -> str:
    return f"{_time(window.start)} to {_time(window.end)}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"

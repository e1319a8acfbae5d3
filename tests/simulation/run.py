"""The years themselves: whatever falls due is performed, and the CA's answers come back.

Of the real service are `Renewal`, `RenewalInfos`, `Orders.place`, `Renewals`, `RateLimits` with its ledger folded from the
events, the step of `Issuance` that places an order at the CA with all it does about failures, and the commands of `Order`
and `Certificate`. What lies between an accepted order and its certificate (keys, DNS, the chain) is a delay and a chance.

Two things are skipped because they change nothing: a question for renewal information whose answer is known already (the
CA's answers change in incidents alone; the next question at which a certificate learns of one is at its time on the grid
of `Retry-After`), and the looks at a CA that is known to be away between the second one and its return, or the end of
the order."""

from __future__ import annotations

import gc
import hashlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from application.orders import record_order
from application.process import issuance, renewal, renewal_info
from application.process.issuance import PlaceAtCa
from application.process.todo import Claim
from domain.acme import ERROR_NAMESPACE, AuthorizationObject, ChallengeObject, OrderObject, Problem
from domain.certificate import Certificate, Version
from domain.errors import CaLimitReached
from domain.order import Order
from domain.renewal import Window
from tests.simulation.ca import Book, Issued, SimulatedCa
from tests.simulation.population import (
    ACCOUNTS,
    FAILURES,
    INCIDENTS,
    OUTAGES,
    REVOKED_SHARE,
    START,
    Line,
    populate,
)
from tests.simulation.service import CLIENT, Agenda, Clock, Service, Suffixes, quiet

DAYS = 730
TO_THE_CA = (0.5, 5.0)
TO_THE_CERTIFICATE = (10.0, 180.0)
AFTER_OUTAGE = 300.0  # seconds: the longest wait between two looks of an order
CLIENT_TRIES_AGAIN = timedelta(minutes=10)
MOST_LOOKS_IN_OUTAGE = 2


@dataclass
class Figures:
    """`over` is by limit and kind of order, `outside` counts renewals by why they were not in the CA's window."""

    lines: int = 0
    issued: int = 0
    renewed: int = 0
    renewed_by_hand: int = 0
    inside: int = 0
    outside: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    expired_events: int = 0
    over: Counter[str] = field(default_factory=Counter)
    refused_beforehand: int = 0
    postponed: int = 0
    held: int = 0
    failed: int = 0
    throttled: int = 0
    told_of_expiry: int = 0
    revoked: int = 0
    not_replaced: int = 0
    longest_to_replace: timedelta = timedelta()
    shortest_left: float = 1.0
    """Of the lifetime, when it was replaced."""
    events: int = 0
    digest: str = ""
    cpu_seconds: float = 0.0

    @property
    def share_inside(self) -> float:
        missed = self.outside["unexplained"]
        return self.inside / (self.inside + missed) if self.inside + missed else 0.0


def simulate(lines: int, seed: int, shard: int = 0, days: int = DAYS, book: Book = "boulder") -> Figures:
    """Collecting garbage would take a third of the time: what is alive stays so, and cycles are few."""
    gc.disable()
    try:
        with quiet():
            return Simulation(lines, seed, shard, days, book).run()
    finally:
        gc.enable()


class Simulation:
    def __init__(self, lines: int, seed: int, shard: int, days: int, book: Book) -> None:
        self._random = Random(f"{seed}/{shard}")
        self._end = START + timedelta(days=days)
        self._clock, self._agenda, self._figures = Clock(START), Agenda(), Figures()
        suffixes = Suffixes()
        self._ca = SimulatedCa(self._clock, suffixes, OUTAGES, f"{shard:02x}", book)
        self._service = Service(self._clock, self._ca, suffixes, self._random.random, f"{shard}x", self._decided)
        self._population = populate(Random(f"{seed}/{shard}/lines"), lines, shard, days)
        self._account_ids = [f"acme_production_{shard}{number}" for number in range(ACCOUNTS)]
        self._queues: defaultdict[str, deque[Line]] = defaultdict(deque)
        """By registered domain: what a client has still to order there, one by one."""
        self._line_of_order: dict[str, Line] = {}
        self._current: dict[str, Issued] = {}
        """By certificate line: what is in use."""
        self._planned: dict[str, tuple[datetime, str]] = {}
        """By certificate line: when its current version was to be renewed, and why, once that was due."""
        self._revoked: dict[str, datetime] = {}

    def run(self) -> Figures:
        began = time.process_time()
        for account_id in self._account_ids:
            self._service.open_account(account_id)
        for line in self._population.lines:
            self._agenda.set(("want", id(line)), line.wanted_at)
        self._wanted = {id(line): line for line in self._population.lines}
        for number, (at, line) in enumerate(self._population.by_hand):
            self._agenda.set(("by_hand", (number, id(line))), at)
        for at in INCIDENTS:
            self._agenda.set(("incident", at), at)
        perform: Mapping[str, Callable[[Any], None]] = {
            "want": self._want,
            "order_new": self._order_new,
            "by_hand": self._by_hand,
            "incident": self._incident,
            "outcome": self._outcome,
            renewal.NAME: self._renew,
            renewal_info.NAME: self._ask,
            issuance.NAME: self._place,
        }
        for at, (what, subject) in self._agenda.until(self._end):
            self._clock.at = at
            perform[what](subject)
        self._clock.at = self._end
        self._sum_up()
        self._figures.cpu_seconds = time.process_time() - began
        return self._figures

    # --- what the service has to do next ---

    def _decided(self, process: str, aggregate: Any, due_at: datetime | None) -> None:
        job = (process, aggregate.id)
        if due_at is None or (process == renewal_info.NAME and self._knows_all(aggregate)):
            self._agenda.drop(job)
        elif process == issuance.NAME:
            self._agenda.set(job, self._look_at(aggregate, due_at))
        else:
            self._agenda.set(job, max(due_at, self._clock.at))

    def _knows_all(self, certificate: Certificate) -> bool:
        """Whether the CA would say what it has said before."""
        suggestion = certificate.suggestion
        return suggestion is not None and suggestion.window == Window(*self._ca.certificates[suggestion.ari_id].window)

    def _look_at(self, order: Order, due_at: datetime) -> datetime:
        if order.at_ca is not None:
            return due_at
        if order.sealed_key_id is None:
            return due_at + timedelta(seconds=self._random.uniform(*TO_THE_CA))
        outage = self._ca.outage_of("new_order", self._clock.at)
        if outage is None or order.setbacks < MOST_LOOKS_IN_OUTAGE:
            return due_at
        return max(due_at, min(self._after(outage.end), order.give_up_at))

    def _after(self, outage_end: datetime) -> datetime:
        return outage_end + timedelta(seconds=self._random.uniform(0, AFTER_OUTAGE))

    # --- the service's own processes ---

    def _renew(self, certificate_id: str) -> None:
        certificate = self._service.store.load(Certificate, certificate_id)
        step = renewal.next_step(certificate)
        if isinstance(step, renewal.BeginRenewal) and step.due_at <= self._clock.at:
            self._planned.setdefault(certificate_id, (certificate.plan.at, certificate.plan.rule))
        again = self._service.renewal.perform(Claim(renewal.NAME, certificate_id, 1, 1))
        if again is not None:
            self._agenda.set((renewal.NAME, certificate_id), self._clock.at + again)

    def _ask(self, certificate_id: str) -> None:
        again = self._service.renewal_infos.perform(Claim(renewal_info.NAME, certificate_id, 1, 1))
        certificate = self._service.store.load(Certificate, certificate_id)
        if again is not None and not self._knows_all(certificate):
            self._agenda.set((renewal_info.NAME, certificate_id), self._clock.at + again)

    def _place(self, order_id: str) -> None:
        order: Order = self._service.store.load(Order, order_id)
        if order.ended is not None or order.at_ca is not None:
            return
        order.seal_key("key", b"csr", self._clock.at)
        step = issuance.next_step(order)
        if not isinstance(step, PlaceAtCa):
            raise TypeError(step)
        claim = Claim(issuance.NAME, order_id, 1, 1)
        self._service.issuance._perform_step(step, order, CLIENT.provenance, claim, again=False)
        if order.at_ca is not None:
            delay = timedelta(seconds=self._random.uniform(*TO_THE_CERTIFICATE))
            self._agenda.set(("outcome", order_id), self._clock.at + delay)
        elif order.ended is not None:
            self._ended(order)

    # --- what comes of an order at the CA ---

    def _outcome(self, order_id: str) -> None:
        order: Order = self._service.store.load(Order, order_id)
        if order.at_ca is None:
            raise TypeError(order)
        if order.ended is not None:  # called off meanwhile
            self._ca.lose(order.at_ca.url, None)
            self._ended(order)
            return
        now = self._clock.at
        outage = self._ca.outage_of("issuance", now)
        if outage is not None and now < order.give_up_at:
            self._agenda.set(("outcome", order_id), min(self._after(outage.end), order.give_up_at))
            return
        broken = [name for name in order.dns_names if self._population.is_broken(name, now)]
        if outage is not None:
            self._ca.lose(order.at_ca.url, None)
            order.wait(None, now)
        elif broken or self._random.random() < FAILURES:
            self._ca.lose(order.at_ca.url, (broken or order.dns_names)[0])
            order.follow(*_invalid(order.at_ca, (broken or order.dns_names)[0]), now)
        else:
            self._issue(order)
            return
        record_order(self._service.store, order, CLIENT.provenance)
        self._ended(order)

    def _issue(self, order: Order) -> None:
        now, accepted = self._clock.at, self._ca.orders[order.at_ca.url]  # type: ignore[union-attr]
        issued = self._ca.issue(accepted.url)
        line_id, store = order.certificate_id, self._service.store
        before = self._current.get(line_id)
        if before is not None:
            self._judge(order, before, accepted.at)
        self._current[line_id] = issued
        version = Version(
            number=1,
            order_id=order.id,
            serial_number=issued.serial,
            fingerprint_sha256=hashlib.sha256(issued.serial.encode()).hexdigest(),
            issuer="CN=simulated",
            key_type="ec256",
            not_before=issued.not_before,
            not_after=issued.not_after,
            chain_pem=issued.serial,
            sealed_key_id="key",
        )
        if before is None:
            line = self._line_of_order.pop(order.id)
            line.certificate_id = line_id
            self._figures.issued += 1
            certificate = Certificate.issue(
                line_id,
                tenant_id=order.tenant_id,
                account_id=order.account_id,
                name=None,
                dns_names=order.dns_names,
                auto_renew=True,
                version=version,
                now=now,
            )
        else:
            certificate = store.load(Certificate, line_id)
            version = _numbered(version, certificate.next_number)
            certificate.renew(version, order.renewal_reason or "requested", now)
            certificate.versions = (certificate.versions[0], certificate.versions[-1])  # for memory's sake
        order.complete(version.number, now)
        store.record(order, certificate, by=CLIENT.provenance)
        if before is not None:  # the first order of a line is asked for its settings at each renewal
            del store.aggregates[order.id]

    def _judge(self, order: Order, before: Issued, ordered_at: datetime) -> None:
        """What the CA and a clock say about a renewal."""
        figures, now = self._figures, self._clock.at
        figures.renewed += 1
        left = (before.not_after - now) / (before.not_after - before.not_before)
        figures.shortest_left = min(figures.shortest_left, left)
        figures.expired += left <= 0
        revoked_at = self._revoked.pop(before.serial, None)
        planned_at, rule = self._planned.pop(order.certificate_id, (None, ""))
        if revoked_at is not None:
            figures.longest_to_replace = max(figures.longest_to_replace, now - revoked_at)
        if order.renewal_reason == "requested":
            figures.renewed_by_hand += 1
        elif before.is_in_window(ordered_at):
            figures.inside += 1
        elif revoked_at is not None:
            figures.outside["revoked"] += 1
        elif planned_at is not None and self._ca.outage_of("new_order", planned_at) is not None:
            figures.outside["outage"] += 1
        else:
            has_failed = self._service.store.load(Certificate, order.certificate_id).failed_renewals > 0
            figures.outside["unexplained"] += 1
            figures.outside["of these after a failure" if has_failed else f"of these by {rule}"] += 1

    def _ended(self, order: Order) -> None:
        line = self._line_of_order.pop(order.id, None)
        if line is not None:  # whoever wanted it asks again
            self._queues[line.domain].append(line)
            self._agenda.set(("order_new", line.domain), self._clock.at + CLIENT_TRIES_AGAIN)
        self._service.store.aggregates.pop(order.id, None)

    # --- what people and the CA do ---

    def _want(self, line_id: int) -> None:
        line = self._wanted[line_id]
        self._queues[line.domain].append(line)
        self._agenda.set(("order_new", line.domain), self._clock.at)

    def _order_new(self, domain: str) -> None:
        queue = self._queues[domain]
        while queue:
            line = queue[0]
            try:
                order_id, _ = self._service.orders.place(
                    account_id=self._account_ids[line.account],
                    domains=line.names,
                    challenge_type="dns-01",
                    auto_renew=True,
                    key_type=None,
                    csr_pem=None,
                    profile=line.profile,
                    preferred_chain=None,
                    dns_provider_id=None,
                    name=None,
                    caller=CLIENT,
                )
            except CaLimitReached as limit:
                self._figures.refused_beforehand += 1
                again = timedelta(seconds=limit.retry_after_seconds)
                self._agenda.set(("order_new", domain), self._clock.at + again)
                return
            self._line_of_order[order_id] = queue.popleft()

    def _by_hand(self, number_and_line: tuple[int, int]) -> None:
        line = self._wanted[number_and_line[1]]
        if line.certificate_id is None:
            return
        try:
            self._service.renewals.renew(line.certificate_id, reason="requested", new_key=True, caller=CLIENT)
        except CaLimitReached:
            self._figures.refused_beforehand += 1

    def _incident(self, at: datetime) -> None:
        """The hasty ones are among the victims: their limits are used up."""
        lines = [line for line in self._population.lines if line.certificate_id is not None]
        hasty = [line for line in lines if line.is_hasty]
        drawn = self._random.sample(lines, min(len(lines), max(1, int(len(lines) * REVOKED_SHARE))))
        ids = dict.fromkeys(line.certificate_id or "" for line in (*hasty, *drawn))
        serials = [self._current[certificate_id].serial for certificate_id in ids]
        self._ca.revoke(serials)
        self._figures.revoked += len(serials)
        self._revoked.update(dict.fromkeys(serials, at))
        for certificate_id in ids:
            self._planned.pop(certificate_id, None)
            certificate = self._service.store.load(Certificate, certificate_id)
            step = renewal_info.next_step(certificate)
            if step is not None:
                behind = max(timedelta(), at - step.due_at)
                grid = timedelta(hours=6)
                self._agenda.set((renewal_info.NAME, certificate_id), step.due_at + -(-behind // grid) * grid)

    def _sum_up(self) -> None:
        figures, counts = self._figures, self._service.store.counts
        figures.lines = len(self._population.lines)
        figures.expired += sum(issued.not_after <= self._end for issued in self._current.values())
        figures.over = Counter(f"{limit}, {kind}" for _, limit, _, kind in self._ca.over)
        figures.expired_events = counts[Certificate.Expired.TOPIC]
        figures.postponed = counts[Certificate.RenewalPostponed.TOPIC]
        figures.held = counts[Certificate.RenewalHeld.TOPIC]
        figures.failed = counts[Certificate.RenewalFailed.TOPIC]
        figures.throttled = counts[Order.Throttled.TOPIC]
        figures.told_of_expiry = counts[Certificate.ExpiryNeared.TOPIC]
        figures.not_replaced = len(self._revoked)
        figures.events = counts.total()
        figures.digest = self._service.store.digest


def _numbered(version: Version, number: int) -> Version:
    return Version(**{**version.__dict__, "number": number})


def _invalid(order: OrderObject, name: str) -> tuple[OrderObject, list[AuthorizationObject]]:
    """What the CA says of an order when the authorization of that name failed."""
    problem = Problem(ERROR_NAMESPACE + "unauthorized", "no TXT record found")
    challenge = ChallengeObject("dns-01", f"{order.url}/challenge", "invalid", "token", problem)
    base = name.removeprefix("*.")
    authorization = AuthorizationObject(f"{order.url}/authz", base, name != base, "invalid", (challenge,))
    return OrderObject(order.url, "invalid", order.finalize_url, order.authorization_urls), [authorization]

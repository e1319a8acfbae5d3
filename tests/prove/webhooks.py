"""Claim: no event is lost where receivers drop, hang, refuse and reset, and the worker is killed every two seconds.

A fourth receiver, without faults, then gets the same bodies by a replay. Who was owed what, and what became of it, is
counted from the rows of the event store and from the receivers' own notes; no view is asked. The worker's times are
scaled, see `hurried_worker.py`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any, Self

import psycopg

from application.event_store import EventStore
from application.mapper import EventMapper
from domain.certificate import Certificate, Version
from domain.order import Assignment, Order, OrderError
from domain.provenance import DEFAULT_TENANT, Provenance
from interfaces.clock import UlidIds
from interfaces.main import DECISIONS
from interfaces.postgres.pool import open_pool
from interfaces.postgres.recorder import PostgresRecorder
from projections.views import INLINE
from tests.prove import hurried_worker
from tests.prove.hurried_worker import HurriedWorker
from tests.servers.faulty_receiver import FaultyReceivers, Received, is_signed
from tests.servers.process import wait_until
from tests.system.service import Client, Process, open_folder, running_database

PORTIONS = 4
"""In so many the events are recorded, each while another worker lives, as long as there are so many."""

TOGETHER = 50  # events of one append
FIXED_SECONDS, SECONDS_AN_EVENT = 300.0, 0.3  # what a run may take
MOST_IN_FLIGHT = 4
CUT_OFF = "the worker ended during the attempt"
TYPES = {
    "certificate.issued": "certificate.issued",
    "certificate.renewed": "certificate.renewed",
    "certificate.renewal_failed": "certificate.renewal_failed",
    "order.failed": "order.invalid",
}
"""By the topic of the event in the store."""


@dataclass(frozen=True)
class Told:
    """An event in the store that somebody may want to be told of. `subject` is a certificate or an order."""

    event_type: str
    subject: str
    dns_names: Sequence[str]


@dataclass(frozen=True)
class Subscriber:
    """`terms` and `delivery` are for the API; `wants` says the same in Python."""

    name: str
    terms: Mapping[str, Any]
    wants: Callable[[Told], bool]
    delivery: Mapping[str, Any] = field(default_factory=dict)
    tls: bool = False


SUBSCRIBERS = (
    Subscriber(
        "edge",
        {"paths": ["pki/certificates/*"], "events": ["certificate.issued", "certificate.renewed"]},
        lambda told: told.event_type in {"certificate.issued", "certificate.renewed"},
        {"secret": "a secret of the receiver's own, no base64"},
    ),
    Subscriber(
        "watch",
        {"paths": ["pki/**"], "events": ["order.invalid", "certificate.renewal_failed", "certificate.issued"]},
        lambda told: told.event_type != "certificate.renewed",
    ),
    Subscriber(
        "shop",
        {
            "paths": ["pki/certificates/cert_*", "pki/acme/orders/*"],
            "events": list(TYPES.values()),
            "filters": {"domains": ["*.shop.example"]},
        },
        lambda told: any(dns_name.endswith(".shop.example") for dns_name in told.dns_names),
        {"ordered": True},
        tls=True,
    ),
)
ARCHIVE = Subscriber("archive", {"paths": ["**"], "events": list(TYPES.values())}, lambda _: True)


@dataclass
class World:
    """One API, one worker, the receivers, and the event store that they share; `subscriptions` are ids by name."""

    client: Client
    worker: HurriedWorker
    receivers: FaultyReceivers
    store: EventStore
    rows: psycopg.Connection
    subscriptions: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def subscribe(self, subscriber: Subscriber) -> None:
        delivery = {"type": "webhook", "url": self.receivers.endpoints[subscriber.name].url, **subscriber.delivery}
        if subscriber.tls:
            delivery["ca_bundle_pem"] = self.receivers.ca_bundle_pem
        made = self.client.post(
            "/v1/subscriptions", {"name": subscriber.name, **subscriber.terms, "delivery": delivery}
        )
        secret = subscriber.delivery.get("secret") or made["delivery"]["secret"]
        self.receivers.tell_secret(subscriber.name, secret)
        self.subscriptions[subscriber.name] = made["id"]
        self.secrets[subscriber.name] = secret

    def is_settled(self) -> bool:
        """Whether all that was recorded is owed, and all that is owed was taken or is dead. It says when to look, not
        what there will be to see."""
        if self._asked("SELECT EXISTS (SELECT FROM todo WHERE process IN ('delivery', 'subscription'))"):
            return False
        query = (
            "SELECT coalesce((SELECT position FROM positions WHERE reader = 'delivery_fan_out'), 0)"
            " >= (SELECT max(position) FROM events WHERE topic = ANY(%s))"
        )
        return bool(self._asked(query, list(TYPES)))

    def settle(self, what: str, deadline: float) -> None:
        """Raises TimeoutError."""
        wait_until(self.is_settled, what=what, deadline_seconds=deadline - time.monotonic())

    def _asked(self, query: str, *parameters: object) -> Any:
        row = self.rows.execute(query.encode(), parameters).fetchone()
        return row and row[0]


@contextmanager
def running_world(seed: int) -> Iterator[World]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        faulty = [subscriber.name for subscriber in SUBSCRIBERS]
        tls = [subscriber.name for subscriber in SUBSCRIBERS if subscriber.tls]
        receivers = FaultyReceivers(folder / "receivers", seed, [*faulty, ARCHIVE.name], tls, faulty)
        stack.enter_context(receivers)
        settings = stack.enter_context(running_database(folder))
        api = stack.enter_context(Process(folder / "api", "api", settings))
        client = stack.enter_context(Client(api.url, api.token("subscriptions:read subscriptions:write")))
        pool = stack.enter_context(open_pool(settings["DATABASE_URL"], 2))
        store = EventStore(PostgresRecorder(pool, EventMapper(), INLINE), DECISIONS)
        rows = stack.enter_context(psycopg.connect(settings["DATABASE_URL"], autocommit=True))
        worker = HurriedWorker(folder / "worker", settings)
        stack.callback(worker.stop)
        yield World(client, worker, receivers, store, rows)


def happenings(random: Random) -> Iterator[Certificate | Order]:
    """One thing after the other that somebody may want to be told of: what it happened to, with the event pending."""
    ids = UlidIds()
    lines: list[Certificate] = []
    while True:
        now = datetime.now(UTC)
        kind = random.choices(("issued", "renewed", "renewal_failed", "invalid"), (4, 3, 2, 1))[0]
        names = (f"www{len(lines)}.{random.choice(('shop', 'blog', 'mail'))}.example",)
        if kind == "invalid":
            yield failed_order(ids, names, now)
        elif kind == "issued" or not lines:
            lines.append(issued(ids, names, now))
            yield lines[-1]
        else:
            line = random.choice(lines)
            if kind == "renewed":
                line.renew(version(ids.new("acme_order"), line.next_number, now), "scheduled", now)
            else:
                line.renewal_failed(ids.new("acme_order"), OrderError("backend_error", "the CA is away", 3600), now)
            yield line


def issued(ids: UlidIds, names: tuple[str, ...], now: datetime) -> Certificate:
    return Certificate.issue(
        ids.new("cert"),
        tenant_id=DEFAULT_TENANT,
        account_id="acct_1",
        name=None,
        dns_names=names,
        auto_renew=True,
        version=version(ids.new("acme_order"), 1, now),
        now=now,
    )


def version(order_id: str, number: int, now: datetime) -> Version:
    return Version(
        number=number,
        order_id=order_id,
        serial_number=f"{number:036x}",
        fingerprint_sha256=f"{number:064x}",
        issuer="CN=Proof",
        key_type="ec256",
        not_before=now,
        not_after=now + timedelta(days=90),
        chain_pem="-----BEGIN CERTIFICATE-----\n" + 20 * f"{'M' * 64}\n" + "-----END CERTIFICATE-----\n",
        sealed_key_id=None,
    )


def failed_order(ids: UlidIds, names: tuple[str, ...], now: datetime) -> Order:
    order = Order.place(
        ids.new("acme_order"),
        tenant_id=DEFAULT_TENANT,
        account_id="acct_1",
        certificate_id=ids.new("cert"),
        assignments=tuple(Assignment(name, "dns_1") for name in names),
        challenge_type="dns-01",
        key_type="ec256",
        auto_renew=True,
        name=None,
        profile=None,
        preferred_chain=None,
        renewal_reason=None,
        kept_key_id=None,
        replaces=None,
        ca="",
        charges=(),
        csr_der=b"",
        now=now,
    )
    order.fail(OrderError("challenge_failed", "the CA saw another value"), now)
    return order


def record(store: EventStore, happening: Iterator[Certificate | Order], count: int) -> None:
    by = Provenance(DEFAULT_TENANT, "token", "tok_proof", request_id="req_proof")
    for done in range(0, count, TOGETHER):
        happened = {one.id: one for one in islice(happening, min(TOGETHER, count - done))}
        store.record_each([(one, by) for one in happened.values()])


def deliver(world: World, seed: int, events: int, kill_every: float, deadline: float) -> int:
    """Records the events while the worker is killed and started again, until each delivery was taken or is dead. One
    worker lives on. How many were killed; raises TimeoutError."""
    happening = happenings(Random(seed))
    share, rest = divmod(events, PORTIONS)
    to_do = [share + (number < rest) for number in range(PORTIONS)]
    kills = 0
    with ThreadPoolExecutor(1) as writer:
        recorded = []
        while True:
            world.worker.start()
            if to_do:
                recorded.append(writer.submit(record, world.store, happening, to_do.pop()))
            time.sleep(kill_every)
            if not to_do and all(each.done() for each in recorded) and world.is_settled():
                for each in recorded:
                    each.result()
                return kills
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not all was taken or dead in time, after {kills} kills")
            world.worker.kill()
            kills += 1


def redeliver_the_dead(world: World, deadline: float) -> int:
    """As an operator would, until none is left. How many; raises TimeoutError."""
    redelivered = 0
    while found := [(path, letter) for path in deliveries_paths(world) for letter in dead_letters(world, path)]:
        for path, delivery_id in found:
            world.client.post(f"{path}/{delivery_id}/redeliver")
        redelivered += len(found)
        world.settle("what was redelivered is taken", deadline)
    return redelivered


def deliveries_paths(world: World) -> Sequence[str]:
    return [f"/v1/subscriptions/{subscription_id}/deliveries" for subscription_id in world.subscriptions.values()]


def dead_letters(world: World, path: str) -> Sequence[str]:
    found: list[str] = []
    query: dict[str, str | int] = {"status": "dead", "limit": 1000}
    while True:
        page = world.client.get(path, **query)
        found += [delivery["id"] for delivery in page["data"]]
        if not page["has_more"]:
            return found
        query["cursor"] = page["cursor"]


def replay(world: World, deadline: float) -> int:
    """To one who was not there. How many events the API promised; raises TimeoutError."""
    world.subscribe(ARCHIVE)
    promised = world.client.post(f"/v1/subscriptions/{world.subscriptions[ARCHIVE.name]}/replay", {"from": 1})
    world.settle("what was replayed is taken", deadline)
    return int(promised["count"])


@dataclass
class Entry:
    """What the event store says of one delivery. Times are Unix times; an attempt that `ran_out` had no answer in time."""

    attempts: int = 0
    cut_off: int = 0
    ran_out: int = 0
    delivered_at: list[float] = field(default_factory=list)
    died: bool = False


Ledger = Mapping[tuple[str, int], Entry]
"""By the subscriber's name and the event's position."""


def told(world: World) -> Mapping[int, Told]:
    """By position."""
    query = "SELECT position, topic, originator_id, state->'dns_names' FROM events WHERE topic = ANY(%s)"
    rows = world.rows.execute(query, [list(TYPES)]).fetchall()
    return {position: Told(TYPES[topic], subject, dns_names) for position, topic, subject, dns_names in rows}


def ledger(world: World) -> Ledger:
    names = {subscription_id: name for name, subscription_id in world.subscriptions.items()}
    entries: dict[tuple[str, int], Entry] = defaultdict(Entry)
    of_delivery: dict[str, Entry] = {}
    query = "SELECT originator_id, topic, state FROM events WHERE topic LIKE 'delivery.%' ORDER BY position"
    for delivery_id, topic, state in world.rows.execute(query):
        if topic == "delivery.owed":
            of_delivery[delivery_id] = entries[names[state["subscription_id"]], state["position"]]
            continue
        entry = of_delivery[delivery_id]
        entry.attempts += topic in {"delivery.delivered", "delivery.attempt_failed", "delivery.given_up"}
        entry.died |= topic in {"delivery.given_up", "delivery.abandoned"}
        if topic == "delivery.delivered":
            entry.delivered_at.append(datetime.fromisoformat(state["timestamp"]).timestamp())
        elif topic in {"delivery.attempt_failed", "delivery.given_up"} and state["status"] is None:
            milliseconds = state["duration_ms"] or 0
            entry.cut_off += state["detail"] == CUT_OFF
            entry.ran_out += milliseconds >= 900 * hurried_worker.ANSWER_SECONDS
    return entries


@dataclass
class Figures:
    """Of one subscriber, or of all together."""

    owed: int = 0
    requests: int = 0
    lost: int = 0
    unexpected: int = 0
    unverified: int = 0
    unexplained: int = 0
    out_of_order: int = 0
    more_than_once: int = 0
    after_a_2xx: int = 0
    explained: int = 0
    in_flight: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Figures) -> Self:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name == "in_flight" else mine + value)
        return self

    @property
    def holds(self) -> bool:
        faults = self.lost + self.unexpected + self.unverified + self.unexplained + self.out_of_order
        return faults == 0 and self.in_flight <= MOST_IN_FLIGHT


def figures(
    subscriber: Subscriber, world: World, events: Mapping[int, Told], entries: Ledger, bodies: dict[int, bytes]
) -> Figures:
    """`bodies` are those seen before, by position; new ones are added."""
    name = subscriber.name
    received = world.receivers.received(name)
    owed = {position: event for position, event in events.items() if subscriber.wants(event)}
    by_event: dict[int, list[Received]] = defaultdict(list)
    found = Figures(owed=len(owed), requests=len(received))
    for request in received:
        position = position_of(request, owed)
        if position is None or bodies.setdefault(position, request.body) != request.body:
            found.unexpected += 1
        else:
            by_event[position].append(request)
        signed = request.fits_standard and is_signed(world.secrets[name], request.headers, request.body)
        found.unverified += not signed
        found.in_flight = max(found.in_flight, request.in_flight)
        found.answers[request.answer] += 1
    for position, requests in by_event.items():
        found.more_than_once += len(requests) - 1
        found.after_a_2xx += after_a_2xx(requests)
        excess = unexplained(requests, entries[name, position])
        found.unexplained += excess
        found.explained += max(0, after_a_2xx(requests) - excess)
    firsts = [position for position in owed if any(request.is_taken for request in by_event[position])]
    found.lost = len(owed) - len(firsts)
    if subscriber.delivery.get("ordered"):
        firsts.sort(key=lambda position: next(each.begun_at for each in by_event[position] if each.is_taken))
        alive = [position for position in firsts if not entries[name, position].died]
        found.out_of_order = out_of_order(alive, owed)
    return found


def position_of(request: Received, owed: Mapping[int, Told]) -> int | None:
    """None where the body is none of those that are owed, or the headers say something else."""
    event = json.loads(request.body)
    position = event["sequence"]
    if position not in owed:
        return None
    subject = event["data"]["order_id" if event["event_type"] == "order.invalid" else "certificate_id"]
    same = (
        (event["event_type"], subject) == (owed[position].event_type, owed[position].subject)
        and request.headers["x-scaivault-event-id"] == request.headers["webhook-id"] == event["event_id"]
        and request.headers["x-scaivault-event-type"] == event["event_type"]
    )
    return position if same else None


def after_a_2xx(requests: Sequence[Received]) -> int:
    taken = [number for number, request in enumerate(requests) if request.is_taken]
    return len(requests) - 1 - taken[0] if taken else 0


def unexplained(requests: Sequence[Received], entry: Entry) -> int:
    """Requests that at-least-once does not excuse: more than the store knows attempts of; after it knew that the event
    was taken; or after a 2xx of which it does not know that it was lost, by the worker's end or by coming too late."""
    uncounted = len(requests) - entry.attempts
    too_late = sum(any(at < request.begun_at for at in entry.delivered_at) for request in requests)
    given = sum(request.is_taken for request in requests)
    hung = sum(request.answer == "hang" for request in requests)
    excused = len(entry.delivered_at) + entry.cut_off + max(0, entry.ran_out - hung)
    return max(0, uncounted, too_late, given - excused)


def out_of_order(positions: Sequence[int], events: Mapping[int, Told]) -> int:
    """How many came after a later one of the same subject."""
    latest: Counter[str] = Counter()
    overtaken = 0
    for position in positions:
        subject = events[position].subject
        overtaken += position < latest[subject]
        latest[subject] = max(latest[subject], position)
    return overtaken


def same_bodies(world: World, bodies: Mapping[int, bytes]) -> int:
    """How many of them the fourth got, each under the same id, which no other has."""
    ids = {json.loads(body)["event_id"]: body for body in bodies.values()}
    replayed = {request.headers["webhook-id"]: request.body for request in world.receivers.received(ARCHIVE.name)}
    return sum(replayed.get(event_id) == body for event_id, body in ids.items())


def report(name: str, found: Figures) -> None:
    answers = found.answers
    taken = sum(answers[status] for status in ("200", "202", "204"))
    print(
        f"{name}: {found.owed} events owed, {found.requests} requests: {taken} answered 2xx, {answers['500']} with 500,"
    )
    print(
        f"  {answers['drop']} dropped, {answers['hang']} hung, {answers['reset']} reset; at most {found.in_flight} at once"
    )


def conclude(found: Figures, entries: Ledger) -> None:
    attempts, cut_off = (sum(getattr(entry, name) for entry in entries.values()) for name in ("attempts", "cut_off"))
    print(f"{found.owed} deliveries, {attempts} attempts, {cut_off} of them cut off; {found.requests} requests")
    print(
        f"the four numbers: lost {found.lost}, unexpected {found.unexpected}, unverified {found.unverified},"
        f" unexplained duplicates {found.unexplained}"
    )
    print(
        f"  sent more than once {found.more_than_once}, of those after a 2xx {found.after_a_2xx},"
        f" explained {found.explained}; overtaken where order was asked for {found.out_of_order}"
    )


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--replay", action=argparse.BooleanOptionalAction, default=True)
    wanted = parser.parse_args(words)
    print(" ".join((hurried_worker.__doc__ or "").split()))
    with running_world(wanted.seed) as world:
        return prove(world, wanted)


def prove(world: World, wanted: argparse.Namespace) -> int:
    started = time.monotonic()
    deadline = started + FIXED_SECONDS + SECONDS_AN_EVENT * wanted.events
    kills, redelivered, promised, in_time = 0, 0, 0, True

    def seconds() -> str:
        return f"{time.monotonic() - started:.1f} s"

    for subscriber in SUBSCRIBERS:
        world.subscribe(subscriber)
    try:
        kills = deliver(world, wanted.seed, wanted.events, wanted.kill_every, deadline)
        print(f"{wanted.events} events, seed {wanted.seed}: all taken or dead after {seconds()} and {kills} kills")
        redelivered = redeliver_the_dead(world, deadline)
        print(f"{redelivered} dead letters redelivered after {seconds()}")
        if wanted.replay:
            promised = replay(world, deadline)
            print(f"{promised} events replayed after {seconds()}")
    except TimeoutError as problem:
        in_time = False
        print(f"too late: {problem}")
    world.worker.stop()
    events, entries = told(world), ledger(world)
    total, bodies = Figures(), dict[int, bytes]()
    for subscriber in (*SUBSCRIBERS, ARCHIVE):
        if subscriber.name in world.subscriptions:
            found = figures(subscriber, world, events, entries, bodies)
            report(subscriber.name, found)
            total += found
    conclude(total, entries)
    holds = in_time and total.holds and len(events) == wanted.events
    if wanted.replay:
        equal = same_bodies(world, bodies)
        print(f"equal bodies {equal} of {len(events)}")
        holds = holds and equal == promised == wanted.events
    print(
        f"webhooks: {wanted.events} events, {total.lost} lost, {total.unexpected} unexpected, {total.unverified} unverified,"
        f" {total.unexplained} unexplained duplicates; {kills} kills, {redelivered} dead letters redelivered, {seconds()}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

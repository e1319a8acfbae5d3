"""Bench: how soon 500 polls that wait on one API process are told, one of them and all of them."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from random import Random

from domain.certificate import Certificate
from domain.provenance import DEFAULT_TENANT
from domain.subscription import Subscription
from interfaces.http.waiting import LONGEST_WAIT_SECONDS
from interfaces.postgres.pool import open_pool
from tests.projections.live import Live
from tests.projections.story import BY, issued, version
from tests.system.service import Process, open_folder, running_database
from tests.system.test_long_polls import SCOPES, Asker, all_wait

POLLS = 500
EVENTS = 400
EVENTS_A_SECOND = 20.0
ROUNDS = 20
GETS = 400
TARGET_SECONDS = 0.05
FOR_ALL = "cert_for_all"
DEADLINE_SECONDS = 120.0


@dataclass(frozen=True)
class Answered:
    """An event that was told, by its certificate and version, and when the answer was there (Unix time)."""

    certificate_id: str
    version: int
    at: float


@dataclass
class Stage:
    """An API, those who poll it in a process of their own, and the history that this process writes."""

    live: Live
    url: str
    token: str
    clients: Connection

    def renewed(self, certificate_id: str) -> tuple[tuple[str, int], float]:
        """Which version it is now, and when that was committed (Unix time)."""
        certificate = self.live.store.load(Certificate, certificate_id)
        number = certificate.next_number
        certificate.renew(version(number, f"order_{certificate_id}_{number}"), "ari", datetime.now(UTC))
        self.live.store.record(certificate, by=BY)
        return (certificate_id, number), time.time()

    def expect(self, answers: int) -> None:
        """Returns once all wait; so many answers are to come."""
        self.clients.send(answers)
        self._receive()

    def answers(self) -> Sequence[Answered]:
        found: Sequence[Answered] = self._receive()
        return found

    def _receive(self) -> Sequence[Answered]:
        if not self.clients.poll(DEADLINE_SECONDS):
            raise TimeoutError("not all were told")
        received: Sequence[Answered] = self.clients.recv()
        return received


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--polls", type=int, default=POLLS)
    wanted = parser.parse_args(words)
    with stage(wanted.polls) as running:
        get = seconds_of_a_get(running)
        one, worst_one = seconds_for_one_each(running, wanted.polls)
        all_of_them, last = seconds_for_all(running, wanted.polls)
    ratio = all_of_them / get
    verdict = "met" if one < TARGET_SECONDS else "MISSED"
    print(f"a plain GET while they wait: median {get * 1e3:.2f} ms")
    print(f"an event for one of them: median {one * 1e3:.1f} ms, p99 {worst_one * 1e3:.1f} ms after its commit")
    print(f"an event for all of them: median {all_of_them * 1e3:.0f} ms, the last {last * 1e3:.0f} ms after its commit")
    print(
        f"long_polls: one of {wanted.polls} after {one * 1e3:.1f} ms (target of {TARGET_SECONDS * 1e3:.0f} ms {verdict}),"
        f" all after {all_of_them * 1e3:.0f} ms, {ratio:.0f} times a plain GET"
    )


def seconds_for_one_each(running: Stage, polls: int) -> tuple[float, float]:
    """Median and 99th percentile where each event is for one of those who wait."""
    chosen = [Random(1).randrange(polls) for _ in range(EVENTS)]
    running.expect(EVENTS)
    begun = time.monotonic()
    committed: dict[tuple[str, int], float] = {}
    for number, who in enumerate(chosen):
        time.sleep(max(0.0, begun + number / EVENTS_A_SECOND - time.monotonic()))
        what, at = running.renewed(own(who))
        committed[what] = at
    late = delays(running.answers(), committed)
    return statistics.median(late), statistics.quantiles(late, n=100)[-1]


def seconds_for_all(running: Stage, polls: int) -> tuple[float, float]:
    """Median where an event is for all who wait, and of the last ones of each round."""
    late: list[float] = []
    last: list[float] = []
    for _ in range(ROUNDS):
        running.expect(polls)
        what, at = running.renewed(FOR_ALL)
        round_ = delays(running.answers(), {what: at})
        late += round_
        last.append(max(round_))
    return statistics.median(late), statistics.median(last)


def seconds_of_a_get(running: Stage) -> float:
    async def ask() -> float:
        one = Asker(running.url, running.token, f"/v1/pki/certificates/{own(0)}")
        await one.open()
        took = []
        for _ in range(GETS):
            begun = time.perf_counter()
            await one.ask()
            told = await one.told()
            took.append(time.perf_counter() - begun)
            if told.status != 200:
                raise AssertionError(told.body)
        one.hang_up()
        return statistics.median(took)

    running.expect(0)
    running.answers()
    return asyncio.run(ask())


def delays(answers: Sequence[Answered], committed: Mapping[tuple[str, int], float]) -> list[float]:
    return [each.at - committed[each.certificate_id, each.version] for each in answers]


def own(number: int) -> str:
    return f"cert_{number:05}"


@contextmanager
def stage(polls: int) -> Iterator[Stage]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * polls + 1000)), hard))
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        settings = stack.enter_context(running_database(folder))
        pool = stack.enter_context(open_pool(settings["DATABASE_URL"], 2))
        api = stack.enter_context(Process(folder / "api", "api", settings))
        live, token = Live(pool), api.token(SCOPES)
        names = [FOR_ALL, *(own(number) for number in range(polls))]
        live.store.record(*(issued(name, datetime.now(UTC), f"order_{name}") for name in names), by=BY)
        subscriptions = [subscribed(number, token) for number in range(polls)]
        live.store.record(*subscriptions, by=BY)
        here, there = multiprocessing.Pipe()
        asked = (api.url, token, [each.id for each in subscriptions], there)
        clients = multiprocessing.get_context("spawn").Process(target=poll_for_ever, args=asked, daemon=True)
        clients.start()
        stack.callback(clients.terminate)
        yield Stage(live, api.url, token, here)


def subscribed(number: int, token: str) -> Subscription:
    """To a certificate of its own, and to one that all want."""
    return Subscription.subscribe(
        f"sub_{number:026}",
        tenant_id=DEFAULT_TENANT,
        identity_id="tok_" + token.split("_")[1],
        name="edge",
        paths=(f"pki/certificates/{own(number)}", f"pki/certificates/{FOR_ALL}"),
        event_types=("certificate.renewed",),
        target=None,
        now=datetime.now(UTC),
    )


def poll_for_ever(url: str, token: str, subscription_ids: Sequence[str], bench: Connection) -> None:
    """The process of those who poll, each on a connection of its own. Asked for so many answers, it says when all wait,
    and gives them when they have come."""
    asyncio.run(Clients(url, token, subscription_ids).serve(bench))


class Clients:
    def __init__(self, url: str, token: str, subscription_ids: Sequence[str]) -> None:
        self._url = url
        self._token = token
        self._ids = subscription_ids
        self._answers: list[Answered] = []
        self._expected = 0
        self._have_come = asyncio.Event()

    async def serve(self, bench: Connection) -> None:
        polls = [Asker(self._url, self._token, f"/v1/subscriptions/{each}/poll") for each in self._ids]
        for poll in polls:
            await poll.open()
            await poll.ask(timeout=LONGEST_WAIT_SECONDS)
        tasks = [asyncio.create_task(self._poll(poll)) for poll in polls]
        while tasks:
            self._expected = await asyncio.to_thread(bench.recv)
            self._have_come.clear()
            self._answers.clear()
            await all_wait(self._url, self._token, self._ids[0])
            bench.send([])
            if self._expected:
                await self._have_come.wait()
            bench.send(self._answers)

    async def _poll(self, poll: Asker) -> None:
        cursor: dict[str, str] = {}
        while True:
            told = await poll.told()
            if told.status != 200:
                raise AssertionError(told.body)
            if told.body["cursor"] is not None:
                cursor = {"since_event_id": told.body["cursor"]}
            await poll.ask(timeout=LONGEST_WAIT_SECONDS, **cursor)
            self._answers += [
                Answered(event["data"]["certificate_id"], event["data"]["version"], told.at)
                for event in told.body["data"]
            ]
            if len(self._answers) == self._expected:
                self._have_come.set()


if __name__ == "__main__":
    main()

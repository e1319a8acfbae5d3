"""Long polls of running API processes: who waits is told, whoever records the event and whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from domain.provenance import DEFAULT_TENANT
from domain.subscription import Subscription
from domain.ulid import ulid_text
from interfaces.cli.serving import GRACE_SECONDS
from interfaces.http.waiting import LONGEST_WAIT_SECONDS
from interfaces.main import FRONT_THREADS
from interfaces.postgres.pool import open_pool
from tests.projections.live import Live
from tests.projections.story import BY, issued, placed
from tests.servers.process import wait_until
from tests.system.service import Client, Process, open_folder, running_database

pytestmark = [pytest.mark.xdist_group("long_polls"), pytest.mark.timeout(240)]

MANY = 500
ENOUGH_FILES = 4096
DEADLINE_SECONDS = 60.0
NOTHING: Mapping[str, Any] = {"data": [], "cursor": None, "has_more": False}
SCOPES = "pki:issue pki:admin subscriptions:read"


class Ground:
    """A database, in which API processes come and go, and a history that this process writes."""

    def __init__(self, folder: Path, settings: Mapping[str, str], live: Live) -> None:
        self._folder = folder
        self._count = 0
        self.settings = settings
        self.live = live

    def api(self) -> Process:
        """One that is still to be started."""
        self._count += 1
        return Process(self._folder / f"api{self._count}", "api", self.settings)

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{ulid_text(datetime.now(UTC), self._count.to_bytes(10))}"

    def subscribed(self, token: str, paths: Sequence[Sequence[str]]) -> Sequence[str]:
        """The ids of subscriptions to certificates of those ids, and to orders."""
        subscriptions = [
            Subscription.subscribe(
                self.new_id("sub"),
                tenant_id=DEFAULT_TENANT,
                identity_id="tok_" + token.split("_")[1],
                name="edge",
                paths=(*(f"pki/certificates/{certificate_id}" for certificate_id in each), "pki/acme/orders/*"),
                event_types=("certificate.issued", "order.invalid"),
                target=None,
                now=datetime.now(UTC),
            )
            for each in paths
        ]
        self.live.store.record(*subscriptions, by=BY)
        return [subscription.id for subscription in subscriptions]

    def issue(self, certificate_id: str) -> float:
        """When it was committed."""
        self.live.store.record(issued(certificate_id, datetime.now(UTC), self.new_id("acme_order")), by=BY)
        return time.time()

    def ended_connections(self, application_name: str) -> int:
        """How many there were, of this process too. They are ended as an operator, a fail-over or a firewall would."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(self.settings["DATABASE_URL"], autocommit=True) as connection:
            return len(connection.execute(query, [application_name]).fetchall())


@dataclass(frozen=True)
class Told:
    """An answer, and when it was there."""

    status: int
    body: Any
    at: float

    @property
    def paths(self) -> Sequence[str]:
        assert self.status == 200, self.body
        return [event["path"] for event in self.body["data"]]


class Asker:
    """A connection that asks for one thing again and again. It costs less than a client library, by a factor of ten."""

    def __init__(self, url: str, token: str, path: str) -> None:
        self.path = path
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._head = f"Host: {address.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n"

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def ask(self, **query: str | int) -> None:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        self._writer.write(f"GET {self.path}?{words} HTTP/1.1\r\n{self._head}".encode())
        await self._writer.drain()

    async def told(self) -> Told:
        head = await self._reader.readuntil(b"\r\n\r\n")
        at = time.time()
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Told(int(status.split(" ")[1]), json.loads(body), at)

    async def is_closed_in_order(self) -> bool:
        """The server sends nothing more. A reset raises."""
        return await self._reader.read() == b""

    @property
    def has_nothing(self) -> bool:
        return not self._reader._buffer  # type: ignore[attr-defined]

    def hang_up(self, *, at_once: bool = False) -> None:
        """In order, or with a reset."""
        if at_once:
            self._writer.transport.abort()
        else:
            self._writer.close()


@asynccontextmanager
async def polling(
    url: str, token: str, subscription_ids: Sequence[str], **query: str | int
) -> AsyncIterator[Sequence[Asker]]:
    """So many polls that wait, each on a connection of its own."""
    polls = [Asker(url, token, f"/v1/subscriptions/{each}/poll") for each in subscription_ids]
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            for poll in polls:
                await poll.open()
            for poll in polls:
                await poll.ask(**{"timeout": LONGEST_WAIT_SECONDS, **query})
            await all_wait(url, token, subscription_ids[0])
            yield polls
    finally:
        for poll in polls:
            poll.hang_up()


async def all_wait(url: str, token: str, subscription_id: str) -> None:
    """What was asked before is waiting now: tokens and look-ups go through few threads, in their order."""
    other = Asker(url, token, f"/v1/subscriptions/{subscription_id}/poll")
    await other.open()
    for _ in range(3):
        await other.ask(timeout=0)
        assert (await other.told()).status == 200
    other.hang_up()


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    """As many as two ends of each connection need, here and in the processes that are started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < ENOUGH_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(ENOUGH_FILES, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        settings = stack.enter_context(running_database(folder))
        pool = stack.enter_context(open_pool(settings["DATABASE_URL"], 4))
        yield Ground(folder, settings, Live(pool))


@pytest.fixture(scope="module")
def api(ground: Ground) -> Iterator[Process]:
    with ground.api() as process:
        yield process


@pytest.fixture(scope="module")
def token(api: Process) -> str:
    return api.token(SCOPES)


def test_an_event_that_another_process_records_is_told(ground: Ground, api: Process, token: str) -> None:
    certificate_id = ground.new_id("cert")
    subscription_ids = ground.subscribed(token, [[certificate_id]])

    async def scenario() -> Told:
        async with polling(api.url, token, subscription_ids) as (poll,):
            await asyncio.to_thread(ground.issue, certificate_id)
            return await poll.told()

    told = asyncio.run(scenario())
    assert told.paths == [f"pki/certificates/{certificate_id}"]
    assert told.body["cursor"] == told.body["data"][0]["event_id"]


def test_what_one_replica_records_is_told_by_the_other(ground: Ground, api: Process, token: str) -> None:
    order_id = ground.new_id("acme_order")
    order = placed(order_id, datetime.now(UTC), ground.new_id("cert"), f"{order_id[-12:]}.example")
    ground.live.store.record(order, by=BY)
    subscription_ids = ground.subscribed(token, [[]])

    async def scenario(other: Process) -> Told:
        async with polling(other.url, token, subscription_ids) as (poll,):
            with Client(api.url, token) as client:
                await asyncio.to_thread(client.post, f"/v1/pki/acme/orders/{order_id}/cancel")
            return await poll.told()

    with ground.api() as other:
        told = asyncio.run(scenario(other))
    assert told.paths == [f"pki/acme/orders/{order_id}"]
    assert told.body["data"][0]["data"]["error"]["code"] == "cancelled"


@pytest.mark.parametrize("many", [1, MANY])
def test_interrupted_it_answers_those_who_wait_with_nothing_and_ends(ground: Ground, many: int) -> None:
    api = ground.api()
    with api:
        token = api.token(SCOPES)
        subscription_ids = ground.subscribed(token, [[]] * many)

        async def scenario() -> None:
            async with polling(api.url, token, subscription_ids) as polls:
                begun = time.monotonic()
                ending = asyncio.create_task(asyncio.to_thread(api.interrupt))
                told = await asyncio.gather(*(poll.told() for poll in polls))
                assert [(each.status, each.body) for each in told] == [(200, NOTHING)] * many
                assert await asyncio.gather(*(poll.is_closed_in_order() for poll in polls)) == [True] * many
                assert await ending == 0
                assert time.monotonic() - begun < GRACE_SECONDS

        asyncio.run(scenario())
    log = api.log_path.read_text()
    assert '"stopped"' in log
    assert "left_behind" not in log


@pytest.mark.parametrize("at_once", [False, True])
def test_who_hangs_up_harms_nobody_and_loses_nothing(
    ground: Ground, api: Process, token: str, *, at_once: bool
) -> None:
    certificate_id = ground.new_id("cert")
    subscription_ids = ground.subscribed(token, [[certificate_id]] * 2)

    async def scenario() -> Sequence[Told]:
        async with polling(api.url, token, subscription_ids) as (leaves, stays):
            leaves.hang_up(at_once=at_once)
            await all_wait(api.url, token, subscription_ids[0])
            await asyncio.to_thread(ground.issue, certificate_id)
            first = await stays.told()
            await leaves.open()
            await leaves.ask(timeout=0)
            return [first, await leaves.told()]

    first, second = asyncio.run(scenario())
    assert first.paths == [f"pki/certificates/{certificate_id}"]
    assert second.body == first.body
    log = api.log_path.read_text()
    assert "Traceback" not in log
    assert "request_crashed" not in log


def test_who_has_hung_up_does_not_wait_any_longer(ground: Ground, api: Process, token: str) -> None:
    subscription_ids = ground.subscribed(token, [[]])

    def has_ended() -> bool:
        return f'"path": "/v1/subscriptions/{subscription_ids[0]}/poll"' in api.log_path.read_text()

    async def scenario() -> None:
        async with polling(api.url, token, subscription_ids) as (poll,):
            poll.hang_up()

    asyncio.run(scenario())
    wait_until(has_ended, what="the request has ended", deadline_seconds=LONGEST_WAIT_SECONDS / 2)


@pytest.mark.parametrize("application_name", ["scaivault listener", "scaivault"])
def test_who_waits_is_told_also_when_the_connections_were_lost_meanwhile(
    ground: Ground, api: Process, token: str, application_name: str
) -> None:
    certificate_id = ground.new_id("cert")
    subscription_ids = ground.subscribed(token, [[certificate_id]])

    async def scenario() -> Told:
        async with polling(api.url, token, subscription_ids) as (poll,):
            assert await asyncio.to_thread(ground.ended_connections, application_name) > 0
            await asyncio.to_thread(ground.issue, certificate_id)
            return await poll.told()

    assert asyncio.run(scenario()).paths == [f"pki/certificates/{certificate_id}"]


def test_many_wait_without_a_thread_each_and_one_event_wakes_those_who_want_it(
    ground: Ground, api: Process, token: str
) -> None:
    certificate_ids = [ground.new_id("cert") for _ in range(MANY)]
    for_all = ground.new_id("cert")
    subscription_ids = ground.subscribed(token, [[each, for_all] for each in certificate_ids])
    process = psutil.Process(api.pid)

    async def scenario() -> None:
        await asyncio.gather(*(all_wait(api.url, token, subscription_ids[0]) for _ in range(2 * FRONT_THREADS)))
        before = process.num_threads()
        async with polling(api.url, token, subscription_ids) as polls:
            here = [each for each in process.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
            assert sum(each.laddr.port == int(api.url.rsplit(":", 1)[1]) for each in here) >= MANY
            assert process.num_threads() - before <= FRONT_THREADS

            await asyncio.to_thread(ground.issue, certificate_ids[123])
            assert (await polls[123].told()).paths == [f"pki/certificates/{certificate_ids[123]}"]
            with Client(api.url, token) as client:  # others are answered meanwhile
                await asyncio.to_thread(client.get, "/v1/pki/certificates", limit=1)
            await all_wait(api.url, token, subscription_ids[0])  # what was to be told has been told
            assert all(poll.has_nothing for poll in polls)

            await asyncio.to_thread(ground.issue, for_all)
            others = [poll for poll in polls if poll is not polls[123]]
            told = await asyncio.gather(*(poll.told() for poll in others))
            assert [each.paths for each in told] == [[f"pki/certificates/{for_all}"]] * len(others)
            assert polls[123].has_nothing

    asyncio.run(scenario())

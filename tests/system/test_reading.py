"""Running API processes, asked for certificates while these are renewed, and by many who wait.

Versions are recorded as events by the test, without a CA; each is a real certificate with its key."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from application.secret_value import SecretValue
from domain.certificate import Certificate, Version
from domain.order import Assignment, Order
from domain.provenance import DEFAULT_TENANT, Provenance
from interfaces.main import FRONT_THREADS, assemble
from interfaces.parts import Parts
from interfaces.settings import settings_from
from tests.lines import leaf_key_of, public_key_of, real_line, real_version
from tests.servers.process import wait_until
from tests.system.service import Process, open_folder, running_database
from tests.system.test_long_polls import Asker

pytestmark = [pytest.mark.xdist_group("reading"), pytest.mark.timeout(240)]

READERS, LINES, RENEWALS_EACH = 50, 4, 50
WAITING = 500
DEADLINE_SECONDS = 150.0
ENOUGH_FILES = 4096
BY = Provenance(DEFAULT_TENANT, "operator", "tests")


@dataclass
class Ground:
    """A database that API processes and this one share."""

    folder: Path
    settings: Mapping[str, str]
    parts: Parts

    def api(self, name: str) -> Process:
        """One that is still to be started."""
        return Process(self.folder / name, "api", self.settings)

    def version(self, certificate_id: str, number: int) -> Version:
        keys, ids = self.parts.services.certificates._keys, self.parts.services.ids
        order_id = ids.new("acme_order")
        return real_version(keys, certificate_id, number, tenant_id=DEFAULT_TENANT, order_id=order_id)

    def new_line(self) -> str:
        certificate_id = self.parts.services.ids.new("cert")
        line = real_line(self.version(certificate_id, 1), certificate_id, tenant_id=DEFAULT_TENANT)
        self.parts.store.record(line, by=BY)
        return certificate_id

    def renew(self, certificate_id: str) -> None:
        certificate = self.parts.store.load(Certificate, certificate_id, DEFAULT_TENANT)
        certificate.renew(self.version(certificate_id, certificate.next_number), "ari", datetime.now(UTC))
        self.parts.store.record(certificate, by=BY)

    def new_order(self) -> str:
        order_id = self.parts.services.ids.new("acme_order")
        order = Order.place(
            order_id,
            tenant_id=DEFAULT_TENANT,
            account_id="acme_staging_1",
            certificate_id=self.parts.services.ids.new("cert"),
            assignments=(Assignment(f"{order_id[-12:]}.example", "dnsp_1"),),
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
            now=datetime.now(UTC),
        )
        self.parts.store.record(order, by=BY)
        return order_id

    def cancel(self, order_id: str) -> None:
        order = self.parts.store.load(Order, order_id, DEFAULT_TENANT)
        order.cancel(datetime.now(UTC))
        self.parts.store.record(order, by=BY)


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    """As many as the connections need, here and in the processes that are started from here."""
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
        parts = stack.enter_context(assemble(settings_from(settings)))
        yield Ground(folder, settings, parts)


@pytest.fixture(scope="module")
def apis(ground: Ground) -> Iterator[Sequence[Process]]:
    with ground.api("one") as one, ground.api("other") as other:
        yield one, other


@pytest.fixture(scope="module")
def token(apis: Sequence[Process]) -> str:
    return apis[0].token("pki:read pki:export")


# --- renewals under readers ---


@dataclass
class Reader:
    """Asks either replica for one certificate, now for the PEM and its key, now for a bundle."""

    clients: Sequence[httpx.AsyncClient]
    certificate_id: str
    waits: bool
    seen: list[int] = field(default_factory=list)

    async def read_up_to(self, last: int) -> None:
        while not self.seen or self.seen[-1] < last:
            for client in self.clients:
                if self.waits:
                    await self._next_bundle(client)
                else:
                    await self._pem_and_key(client)
                    await self._bundle(client)

    async def _pem_and_key(self, client: httpx.AsyncClient) -> None:
        path = f"/v1/pki/certificates/{self.certificate_id}"
        pem = (await client.get(f"{path}/pem")).raise_for_status().json()
        self._saw(pem["version"])
        asked = {"version": pem["version"]}
        key = (await client.post(f"{path}/private-key", json=asked)).raise_for_status().json()
        require_pair({**pem, **key})

    async def _bundle(self, client: httpx.AsyncClient) -> None:
        path = f"/v1/pki/certificates/{self.certificate_id}/bundle"
        bundle = (await client.post(path)).raise_for_status().json()
        self._saw(bundle["version"])
        require_pair(bundle)

    async def _next_bundle(self, client: httpx.AsyncClient) -> None:
        known = self.seen[-1] if self.seen else 0
        path = f"/v1/pki/certificates/{self.certificate_id}/bundle"
        answer = await client.post(path, params={"after": known, "wait": 1})
        if answer.status_code == 304:
            assert answer.content == b""
        else:
            bundle = answer.raise_for_status().json()
            assert bundle["version"] > known
            self._saw(bundle["version"])
            require_pair(bundle)

    def _saw(self, version: int) -> None:
        assert not self.seen or version >= self.seen[-1], f"{self.certificate_id}: {version} after {self.seen[-1]}"
        self.seen.append(version)


def require_pair(answer: Mapping[str, Any]) -> None:
    """The key is the leaf's."""
    key = SecretValue(answer["private_key_pem"])
    assert leaf_key_of(answer["certificate_pem"]) == public_key_of(key), answer["version"]


def test_whoever_reads_while_it_is_renewed_gets_pairs_that_fit_and_no_version_before_the_last(
    ground: Ground, apis: Sequence[Process], token: str
) -> None:
    lines = [ground.new_line() for _ in range(LINES)]
    last = 1 + RENEWALS_EACH

    def renew_all() -> None:
        for _ in range(RENEWALS_EACH):
            for certificate_id in lines:
                ground.renew(certificate_id)

    async def scenario() -> Sequence[Reader]:
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
            clients = [await opened(api, token) for api in apis]
            readers = [Reader(clients, lines[n % LINES], waits=n % 5 == 0) for n in range(READERS)]
            reading = [tasks.create_task(reader.read_up_to(last)) for reader in readers]
            await asyncio.to_thread(renew_all)
            await asyncio.wait(reading)
        for client in clients:
            await client.aclose()
        return readers

    readers = asyncio.run(scenario())
    assert {reader.seen[-1] for reader in readers} == {last}
    between = {version for reader in readers for version in reader.seen} - {1, last}
    assert len(between) > RENEWALS_EACH / 2  # they did read meanwhile
    assert sum(len(reader.seen) for reader in readers) > 4 * READERS


async def opened(api: Process, token: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}"}
    limits = httpx.Limits(max_connections=READERS)
    return httpx.AsyncClient(base_url=api.url, headers=headers, limits=limits, timeout=60, trust_env=False)


# --- many who wait ---


@asynccontextmanager
async def waiting(api: Process, token: str, order_ids: Sequence[str]) -> AsyncIterator[Sequence[Asker]]:
    """So many requests that wait for their order, each on a connection of its own."""
    askers = [Asker(api.url, token, f"/v1/pki/acme/orders/{order_id}") for order_id in order_ids]
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            for asker in askers:
                await asker.open()
            for asker in askers:
                await asker.ask(wait=60)
            await all_wait(api, token, order_ids[0])
            yield askers
    finally:
        for asker in askers:
            asker.hang_up()


async def all_wait(api: Process, token: str, order_id: str) -> None:
    """What was asked before is waiting now: tokens and look-ups go through few threads, in their order."""
    other = Asker(api.url, token, f"/v1/pki/acme/orders/{order_id}")
    await other.open()
    for _ in range(3):
        await other.ask(wait=0)
        assert (await other.told()).status == 200
    other.hang_up()


def test_many_wait_for_orders_without_a_thread_each_and_each_is_told_of_its_own(
    ground: Ground, apis: Sequence[Process], token: str
) -> None:
    order_ids = [ground.new_order() for _ in range(10)]
    process = psutil.Process(apis[0].pid)

    async def scenario() -> None:
        await asyncio.gather(*(all_wait(apis[0], token, order_ids[0]) for _ in range(2 * FRONT_THREADS)))
        before = process.num_threads()
        async with waiting(apis[0], token, [order_ids[n % 10] for n in range(WAITING)]) as askers:
            assert process.num_threads() - before <= FRONT_THREADS
            await asyncio.to_thread(ground.cancel, order_ids[3])
            told = await asyncio.gather(*(asker.told() for asker in askers[3::10]))
            assert {(each.status, each.body["order_id"], each.body["status"]) for each in told} == {
                (200, order_ids[3], "invalid")
            }
            await all_wait(apis[0], token, order_ids[0])
            assert all(asker.has_nothing for asker in askers)

    asyncio.run(scenario())


def test_who_hangs_up_does_not_wait_any_longer(ground: Ground, apis: Sequence[Process], token: str) -> None:
    order_id = ground.new_order()
    line = re.compile(rf'"path": "/v1/pki/acme/orders/{order_id}", "status": 499')

    async def scenario() -> None:
        async with waiting(apis[0], token, [order_id]) as (asker,):
            asker.hang_up(at_once=True)

    asyncio.run(scenario())
    wait_until(
        lambda: line.search(apis[0].log_path.read_text()) is not None,
        what="the request has ended",
        deadline_seconds=30,
    )


def test_interrupted_it_answers_those_who_wait_with_how_things_are(ground: Ground) -> None:
    order_id = ground.new_order()
    with ground.api("interrupted") as api:
        token = api.token("pki:read")

        async def scenario() -> None:
            async with waiting(api, token, [order_id] * 20) as askers:
                ending = asyncio.create_task(asyncio.to_thread(api.interrupt))
                told = await asyncio.gather(*(asker.told() for asker in askers))
                assert {(each.status, each.body["status"]) for each in told} == {(200, "pending")}
                assert await ending == 0

        asyncio.run(scenario())
    assert "left_behind" not in api.log_path.read_text()

"""Bench: a poll, and counting a replay, where a history is long and nothing of it is wanted."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from application.caller import Caller
from application.event_store import EventStore
from application.mapper import EventMapper
from application.polling import Polling
from application.subscriptions import Subscriptions
from domain.provenance import DEFAULT_TENANT
from domain.subscription import Subscription
from domain.token import SCOPES, Limits
from interfaces.clock import SystemClock, UlidIds
from interfaces.postgres.embedded import EmbeddedPostgres
from interfaces.postgres.migrate import migrate
from interfaces.postgres.pool import Pool, open_pool
from interfaces.postgres.recorder import PostgresRecorder
from interfaces.read_models import ReadModels
from projections.views import INLINE

EVENTS = 200_000
AGAIN = 5
OWNER = Caller(DEFAULT_TENANT, "tok_1", SCOPES, Limits(), "req_1")
UNWANTED: Mapping[str, Mapping[str, Any]] = {
    "its path": {"paths": ("pki/certificates/cert_none",)},
    "the beginning of its path": {"paths": ("pki/certificates/cert_none*",)},
    "the end of its path": {"paths": ("pki/certificates/*_none",)},
    "its type": {"event_types": ("order.invalid",)},
    "its name": {"dns_names": ("*.none.example",)},
}
"""What is not wanted of any event, by what tells it from those that are."""

ANNOUNCE = """
INSERT INTO announcements (position, event_id, tenant_id, event_type, path, dns_names, at, causation, request_id, body)
SELECT 1000 + n, 'evt_' || n, %s, 'certificate.issued', 'pki/certificates/cert_' || md5(n::text),
    ARRAY['h' || n || '.acme.example'], now(), n || '@1', NULL, repeat('x', 900)
FROM generate_series(1, %s) AS n
"""
ANNOUNCE_ONE = """
INSERT INTO announcements (position, event_id, tenant_id, event_type, path, dns_names, at, causation, request_id, body)
SELECT max(position) + 1, 'evt_wanted', %s, 'certificate.issued', 'pki/certificates/cert_wanted', ARRAY['a.none.example'],
    now(), 'cert_wanted@1', NULL, '{}'
FROM announcements
"""


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    wanted = parser.parse_args(words)
    worst = worst_count = 0.0
    with database() as pool:
        bench = Bench(pool)
        nothing = bench.seconds_of_polls("pki")[1]
        print(f"a poll of an empty history: {nothing * 1e3:.2f} ms")
        ids = {by: bench.subscribed(f"sub_{number}", **terms) for number, (by, terms) in enumerate(UNWANTED.items())}
        with pool.connection() as connection:
            connection.execute(ANNOUNCE, [DEFAULT_TENANT, wanted.events])
            connection.execute("VACUUM ANALYZE announcements")
        for by, subscription_id in ids.items():
            first, again = bench.seconds_of_polls(subscription_id)
            count = seconds(lambda subscription_id=subscription_id: bench.count(subscription_id))  # type: ignore[misc]
            print(
                f"unwanted by {by}: first poll {first * 1e3:.0f} ms, then {again * 1e3:.2f} ms each,"
                f" a dry run {count * 1e3:.0f} ms"
            )
            worst, worst_count = max(worst, again), max(worst_count, count)
        with pool.connection() as connection:
            connection.execute(ANNOUNCE_ONE, [DEFAULT_TENANT])
        acknowledging = seconds(lambda: bench.acknowledge(ids["its name"], "evt_wanted"))
        print(f"acknowledging the one behind them that is wanted: {acknowledging * 1e3:.2f} ms")
    print(
        f"polls: {wanted.events} unwanted events cost a poll at most {worst * 1e3:.1f} ms, {worst / nothing:.1f} times one"
        f" of an empty history; counting them {worst_count:.2f} s"
    )


class Bench:
    def __init__(self, pool: Pool) -> None:
        clock, ids, views = SystemClock(), UlidIds(), ReadModels(pool)
        self._store = EventStore(PostgresRecorder(pool, EventMapper(), INLINE), {})
        self._polling = Polling(self._store, views, views, clock, ids)
        nobody: Any = None
        self._subscriptions = Subscriptions(self._store, nobody, views, nobody, nobody, clock, ids)
        self.subscribed("pki")

    def subscribed(self, subscription_id: str, **terms: Any) -> str:
        everything = {"paths": ("pki/**",), "event_types": ("certificate.issued",), "dns_names": ()}
        subscription = Subscription.subscribe(
            subscription_id,
            tenant_id=DEFAULT_TENANT,
            identity_id=OWNER.token_id,
            name="edge",
            target=None,
            now=datetime.now(UTC),
            **{**everything, **terms},
        )
        self._store.record(subscription, by=OWNER.provenance)
        return subscription_id

    def seconds_of_polls(self, subscription_id: str) -> tuple[float, float]:
        """Of the first one, and the mean of those that follow."""

        def poll() -> None:
            if self._polling.pending(subscription_id, None, 100, OWNER).events:
                raise AssertionError("something of it was wanted")

        return seconds(poll), sum(seconds(poll) for _ in range(AGAIN)) / AGAIN

    def acknowledge(self, subscription_id: str, event_id: str) -> None:
        self._polling.acknowledge(subscription_id, [event_id], OWNER)

    def count(self, subscription_id: str) -> None:
        self._subscriptions.replay(subscription_id, 1, None, OWNER, dry_run=True)


def seconds(run: Callable[[], object]) -> float:
    started = perf_counter()
    run()
    return perf_counter() - started


@contextmanager
def database() -> Iterator[Pool]:
    folder = Path(tempfile.mkdtemp(prefix="scaivault-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        with EmbeddedPostgres(folder / "data", durable=False) as server, open_pool(server.dsn, 4) as pool:
            recorder = PostgresRecorder(pool, EventMapper())
            migrate(pool, recorder.read, EventStore(recorder, {}), {})
            yield pool
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

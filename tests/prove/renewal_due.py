"""Whatever the number of certificates that are not due, the workers find those that are in milliseconds.

The rows are as the service leaves them behind: for each certificate one of `renewal` and one of `renewal_info` on the
to-do list, and one of the view. A hundred of each are due. What is measured is `PostgresTodoList.claim` as the workers
call it, with the look at when the next row falls due (`NEXT_DUE`) in it, and that look alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import psycopg

from application.process import renewal, renewal_info
from application.process.todo import MOST_IN_A_LANE
from domain.certificate import Certificate, Version
from domain.event import DomainEvent
from domain.provenance import DEFAULT_TENANT, Provenance, Recorded
from interfaces.main import RENEWAL_INFO_SLOTS, RENEWAL_SLOTS
from interfaces.postgres.pool import Pool, open_pool
from interfaces.postgres.todo_list import CLAIM, CLAIM_IN_LANES, NEXT_DUE, PostgresTodoList
from projections.certificates import CERTIFICATES
from tests.system.service import open_folder, running_database

SIZES = (10_000, 100_000, 1_000_000)
DUE = 100
ACCOUNTS = 10
CLAIMS = 200
LEASE = timedelta(seconds=15)
SLOTS = {renewal.NAME: RENEWAL_SLOTS, renewal_info.NAME: RENEWAL_INFO_SLOTS}

MOST_MS = 25.0
MOST_GROWTH = 3.0  # of a hundred times the rows: an index is a page deeper, and less of it lies near
SLACK_MS = 0.5  # of medians of less than a millisecond or two, noise is a large share
MOST_ROWS = 10 * DUE
"""What a claim may read of the to-do list: the due rows a few times over, whatever the number of the others."""

FILL = f"""
INSERT INTO todo (process, subject, version, step, due_at)
SELECT 'renewal', 'cert_' || lpad(n::text, 8, '0'), 2, 'BeginRenewal',
    CASE WHEN n %% (%(size)s / {DUE}) = 0 THEN now() - random() * interval '1 hour'
    ELSE now() + interval '1 hour' + random() * interval '60 days' END
FROM generate_series(1, %(size)s) n;
INSERT INTO todo (process, subject, version, step, due_at, lane)
SELECT 'renewal_info', 'cert_' || lpad(n::text, 8, '0'), 2, 'AskRenewalInfo',
    CASE WHEN n %% (%(size)s / {DUE}) = 0 THEN now() - random() * interval '1 hour'
    ELSE now() + interval '1 hour' + random() * interval '12 hours' END,
    'acc_' || abs(hashtext(n::text)) %% {ACCOUNTS}
FROM generate_series(1, %(size)s) n;
WITH one AS MATERIALIZED (SELECT c AS first FROM certificates c)
INSERT INTO certificates SELECT row.* FROM one, todo t, jsonb_populate_record(one.first, jsonb_build_object(
    'id', t.subject, 'first_position', 1 + right(t.subject, 8)::bigint, 'names_digest', md5(t.subject),
    'not_before', t.due_at - interval '30 days', 'not_after', t.due_at + interval '30 days', 'renew_at', t.due_at
)) row WHERE t.process = 'renewal';
ANALYZE todo, certificates
"""


@dataclass(frozen=True)
class Query:
    """As the service sends it, for EXPLAIN: `parameters` are the SQL types and the values, by name."""

    name: str
    sql: str
    parameters: Mapping[str, tuple[str, str]]

    def prepare(self) -> str:
        sql, types = self.sql, []
        for number, (name, (kind, _)) in enumerate(self.parameters.items(), 1):
            sql = sql.replace(f"%({name})s", f"${number}")
            types.append(kind)
        return f"PREPARE explained ({', '.join(types)}) AS {sql}"

    def execute(self) -> str:
        return f"EXECUTE explained ({', '.join(value for _, value in self.parameters.values())})"


@dataclass(frozen=True)
class Times:
    """Of many claims. What else runs on the machine only ever adds: `calm_ms`, which a tenth of them stay below, is what is
    judged."""

    median_ms: float
    calm_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        return cls(1e3 * statistics.median(seconds), 1e3 * seconds[len(seconds) // 10])


def claims_of(process: str) -> Mapping[str, tuple[str, str]]:
    return {
        "process": ("text", f"'{process}'"),
        "limit": ("int", str(SLOTS[process])),
        "lease": ("interval", "'15 s'"),
    }


QUERIES = (
    Query("the claim of renewals", CLAIM, claims_of(renewal.NAME)),
    Query(
        "the claim of questions for renewal information",
        CLAIM_IN_LANES,
        {
            **claims_of(renewal_info.NAME),
            "most": ("int", str(MOST_IN_A_LANE)),
            "lanes": ("text[]", "'{}'"),
            "limits": ("int[]", "'{}'"),
        },
    ),
    Query("when the next falls due", NEXT_DUE, {"process": ("text", "'renewal'")}),
)


def holds(sizes: Sequence[int] = SIZES) -> tuple[bool, str]:
    """Prints its figures, and gives whether it holds with a line about it."""
    taken: dict[int, Mapping[str, Times]] = {}
    plans_hold = False
    for size in sizes:
        with ExitStack() as stack:
            settings = stack.enter_context(running_database(stack.enter_context(open_folder())))
            pool = stack.enter_context(open_pool(settings["DATABASE_URL"], 2))
            began = perf_counter()
            fill(settings["DATABASE_URL"], size)
            print(f"{size} certificates, {DUE} due ({perf_counter() - began:.0f} s to fill)")
            taken[size] = measured(pool)
            for name, times in taken[size].items():
                ratio = times.median_ms / taken[sizes[0]][name].median_ms
                print(
                    f"  {name}: median {times.median_ms:.2f} ms, {ratio:.2f} of the smallest; {times.calm_ms:.2f} when calm"
                )
            if size == sizes[-1]:
                with psycopg.connect(settings["DATABASE_URL"]) as connection:
                    plans_hold = all(plan_holds(connection, query) for query in QUERIES)
    least, most = taken[sizes[0]], taken[sizes[-1]]
    growth = max(most[name].calm_ms / least[name].calm_ms for name in most)
    slowest = max(times.median_ms for times in most.values())
    small = all(most[name].calm_ms <= min(MOST_MS, MOST_GROWTH * least[name].calm_ms + SLACK_MS) for name in most)
    return (
        small and plans_hold,
        f"due: a claim {slowest:.1f} ms among {sizes[-1]}, when calm {growth:.2f} of {sizes[0]}",
    )


def fill(database_url: str, size: int) -> None:
    """The first row of the view is of a real event, the others are copies with what tells them apart."""
    with psycopg.ClientCursor(psycopg.connect(database_url, autocommit=True)) as cursor, cursor.connection:
        CERTIFICATES.apply(cursor, [Recorded(1, first_event(), Provenance(DEFAULT_TENANT, "operator", "test"))])
        for statement in FILL.split(";"):
            cursor.execute(statement.encode(), {"size": size})


def first_event() -> DomainEvent:
    now = datetime.now(UTC)
    version = Version(
        number=1,
        order_id="acme_order_1",
        serial_number="01",
        fingerprint_sha256="0" * 64,
        issuer="CN=YE1",
        key_type="ec256",
        not_before=now,
        not_after=now + timedelta(days=90),
        chain_pem="",
        sealed_key_id="sealed_1",
    )
    certificate = Certificate.issue(
        "cert_first",
        tenant_id=DEFAULT_TENANT,
        account_id="acc_0",
        name=None,
        dns_names=("www.acme.example", "acme.example"),
        auto_renew=True,
        version=version,
        now=now,
    )
    (event,) = certificate.collect_events()
    if not isinstance(event, DomainEvent):
        raise TypeError(event)
    return event


def measured(pool: Pool) -> Mapping[str, Times]:
    """What was claimed is given back before the next claim."""
    todo = PostgresTodoList(pool, in_lanes=[renewal_info.NAME])

    def claim(process: str) -> float:
        began = perf_counter()
        claimed = todo.claim(process, SLOTS[process], LEASE)
        took = perf_counter() - began
        if len(claimed.claims) != SLOTS[process] or claimed.next_due_in is None:
            raise AssertionError(claimed)
        for each in claimed.claims:
            todo.release(each, timedelta(), counted=False)
        return took

    def look() -> float:
        with pool.connection() as connection:
            began = perf_counter()
            connection.execute(NEXT_DUE, {"process": renewal.NAME}).fetchone()
            return perf_counter() - began

    looks: Mapping[str, Callable[[], float]] = {
        "claim of renewal": lambda: claim(renewal.NAME),
        "claim of renewal_info": lambda: claim(renewal_info.NAME),
        "next due": look,
    }
    return {name: Times.of(sorted(once() for _ in range(CLAIMS))) for name, once in looks.items()}


def plan_holds(connection: psycopg.Connection, query: Query) -> bool:
    """Prints the plan. Whether all of the to-do list that it reads, it reads few rows of, by an index; also once the
    server no longer plans for the values given."""
    good = True
    for mode in ("force_custom_plan", "force_generic_plan"):
        with connection.transaction(force_rollback=True):
            connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
            connection.execute(query.prepare().encode())
            try:
                text = connection.execute(
                    f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF) {query.execute()}".encode()
                ).fetchall()
                explained = connection.execute(
                    f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF, FORMAT JSON) {query.execute()}".encode()
                ).fetchone()
            finally:
                connection.execute("DEALLOCATE explained")
        plan = explained[0] if explained else []
        nodes = list(nodes_of(plan if isinstance(plan, list) else json.loads(plan)))
        scans = [node for node in nodes if node.get("Relation Name") == "todo" and "Scan" in node["Node Type"]]
        read = sum(rows_read(node) for node in scans)
        by_index = all(node["Node Type"] != "Seq Scan" for node in scans)
        print(f"  {query.name}, {mode}: {read:.0f} rows of the to-do list read, {'by index' if by_index else 'NOT'}")
        if mode == "force_custom_plan" or not by_index or read > MOST_ROWS:
            print("".join(f"    {line}\n" for (line,) in text), end="")
        good = good and bool(scans) and by_index and read <= MOST_ROWS
    return good


def nodes_of(explained: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for each in explained:
        node = each.get("Plan", each)
        yield node
        yield from nodes_of(node.get("Plans", []))


def rows_read(node: Mapping[str, Any]) -> float:
    each_loop = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return float(each_loop * node["Actual Loops"])

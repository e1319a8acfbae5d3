"""What the embedded DNS responder serves, the same on every replica: its values, and the zones it answers for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from application.ports import TxtValue
from interfaces.postgres.pool import Pool


class PostgresEmbeddedValues:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def add(self, values: Sequence[TxtValue]) -> None:
        with self._pool.connection() as connection, connection.transaction():
            connection.cursor().executemany(
                "INSERT INTO embedded_values VALUES (%s, %s) ON CONFLICT DO NOTHING",
                [[value.record_name, value.value] for value in values],
            )

    def remove(self, values: Sequence[TxtValue]) -> None:
        with self._pool.connection() as connection, connection.transaction():
            connection.cursor().executemany(
                "DELETE FROM embedded_values WHERE record_name = %s AND value = %s",
                [[value.record_name, value.value] for value in values],
            )

    def values(self, record_name: str) -> Sequence[str]:
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT value FROM embedded_values WHERE record_name = %s ORDER BY value", [record_name]
            ).fetchall()
        return [value for (value,) in rows]


class EmbeddedZones:
    """The zones as the views know them. Every DNS packet asks, so the answer is kept for a moment."""

    KEPT_SECONDS = 2.0

    def __init__(self, list_zones: Callable[[], Sequence[str]]) -> None:
        self._list_zones = list_zones
        self._kept: tuple[float, Sequence[str]] = (0.0, ())

    def __call__(self) -> Sequence[str]:
        until, zones = self._kept
        if monotonic() >= until:
            zones = self._list_zones()
            self._kept = (monotonic() + self.KEPT_SECONDS, zones)
        return zones

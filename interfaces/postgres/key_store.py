"""Where sealed material is kept: the table `sealed`."""

from __future__ import annotations

from collections.abc import Sequence

from application.ports import Ids
from application.secret_value import SecretValue
from domain.errors import SealBroken
from interfaces.postgres.pool import Pool
from interfaces.sealing.envelope import DoesNotOpen, Envelope, Sealer

INSERT = """
INSERT INTO sealed (sealed_id, kind, tenant_id, owner_id, key_id, wrapped_key, ciphertext)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
SELECT = """
SELECT key_id, wrapped_key, ciphertext FROM sealed WHERE sealed_id = %s AND ciphertext IS NOT NULL
"""
SHRED = """
UPDATE sealed SET key_id = NULL, wrapped_key = NULL, ciphertext = NULL WHERE sealed_id = ANY(%s)
"""


class PostgresKeyStore:
    def __init__(self, pool: Pool, sealer: Sealer, ids: Ids) -> None:
        self._pool = pool
        self._sealer = sealer
        self._ids = ids

    def seal(self, kind: str, tenant_id: str, owner_id: str, plaintext: SecretValue) -> str:
        sealed_id = self._ids.new("sealed")
        label = [kind, tenant_id, owner_id, sealed_id]
        envelope = self._sealer.seal(label, plaintext)
        with self._pool.connection() as connection:
            connection.execute(
                INSERT,
                [sealed_id, kind, tenant_id, owner_id, envelope.key_id, envelope.wrapped_key, envelope.ciphertext],
            )
        return sealed_id

    def open(self, kind: str, tenant_id: str, owner_id: str, sealed_id: str) -> SecretValue:
        with self._pool.connection() as connection:
            row = connection.execute(SELECT, [sealed_id]).fetchone()
        if row is None:
            raise SealBroken(kind, owner_id)
        try:
            return self._sealer.open([kind, tenant_id, owner_id, sealed_id], Envelope(*row))
        except DoesNotOpen as problem:
            raise SealBroken(kind, owner_id) from problem

    def missing_master_keys(self) -> Sequence[str]:
        """The ids of master keys under which something is sealed that does not open here."""
        with self._pool.connection() as connection:
            rows = connection.execute("SELECT DISTINCT key_id FROM sealed WHERE key_id IS NOT NULL").fetchall()
        return sorted(key_id for (key_id,) in rows if not self._sealer.knows(key_id))

    def shred(self, sealed_ids: Sequence[str]) -> None:
        with self._pool.connection() as connection:
            connection.execute(SHRED, [list(sealed_ids)])

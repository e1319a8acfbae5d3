"""Which requests were made already, by their `Idempotency-Key`, and how they were answered: the table `idempotency_keys`.

What was answered rests in the key store: it may show a secret this once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta

import structlog

from application.errors import StoreUnavailable
from application.ports import Ids, KeyStore
from application.secret_value import SecretValue
from interfaces.postgres.pool import Pool

KEPT_FOR = timedelta(hours=24)
LEASE = timedelta(minutes=2)  # longer than any handler takes
EXPIRE_EVERY_SECONDS = 60.0
MOST_EXPIRED = 10_000  # at a time
SEALED_KIND = "idempotent-answer"

CLAIM = """
INSERT INTO idempotency_keys AS k (tenant_id, token_id, idempotency_key, claim_id, lease_until, expires_at)
VALUES (%(tenant_id)s, %(token_id)s, %(key)s, %(claim_id)s, now() + %(lease)s, now() + %(kept_for)s)
ON CONFLICT (tenant_id, token_id, idempotency_key) DO UPDATE
SET claim_id = excluded.claim_id, lease_until = excluded.lease_until, expires_at = excluded.expires_at
WHERE k.sealed_id IS NULL AND k.lease_until <= now()
RETURNING 1
"""
ANSWERED = """
SELECT sealed_id FROM idempotency_keys
WHERE tenant_id = %(tenant_id)s AND token_id = %(token_id)s AND idempotency_key = %(key)s
"""
KEEP = """
UPDATE idempotency_keys SET sealed_id = %(sealed_id)s, expires_at = now() + %(kept_for)s
WHERE tenant_id = %(tenant_id)s AND token_id = %(token_id)s AND idempotency_key = %(key)s
  AND claim_id = %(claim_id)s AND sealed_id IS NULL
"""
FREE = """
DELETE FROM idempotency_keys
WHERE tenant_id = %(tenant_id)s AND token_id = %(token_id)s AND idempotency_key = %(key)s
  AND claim_id = %(claim_id)s AND sealed_id IS NULL
"""
OVER = """
WITH gone AS (
    DELETE FROM idempotency_keys
    WHERE tenant_id = %(tenant_id)s AND token_id = %(token_id)s AND idempotency_key = %(key)s AND expires_at <= now()
    RETURNING sealed_id)
DELETE FROM sealed USING gone WHERE sealed.sealed_id = gone.sealed_id
"""
EXPIRE = """
WITH old AS (
    SELECT tenant_id, token_id, idempotency_key FROM idempotency_keys WHERE expires_at <= now()
    ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM idempotency_keys k USING old
    WHERE (k.tenant_id, k.token_id, k.idempotency_key) = (old.tenant_id, old.token_id, old.idempotency_key)
    RETURNING k.sealed_id)
DELETE FROM sealed USING gone WHERE sealed.sealed_id = gone.sealed_id
"""

log = structlog.get_logger()


@dataclass(frozen=True)
class Claim:
    """The right to handle the request with that key."""

    tenant_id: str
    token_id: str
    key: str
    claim_id: str


class InProgress(Exception):
    """A request with this key is being handled."""


class PostgresIdempotencyKeys:
    def __init__(self, pool: Pool, keys: KeyStore, ids: Ids) -> None:
        self._pool = pool
        self._keys = keys
        self._ids = ids

    def claim(self, tenant_id: str, token_id: str, key: str) -> Claim | SecretValue:
        """The right to handle it, or what was answered already. A claim whose process has died is free again after its
        lease. Raises InProgress."""
        claim = Claim(tenant_id, token_id, key, self._ids.new("claim"))
        values = _values(claim)
        with self._pool.connection() as connection:
            connection.execute(OVER, values)
            if connection.execute(CLAIM, values).fetchone() is not None:
                return claim
            row = connection.execute(ANSWERED, values).fetchone()
        if row is None or row[0] is None:
            raise InProgress
        return self._keys.open(SEALED_KIND, tenant_id, token_id, row[0])

    def keep(self, claim: Claim, answer: SecretValue) -> None:
        """Where the lease was lost, and another one has the claim, theirs is the answer that stays."""
        sealed_id = self._keys.seal(SEALED_KIND, claim.tenant_id, claim.token_id, answer)
        with self._pool.connection() as connection:
            kept = connection.execute(KEEP, {**_values(claim), "sealed_id": sealed_id}).rowcount
        if not kept:
            self._keys.shred([sealed_id])

    def free(self, claim: Claim) -> None:
        """The request changed nothing: it can be made again."""
        with self._pool.connection() as connection:
            connection.execute(FREE, _values(claim))

    def run(self, stop: threading.Event) -> None:
        """Forgets, now and then, what is old."""
        while not stop.wait(EXPIRE_EVERY_SECONDS):
            try:
                self.expire(MOST_EXPIRED)
            except StoreUnavailable as failure:
                log.warning("store_unavailable", detail=failure.detail)

    def expire(self, limit: int) -> None:
        """So many of those whose time is over, at most, with their answers. Raises StoreUnavailable."""
        with self._pool.connection() as connection:
            connection.execute(EXPIRE, [limit])


def _values(claim: Claim) -> dict[str, object]:
    return {
        "tenant_id": claim.tenant_id,
        "token_id": claim.token_id,
        "key": claim.key,
        "claim_id": claim.claim_id,
        "lease": LEASE,
        "kept_for": KEPT_FOR,
    }

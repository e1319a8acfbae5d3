"""What the handlers are given: the use cases, and the read models' connections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore

from application.accounts import Accounts
from application.certificates import Certificates
from application.dns_providers import DnsProviders
from application.event_store import EventStore
from application.explanations import Explanations
from application.orders import Orders
from application.polling import Polling
from application.ports import Clock, Ids
from application.preflight import Preflight
from application.rate_limits import RateLimits
from application.renewals import Renewals
from application.revocations import Revocations
from application.secrets import Secrets
from application.subscriptions import Subscriptions
from application.tokens import Tokens
from interfaces.http.changes import Changes
from interfaces.http.long_polls import LongPolls
from interfaces.http.metrics import Metrics
from interfaces.postgres.idempotency_keys import PostgresIdempotencyKeys
from interfaces.postgres.pool import Pool
from interfaces.postgres.response_log import PostgresResponseLog


@dataclass(frozen=True)
class Services:
    """`front` are the threads that check tokens and readiness, so that slow handlers hold up neither; `pollers` those that look for polls. `outside` bounds
    how many requests may wait for somebody outside at the same time. `catch_up_audit` brings the audit log up to the last
    event; `is_ready` says what is missing, if anything, and `alarm` what is behind. `works` where the same process has the
    workers."""

    pool: Pool
    store: EventStore
    secrets: Secrets
    tokens: Tokens
    providers: DnsProviders
    accounts: Accounts
    orders: Orders
    preflight: Preflight
    renewals: Renewals
    explanations: Explanations
    revocations: Revocations
    rate_limits: RateLimits
    certificates: Certificates
    subscriptions: Subscriptions
    polling: Polling
    responses: PostgresResponseLog
    idempotency: PostgresIdempotencyKeys
    long_polls: LongPolls
    changes: Changes
    metrics: Metrics
    clock: Clock
    ids: Ids
    front: ThreadPoolExecutor
    pollers: ThreadPoolExecutor
    outside: BoundedSemaphore
    catch_up_audit: Callable[[], object]
    is_ready: Callable[[], str | None]
    alarm: Callable[[], str | None]
    works: bool = False

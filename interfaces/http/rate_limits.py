"""`/v1/pki/acme/accounts/{id}/budget`: what the CA's rate limits leave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from litestar import get
from litestar.params import FromPath

from domain.rate_limit import FULL, Bucket, Level, Limit, available, limits_of, ready_at, set_digest
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.problems import ERRORS
from interfaces.http.services import Services
from interfaces.http.views import one
from projections.accounts import ACCOUNTS, AccountView
from projections.certificates import CertificateView, of_account
from projections.rate_limits import RATE_LIMITS

AHEAD = timedelta(days=7)
MOST_LINES = 1000


class BucketView(msgspec.Struct, frozen=True):
    """`applies_to` is what the CA counts by: an account's id, a registered domain, names, or "" for all there is.
    `available` tokens are there of `capacity`, one comes back each `refill_seconds`; of them `reserved` are for renewals
    in the coming week. `next_at` is when there is one again, None where there is one."""

    limit: str
    applies_to: str
    capacity: int | None
    available: int | None
    refill_seconds: float | None
    reserved: int
    next_at: datetime | None


class BudgetView(msgspec.Struct, frozen=True):
    """`renewals_ahead` are the account's in the coming week, of which `exempt` fall into windows that the CA suggests.
    Limits of the whole CA count what this service did for any account of it. `truncated`: there are more lines than were
    looked at."""

    account_id: str
    ca: str
    limits_known: bool
    renewals_ahead: int
    exempt: int
    buckets: Sequence[BucketView]
    truncated: bool


@get("/pki/acme/accounts/{account_id:str}/budget", opt={"scope": "pki:admin"}, responses=ERRORS, sync_to_thread=True)
def get_budget(account_id: FromPath[str], caller: FromToken, services: FromApp) -> BudgetView:
    """Every bucket of the account, and of its names what is not full or will be needed."""
    account: AccountView = one(ACCOUNTS, "account", services, caller, account_id)
    now = services.clock.now()
    lines = of_account(services.pool, account_id, now + AHEAD, MOST_LINES + 1)
    ahead = [line for line in lines[:MOST_LINES] if caller.limits.allow(line.id, line.domains)]
    counted = [line for line in ahead if line.renewal.ari_window is None]
    ca = account.directory_url
    wanted = _wanted(services, ca, account_id, ahead)
    levels = {
        **RATE_LIMITS.levels(services.pool, list(wanted)),
        **RATE_LIMITS.failures_of(services.pool, ca, account_id, MOST_LINES),
    }
    reserved = [Bucket(ca, "certificates_per_set", set_digest(line.domains)) for line in counted]
    buckets = [
        _shown(bucket, levels.get(bucket, FULL), wanted.get(bucket, bucket.subject), reserved.count(bucket), now)
        for bucket in {**wanted, **levels}
        if bucket in levels or bucket.limit in limits_of(ca) or bucket.limit == "unnamed"
    ]
    return BudgetView(
        account_id=account_id,
        ca=ca,
        limits_known=bool(limits_of(ca)),
        renewals_ahead=len(ahead),
        exempt=len(ahead) - len(counted),
        buckets=buckets,
        truncated=len(lines) > MOST_LINES,
    )


def _wanted(services: Services, ca: str, account_id: str, lines: Sequence[CertificateView]) -> dict[Bucket, str]:
    """The buckets to show, and what each applies to in words."""
    wanted = {
        Bucket(ca, "new_registrations", ""): "",
        Bucket(ca, "new_orders", account_id): account_id,
        Bucket(ca, "unnamed", account_id): account_id,
    }
    for line in lines:
        wanted[Bucket(ca, "certificates_per_set", set_digest(line.domains))] = " ".join(sorted(line.domains))
        for domain in services.rate_limits.registered_domains(line.domains):
            wanted[Bucket(ca, "certificates_per_domain", domain)] = domain
    return wanted


def _shown(bucket: Bucket, level: Level, text: str, reserved: int, now: datetime) -> BucketView:
    limit: Limit | None = limits_of(bucket.ca).get(bucket.limit)
    at = ready_at(bucket, level)
    return BucketView(
        limit=bucket.limit,
        applies_to=text,
        capacity=limit.capacity if limit else None,
        available=available(level, limit, now) if limit else None,
        refill_seconds=limit.refill.total_seconds() if limit else None,
        reserved=reserved,
        next_at=at if at is not None and at > now else None,
    )

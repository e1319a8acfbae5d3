"""The service on a fake clock: its processes, commands, decisions and ledger are the real ones; the store keeps the
aggregates alive instead of reading them from their events, and the to-do list is a heap."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast

import pytest
import structlog

from application.caller import Caller
from application.event_store import Decisions
from application.orders import Orders
from application.ports import CaAccount
from application.process import issuance, renewal, renewal_info
from application.process.issuance import Issuance
from application.process.renewal import Renewal
from application.process.renewal_info import RenewalInfos
from application.process.todo import Claim
from application.rate_limits import RateLimits
from application.renewals import Renewals
from application.secret_value import SecretValue
from domain.account import Account, Offer, Profile
from domain.certificate import Certificate
from domain.dns_provider import ManagedZones
from domain.errors import NotFound
from domain.order import Order
from domain.provenance import DEFAULT_TENANT, Provenance, Recorded
from domain.rate_limit import FULL, LETS_ENCRYPT, Bucket, Level, after, set_digest
from domain.token import SCOPES, Limits
from interfaces.public_suffixes import PackagedPublicSuffixes
from projections.rate_limits import entries_of

CLIENT = Caller(DEFAULT_TENANT, "tok_1", SCOPES, Limits(), "req_1")
DECISIONS: Decisions = {Order: [issuance.DECISION], Certificate: [renewal.DECISION, renewal_info.DECISION]}
NOBODY: Any = None

Job = tuple[str, Any]
"""A process's name and its subject, or what the simulation itself has to do."""


class Clock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


class Ids:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._number = 0

    def new(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}_{self._prefix}{self._number:08}"


class Suffixes(PackagedPublicSuffixes):
    """Looks each name up once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def registered_domain(self, dns_name: str) -> str:
        known = self._known.get(dns_name)
        if known is None:
            known = self._known[dns_name] = super().registered_domain(dns_name)
        return known


class Agenda:
    """What is to be done when. Of each job of a process only what was said last holds."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, Job]] = []
        self._latest: dict[Job, int] = {}
        self._number = 0

    def set(self, job: Job, at: datetime) -> None:
        self._number += 1
        self._latest[job] = self._number
        heapq.heappush(self._heap, (at, self._number, job))

    def drop(self, job: Job) -> None:
        self._latest.pop(job, None)

    def until(self, end: datetime) -> Iterator[tuple[datetime, Job]]:
        while self._heap and self._heap[0][0] < end:
            at, number, job = heapq.heappop(self._heap)
            if self._latest.get(job) == number:
                del self._latest[job]
                yield at, job


class Ledger:
    """As `projections/rate_limits.py` and `projections/certificates.py` keep it."""

    def __init__(self) -> None:
        self._levels: dict[Bucket, Level] = {}
        self._issued: dict[str, datetime] = {}

    def levels(self, buckets: Collection[Bucket]) -> Mapping[Bucket, Level]:
        return {bucket: level for bucket in buckets if (level := self._levels.get(bucket)) is not None}

    def was_issued(self, _: str, names_digest: str, since: datetime) -> bool:
        last = self._issued.get(names_digest)
        return last is not None and last >= since

    def apply(self, recorded: Recorded) -> None:
        for entry in entries_of(recorded):
            self._levels[entry.bucket] = after(self._levels.get(entry.bucket, FULL), entry, recorded.event.timestamp)
        match recorded.event:
            case (
                Certificate.Issued(version=version, dns_names=names)
                | Certificate.Renewed(version=version, dns_names=names)
            ):
                self._issued[set_digest(names)] = version.not_before
            case _:
                pass


class LiveStore:
    """Stands in for `EventStore` and for the history. Of what happened it keeps a digest and counts. `decided` is told
    what each process has to do next."""

    def __init__(self, ledger: Ledger, decided: Callable[[str, Any, datetime | None], None]) -> None:
        self._ledger = ledger
        self._decided = decided
        self._digest = hashlib.sha256()
        self._position = 0
        self.aggregates: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def load(self, aggregate_class: type[Any], subject_id: str, _: str | None = None) -> Any:
        found = self.aggregates.get(subject_id)
        if found is None:
            raise NotFound(aggregate_class.TOPIC, subject_id)
        return found

    def record(self, *subjects: Any, by: Provenance, claim: Claim | None = None) -> bool:
        del claim
        for aggregate in subjects:
            events = aggregate.collect_events()
            self.aggregates[aggregate.id] = aggregate
            for event in events:
                self._position += 1
                topic = type(event).TOPIC
                self.counts[topic] += 1
                self._digest.update(f"{topic} {event.originator_id} {event.timestamp.timestamp()!r}\n".encode())
                self._ledger.apply(Recorded(self._position, event, by))
            if events:
                self.decide(aggregate)
        return False

    def decide(self, aggregate: Any) -> None:
        for decision in DECISIONS.get(type(aggregate), ()):
            step = decision.next_step(aggregate)
            self._decided(decision.process, aggregate, step.due_at if step else None)

    def origin(self, _: str) -> Provenance:
        return CLIENT.provenance


class Directory:
    """Every name has a provider; the simulation never orders the same names twice at once."""

    def managed_zones(self, _: str) -> Sequence[ManagedZones]:
        return [ManagedZones("dns_1", ("com", "org"), datetime.min)]  # noqa: DTZ901

    def running_order(self, _: str, __: Sequence[str]) -> str | None:
        return None


class Accounts:
    def __init__(self, store: LiveStore) -> None:
        self._store = store

    def at_ca(self, account_id: str) -> tuple[Account, CaAccount]:
        account: Account = self._store.load(Account, account_id)
        return account, CaAccount(account.directory_url, account.account_url, SecretValue(""))


class NoOtherOrders:
    def is_shown_for_another(self, _: str, __: str) -> bool:
        return False

    def failed_renewals(self, _: str, __: int) -> Sequence[str]:
        return []


class Service:
    def __init__(
        self,
        clock: Clock,
        ca: Any,
        suffixes: Suffixes,
        chance: Callable[[], float],
        prefix: str,
        decided: Callable[[str, Any, datetime | None], None],
    ) -> None:
        ids, directory = Ids(prefix), Directory()
        self.ledger = Ledger()
        self.live = LiveStore(self.ledger, decided)
        self.store: Any
        self.store = store = cast("Any", self.live)
        self._clock = clock
        accounts: Any = Accounts(self.live)
        self.rate_limits = RateLimits(self.ledger, suffixes, clock)
        self.orders = Orders(store, directory, suffixes, self.rate_limits, clock, ids)
        self.renewals = Renewals(store, directory, self.rate_limits, clock, ids)
        self.renewal = Renewal(store, store, self.renewals, clock)
        self.renewal_infos = RenewalInfos(store, store, accounts, ca, chance, clock)
        self.issuance = Issuance(
            store, store, NOBODY, accounts, ca, NOBODY, NOBODY, NOBODY, NoOtherOrders(), self.rate_limits, clock
        )

    def open_account(self, account_id: str) -> None:
        account = Account.register(
            account_id,
            tenant_id=DEFAULT_TENANT,
            name=account_id,
            provider="letsencrypt",
            environment="production",
            email="ops@acme.example",
            directory_url=LETS_ENCRYPT,
            ca_bundle_pem=None,
            account_url=f"https://ca.example/account/{account_id}",
            sealed_key_id="key",
            key_thumbprint="",
            offer=Offer(
                ari=True,
                profiles=tuple(Profile(name, "") for name in ("classic", "tlsserver", "shortlived")),
                eab_required=False,
                caa_identities=(),
            ),
            now=self._clock.now(),
        )
        self.store.record(account, by=CLIENT.provenance)


@contextmanager
def quiet() -> Iterator[None]:
    """No logs; and what the CA knows a certificate by is its serial, for there are no chains to read."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(renewal_info, "ari_id", lambda chain_pem: chain_pem)
            yield
    finally:
        structlog.configure(**before)

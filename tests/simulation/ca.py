"""A CA with Let's Encrypt's rate limits, windows and lifetimes, written down from `facts.md` without a look at ours: what
the service believes of a CA is held against this.

A bucket here is a number of tokens and the moment at which they were counted. An order that it has no token for is
refused, and stands in `over`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from application.errors import CaRefused, CaThrottled, CaUnavailable
from application.ports import CaAccount, Clock, PublicSuffixes
from domain.acme import ERROR_NAMESPACE, OrderObject, Problem, RenewalInfo

Service = Literal["new_order", "renewal_info", "issuance"]
LimitName = Literal["orders", "domain", "set", "failures", "consecutive"]
OrderKind = Literal["ari", "same_set", "new"]
Book = Literal["documented", "boulder"]
"""How certificates are counted: as the documentation has it, or as Boulder's source does (`countCertificateIssued`)."""

LIMITS: Mapping[LimitName, tuple[int, timedelta]] = {
    "orders": (300, timedelta(seconds=36)),
    "domain": (50, timedelta(minutes=202)),
    "set": (5, timedelta(hours=34)),
    "failures": (5, timedelta(minutes=12)),
    "consecutive": (1152, timedelta(days=1)),
}
WORDS: Mapping[LimitName, str] = {
    "orders": "too many new orders (300) from this account in the last 3h0m0s",
    "domain": 'too many certificates (50) already issued for "{}" in the last 168h0m0s',
    "set": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s",
    "failures": 'too many failed authorizations (5) for "{}" in the last 1h0m0s',
    "consecutive": 'too many consecutive failed authorizations (1152) for "{}"',
}
LOOKS_BACK = timedelta(days=120)
ASK_AGAIN = timedelta(hours=6)
BACK_DATED = timedelta(hours=1)
SHORTER = datetime(2027, 2, 10, tzinfo=UTC)
SHORTEST = datetime(2028, 2, 16, tzinfo=UTC)
ORDER_LIVES = {"classic": timedelta(days=7), "tlsserver": timedelta(hours=8), "shortlived": timedelta(hours=8)}


def validity(profile: str, at: datetime) -> timedelta:
    if profile == "shortlived":
        return timedelta(hours=160)
    if profile == "tlsserver" or at >= SHORTEST:
        return timedelta(days=45)
    return timedelta(days=64 if at >= SHORTER else 90)


@dataclass
class TokenBucket:
    """Its tokens are counted in microseconds of refilling, so that nothing is rounded."""

    capacity: int
    refill: timedelta
    counted_at: datetime
    filled: timedelta = field(init=False)

    def __post_init__(self) -> None:
        self.filled = self.capacity * self.refill

    def count(self, now: datetime) -> timedelta:
        self.filled = min(self.capacity * self.refill, self.filled + (now - self.counted_at))
        self.counted_at = now
        return self.filled

    def has_one(self, now: datetime) -> bool:
        return self.count(now) >= self.refill

    def take(self, now: datetime) -> None:
        self.filled = self.count(now) - self.refill

    def give_back(self, now: datetime) -> None:
        self.filled = self.count(now) + self.refill

    def seconds_to_one(self, now: datetime) -> float:
        return max(timedelta(), self.refill - self.count(now)).total_seconds()


@dataclass(frozen=True)
class Outage:
    start: datetime
    end: datetime
    of: frozenset[Service]

    def covers(self, service: Service, at: datetime) -> bool:
        return service in self.of and self.start <= at < self.end


@dataclass
class Issued:
    """A certificate as the CA knows it. `window` is moved by incidents."""

    serial: str
    account: str
    names: tuple[str, ...]
    profile: str
    not_before: datetime
    not_after: datetime
    window: tuple[datetime, datetime]
    is_replaced: bool = False

    def is_in_window(self, at: datetime) -> bool:
        return self.window[0] <= at < self.window[1]


@dataclass(frozen=True)
class AcceptedOrder:
    url: str
    account: str
    names: tuple[str, ...]
    profile: str
    kind: OrderKind
    replaces: str | None
    at: datetime


class SimulatedCa:
    """As much of the port `CertificateAuthority` as placing orders and asking for windows needs.

    By the book `documented` an order takes its tokens when it comes, and exempt is exempt. By `boulder` the limits for
    certificates are looked at when an order comes, and taken from when its certificate is issued, minutes later; then each
    certificate takes from its exact set's, also those whose orders were exempt."""

    def __init__(
        self, clock: Clock, suffixes: PublicSuffixes, outages: Sequence[Outage], prefix: str, book: Book
    ) -> None:
        self._clock = clock
        self._suffixes = suffixes
        self._outages = outages
        self._prefix = prefix
        self._book = book
        self._buckets: dict[tuple[LimitName, str], TokenBucket] = {}
        self._last_issued: dict[tuple[str, ...], datetime] = {}
        self._number = 0
        self.certificates: dict[str, Issued] = {}
        self.orders: dict[str, AcceptedOrder] = {}
        self.over: list[tuple[datetime, LimitName, str, OrderKind]] = []

    # --- the port ---

    def new_order(
        self, account: CaAccount, dns_names: Sequence[str], profile: str | None, replaces: str | None = None
    ) -> OrderObject:
        now, names, profile = self._clock.now(), tuple(sorted(dns_names)), profile or "classic"
        self._require("new_order", now)
        kind = self._kind(account.account_url, names, replaces, now)
        needs = self._needs(kind, account.account_url, names)
        for limit, subject in (*needs, *self._gates(kind, account.account_url, names)):
            bucket = self._bucket(limit, subject)
            if not bucket.has_one(now):
                self.over.append((now, limit, subject, kind))
                detail = WORDS[limit].format(subject.rpartition(" ")[2])
                raise CaThrottled(Problem(ERROR_NAMESPACE + "rateLimited", detail), bucket.seconds_to_one(now))
        for limit, subject in needs:
            if limit == "orders" or self._book == "documented":
                self._bucket(limit, subject).take(now)
        self._number += 1
        url = f"https://ca.example/order/{self._number}"
        self.orders[url] = AcceptedOrder(url, account.account_url, names, profile, kind, replaces, now)
        return OrderObject(url, "pending", f"{url}/finalize", (f"{url}/authz",), expires_at=now + ORDER_LIVES[profile])

    def renewal_info(self, _: CaAccount, ari_id: str) -> RenewalInfo:
        self._require("renewal_info", self._clock.now())
        start, end = self.certificates[ari_id].window
        return RenewalInfo(start, end, None, ASK_AGAIN.total_seconds())

    # --- what happens at the CA ---

    def outage_of(self, service: Service, at: datetime) -> Outage | None:
        return next((outage for outage in self._outages if outage.covers(service, at)), None)

    def issue(self, url: str) -> Issued:
        now, order = self._clock.now(), self.orders.pop(url)
        if self._book == "boulder":
            of_set: tuple[LimitName, str] = ("set", " ".join(order.names))
            for limit, subject in {*self._needs(order.kind, order.account, order.names), of_set}:
                if limit != "orders":
                    self._bucket(limit, subject).take(now)
        for name in order.names:
            self._buckets.pop(("consecutive", f"{order.account} {base_name(name)}"), None)
        self._number += 1
        not_before, lifetime = now - BACK_DATED, validity(order.profile, now)
        share = lifetime / 2 if lifetime < timedelta(days=10) else lifetime * 2 / 3
        window = (not_before + share - lifetime / 100, not_before + share + lifetime / 100)
        serial = f"{self._prefix}{self._number:010x}"
        self.certificates[serial] = Issued(
            serial, order.account, order.names, order.profile, not_before, not_before + lifetime, window
        )
        self._last_issued[order.names] = now
        if order.replaces is not None:
            self.certificates[order.replaces].is_replaced = True
        return self.certificates[serial]

    def lose(self, url: str, failed_name: str | None) -> None:
        """The order comes to nothing, through the authorization of that name or otherwise."""
        now, order = self._clock.now(), self.orders.pop(url)
        if self._book == "documented":
            for limit, subject in self._needs(order.kind, order.account, order.names):
                if limit != "orders":
                    self._bucket(limit, subject).give_back(now)
        if failed_name is not None:
            limits: tuple[LimitName, ...] = ("failures", "consecutive")
            for limit in limits:
                self._bucket(limit, f"{order.account} {base_name(failed_name)}").take(now)

    def revoke(self, serials: Collection[str]) -> None:
        """An incident: the windows are over."""
        now = self._clock.now()
        for serial in serials:
            self.certificates[serial].window = (now - timedelta(hours=1), now - timedelta(minutes=30))

    # --- inside ---

    def _require(self, service: Service, now: datetime) -> None:
        if self.outage_of(service, now) is not None:
            raise CaUnavailable("503 Service Unavailable")

    def _kind(self, account: str, names: tuple[str, ...], replaces: str | None, now: datetime) -> OrderKind:
        if replaces is not None:
            old = self.certificates[replaces]
            if old.is_replaced:
                raise CaRefused(Problem(ERROR_NAMESPACE + "alreadyReplaced", "it is replaced already"), 409)
            if old.account == account and set(old.names) & set(names) and old.is_in_window(now):
                return "ari"
        last = self._last_issued.get(names)
        return "same_set" if last is not None and now - last <= LOOKS_BACK else "new"

    def _needs(self, kind: OrderKind, account: str, names: tuple[str, ...]) -> Sequence[tuple[LimitName, str]]:
        needs: list[tuple[LimitName, str]] = []
        if kind == "new":
            needs.append(("orders", account))
            domains = sorted({self._suffixes.registered_domain(base_name(name)) for name in names})
            needs += [("domain", domain) for domain in domains]
        if kind != "ari":
            needs.append(("set", " ".join(names)))
        return needs

    def _gates(self, kind: OrderKind, account: str, names: tuple[str, ...]) -> Sequence[tuple[LimitName, str]]:
        """Those that failures alone empty."""
        if kind == "ari":
            return ()
        limits: tuple[LimitName, ...] = ("failures", "consecutive")
        return [(limit, f"{account} {base_name(name)}") for name in names for limit in limits]

    def _bucket(self, limit: LimitName, subject: str) -> TokenBucket:
        known = self._buckets.get((limit, subject))
        if known is None:
            known = self._buckets[limit, subject] = TokenBucket(*LIMITS[limit], self._clock.now())
        return known


def base_name(name: str) -> str:
    return name.removeprefix("*.")

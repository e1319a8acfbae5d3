"""What the views know that the use cases ask for, with the connections to ask by."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from domain.announcement import Announced
from domain.dns_provider import ManagedZones, Removal
from domain.errors import NotFound
from domain.rate_limit import Bucket, Level
from domain.terms import Candidate, Terms
from interfaces.postgres.pool import Pool
from projections import accounts as account_view
from projections import certificates as certificate_view
from projections import dns_providers as provider_view
from projections import orders as order_view
from projections import subscriptions as subscription_view
from projections import tokens as token_view
from projections.announcements import ANNOUNCEMENTS
from projections.delivery_statistics import DELIVERY_STATISTICS
from projections.polling_cursors import POLLING_CURSORS
from projections.rate_limits import RATE_LIMITS
from projections.terms import TERMS


class ReadModels:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def managed_zones(self, tenant_id: str) -> Sequence[ManagedZones]:
        return provider_view.managed_zones(self._pool, tenant_id)

    def running_order(self, account_id: str, dns_names: Sequence[str]) -> str | None:
        return order_view.running_order(self._pool, account_id, dns_names)

    def is_account_name(self, tenant_id: str, name: str) -> bool:
        return account_view.is_name_taken(self._pool, tenant_id, name)

    def renewing_through(self, account_id: str, most: int) -> Sequence[str]:
        return certificate_view.renewing_through(self._pool, account_id, most)

    def running_orders(self, account_id: str, most: int) -> Sequence[str]:
        return order_view.running_orders(self._pool, account_id, most)

    def embedded_zones_of_others(self, tenant_id: str) -> Sequence[str]:
        return provider_view.embedded_zones(self._pool, except_tenant=tenant_id)

    def is_shown_for_another(self, order_id: str, record_value: str) -> bool:
        return order_view.is_shown_for_another(self._pool, order_id, record_value)

    def order_at_provider(self, dns_provider_id: str) -> str | None:
        return order_view.order_at_provider(self._pool, dns_provider_id)

    def removals(self, dns_provider_id: str, after: int, since: datetime, limit: int) -> Sequence[Removal]:
        return order_view.removals(self._pool, dns_provider_id, after, since, limit)

    def failed_renewals(self, certificate_id: str, most: int) -> Sequence[str]:
        return order_view.failed_renewals(self._pool, certificate_id, most)

    def levels(self, buckets: Collection[Bucket]) -> Mapping[Bucket, Level]:
        return RATE_LIMITS.levels(self._pool, buckets)

    def was_issued(self, ca: str, names_digest: str, since: datetime) -> bool:
        return certificate_view.was_issued(self._pool, ca, names_digest, since)

    def embedded_zones(self) -> Sequence[str]:
        return provider_view.embedded_zones(self._pool)

    def all_terms(self, after: int) -> Sequence[Terms]:
        return TERMS.since(self._pool, after)

    def polling_terms(self, subscription_id: str) -> Sequence[Terms]:
        return TERMS.polled(self._pool, subscription_id)

    def subscribed(self, tenant_id: str) -> tuple[int, int]:
        return subscription_view.subscribed(self._pool, tenant_id)

    def paused(self) -> Sequence[str]:
        return subscription_view.paused(self._pool)

    def failing_since(self, subscription_id: str) -> datetime | None:
        return DELIVERY_STATISTICS.failing_since(self._pool, subscription_id)

    def polling_cursor(self, subscription_id: str) -> tuple[int, frozenset[int]] | None:
        return POLLING_CURSORS.one(self._pool, subscription_id)

    def announced(self, after: int, limit: int) -> Sequence[Announced]:
        return ANNOUNCEMENTS.read(self._pool, after, limit)

    def announced_at(self, position: int) -> Announced:
        for announced in ANNOUNCEMENTS.at(self._pool, [position]):
            return announced
        raise NotFound("event", f"at {position}")

    def all_announced_at(self, positions: Sequence[int]) -> Sequence[Announced]:
        return ANNOUNCEMENTS.at(self._pool, positions)

    def candidates(self, terms: Terms, after: int, upto: int, limit: int) -> Sequence[Candidate]:
        return ANNOUNCEMENTS.candidates(self._pool, terms, after, upto, limit)

    def positions_of(self, subject_ids: Sequence[str]) -> Mapping[str, int]:
        """Of orders and certificates: by id the position of the last event that changed it."""
        orders = order_view.ORDERS.positions(self._pool, subject_ids)
        return {**orders, **certificate_view.CERTIFICATES.positions(self._pool, subject_ids)}

    def positions(self, tenant_id: str, event_ids: Sequence[str]) -> Mapping[str, int]:
        return ANNOUNCEMENTS.positions(self._pool, tenant_id, event_ids)

    def first_since(self, tenant_id: str, at: datetime) -> int | None:
        return ANNOUNCEMENTS.first_since(self._pool, tenant_id, at)

    def last_until(self, tenant_id: str, at: datetime) -> int:
        return ANNOUNCEMENTS.last_until(self._pool, tenant_id, at)

    def last_position(self) -> int:
        return ANNOUNCEMENTS.last(self._pool)

    def still_so(self, asking: Sequence[tuple[Terms, str]], now: datetime) -> frozenset[tuple[Terms, str]]:
        """Those whose subscription still asks for just this, and is theirs, and whose token is good."""
        tokens = token_view.usable(self._pool, [token_id for _, token_id in asking], now)
        asked = subscription_view.asked(self._pool, [terms.subscription_id for terms, _ in asking])
        return frozenset(
            (terms, token_id)
            for terms, token_id in asking
            if token_id in tokens
            and asked.get(terms.subscription_id) == (token_id, terms.paths, terms.event_types, terms.dns_names)
        )

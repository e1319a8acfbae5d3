"""All views there are, by how they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from psycopg import Cursor
from psycopg.rows import TupleRow

from domain.provenance import Recorded
from projections.accounts import ACCOUNTS
from projections.announcements import ANNOUNCEMENTS
from projections.audit_log import AUDIT_LOG
from projections.certificate_pems import CERTIFICATE_PEMS
from projections.certificates import CERTIFICATES
from projections.deliveries import DELIVERIES
from projections.delivery_statistics import DELIVERY_STATISTICS
from projections.dns_providers import DNS_PROVIDERS
from projections.order_statistics import ORDER_STATISTICS
from projections.orders import ORDERS
from projections.polling_cursors import POLLING_CURSORS
from projections.rate_limits import RATE_LIMITS
from projections.secrets import SECRETS
from projections.subscriptions import SUBSCRIPTIONS
from projections.terms import TERMS
from projections.tokens import TOKENS


class View(Protocol):
    """`name` is the table that `ddl` makes; `apply` takes events in order, each once."""

    @property
    def name(self) -> str: ...

    @property
    def ddl(self) -> str: ...

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None: ...


INLINE: Sequence[View] = (
    ACCOUNTS,
    ANNOUNCEMENTS,
    CERTIFICATES,
    CERTIFICATE_PEMS,
    DELIVERIES,
    DNS_PROVIDERS,
    ORDERS,
    POLLING_CURSORS,
    RATE_LIMITS,
    SECRETS,
    SUBSCRIPTIONS,
    TERMS,
    TOKENS,
)
"""Written in the transaction of the events: what a client reads right after its command."""

FOLLOWING: Sequence[View] = (AUDIT_LOG, DELIVERY_STATISTICS, ORDER_STATISTICS)
"""Written behind it, each from its own position."""

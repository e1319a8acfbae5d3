"""The audit log: one row for each act that is on record, made of all events.

Every event type has a rule in `RULES`, or stands in `NO_ACT`: a step of a process that nobody acted in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import Cursor
from psycopg.rows import TupleRow

from domain import access
from domain.account import Account
from domain.acknowledgement import Acknowledged, Rewound
from domain.certificate import Certificate
from domain.delivery import Delivery
from domain.dns_provider import DnsProvider
from domain.event import DomainEvent
from domain.order import Order
from domain.provenance import Recorded
from domain.secret import Secret
from domain.subscription import Subscription
from domain.token import Token
from domain.ulid import ulid_text
from projections.documents import Pool


class Rule(msgspec.Struct, frozen=True):
    """What an event means in the log. `path` names the resource, `details` what else is worth knowing of it."""

    action: str
    path: Callable[[Any], str]
    details: Callable[[Any], Mapping[str, Any]] = lambda _: {}
    success: bool | Callable[[Any], bool] = True

    def is_success(self, event: DomainEvent) -> bool:
        return self.success(event) if callable(self.success) else self.success


def _under(root: str) -> Callable[[Any], str]:
    return lambda event: f"{root}/{event.originator_id}"


ACCOUNT = _under("pki/acme/accounts")
ORDER = _under("pki/acme/orders")
CERTIFICATE = _under("pki/certificates")
PROVIDER = _under("dns/providers")
SUBSCRIPTION = _under("subscriptions")

RULES: Mapping[type[DomainEvent], Rule] = {
    Account.Registered: Rule("acme_account_create", ACCOUNT, lambda e: {"account_url": e.account_url}),
    Account.ContactChanged: Rule("acme_account_update", ACCOUNT, lambda e: {"email": e.email}),
    Account.OfferSeen: Rule("acme_account_update", ACCOUNT, lambda _: {"capabilities": "changed at the CA"}),
    Account.KeyChangeBegan: Rule("acme_account_rollover", ACCOUNT, lambda e: {"began": e.key.thumbprint}),
    Account.KeyChanged: Rule("acme_account_rollover", ACCOUNT, lambda _: {"done": True}),
    Account.KeyChangeFailed: Rule(
        "acme_account_rollover", ACCOUNT, lambda e: {"message": e.problem.detail}, success=False
    ),
    Account.KeysDestroyed: Rule("acme_account_update", ACCOUNT, lambda e: {"keys_destroyed": len(e.sealed_ids)}),
    Account.ActionRequired: Rule(
        "acme_account_update",
        ACCOUNT,
        lambda e: {"status": "action_required", "message": e.problem.detail},
        success=False,
    ),
    Account.Lost: Rule(
        "acme_account_update", ACCOUNT, lambda e: {"status": "lost", "message": e.problem.detail}, success=False
    ),
    Account.Restored: Rule("acme_account_update", ACCOUNT, lambda _: {"status": "active"}),
    Account.Deactivated: Rule("acme_account_deactivate", ACCOUNT),
    DnsProvider.Connected: Rule(
        "dns_provider_create",
        PROVIDER,
        lambda e: {"provider_type": e.provider_type, "managed_zones": e.managed_zones},
    ),
    DnsProvider.Revised: Rule(
        "dns_provider_update",
        PROVIDER,
        lambda e: {"name": e.name, "managed_zones": e.managed_zones, "is_active": e.is_active},
    ),
    DnsProvider.Disconnected: Rule("dns_provider_delete", PROVIDER),
    DnsProvider.Verified: Rule("dns_provider_verify", PROVIDER, lambda e: {"missing_zones": e.missing_zones}),
    DnsProvider.VerificationFailed: Rule(
        "dns_provider_verify", PROVIDER, lambda e: {"reason": e.reason, "detail": e.detail}, success=False
    ),
    DnsProvider.CanaryPassed: Rule("dns_provider_verify", PROVIDER, lambda e: {"canary": e.zones}),
    DnsProvider.CanaryFailed: Rule(
        "dns_provider_verify",
        PROVIDER,
        lambda e: {"reason": e.reason, "detail": e.detail, "attempt": e.attempt},
        success=False,
    ),
    DnsProvider.Degraded: Rule(
        "dns_provider_update",
        PROVIDER,
        lambda e: {"health": "degraded", "reason": e.reason, "detail": e.detail},
        success=False,
    ),
    DnsProvider.Recovered: Rule("dns_provider_update", PROVIDER, lambda _: {"health": "healthy"}),
    Order.Placed: Rule(
        "acme_order_create",
        ORDER,
        lambda e: {"domains": [assignment.dns_name for assignment in e.assignments], "account_id": e.account_id},
    ),
    Order.RecordPublished: Rule("dns_record_create", ORDER, lambda e: _record(e.record)),
    Order.RecordRemoved: Rule("dns_record_delete", ORDER, lambda e: _record(e.record)),
    Order.Completed: Rule("acme_order_complete", ORDER, lambda e: {"certificate_id": e.certificate_id}),
    Order.Failed: Rule(
        "acme_order_fail", ORDER, lambda e: {"code": e.error.code, "message": e.error.message}, success=False
    ),
    Certificate.Issued: Rule("pki_issue", CERTIFICATE, lambda e: _version(e.version)),
    Certificate.Renewed: Rule("pki_renew", CERTIFICATE, lambda e: _version(e.version) | {"reason": e.reason}),
    Certificate.RenewalFailed: Rule(
        "pki_renewal_fail",
        CERTIFICATE,
        lambda e: {"order_id": e.order_id, "attempt": e.attempt, "code": e.error.code},
        success=False,
    ),
    Certificate.Revoked: Rule("pki_revoke", CERTIFICATE, lambda e: {"version": e.version, "reason": e.reason}),
    Certificate.RenewalBegan: Rule(
        "pki_renew_begin",
        CERTIFICATE,
        lambda e: {"order_id": e.order_id, "reason": e.reason, "automatic": e.automatic, "in_window": e.in_window},
    ),
    Certificate.RenewalHeld: Rule(
        "pki_renewal_hold",
        CERTIFICATE,
        lambda e: {"renewals": e.renewals, "since": e.since, "until": e.until},
        success=False,
    ),
    Certificate.RenewalReleased: Rule("pki_renewal_release", CERTIFICATE, lambda e: {"reason": e.reason}),
    Certificate.AutoRenewalSwitched: Rule("pki_certificate_update", CERTIFICATE, lambda e: {"auto_renew": e.on}),
    Certificate.Renamed: Rule("pki_certificate_update", CERTIFICATE, lambda e: {"name": e.name}),
    Certificate.ExpiryNeared: Rule(
        "pki_expiry_warning", CERTIFICATE, lambda e: {"version": e.version, "not_after": e.not_after}, success=False
    ),
    Certificate.Expired: Rule("pki_expire", CERTIFICATE, lambda e: {"version": e.version}, success=False),
    Secret.Stored: Rule("write", lambda e: f"secrets/{e.path}", lambda _: {"version": 1}),
    Secret.VersionAdded: Rule(
        "write", lambda e: "secrets/" + e.originator_id.split(":", 2)[2], lambda e: {"version": e.number}
    ),
    Subscription.Subscribed: Rule(
        "subscription_create", SUBSCRIPTION, lambda e: {"url": e.target.url if e.target else None}
    ),
    Subscription.Revised: Rule(
        "subscription_update",
        SUBSCRIPTION,
        lambda e: {"url": e.url, "paths": e.paths, "events": e.event_types, "identity_id": e.identity_id},
    ),
    Subscription.Paused: Rule("subscription_update", SUBSCRIPTION, lambda _: {"status": "paused"}),
    Subscription.Resumed: Rule("subscription_update", SUBSCRIPTION, lambda _: {"status": "active"}),
    Subscription.Enabled: Rule("subscription_update", SUBSCRIPTION, lambda _: {"status": "active"}),
    Subscription.Disabled: Rule(
        "subscription_update", SUBSCRIPTION, lambda e: {"status": "disabled", "reason": e.reason}
    ),
    Subscription.SecretRotated: Rule("subscription_update", SUBSCRIPTION, lambda _: {"secret": "rotated"}),
    Subscription.SecretsShredded: Rule("subscription_update", SUBSCRIPTION, lambda _: {"secret": "destroyed"}),
    Subscription.ReplayRequested: Rule(
        "subscription_update",
        SUBSCRIPTION,
        lambda e: {"replay_id": e.replay_id, "first": e.after + 1, "last": e.upto},
    ),
    Subscription.Unsubscribed: Rule("subscription_delete", SUBSCRIPTION),
    Rewound: Rule(
        "subscription_update", lambda e: f"subscriptions/{e.subscription_id}", lambda e: {"first": e.cursor + 1}
    ),
    Delivery.Delivered: Rule("webhook_delivery", _under("deliveries"), lambda e: {"status": e.status}),
    Delivery.AttemptFailed: Rule(
        "webhook_delivery", _under("deliveries"), lambda e: {"status": e.status, "detail": e.detail}, success=False
    ),
    Delivery.GivenUp: Rule(
        "webhook_delivery",
        _under("deliveries"),
        lambda e: {"status": e.status, "detail": e.detail, "given_up": True},
        success=False,
    ),
    Delivery.Abandoned: Rule(
        "webhook_delivery",
        _under("deliveries"),
        lambda e: {"detail": e.detail, "given_up": True},
        success=False,
    ),
    Delivery.Reopened: Rule("webhook_delivery", _under("deliveries"), lambda _: {"reopened": True}),
    Token.Issued: Rule("token_create", _under("tokens"), lambda e: {"scopes": e.scopes}),
    Token.Revoked: Rule("token_revoke", _under("tokens")),
    access.PrivateKeyRead: Rule(
        "pki_private_key_read", lambda e: f"pki/certificates/{e.certificate_id}", lambda e: {"version": e.version}
    ),
    access.SecretRead: Rule("read", lambda e: f"secrets/{e.path}", lambda e: {"version": e.version}),
    access.SubscriptionTested: Rule(
        "webhook_delivery",
        lambda e: f"subscriptions/{e.subscription_id}",
        lambda e: {"status": e.status, "detail": e.detail, "test": True},
        success=lambda e: e.status in range(200, 300),
    ),
    access.RequestRefused: Rule(
        "access_denied",
        lambda e: e.path.removeprefix("/v1/"),
        lambda e: {"method": e.method, "code": e.code},
        success=False,
    ),
}

NO_ACT: frozenset[type[DomainEvent]] = frozenset(
    {
        DnsProvider.Swept,
        Order.KeySealed,
        Order.Accepted,
        Order.ChallengesOffered,
        Order.RecordsPropagated,
        Order.ChallengesAnswered,
        Order.ChallengesReopened,
        Order.BecameReady,
        Order.Finalized,
        Order.Issued,
        Order.RecordLeft,
        Order.Throttled,
        Order.ReplacementRefused,
        Order.Adopted,
        Certificate.RenewalInfoSeen,
        Certificate.RenewalPostponed,
        Order.Postponed,
        Delivery.Owed,
        Subscription.ReplayAdvanced,
        Acknowledged,
    }
)


def _record(record: Any) -> Mapping[str, Any]:
    return {"record_name": record.name, "record_value": record.value, "dns_provider_id": record.dns_provider_id}


def _version(version: Any) -> dict[str, Any]:
    return {"version": version.number, "serial_number": version.serial_number, "order_id": version.order_id}


class AuditRow(msgspec.Struct, frozen=True):
    """`index` counts the rows from 0 without gaps; `event_position` is the event's in the store."""

    id: str
    index: int
    timestamp: datetime
    action: str
    identity_type: str
    identity_id: str
    tenant_id: str
    resource_path: str
    source_ip: str | None
    user_agent: str | None
    success: bool
    duration_ms: int | None
    request_id: str | None
    event_position: int
    extra_data: Mapping[str, Any]


class Criteria(msgspec.Struct, frozen=True):
    """Which rows are asked for; None asks for all."""

    since: datetime | None = None
    until: datetime | None = None
    action: str | None = None
    identity_id: str | None = None
    path_prefix: str | None = None
    success: bool | None = None
    request_id: str | None = None
    source_ip: str | None = None


class AuditLog:
    name = "audit_log"
    ddl = """
CREATE TABLE audit_log (
    index bigint PRIMARY KEY,
    tenant_id text NOT NULL,
    at timestamptz NOT NULL,
    action text NOT NULL,
    identity_id text NOT NULL,
    resource_path text NOT NULL,
    success boolean NOT NULL,
    request_id text,
    source_ip text,
    document json NOT NULL
);
CREATE INDEX ON audit_log (tenant_id, index);
CREATE INDEX ON audit_log (tenant_id, request_id)"""

    def apply(self, cursor: Cursor[TupleRow], events: Sequence[Recorded]) -> None:
        """Only one caller at a time: the index continues from the last row."""
        cursor.execute("SELECT coalesce(max(index) + 1, 0) FROM audit_log")
        found = cursor.fetchone()
        index: int = found[0] if found else 0
        rows = []
        for recorded in events:
            rule = RULES.get(type(recorded.event))
            if rule is not None:
                rows.append(audit_row(index, recorded, rule))
                index += 1
        cursor.executemany(
            "INSERT INTO audit_log VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                [
                    row.index,
                    row.tenant_id,
                    row.timestamp,
                    row.action,
                    row.identity_id,
                    row.resource_path,
                    row.success,
                    row.request_id,
                    row.source_ip,
                    msgspec.json.encode(row).decode(),
                ]
                for row in rows
            ],
        )

    def page(self, pool: Pool, tenant_id: str, after: int, limit: int, criteria: Criteria) -> Sequence[AuditRow]:
        """In the order of their indexes, from behind the index `after` on."""
        with pool.connection() as connection:
            rows = connection.execute(
                PAGE,
                {
                    "tenant_id": tenant_id,
                    "after": after,
                    "limit": limit,
                    **msgspec.structs.asdict(criteria),
                },
            ).fetchall()
        return [msgspec.json.decode(document, type=AuditRow) for (document,) in rows]


def audit_row(index: int, recorded: Recorded, rule: Rule) -> AuditRow:
    event, by = recorded.event, recorded.by
    return AuditRow(
        id="log_" + ulid_text(event.timestamp, recorded.position.to_bytes(10, "big")),
        index=index,
        timestamp=event.timestamp,
        action=rule.action if not _is_cancelling(event) else "acme_order_cancel",
        identity_type=by.identity_type,
        identity_id=by.identity_id,
        tenant_id=by.tenant_id,
        resource_path=rule.path(event),
        source_ip=by.source_ip,
        user_agent=by.user_agent,
        success=rule.is_success(event),
        duration_ms=None,
        request_id=by.request_id,
        event_position=recorded.position,
        extra_data=rule.details(event),
    )


def _is_cancelling(event: DomainEvent) -> bool:
    return isinstance(event, Order.Failed) and event.error.code == "cancelled"


PAGE = """
SELECT document::text FROM audit_log
WHERE tenant_id = %(tenant_id)s AND index > %(after)s
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(identity_id)s::text IS NULL OR identity_id = %(identity_id)s)
  AND (%(path_prefix)s::text IS NULL OR starts_with(resource_path, %(path_prefix)s))
  AND (%(success)s::boolean IS NULL OR success = %(success)s)
  AND (%(request_id)s::text IS NULL OR request_id = %(request_id)s)
  AND (%(source_ip)s::text IS NULL OR source_ip = %(source_ip)s)
ORDER BY index LIMIT %(limit)s
"""

AUDIT_LOG = AuditLog()

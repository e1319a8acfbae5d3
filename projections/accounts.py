"""ACME accounts as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from domain.account import Account
from domain.provenance import Recorded
from projections.documents import Column, DocumentView, Pool
from projections.times import whole_seconds


class CapabilitiesView(msgspec.Struct, frozen=True):
    ari: bool
    profiles: Mapping[str, str]
    eab_required: bool
    caa_identities: Sequence[str]


class AccountView(msgspec.Struct, frozen=True):
    id: str
    name: str
    provider: str
    environment: str
    status: str
    email: str
    directory_url: str
    account_url: str
    key_thumbprint: str
    capabilities: CapabilitiesView
    created_at: datetime


def fold(_: AccountView | None, recorded: Recorded) -> AccountView:
    event = recorded.event
    if not isinstance(event, Account.Registered):
        raise TypeError(f"no rule for {event}")
    return AccountView(
        id=event.originator_id,
        name=event.name,
        provider=event.provider,
        environment=event.environment,
        status="active",
        email=event.email,
        directory_url=event.directory_url,
        account_url=event.account_url,
        key_thumbprint=event.key_thumbprint,
        capabilities=CapabilitiesView(
            ari=event.offer.ari,
            profiles={profile.name: profile.description for profile in event.offer.profiles},
            eab_required=event.offer.eab_required,
            caa_identities=event.offer.caa_identities,
        ),
        created_at=whole_seconds(event.timestamp),
    )


ACCOUNTS = DocumentView(
    name="accounts",
    document_type=AccountView,
    event_class=Account.Event,
    fold=fold,
    columns={"name": Column("text NOT NULL", lambda account: account.name)},
    indexes=["CREATE UNIQUE INDEX accounts_name ON accounts (tenant_id, name)"],
)


def is_name_taken(pool: Pool, tenant_id: str, name: str) -> bool:
    with pool.connection() as connection:
        found = connection.execute("SELECT FROM accounts WHERE tenant_id = %s AND name = %s", [tenant_id, name])
        return found.fetchone() is not None

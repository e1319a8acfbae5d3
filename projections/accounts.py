"""ACME accounts as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from domain.account import Account, Offer
from domain.provenance import Recorded
from projections.documents import Column, DocumentView, Pool
from projections.times import whole_seconds


class CapabilitiesView(msgspec.Struct, frozen=True):
    ari: bool
    profiles: Mapping[str, str]
    eab_required: bool
    caa_identities: Sequence[str]


class RolloverView(msgspec.Struct, frozen=True):
    """The latest change of the key: `in_progress`, `done` or `failed`, and which key it is about."""

    status: str
    key_thumbprint: str
    message: str | None = None


class AccountView(msgspec.Struct, frozen=True):
    """`status` is `active`, `action_required`, `lost` or `deactivated`; `status_message` has the CA's words."""

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
    status_message: str | None = None
    rollover: RolloverView | None = None


def fold(account: AccountView | None, recorded: Recorded) -> AccountView:
    event = recorded.event
    if isinstance(event, Account.Registered):
        return _registered(event)
    if account is None:
        raise ValueError(f"{event} is not the first of its account")
    return _after(account, event)


def _registered(event: Account.Registered) -> AccountView:
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
        capabilities=_capabilities(event.offer),
        created_at=whole_seconds(event.timestamp),
    )


def _after(account: AccountView, event: object) -> AccountView:
    match event:
        case Account.ContactChanged(email=email):
            return replace(account, email=email)
        case Account.OfferSeen(offer=offer):
            return replace(account, capabilities=_capabilities(offer))
        case Account.KeyChangeBegan(key=key):
            return replace(account, rollover=RolloverView("in_progress", key.thumbprint))
        case Account.KeyChanged() if account.rollover is not None:
            done = replace(account.rollover, status="done")
            return replace(account, key_thumbprint=account.rollover.key_thumbprint, rollover=done)
        case Account.KeyChangeFailed(problem=problem) if account.rollover is not None:
            return replace(account, rollover=replace(account.rollover, status="failed", message=problem.detail))
        case Account.ActionRequired(problem=problem):
            return replace(account, status="action_required", status_message=problem.detail)
        case Account.Lost(problem=problem):
            return replace(account, status="lost", status_message=problem.detail)
        case Account.Restored():
            return replace(account, status="active", status_message=None)
        case Account.Deactivated():
            return replace(account, status="deactivated", status_message=None)
        case Account.KeysDestroyed():
            return account
        case _:
            raise ValueError(f"no rule for {event}")


def _capabilities(offer: Offer) -> CapabilitiesView:
    return CapabilitiesView(
        ari=offer.ari,
        profiles={profile.name: profile.description for profile in offer.profiles},
        eab_required=offer.eab_required,
        caa_identities=offer.caa_identities,
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

"""An account at a CA (RFC 8555 §7.1.2). The CA knows it by its key, which never leaves the service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.acme import Problem
from domain.errors import AccountNotActive, KeyChangeInProgress
from domain.event import DomainEvent, InitialEvent

Environment = Literal["production", "staging"]
AccountStatus = Literal["active", "action_required", "lost", "deactivated"]


@dataclass(frozen=True)
class Profile:
    """A certificate profile that the CA offers (draft-ietf-acme-profiles)."""

    name: str
    description: str


@dataclass(frozen=True)
class Offer:
    """What the CA's directory offers."""

    ari: bool
    profiles: tuple[Profile, ...]
    eab_required: bool
    caa_identities: tuple[str, ...]


@dataclass(frozen=True)
class AccountKey:
    """`thumbprint` is RFC 7638's in base64url."""

    sealed_id: str
    thumbprint: str


class Account(BaseAggregate[str]):
    TOPIC = "account"

    class Event(DomainEvent):
        pass

    class Registered(InitialEvent, Event):
        """`account_url` is the JWS `kid`; `key_thumbprint` is RFC 7638's in base64url."""

        TOPIC = "account.registered"
        tenant_id: str
        name: str
        provider: str
        environment: Environment
        email: str
        directory_url: str
        ca_bundle_pem: str | None
        account_url: str
        sealed_key_id: str
        key_thumbprint: str
        offer: Offer

    class ContactChanged(Event):
        """The CA has it."""

        TOPIC = "account.contact_changed"
        email: str

        def apply(self, aggregate: Account) -> None:
            aggregate.email = self.email

    class OfferSeen(Event):
        """The CA's directory offers something else than before."""

        TOPIC = "account.offer_seen"
        offer: Offer

        def apply(self, aggregate: Account) -> None:
            aggregate.offer = self.offer
            aggregate.offer_read_at = self.timestamp

    class KeyChangeBegan(Event):
        """A new key is sealed. Which of the two the CA knows is from now on asked of the CA."""

        TOPIC = "account.key_change_began"
        key: AccountKey

        def apply(self, aggregate: Account) -> None:
            aggregate.new_key = self.key

    class KeyChanged(Event):
        """The CA knows the new key alone; the old one is to be destroyed."""

        TOPIC = "account.key_changed"

        def apply(self, aggregate: Account) -> None:
            if aggregate.new_key is not None:
                aggregate.retired_keys = (*aggregate.retired_keys, aggregate.sealed_key_id)
                aggregate.sealed_key_id = aggregate.new_key.sealed_id
                aggregate.key_thumbprint = aggregate.new_key.thumbprint
            aggregate.new_key = None
            aggregate.key_changed_at = self.timestamp

    class KeyChangeFailed(Event):
        """The CA refused: the old key stays, the new one is to be destroyed."""

        TOPIC = "account.key_change_failed"
        problem: Problem

        def apply(self, aggregate: Account) -> None:
            if aggregate.new_key is not None:
                aggregate.retired_keys = (*aggregate.retired_keys, aggregate.new_key.sealed_id)
            aggregate.new_key = None

    class KeysDestroyed(Event):
        TOPIC = "account.keys_destroyed"
        sealed_ids: tuple[str, ...]

        def apply(self, aggregate: Account) -> None:
            aggregate.retired_keys = tuple(each for each in aggregate.retired_keys if each not in self.sealed_ids)

    class ActionRequired(Event):
        """The CA does nothing for the account before somebody has acted, as a rule agreed to changed terms
        (`userActionRequired`, RFC 8555 §6.7)."""

        TOPIC = "account.action_required"
        problem: Problem

        def apply(self, aggregate: Account) -> None:
            aggregate.status = "action_required"

    class Lost(Event):
        """The CA does not know the account any longer, or has closed it."""

        TOPIC = "account.lost"
        problem: Problem

        def apply(self, aggregate: Account) -> None:
            aggregate.status = "lost"

    class Restored(Event):
        """The CA works for the account again."""

        TOPIC = "account.restored"

        def apply(self, aggregate: Account) -> None:
            aggregate.status = "active"

    class Deactivated(Event):
        """By us, at the CA, for good. The keys are to be destroyed."""

        TOPIC = "account.deactivated"

        def apply(self, aggregate: Account) -> None:
            keys = (aggregate.sealed_key_id, *((aggregate.new_key.sealed_id,) if aggregate.new_key else ()))
            aggregate.retired_keys = (*aggregate.retired_keys, *keys)
            aggregate.new_key = None
            aggregate.status = "deactivated"

    def __init__(
        self,
        tenant_id: str,
        provider: str,
        email: str,
        directory_url: str,
        ca_bundle_pem: str | None,
        account_url: str,
        sealed_key_id: str,
        key_thumbprint: str,
        offer: Offer,
        timestamp: datetime,
    ) -> None:
        self.tenant_id = tenant_id
        self.provider = provider
        self.email = email
        self.directory_url = directory_url
        self.ca_bundle_pem = ca_bundle_pem
        self.account_url = account_url
        self.sealed_key_id = sealed_key_id
        self.key_thumbprint = key_thumbprint
        self.offer = offer
        self.offer_read_at = timestamp
        self.new_key: AccountKey | None = None
        self.key_changed_at: datetime | None = None
        self.retired_keys: tuple[str, ...] = ()
        self.status: AccountStatus = "active"

    @classmethod
    def register(
        cls,
        account_id: str,
        *,
        tenant_id: str,
        name: str,
        provider: str,
        environment: Environment,
        email: str,
        directory_url: str,
        ca_bundle_pem: str | None,
        account_url: str,
        sealed_key_id: str,
        key_thumbprint: str,
        offer: Offer,
        now: datetime,
    ) -> Self:
        """The CA has registered the key: `account_url` is its answer."""
        return cls._create(
            cls.Registered,
            id=account_id,
            timestamp=now,
            tenant_id=tenant_id,
            name=name,
            provider=provider,
            environment=environment,
            email=email,
            directory_url=directory_url,
            ca_bundle_pem=ca_bundle_pem,
            account_url=account_url,
            sealed_key_id=sealed_key_id,
            key_thumbprint=key_thumbprint,
            offer=offer,
        )

    def change_contact(self, email: str, now: datetime) -> None:
        if email != self.email:
            self.trigger_event(self.ContactChanged, email=email, timestamp=now)

    def see_offer(self, offer: Offer, now: datetime) -> None:
        if offer != self.offer:
            self.trigger_event(self.OfferSeen, offer=offer, timestamp=now)

    def begin_key_change(self, key: AccountKey, now: datetime) -> None:
        """Raises AccountNotActive, and KeyChangeInProgress for a second one."""
        self.require_active()
        if self.new_key is not None:
            raise KeyChangeInProgress(self.id)
        self.trigger_event(self.KeyChangeBegan, key=key, timestamp=now)

    def key_changed(self, now: datetime) -> None:
        if self.new_key is not None:
            self.trigger_event(self.KeyChanged, timestamp=now)

    def key_change_failed(self, problem: Problem, now: datetime) -> None:
        if self.new_key is not None:
            self.trigger_event(self.KeyChangeFailed, problem=problem, timestamp=now)

    def keys_destroyed(self, sealed_ids: tuple[str, ...], now: datetime) -> None:
        if sealed_ids:
            self.trigger_event(self.KeysDestroyed, sealed_ids=sealed_ids, timestamp=now)

    def require_action(self, problem: Problem, now: datetime) -> None:
        """Told once, however many orders meet it."""
        if self.status == "active":
            self.trigger_event(self.ActionRequired, problem=problem, timestamp=now)

    def lose(self, problem: Problem, now: datetime) -> None:
        """Told once, however many orders meet it."""
        if self.status in {"active", "action_required"}:
            self.trigger_event(self.Lost, problem=problem, timestamp=now)

    def restore(self, now: datetime) -> None:
        """The CA has done something for it."""
        if self.status in {"action_required", "lost"}:
            self.trigger_event(self.Restored, timestamp=now)

    def deactivate(self, now: datetime) -> None:
        if self.status != "deactivated":
            self.trigger_event(self.Deactivated, timestamp=now)

    def require_active(self) -> None:
        """Raises AccountNotActive. One that waits for somebody to act is active: its orders wait with it."""
        if self.status in {"lost", "deactivated"}:
            raise AccountNotActive(self.id, self.status)

    def changed_its_key_since(self, moment: datetime) -> bool:
        return self.key_changed_at is not None and self.key_changed_at >= moment

"""An account at a CA (RFC 8555 §7.1.2). The CA knows it by its key, which never leaves the service."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from eventsourcing.domain import BaseAggregate

from domain.event import DomainEvent, InitialEvent

Environment = Literal["production", "staging"]


@dataclass(frozen=True)
class Profile:
    """A certificate profile that the CA offers (draft-ietf-acme-profiles)."""

    name: str
    description: str


@dataclass(frozen=True)
class Offer:
    """What the CA's directory offered when the account was registered."""

    ari: bool
    profiles: tuple[Profile, ...]
    eab_required: bool
    caa_identities: tuple[str, ...]


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

    def __init__(
        self,
        tenant_id: str,
        directory_url: str,
        ca_bundle_pem: str | None,
        account_url: str,
        sealed_key_id: str,
        key_thumbprint: str,
        offer: Offer,
    ) -> None:
        self.tenant_id = tenant_id
        self.directory_url = directory_url
        self.ca_bundle_pem = ca_bundle_pem
        self.account_url = account_url
        self.sealed_key_id = sealed_key_id
        self.key_thumbprint = key_thumbprint
        self.offer = offer

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

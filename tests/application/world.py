"""The service assembled on fakes: all use cases and processes, one clock that moves by itself, ports that die on demand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from application.accounts import Accounts
from application.ca_catalogue import load_catalogue
from application.caller import Caller
from application.certificates import Certificates
from application.dns_providers import DnsProviders
from application.errors import Failure, StoreUnavailable
from application.event_store import EventStore
from application.orders import Orders
from application.ports import TxtValue
from application.process import delivery, issuance
from application.process.delivery import Deliveries, FanOut
from application.process.issuance import Issuance
from application.process.todo import Claim, LeaseLost, Process
from application.process.worker import CRASHED_RETRY, LEASE
from application.secret_value import SecretValue
from application.secrets import Secrets
from application.subscriptions import Subscriptions
from application.tokens import Tokens
from domain.certificate import Certificate
from domain.delivery import Delivery
from domain.errors import InvalidFields, VersionConflict
from domain.event import DomainEvent
from domain.order import KeyType, Order
from domain.provenance import DEFAULT_TENANT
from domain.token import SCOPES, Limits, Scope
from interfaces.acme.account_key import thumbprint
from interfaces.webhooks.signature import signed_headers
from tests.application.calls import Calls, Killed
from tests.application.outside import FakeResolver, FakeWebhookSender, FakeZones, FewSuffixes
from tests.application.views import ViewedStore, Views
from tests.fakes import CountingIds, FakeClock, MemoryKeyStore
from tests.fakes_ca import DIRECTORY_URL, FakeCa

ZONE = "acme.example"
NAMES = (ZONE, f"*.{ZONE}")
RECORD = f"_acme-challenge.{ZONE}"


def caller(
    *scopes: Scope, tenant_id: str = DEFAULT_TENANT, limits: Limits | None = None, source_ip: str | None = None
) -> Caller:
    return Caller(tenant_id, "tok_1", scopes or SCOPES, limits or Limits(), "req_1", source_ip)


OWNER = caller()
STRANGER = caller(tenant_id="tnt_other")


class World:
    """`validated_with` has what the CA saw at each name that it looked at."""

    def __init__(self, kind_of_ca: type[FakeCa] = FakeCa) -> None:
        self.clock, self.ids, self.views, self.calls = FakeClock(), CountingIds(), Views(), Calls()
        self.recorder = ViewedStore(self.clock, self.views)
        self.sealed = MemoryKeyStore()
        self.zones = FakeZones(self.calls)
        self.resolver = FakeResolver(self.zones.txt)
        self.validated_with: list[tuple[str, frozenset[str]]] = []
        self.ca = kind_of_ca(self._look_up, self.clock.now)
        self.sender = FakeWebhookSender()
        self.chance = 0.5
        self.foreign: set[TxtValue] = set()
        """What somebody else put into the zones, and what has to stay there."""

        recorder, keys = self.calls.of("store", self.recorder), self.calls.of("keys", self.sealed)
        ca, resolver = self.calls.of("ca", self.ca), self.calls.of("resolver", self.resolver)
        sender = self.calls.of("webhook", self.sender)
        store = EventStore(recorder, {Order: issuance.DECISION, Delivery: delivery.DECISION})
        self.store = store
        self.secrets = Secrets(store, keys, self.clock, self.ids)
        self.tokens = Tokens(store, keys, self.clock, self.ids)
        self.accounts = Accounts(
            store, keys, ca, self.calls.of("views", self.views), load_catalogue(), thumbprint, self.clock, self.ids
        )
        self.providers = DnsProviders(
            store, keys, self.zones, self.calls.of("views", self.views), self.secrets, self.clock, self.ids
        )
        self.orders = Orders(store, self.calls.of("views", self.views), FewSuffixes(), self.clock, self.ids)
        self.certificates = Certificates(store, keys, self.clock, self.ids)
        self.subscriptions = Subscriptions(store, keys, self.clock, self.ids)
        self.fan_out = FanOut(store, lambda: self.views.listeners)
        self.processes: Mapping[str, Process] = {
            issuance.NAME: Issuance(
                store, recorder, keys, self.accounts, ca, self.providers, resolver, self.views, self.clock
            ),
            delivery.NAME: Deliveries(store, recorder, keys, sender, signed_headers, lambda: self.chance, self.clock),
        }

    # --- time ---

    def run_until_quiet(self, limit: int = 1000) -> None:
        """Performs the to-do list to its end, moving the clock to the next due time whenever nothing is due."""
        for _ in range(limit):
            due_in = self._perform_due()
            if due_in is None:
                return
            self.clock.advance(due_in)
        raise AssertionError(f"still to do: {self.recorder.todo}")

    def run_for(self, duration: timedelta) -> None:
        """The same, for as long as the clock says."""
        end = self.clock.now() + duration
        while (due_in := self._perform_due()) is not None and self.clock.now() + due_in < end:
            self.clock.advance(due_in)
        self.clock.set(end)

    def work(self, claim: Claim) -> None:
        """As the worker does it, but for crashes: those are a test's to see."""
        retry_in = timedelta()
        try:
            self.processes[claim.process].perform(claim)
        except Killed:
            return
        except StoreUnavailable:
            retry_in = CRASHED_RETRY
        except (LeaseLost, VersionConflict):
            pass
        self.recorder.release(claim, retry_in)

    def _perform_due(self) -> timedelta | None:
        """How long until the next is due, None when there is nothing left."""
        while claims := self.recorder.claim(16, LEASE):
            for claim in claims:
                self.work(claim)
        return self.recorder.next_due_in()

    def outage(self, port: str, duration: timedelta, failure: Failure) -> None:
        """Every call of the port fails from now on, for so long. `port` may be one call of it, such as `zone.remove`."""
        end = self.clock.now() + duration
        self.calls.fail_while(port, lambda: self.clock.now() < end, failure)

    # --- what most tests begin with ---

    def ready(self, **config: Any) -> str:
        """With a provider for acme.example and an account, whose id it gives. The counts begin at none."""
        self.connect_provider(ZONE, **config)
        account_id = self.register_account()
        self.ca.requests.clear()
        self.calls.made.clear()
        return account_id

    def placed(self, *domains: str, **config: Any) -> str:
        """The id of the first order there is, for acme.example and its wildcard if no names are given."""
        return self.place(self.ready(**config), *(domains or NAMES))[0]

    def issued(self, *domains: str, **config: Any) -> str:
        """The same, and it was fulfilled."""
        order_id = self.placed(*domains, **config)
        self.run_until_quiet()
        assert self.order(order_id).ended == "valid"
        return order_id

    def renewal_of(self, order_id: str, *, new_key: bool = True) -> str:
        certificate_id = self.order(order_id).certificate_id
        renewal_id, is_new = self.orders.renew(certificate_id, reason="requested", new_key=new_key, caller=OWNER)
        assert is_new
        return renewal_id

    def connect_provider(
        self,
        *managed_zones: str,
        name: str = "main",
        credentials_path: str | None = None,
        caller: Caller = OWNER,
        verify: bool = False,
        **config: Any,
    ) -> str:
        return self.providers.connect(
            name=name,
            provider_type="fake",
            credentials=None if credentials_path else {"api_token": "1234"},
            credentials_path=credentials_path,
            config=config,
            managed_zones=managed_zones or [ZONE],
            verify=verify,
            caller=caller,
        )

    def register_account(self, name: str = "main", caller: Caller = OWNER) -> str:
        return self.accounts.register(
            name=name,
            provider="custom",
            environment="staging",
            email="ops@acme.example",
            directory_url=DIRECTORY_URL,
            eab=None,
            key_type="ec256",
            ca_bundle_pem=None,
            caller=caller,
        )

    def place(
        self,
        account_id: str,
        *domains: str,
        challenge_type: str = "dns-01",
        profile: str | None = None,
        preferred_chain: str | None = None,
        dns_provider_id: str | None = None,
        key_type: KeyType = "ec256",
        caller: Caller = OWNER,
    ) -> tuple[str, bool]:
        return self.orders.place(
            account_id=account_id,
            domains=domains,
            challenge_type=challenge_type,
            auto_renew=True,
            key_type=key_type,
            profile=profile,
            preferred_chain=preferred_chain,
            dns_provider_id=dns_provider_id,
            name=None,
            caller=caller,
        )

    # --- what is known at the end ---

    @property
    def recorded(self) -> Sequence[DomainEvent]:
        return [recorded.event for recorded in self.recorder.history]

    def events(self, subject_id: str) -> Sequence[DomainEvent]:
        return [event for event in self.recorded if event.originator_id == subject_id]

    def order(self, order_id: str) -> Order:
        return self.store.load(Order, order_id)

    def certificate(self, order_id: str) -> Certificate:
        return self.store.load(Certificate, self.order(order_id).certificate_id)

    def failure(self, order_id: str) -> Order.Failed:
        (failed,) = (event for event in self.events(order_id) if isinstance(event, Order.Failed))
        return failed

    @contextmanager
    def records_nothing(self) -> Iterator[None]:
        before = len(self.recorder.history)
        yield
        assert self.recorded[before:] == []

    def require_sound(self, rejected: int = 0) -> None:
        """Every order ended once and said nothing more but of cleaning up, nothing of ours is left in the DNS, each
        certificate that the CA issued is stored once, but for those `rejected`, and has its own key."""
        assert self.zones.held == self.foreign
        for order_id in {event.originator_id for event in self.recorded if isinstance(event, Order.Event)}:
            events = self.events(order_id)
            (end,) = (n for n, event in enumerate(events) if isinstance(event, Order.Completed | Order.Failed))
            assert all(
                isinstance(event, Order.RecordRemoved | Order.RecordLeft | Order.Postponed)
                for event in events[end + 1 :]
            )
        stored = []
        for event in self.recorded:
            if isinstance(event, Certificate.Issued | Certificate.Renewed):
                _, key_pem = self.certificates.private_key(event.originator_id, event.version.number, OWNER)
                stored.append(x509.load_pem_x509_certificates(event.version.chain_pem.encode())[0])
                assert public_key(key_pem) == public_key(stored[-1])
        assert {leaf.serial_number for leaf in stored} <= {leaf.serial_number for leaf in self.ca.issued}
        assert len(stored) == len(self.ca.issued) - rejected

    def _look_up(self, record_name: str) -> Collection[str]:
        values = self.zones.txt(record_name)
        self.validated_with.append((record_name, frozenset(values)))
        return values


def public_key(holder: x509.Certificate | SecretValue) -> bytes:
    key = (
        load_pem_private_key(holder.reveal(), password=None).public_key()
        if isinstance(holder, SecretValue)
        else holder.public_key()
    )
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def field_codes(refusal: pytest.ExceptionInfo[InvalidFields]) -> dict[str, str]:
    return {problem.field: problem.code for problem in refusal.value.fields}

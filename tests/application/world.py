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
from application.delegations import Delegations
from application.dns_providers import DnsProviders
from application.errors import Failure, StoreUnavailable
from application.event_store import Decisions, EventStore
from application.explanations import Explanations
from application.orders import Orders
from application.polling import Polling
from application.ports import TxtValue
from application.process import account_upkeep, delivery, dns_health, issuance, janitor, renewal, renewal_info, upkeep
from application.process.account_upkeep import AccountUpkeep
from application.process.breaker import Breaker
from application.process.delivery import Deliveries
from application.process.dns_health import DnsHealth
from application.process.fan_out import FanOut
from application.process.issuance import Issuance
from application.process.janitor import Janitor
from application.process.renewal import Renewal
from application.process.renewal_info import RenewalInfos
from application.process.todo import Claim, Claimed, LeaseLost, Process, TodoItem
from application.process.upkeep import Upkeep
from application.process.worker import CRASHED_RETRY, LEASE
from application.rate_limits import RateLimits
from application.renewals import Renewals
from application.secret_value import SecretValue
from application.secrets import Secrets
from application.subscriptions import Subscriptions
from application.tokens import Tokens
from application.webhooks import Webhooks
from application.wishes import Wish
from domain.account import Account
from domain.announcement import Announced, EventType
from domain.certificate import Certificate, Version
from domain.delivery import Delivery
from domain.dns_provider import DnsProvider
from domain.errors import InvalidFields, VersionConflict
from domain.event import DomainEvent
from domain.order import KeyType, Order
from domain.provenance import DEFAULT_TENANT
from domain.subscription import Subscription
from domain.token import SCOPES, Limits, Scope
from interfaces.acme.account_key import thumbprint
from interfaces.webhooks.signature import signed_headers
from projections.catch_up import BATCH
from tests.application.calls import Calls, Killed
from tests.application.outside import (
    FakeNetwork,
    FakeResolver,
    FakeResponseLog,
    FakeWebhookSender,
    FakeZones,
    FewSuffixes,
)
from tests.application.views import ViewedStore, Views
from tests.fakes import ALL, CountingIds, FakeClock, MemoryKeyStore
from tests.fakes_ca import DIRECTORY_URL, FakeCa

ZONE = "acme.example"
NAMES = (ZONE, f"*.{ZONE}")
RECORD = f"_acme-challenge.{ZONE}"
HOOK = "https://hooks.acme.example/"
SIGNED_WITH = SecretValue("correct horse battery staple")


def caller(
    *scopes: Scope, tenant_id: str = DEFAULT_TENANT, limits: Limits | None = None, source_ip: str | None = None
) -> Caller:
    return Caller(tenant_id, "tok_1", scopes or SCOPES, limits or Limits(), "req_1", source_ip)


OWNER = caller()
STRANGER = caller(tenant_id="tnt_other")


class FakeCursor:
    """A follower's. It counts the signs of life in its transaction."""

    def __init__(self) -> None:
        self.executed = 0

    def execute(self, _: str) -> None:
        self.executed += 1


ENDLESS = (dns_health.NAME, janitor.NAME, renewal.NAME, renewal_info.NAME, account_upkeep.NAME)
"""The processes that never come to an end: there is always a next time. They run where a test says so."""


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
        self.sender, self.network, self.responses = FakeWebhookSender(), FakeNetwork(), FakeResponseLog()
        self.followed = 0
        """The position up to which the fan-out has come."""
        self.chance = 0.5
        self.foreign: set[TxtValue] = set()
        """What somebody else put into the zones, and what has to stay there."""

        recorder, keys = self.calls.of("store", self.recorder), self.calls.of("keys", self.sealed)
        ca, resolver = self.calls.of("ca", self.ca), self.calls.of("resolver", self.resolver)
        views = self.calls.of("views", self.views)
        decisions: Decisions = {
            Account: [account_upkeep.DECISION],
            Order: [issuance.DECISION],
            Certificate: [renewal.DECISION, renewal_info.DECISION],
            Delivery: [delivery.DECISION],
            Subscription: [upkeep.DECISION],
            DnsProvider: [janitor.DECISION, dns_health.DECISION],
        }
        store = EventStore(recorder, decisions)
        self.store = store
        webhooks = Webhooks(keys, self.calls.of("webhook", self.sender), signed_headers, self.clock)
        self.secrets = Secrets(store, keys, self.clock, self.ids)
        self.tokens = Tokens(store, keys, self.clock, self.ids)
        self.accounts = Accounts(store, keys, ca, views, load_catalogue(), thumbprint, self.clock, self.ids)
        self.providers = DnsProviders(store, keys, self.zones, views, self.secrets, self.clock, self.ids)
        self.rate_limits = RateLimits(views, FewSuffixes(), self.clock)
        self.orders = Orders(store, views, FewSuffixes(), self.rate_limits, self.clock, self.ids)
        self.renewals = Renewals(store, views, self.rate_limits, self.clock, self.ids)
        self.explanations = Explanations(store, recorder, self.renewals, self.clock)
        self.certificates = Certificates(store, keys, self.clock, self.ids)
        self.subscriptions = Subscriptions(store, keys, views, self.network, webhooks, self.clock, self.ids)
        self.polling = Polling(store, views, views, self.clock, self.ids)
        self.fan_out = FanOut(store, views.all_terms, self.clock)
        self.breaker = Breaker(lambda: self.clock.now().timestamp())
        self.processes: Mapping[str, Process] = {
            issuance.NAME: Issuance(
                store,
                recorder,
                keys,
                self.accounts,
                ca,
                self.providers,
                resolver,
                Delegations(views, self.providers, resolver),
                self.views,
                self.rate_limits,
                self.clock,
            ),
            delivery.NAME: Deliveries(
                store,
                recorder,
                views,
                webhooks,
                self.calls.of("responses", self.responses),
                views.failing_since,
                self.views.paused,
                self.breaker,
                lambda: self.chance,
                self.clock,
            ),
            dns_health.NAME: DnsHealth(store, recorder, self.providers, self.clock),
            janitor.NAME: Janitor(store, recorder, self.providers, views, self.clock),
            upkeep.NAME: Upkeep(store, recorder, views, keys, self.clock),
            account_upkeep.NAME: AccountUpkeep(store, recorder, self.accounts, keys, ca, self.clock),
            renewal.NAME: Renewal(store, recorder, self.renewals, self.clock),
            renewal_info.NAME: RenewalInfos(store, recorder, self.accounts, ca, lambda: self.chance, self.clock),
        }
        self.running = tuple(name for name in self.processes if name not in ENDLESS)

    # --- time ---

    def renew_by_itself(self) -> None:
        """From now on certificates are renewed when they are due, and accounts looked after."""
        self.running = tuple(name for name in self.processes if name not in (dns_health.NAME, janitor.NAME))

    def look_after_dns(self) -> None:
        """The same, and providers are tried and swept."""
        self.running = tuple(self.processes)

    @property
    def todo(self) -> Sequence[TodoItem]:
        """Of the processes that run."""
        return [item for item in self.recorder.todo if item.process in self.running]

    def run_until_quiet(self, limit: int = 1000) -> None:
        """Performs the to-do list to its end, moving the clock to the next due time whenever nothing is due."""
        for _ in range(limit):
            due_in = self._perform_due()
            if due_in is None:
                return
            self.clock.advance(due_in)
        raise AssertionError(f"still to do: {self.todo}")

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
            retry_in = self.processes[claim.process].perform(claim) or retry_in
        except Killed:
            return
        except StoreUnavailable:
            retry_in = CRASHED_RETRY
        except (LeaseLost, VersionConflict):
            pass
        self.recorder.release(claim, retry_in, counted=False)

    def claim(self, process: str, limit: int = 16) -> Claimed:
        try:
            limits = self.processes[process].lane_limits()
        except Killed:
            limits = self.processes[process].lane_limits()
        return self.recorder.claim(process, limit, LEASE, limits)

    def claim_one(self, process: str) -> Claim:
        (claim,) = self.claim(process, 1).claims
        return claim

    def follow(self) -> None:
        """What the follower of the announcements does with all that is new."""
        while events := self.views.announced(self.followed, BATCH):
            self.fan_out.apply(FakeCursor(), events)
            self.followed = events[-1].position

    def _perform_due(self) -> timedelta | None:
        """How long until the next is due, None when there is nothing left whose turn will come by itself."""
        while True:
            claimed = [self._perform(process) for process in self.running]
            if not any(each.claims for each in claimed):
                return min((each.next_due_in for each in claimed if each.next_due_in is not None), default=None)

    def _perform(self, process: str) -> Claimed:
        claimed = self.claim(process)
        for claim in claimed.claims:
            self.work(claim)
        return claimed

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
        placed = self.renewals.renew(certificate_id, reason="requested", new_key=new_key, caller=OWNER)
        assert placed.is_new
        return placed.order_id

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
        key_type: KeyType | None = None,
        csr_pem: str | None = None,
        caller: Caller = OWNER,
    ) -> tuple[str, bool]:
        return self.orders.place(
            account_id=account_id,
            domains=domains,
            challenge_type=challenge_type,
            auto_renew=True,
            key_type=key_type,
            csr_pem=csr_pem,
            profile=profile,
            preferred_chain=preferred_chain,
            dns_provider_id=dns_provider_id,
            name=None,
            caller=caller,
        )

    # --- what subscribers are told of ---

    def announce(self, *dns_names: str, caller: Caller = OWNER) -> Announced:
        """That a certificate was issued, without the trouble of issuing it: it has neither chain nor key."""
        certificate_id, now = self.ids.new("cert"), self.clock.now()
        certificate = Certificate.issue(
            certificate_id,
            tenant_id=caller.tenant_id,
            account_id="acme_staging_1",
            name=None,
            dns_names=dns_names or NAMES,
            auto_renew=True,
            version=self._version(1),
            now=now,
        )
        self.store.record(certificate, by=caller.provenance)
        return self.views.announced(0, ALL)[-1]

    def announce_renewal(self, announced: Announced, caller: Caller = OWNER) -> Announced:
        """Of the certificate that was announced."""
        certificate = self.store.load(Certificate, announced.path.rpartition("/")[2])
        certificate.renew(self._version(certificate.next_number), "requested", self.clock.now())
        self.store.record(certificate, by=caller.provenance)
        return self.views.announced(0, ALL)[-1]

    def _version(self, number: int) -> Version:
        now = self.clock.now()
        return Version(
            number=number,
            order_id=self.ids.new("acme_order"),
            serial_number=f"{number:02x}",
            fingerprint_sha256="00" * 32,
            issuer="CN=nobody",
            key_type="ec256",
            not_before=now,
            not_after=now + timedelta(days=90),
            chain_pem="",
            sealed_key_id=None,
        )

    def subscribe(
        self,
        *paths: str,
        events: Sequence[EventType] = ("certificate.issued",),
        url: str | None = HOOK,
        caller: Caller = OWNER,
        **details: Any,
    ) -> str:
        """To all certificates that are issued unless more is said. A webhook is signed with SIGNED_WITH."""
        wish = Wish("edges", paths or ["pki/**"], events, url=url, **details)
        subscription_id, _ = self.subscriptions.subscribe(wish, SIGNED_WITH, caller)
        return subscription_id

    def owe(self, **details: Any) -> str:
        """The id of the one delivery that is owed: of a certificate that was issued just now, to who subscribed to all."""
        self.subscribe(**details)
        self.announce()
        self.follow()
        (owed,) = self.owed()
        return owed.originator_id

    def owed(self, subscription_id: str | None = None) -> Sequence[Delivery.Owed]:
        return [
            event
            for event in self.recorded
            if isinstance(event, Delivery.Owed) and subscription_id in {None, event.subscription_id}
        ]

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

    def subscription(self, subscription_id: str) -> Subscription:
        return self.store.load(Subscription, subscription_id)

    def delivery(self, delivery_id: str) -> Delivery:
        return self.store.load(Delivery, delivery_id)

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

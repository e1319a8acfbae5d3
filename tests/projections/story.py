"""A history with every kind of event in it, told to an event store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from application.event_store import Decisions, EventStore
from application.process import account_upkeep, delivery, issuance, renewal, renewal_info, upkeep
from domain.access import private_key_read, request_refused, secret_read, subscription_tested
from domain.account import Account, AccountKey, Offer, Profile
from domain.acknowledgement import acknowledged, rewound
from domain.acme import AuthorizationObject, ChallengeObject, OrderObject, Problem, Subproblem
from domain.announcement import EventType
from domain.certificate import Certificate, Suggestion, Version
from domain.challenge import DNS_01
from domain.delivery import RETRY_DELAYS, Delivery
from domain.dns_provider import DnsProvider
from domain.order import Assignment, Order, OrderError, UnseenRecord
from domain.provenance import Provenance, Recorded, of_process
from domain.rate_limit import LETS_ENCRYPT, Bucket, cost_of
from domain.renewal import Window
from domain.secret import Secret
from domain.subscription import Subscription, WebhookTarget
from domain.token import Limits, Token
from tests.fakes import FakeClock, MemoryStore

BEGIN = datetime(2026, 3, 1, 10, 30, 15, 123456, tzinfo=UTC)
TENANT, OTHER_TENANT = "tnt_default", "tnt_2"
BY = Provenance(TENANT, "token", "tok_1", "req_1", source_ip="192.0.2.1", user_agent="curl/8")
BY_OTHER = Provenance(OTHER_TENANT, "operator", "root")
DECISIONS: Decisions = {
    Account: [account_upkeep.DECISION],
    Order: [issuance.DECISION],
    Certificate: [renewal.DECISION, renewal_info.DECISION],
    Delivery: [delivery.DECISION],
    Subscription: [upkeep.DECISION],
}
CA = LETS_ENCRYPT
END = "-----END CERTIFICATE-----\n"
LEAF = f"-----BEGIN CERTIFICATE-----\nleaf\n{END}"
ISSUER = f"-----BEGIN CERTIFICATE-----\nissuer\n{END}"
CAA = Problem(
    "urn:ietf:params:acme:error:caa",
    "CAA forbids it",
    (Subproblem("b.example", "urn:ietf:params:acme:error:caa", "no issue"),),
)


class Story:
    """Each `number` has ids, names and times of its own, so that several can be told to one store."""

    def __init__(self, store: EventStore, number: int = 0) -> None:
        self._store = store
        self._number = number
        self._now = BEGIN + timedelta(days=number)

    def id(self, prefix: str, number: int = 1) -> str:
        return f"{prefix}_{self._number:03}{number:023}"

    def now(self) -> datetime:
        """Each event has a time of its own."""
        self._now += timedelta(seconds=1.5)
        return self._now

    def tell(self) -> None:
        self.tell_of_settings()
        self.tell_of_an_issued_order()
        self.tell_of_failed_orders()
        self.tell_of_unfinished_orders()
        self.tell_of_renewals()
        self.tell_of_a_webhook()
        self.tell_of_polling()
        self.tell_of_ended_subscriptions()
        self.tell_of_deliveries()
        self.tell_of_access()

    def tell_of_settings(self) -> None:
        for number, by in ((1, BY), (2, BY_OTHER)):
            name = f"of story {self._number}"
            self._store.record(account(self.id("acme_account", number), self.now(), by.tenant_id, name), by=by)
            self._store.record(provider(self.id("dns", number), self.now(), by.tenant_id, name), by=by)
            self._store.record(token(self.id("tok", number), self.now(), by.tenant_id), by=by)
            self._store.record(subscription(self.id("sub", number), self.now(), by.tenant_id), by=by)
        gone = provider(self.id("dns", 3), self.now(), TENANT, f"of story {self._number}, gone")
        gone.disconnect(self.now())
        self._store.record(gone, by=BY)
        connected = self._store.load(DnsProvider, self.id("dns"))
        connected.verification_failed("credentials_rejected", "wrong key", self.now())
        self._store.record(connected, by=BY)
        connected.verified(["a.example"], self.now())
        connected.swept(3, self.now())
        connected.revise(
            name=f"of story {self._number}, revised",
            managed_zones=("a.example",),
            config={"region": "eu-2"},
            sealed_credentials_id="sealed_2",
            credentials_path=None,
            is_active=True,
            now=self.now(),
        )
        connected.canary_failed("unreachable", "502", self.now(), for_good=False)
        connected.canary_failed("credentials_rejected", "expired", self.now(), for_good=True)
        connected.canary_passed(["a.example"], self.now())
        self._store.record(connected, by=BY)
        self._tell_of_an_account()
        revoked = self._store.load(Token, self.id("tok", 2))
        revoked.revoke(self.now())
        self._store.record(revoked, by=BY_OTHER)
        secret = stored_secret(f"app/{self._number}", self.now())
        self._store.record(secret, by=BY)
        secret.add_version("json", {"owner": "me"}, "sealed_2", self.now())
        secret.add_version("json", {"owner": "you"}, "sealed_3", self.now())
        self._store.record(secret, by=BY)

    def _tell_of_an_account(self) -> None:
        """Of two: through everything, to its end; and one whose key is being changed in the end."""
        gone = self._store.load(Account, self.id("acme_account", 2))
        steps: Sequence[Callable[[], None]] = (
            lambda: gone.change_contact("others@a.example", self.now()),
            lambda: gone.see_offer(Offer(False, (), True, ()), self.now()),
            lambda: gone.begin_key_change(AccountKey("sealed_9", "thumb 2"), self.now()),
            lambda: gone.key_changed(self.now()),
            lambda: gone.begin_key_change(AccountKey("sealed_10", "thumb 3"), self.now()),
            lambda: gone.key_change_failed(CAA, self.now()),
            lambda: gone.keys_destroyed(("sealed_1", "sealed_10"), self.now()),
            lambda: gone.require_action(CAA, self.now()),
            lambda: gone.lose(CAA, self.now()),
            lambda: gone.restore(self.now()),
            lambda: gone.deactivate(self.now()),
        )
        for do in steps:
            do()
            self._store.record(gone, by=BY_OTHER)
        changing = self._store.load(Account, self.id("acme_account"))
        changing.begin_key_change(AccountKey("sealed_11", "thumb 4"), self.now())
        self._store.record(changing, by=BY)

    def tell_of_an_issued_order(self) -> None:
        order = self._placed(1, 1)
        self._store.record(order, by=BY)
        steps: Sequence[Callable[[], None]] = (
            lambda: order.seal_key("sealed_4", b"csr", self.now()),
            lambda: order.wait(None, self.now(), OrderError("backend_error", "no answer", 3)),
            lambda: order.accept(at_ca("pending"), self.now()),
            lambda: order.offer_challenges(authorizations(), "thumb", self.now()),
            lambda: order.record_published(order.outstanding_records[0], self.now()),
            lambda: order.wait(None, self.now()),
            lambda: order.observe_propagation([late(order)], self.now()),
            lambda: order.challenges_answered(self.now()),
            lambda: order.follow(at_ca("pending"), authorizations(error=CAA), self.now()),
            lambda: order.challenges_answered(self.now()),
            lambda: order.follow(at_ca("ready"), (), self.now()),
            lambda: order.follow(at_ca("processing"), (), self.now()),
            lambda: order.follow(at_ca("valid"), (), self.now()),
        )
        for do in steps:
            by = of_process("issuance", BY, order.id, order.version)
            do()
            self._store.record(order, by=by)
        certificate = issued(self.id("cert"), self.now(), order.id)
        order.complete(1, self.now())
        self._store.record(order, certificate, by=BY)
        first, *others = order.outstanding_records
        order.record_removed(first, self.now())
        for record in others:
            order.record_left(record, self.now())
        self._store.record(order, by=BY)
        certificate.renew(version(2, self.id("acme_order", 50)), "manual", self.now())
        self._store.record(certificate, by=BY)

    def tell_of_failed_orders(self) -> None:
        renewal = self._placed(2, 1, "b.example", reason="manual")
        renewal.refused_by_ca(CAA, self.now())
        certificate = self._store.load(Certificate, self.id("cert"))
        certificate.renewal_failed(renewal.id, OrderError("caa_forbids", "CAA forbids it"), self.now())
        self._store.record(renewal, certificate, by=BY)
        cancelled = self._placed(3, 3, "c.example")
        self._store.record(cancelled, by=BY)
        cancelled.cancel(self.now())
        self._store.record(cancelled, by=BY)

    def tell_of_unfinished_orders(self) -> None:
        cleaning = self._placed(4, 4, "*.a.example", "a.example")
        cleaning.accept(at_ca("pending"), self.now())
        cleaning.offer_challenges(authorizations(), "thumb", self.now())
        cleaning.cancel(self.now())
        cleaning.wait(None, self.now(), OrderError("provider_error", "out of reach"))
        self._store.record(cleaning, by=BY)
        running = self._placed(5, 5, "d.example", tenant_id=OTHER_TENANT)
        self._store.record(running, by=BY_OTHER)

    def tell_of_renewals(self) -> None:
        """One that is renewed after trouble, one that nears its end, and one whose replacement the CA does not take."""
        certificate = issued(self.id("cert", 6), self.now(), self.id("acme_order", 60))
        order = self._placed(61, 6, "e.example", reason="ari")
        window = Window(self.now(), self.now() + timedelta(days=1))
        bucket = Bucket(CA, "certificates_per_domain", "a.example")
        steps: Sequence[Callable[[], object]] = (
            lambda: certificate.rename("edge", self.now()),
            lambda: certificate.switch_auto_renewal(self.now(), on=False),
            lambda: certificate.switch_auto_renewal(self.now(), on=True),
            lambda: certificate.see_renewal_info(
                Suggestion("akid.serial", window, window.start), "https://ca.example/why", window.end, self.now()
            ),
            lambda: certificate.postpone_renewal(bucket, self.now() + timedelta(hours=1), self.now()),
            lambda: certificate.begin_renewal(order.id, "ari", self.now(), automatic=True),
            lambda: certificate.renew(version(2, order.id), "ari", self.now()),
            lambda: certificate.hold_renewal(self.now()),
            lambda: certificate.release_renewal("looked into", self.now()),
            lambda: certificate.revoke(1, "superseded", self.now()),
            lambda: certificate.near_expiry(certificate.current.not_after - timedelta(days=20)),
            lambda: certificate.expire(certificate.current.not_after),
        )
        for do in steps:
            do()
            self._store.record(certificate, by=of_process("renewal", BY, certificate.id, certificate.version))
        order.seal_key("sealed_8", b"csr", self.now())
        order.replacement_refused(CAA, cost_of("same_set", CA, order.account_id, order.dns_names, []).taken, self.now())
        order.throttled(bucket, self.now() + timedelta(hours=1), self.now())
        order.wait(3600, self.now(), OrderError("backend_rate_limited", "too many", 3600, CAA))
        self._store.record(order, by=BY)
        adopting = self._placed(62, 6, "f.example", reason="lifetime")
        adopting.adopt(order, at_ca("valid"), self.now())
        self._store.record(adopting, by=BY)

    def tell_of_a_webhook(self) -> None:
        """One that goes through everything, and in the end wants something done in the background."""
        webhook = self._store.load(Subscription, self.id("sub"))
        steps: Sequence[Callable[[], None]] = (
            lambda: revise(webhook, self.now(), name="deploy everywhere", url="https://new.example/", ordered=True),
            lambda: webhook.pause(self.now()),
            lambda: webhook.resume(self.now()),
            lambda: webhook.rotate_secret("sealed_5", timedelta(seconds=1), self.now()),
            lambda: webhook.secrets_shredded(("sealed_1",), self.now()),
            lambda: webhook.request_replay(self.id("replay"), 0, 20, self.now()),
            lambda: webhook.replay_advanced(self.id("replay"), 10, self.now()),
            lambda: webhook.replay_advanced(self.id("replay"), 20, self.now()),
            lambda: webhook.disable("only_failures", self.now()),
            lambda: revise(webhook, self.now(), paths=("pki/certificates/*",), dns_names=("*.example",)),
            lambda: webhook.resume(self.now()),
            lambda: webhook.rotate_secret("sealed_6", timedelta(days=1), self.now()),
            lambda: webhook.request_replay(self.id("replay", 2), 5, 20, self.now()),
        )
        for do in steps:
            do()
            self._store.record(webhook, by=BY)

    def tell_of_polling(self) -> None:
        """One that is ahead of its cursor in the end."""
        polling = subscription(self.id("sub", 3), self.now(), url=None)
        self._store.record(polling, by=BY)
        here = self._store.recorder.max_notification_id() or 0
        for number, (positions, cursor) in enumerate((((here + 2, here + 3), here), ((here + 1,), here + 3)), start=1):
            self._store.record(
                acknowledged(self.id("ack", number), polling.id, positions, here, cursor, self.now()), by=BY
            )
        self._store.record(rewound(self.id("ack", 3), polling.id, here + 1, self.now()), by=BY)
        self._store.record(
            acknowledged(self.id("ack", 4), polling.id, (here + 4, here + 7), here + 1, here + 1, self.now()), by=BY
        )

    def tell_of_ended_subscriptions(self) -> None:
        """A webhook and a polling one, and what comes for them afterwards."""
        webhook = subscription(self.id("sub", 4), self.now())
        polling = subscription(self.id("sub", 5), self.now(), url=None)
        self._store.record(webhook, polling, by=BY)
        webhook.rotate_secret("sealed_7", timedelta(days=1), self.now())
        webhook.pause(self.now())
        self._store.record(webhook, by=BY)
        here = self._store.recorder.max_notification_id() or 0
        for ended in (webhook, polling):
            ended.unsubscribe(self.now())
            self._store.record(ended, by=BY)
        webhook.secrets_shredded(("sealed_1", "sealed_7"), self.now())
        self._store.record(webhook, by=of_process("subscription", BY, webhook.id, webhook.version))
        self._store.record(acknowledged(self.id("ack", 5), polling.id, (here,), here - 1, here, self.now()), by=BY)

    def tell_of_deliveries(self) -> None:
        """One is delivered, one waits for its next attempt, one is dead, one abandoned, and one asked for again."""
        for number, failures in ((1, 0), (2, 1), (3, len(RETRY_DELAYS)), (4, 2), (5, 3)):
            each = self._owed(number)
            for _ in range(failures):
                each.attempt_failed(503, "the receiver answered 503", None, 120, 0.5, self.now())
            if failures == 0:
                each.delivered(204, 30, self.now())
            if number > 3:
                each.abandon("the subscription is disabled", self.now())
            if number == 5:
                each.reopen(self.now())
            self._store.record(each, by=of_process("delivery", BY, each.id, 1))

    def _owed(self, number: int) -> Delivery:
        return owed(
            self.id("del", number),
            self.now(),
            subscription_id=self.id("sub"),
            position=number,
            ordered=number == 2,
            replay_id=self.id("replay") if number == 5 else None,
        )

    def tell_of_access(self) -> None:
        self._store.record(
            private_key_read(self.id("acc", 1), self.id("cert"), 2, self.now()),
            secret_read(self.id("acc", 2), "app/0", 3, self.now()),
            request_refused(self.id("acc", 3), "GET", "/v1/pki/certificates/cert_9", "access_denied", self.now()),
            subscription_tested(self.id("acc", 4), self.id("sub"), 204, "the receiver answered 204", self.now()),
            by=BY,
        )

    def _placed(self, number: int, certificate: int, *dns_names: str, **details: Any) -> Order:
        account_id = self.id("acme_account")
        order_id, certificate_id = self.id("acme_order", number), self.id("cert", certificate)
        return placed(order_id, self.now(), certificate_id, *dns_names, account_id=account_id, **details)


def told_in_memory() -> list[Recorded]:
    """The story's events as a reader of the history gets them."""
    recorder = MemoryStore(FakeClock(BEGIN))
    Story(EventStore(recorder, DECISIONS)).tell()
    return list(recorder.history)


def account(account_id: str, now: datetime, tenant_id: str = TENANT, name: str = "letsencrypt") -> Account:
    return Account.register(
        account_id,
        tenant_id=tenant_id,
        name=name,
        provider="letsencrypt",
        environment="staging",
        email="ops@a.example",
        directory_url=CA,
        ca_bundle_pem=None,
        account_url="https://ca.example/acct/1",
        sealed_key_id="sealed_1",
        key_thumbprint="thumb",
        offer=Offer(True, (Profile("classic", "as ever"),), False, ("ca.example",)),
        now=now,
    )


def provider(
    provider_id: str,
    now: datetime,
    tenant_id: str = TENANT,
    name: str = "route53",
    *,
    provider_type: str = "route53",
    managed_zones: tuple[str, ...] = ("a.example", "*.b.example"),
) -> DnsProvider:
    return DnsProvider.connect(
        provider_id,
        tenant_id=tenant_id,
        name=name,
        provider_type=provider_type,
        managed_zones=managed_zones,
        config={"region": "eu-1", "nested": {"b": [1, 2], "a": None}},
        sealed_credentials_id="sealed_1",
        credentials_path=None,
        now=now,
    )


def token(token_id: str, now: datetime, tenant_id: str = TENANT) -> Token:
    return Token.issue(
        token_id,
        tenant_id=tenant_id,
        name="edge",
        scopes=("pki:read", "pki:export"),
        limits=Limits(dns_names=("a.example",)),
        expires_at=now + timedelta(days=90),
        sealed_verifier_id="sealed_1",
        now=now,
    )


def subscription(
    subscription_id: str,
    now: datetime,
    tenant_id: str = TENANT,
    *,
    url: str | None = "https://hook.example/",
    paths: tuple[str, ...] = ("pki/**",),
    event_types: tuple[EventType, ...] = ("certificate.issued", "order.invalid"),
    dns_names: tuple[str, ...] = (),
    ordered: bool = False,
    buffer_size: int = 1000,
) -> Subscription:
    """A webhook's; with None as `url` it is polled."""
    return Subscription.subscribe(
        subscription_id,
        tenant_id=tenant_id,
        identity_id="tok_1",
        name="deploy",
        paths=paths,
        event_types=event_types,
        target=WebhookTarget(url, "sealed_1", None) if url else None,
        dns_names=dns_names,
        ordered=ordered,
        buffer_size=buffer_size,
        now=now,
    )


def revise(subscribed: Subscription, now: datetime, **changes: Any) -> None:
    """All terms stay but those given."""
    terms = ("identity_id", "name", "paths", "event_types", "dns_names", "ordered", "buffer_size", "url")
    as_it_is = {name: getattr(subscribed, name) for name in (*terms, "ca_bundle_pem")}
    subscribed.revise(**{**as_it_is, **changes}, now=now)


def owed(
    delivery_id: str,
    now: datetime,
    *,
    subscription_id: str = "sub_1",
    position: int = 7,
    ordered: bool = False,
    replay_id: str | None = None,
) -> Delivery:
    return Delivery.owe(
        delivery_id,
        tenant_id=TENANT,
        subscription_id=subscription_id,
        position=position,
        event_type="certificate.issued",
        event_id=f"evt_{position}",
        path="pki/certificates/cert_1",
        ordered=ordered,
        replay_id=replay_id,
        now=now,
    )


def stored_secret(path: str, now: datetime) -> Secret:
    return Secret.store(
        tenant_id=TENANT, path=path, secret_type="kv", metadata={"owner": "me"}, sealed_id="sealed_1", now=now
    )


def placed(
    order_id: str,
    now: datetime,
    certificate_id: str,
    *dns_names: str,
    tenant_id: str = TENANT,
    account_id: str = "acme_account_1",
    reason: str | None = None,
    homeless: tuple[str, ...] = (),
) -> Order:
    """For `a.example` and its wildcard where nothing else is said."""
    names = dns_names or ("a.example", "*.a.example")
    return Order.place(
        order_id,
        tenant_id=tenant_id,
        account_id=account_id,
        certificate_id=certificate_id,
        assignments=tuple(Assignment(name, None if name in homeless else "dns_1") for name in names),
        challenge_type=DNS_01,
        key_type="ec256",
        auto_renew=True,
        name=None,
        profile=None,
        preferred_chain=None,
        renewal_reason=reason,
        kept_key_id=None,
        replaces=None if reason is None else "akid.serial",
        ca=CA,
        charges=cost_of("new", CA, account_id, names, ["a.example"]).taken,
        csr_der=b"",
        now=now,
    )


def at_ca(status: str) -> OrderObject:
    return OrderObject(
        url="https://ca.example/order/1",
        status=status,  # type: ignore[arg-type]
        finalize_url="https://ca.example/order/1/finalize",
        authorization_urls=("https://ca.example/authz/1", "https://ca.example/authz/2"),
        certificate_url="https://ca.example/cert/1" if status == "valid" else None,
        expires_at=BEGIN + timedelta(days=365),
    )


def authorizations(error: Problem | None = None) -> list[AuthorizationObject]:
    """Of `a.example` and of its wildcard."""
    return [
        AuthorizationObject(
            url=f"https://ca.example/authz/{number}",
            dns_name="a.example",
            wildcard=wildcard,
            status="pending",
            challenges=(
                ChallengeObject(DNS_01, f"https://ca.example/challenge/{number}", "pending", f"token{number}", error),
            ),
        )
        for number, wildcard in ((1, False), (2, True))
    ]


def late(order: Order) -> UnseenRecord:
    """A value that one server does not serve and that is not waited for any longer."""
    return UnseenRecord("192.0.2.53:53", order.outstanding_records[0], strict=False, wait_for=timedelta())


def version(number: int, order_id: str) -> Version:
    return Version(
        number=number,
        order_id=order_id,
        serial_number=f"0{number}",
        fingerprint_sha256=f"{number}" * 64,
        issuer="CN=CA",
        key_type="ec256",
        not_before=BEGIN.replace(microsecond=0),
        not_after=BEGIN.replace(microsecond=0) + timedelta(days=90 * number),
        chain_pem=LEAF + ISSUER,
        sealed_key_id=f"sealed_{number}",
    )


def issued(certificate_id: str, now: datetime, order_id: str) -> Certificate:
    return Certificate.issue(
        certificate_id,
        tenant_id=TENANT,
        account_id="acme_account_1",
        name="web",
        dns_names=("a.example", "*.a.example"),
        auto_renew=True,
        version=version(1, order_id),
        now=now,
    )

"""The only wiring: settings in, a service out. Importing it does nothing."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from threading import BoundedSemaphore
from time import monotonic

from application.accounts import Accounts
from application.ca_catalogue import hosts_of, load_catalogue
from application.certificates import Certificates
from application.delegations import Delegations
from application.dns_providers import DnsProviders
from application.errors import StoreUnavailable
from application.event_store import Decisions, EventStore
from application.explanations import Explanations
from application.mapper import EventMapper
from application.orders import Orders
from application.polling import Polling
from application.preflight import Preflight
from application.prepared_types import prepare_types
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
from application.process.upkeep import Upkeep
from application.rate_limits import RateLimits
from application.renewals import Renewals
from application.revocations import Revocations
from application.secrets import Secrets
from application.subscriptions import Subscriptions
from application.tokens import Tokens
from application.webhooks import Webhooks
from domain.account import Account
from domain.certificate import Certificate
from domain.delivery import Delivery
from domain.dns_provider import DnsProvider
from domain.durations import duration_text
from domain.order import Order
from domain.subscription import Subscription
from interfaces.acme.account_key import thumbprint
from interfaces.acme.client import AcmeClient
from interfaces.cli.arguments import arguments
from interfaces.cli.commands import run_command
from interfaces.cli.demo import run_demo
from interfaces.clock import UlidIds
from interfaces.dns.embedded import EmbeddedValues
from interfaces.dns.embedded_server import EmbeddedDns
from interfaces.dns.providers import Providers
from interfaces.dns.resolver import AuthoritativeResolver
from interfaces.dns.survey import ResolvingSurvey
from interfaces.egress import Egress
from interfaces.http.changes import Changes
from interfaces.http.long_polls import LongPolls
from interfaces.http.metrics import Metrics
from interfaces.http.services import Services
from interfaces.http.system import VERSION
from interfaces.logs import set_up_logs
from interfaces.measurements import Measurements
from interfaces.parts import Parts
from interfaces.postgres.embedded import EmbeddedPostgres, EmbeddedPostgresFailure
from interfaces.postgres.embedded_values import EmbeddedZones, PostgresEmbeddedValues
from interfaces.postgres.figures import Figures
from interfaces.postgres.idempotency_keys import PostgresIdempotencyKeys
from interfaces.postgres.key_store import PostgresKeyStore
from interfaces.postgres.locks import PostgresLocks
from interfaces.postgres.measurements import PostgresMeasurements
from interfaces.postgres.migrate import is_migrated, migrate
from interfaces.postgres.pool import open_pool
from interfaces.postgres.recorder import PostgresRecorder
from interfaces.postgres.response_log import PostgresResponseLog
from interfaces.postgres.store_clock import StoreClock
from interfaces.postgres.todo_list import PostgresTodoList
from interfaces.public_suffixes import PackagedPublicSuffixes
from interfaces.read_models import ReadModels
from interfaces.sealing.envelope import Sealer
from interfaces.sealing.master_keys import MasterKey, make_master_key_file, read_master_key_file
from interfaces.settings import EXIT_CODE, BadSetting, Settings, settings_from
from interfaces.webhooks.sender import HttpWebhookSender
from interfaces.webhooks.signature import signed_headers
from projections.audit_log import AUDIT_LOG
from projections.catch_up import catch_up
from projections.views import FOLLOWING, INLINE

CONNECTIONS_BESIDE_STEPS = 32
FRONT_THREADS = 8
OUTSIDE_CALLS = 8
UPKEEP_SLOTS = 2
RENEWAL_SLOTS = 4
RENEWAL_INFO_SLOTS = 8
INTERACTIVE_SECONDS = 20.0
BEHIND = timedelta(minutes=5)
NOT_MIGRATED = "the database is not migrated: run scaivault migrate"
STAYING = ("serve", "api", "worker")
FAILED, INTERRUPTED = 1, 130
DECISIONS: Decisions = {
    Account: [account_upkeep.DECISION],
    Order: [issuance.DECISION],
    Certificate: [renewal.DECISION, renewal_info.DECISION],
    Delivery: [delivery.DECISION],
    Subscription: [upkeep.DECISION],
    DnsProvider: [janitor.DECISION, dns_health.DECISION],
}


def main() -> int:
    """The command line. Gives the exit code."""
    wanted = arguments(sys.argv[1:])
    if wanted.command == "demo":
        return run_demo()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was put together so far is unwound
    try:
        settings = settings_from(os.environ)
        set_up_logs(settings)
        with assemble(settings) as parts:
            code = run_command(wanted, parts)
    except BadSetting as problem:
        code = _complain(problem, EXIT_CODE)
    except (StoreUnavailable, EmbeddedPostgresFailure, OSError) as problem:
        code = _complain(problem, FAILED)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if wanted.command in STAYING:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads that were left behind are not waited for
    return code


def _complain(problem: Exception, code: int) -> int:
    print(f"scaivault: {problem}", file=sys.stderr)  # noqa: T201
    return code


@contextmanager
def assemble(settings: Settings) -> Iterator[Parts]:
    """Everything that the commands need, and its end. The embedded PostgreSQL is started, and migrated, where no other
    is named. Raises BadSetting."""
    prepare_types()
    with ExitStack() as stack:
        conninfo = _database(settings, stack)
        pool = stack.enter_context(open_pool(conninfo, 2 * settings.workers + CONNECTIONS_BESIDE_STEPS))
        clock, ids, mapper = StoreClock(pool), UlidIds(), EventMapper()
        history = PostgresRecorder(pool, mapper, INLINE)
        store = EventStore(history, DECISIONS)
        if settings.database_url is None:
            migrate(pool, history.read, store, DECISIONS)
        views = ReadModels(pool)
        keys = PostgresKeyStore(pool, Sealer(_master_key(settings), settings.previous_master_keys), ids)
        if is_migrated(pool, DECISIONS):
            _require_all_master_keys(keys)

        measurements = Measurements()
        egress = Egress(settings.egress_allow, measurements=measurements)
        ca = AcmeClient(egress, f"ScaiVault/{VERSION}", now=clock.now)
        stack.callback(ca.close)
        registrar = AcmeClient(
            egress, f"ScaiVault/{VERSION}", INTERACTIVE_SECONDS, now=clock.now
        )  # somebody waits for its answers
        stack.callback(registrar.close)
        front = stack.enter_context(ThreadPoolExecutor(FRONT_THREADS, thread_name_prefix="front"))
        pollers = stack.enter_context(ThreadPoolExecutor(FRONT_THREADS, thread_name_prefix="poll"))
        sender = HttpWebhookSender(egress)
        stack.callback(sender.close)
        webhooks = Webhooks(keys, sender, signed_headers, clock)
        responses = PostgresResponseLog(pool)
        embedded_values = PostgresEmbeddedValues(pool)
        zones = Providers(embedded_values, egress, PostgresLocks(pool), measurements)
        resolver = AuthoritativeResolver(egress, settings.dns_resolvers)
        survey = ResolvingSurvey(egress, settings.dns_resolvers)

        secrets = Secrets(store, keys, clock, ids)
        tokens = Tokens(store, keys, clock, ids)
        providers = DnsProviders(store, keys, zones, views, secrets, clock, ids)
        catalogue = load_catalogue()
        accounts = Accounts(store, keys, registrar, views, catalogue, thumbprint, clock, ids)
        suffixes = PackagedPublicSuffixes()
        rate_limits = RateLimits(views, suffixes, clock)
        renewals = Renewals(store, views, rate_limits, clock, ids)
        todo = PostgresTodoList(pool, in_lanes=[delivery.NAME, renewal_info.NAME])
        collector = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="metrics"))
        processes = [decision.process for deciding in DECISIONS.values() for decision in deciding]
        figures = Figures(pool, measurements, processes, [view.name for view in FOLLOWING], [FanOut.name])
        yield Parts(
            settings=settings,
            conninfo=conninfo,
            pool=pool,
            store=store,
            history=history,
            todo=todo,
            decisions=DECISIONS,
            processes=[
                (
                    Issuance(
                        store,
                        history,
                        keys,
                        accounts,
                        ca,
                        providers,
                        resolver,
                        Delegations(views, providers, resolver),
                        views,
                        rate_limits,
                        clock,
                    ),
                    settings.workers,
                ),
                (
                    Deliveries(
                        store,
                        history,
                        views,
                        webhooks,
                        responses,
                        views.failing_since,
                        views.paused,
                        Breaker(monotonic),
                        random.random,
                        clock,
                    ),
                    settings.workers,
                ),
                (Upkeep(store, history, views, keys, clock), UPKEEP_SLOTS),
                (DnsHealth(store, history, providers, clock), UPKEEP_SLOTS),
                (Janitor(store, history, providers, views, clock), UPKEEP_SLOTS),
                (AccountUpkeep(store, history, accounts, keys, ca, clock), UPKEEP_SLOTS),
                (Renewal(store, history, renewals, clock), RENEWAL_SLOTS),
                (RenewalInfos(store, history, accounts, ca, random.random, clock), RENEWAL_INFO_SLOTS),
            ],
            followers=[
                *((view, history.read) for view in FOLLOWING),
                (FanOut(store, views.all_terms, clock), views.announced),
            ],
            tokens=tokens,
            measurements=PostgresMeasurements(pool, measurements, hosts_of(catalogue)),
            services=Services(
                pool=pool,
                store=store,
                secrets=secrets,
                tokens=tokens,
                providers=providers,
                accounts=accounts,
                orders=Orders(store, views, suffixes, rate_limits, clock, ids),
                preflight=Preflight(store, views, suffixes, rate_limits, survey, ids),
                renewals=renewals,
                revocations=Revocations(store, accounts, keys, registrar, clock),
                explanations=Explanations(store, history, renewals, clock),
                rate_limits=rate_limits,
                certificates=Certificates(store, keys, clock, ids),
                subscriptions=Subscriptions(store, keys, views, egress.require_dialable, webhooks, clock, ids),
                polling=Polling(store, views, views, clock, ids),
                responses=responses,
                idempotency=PostgresIdempotencyKeys(pool, keys, ids),
                long_polls=LongPolls(views.announced, lambda asking: views.still_so(asking, clock.now()), pollers),
                changes=Changes(views.positions_of, pollers),
                metrics=Metrics(figures.read, VERSION, collector),
                clock=clock,
                ids=ids,
                front=front,
                pollers=pollers,
                outside=BoundedSemaphore(OUTSIDE_CALLS),
                catch_up_audit=lambda: catch_up(pool, AUDIT_LOG, history.read),
                is_ready=lambda: None if is_migrated(pool, DECISIONS) else NOT_MIGRATED,
                alarm=lambda: _alarm(todo),
            ),
            dns=_responder(settings, embedded_values, EmbeddedZones(views.embedded_zones)),
        )


def _alarm(todo: PostgresTodoList) -> str | None:
    """A scheduler that has died is noticed by what it leaves undone."""
    behind = todo.overdue(renewal.NAME, BEHIND)
    return None if behind is None else f"renewals are {duration_text(behind)} behind: does a worker run?"


def _require_all_master_keys(keys: PostgresKeyStore) -> None:
    missing = keys.missing_master_keys()
    if missing:
        raise BadSetting(
            "SCAIVAULT_PREVIOUS_MASTER_KEYS",
            f"values are sealed under master keys that are missing: {', '.join(missing)}",
        )


def _responder(settings: Settings, values: EmbeddedValues, zones: EmbeddedZones) -> EmbeddedDns | None:
    return EmbeddedDns(*settings.dns_bind, values, zones) if settings.dns_bind is not None else None


def _database(settings: Settings, stack: ExitStack) -> str:
    if settings.database_url is not None:
        return settings.database_url.reveal_text()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return stack.enter_context(EmbeddedPostgres(settings.data_dir / "postgres", settings.postgres_bin)).dsn


def _master_key(settings: Settings) -> MasterKey:
    if settings.master_key is not None:
        return settings.master_key
    if not settings.master_key_file.exists():
        make_master_key_file(settings.master_key_file)
        print(f"scaivault: made a master key: {settings.master_key_file} (keep a copy)", file=sys.stderr)  # noqa: T201
    try:
        return read_master_key_file(settings.master_key_file)
    except (ValueError, OSError) as problem:
        raise BadSetting("SCAIVAULT_DATA_DIR", str(problem)) from None

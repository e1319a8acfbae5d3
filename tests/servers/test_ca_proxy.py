"""The proxy before a CA: what it sees, and what it has go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from application.errors import CaRefused, CaThrottled, CaUnavailable, Failure
from application.ports import CaAccount
from domain.acme import OrderObject, RenewalInfo
from interfaces.acme.client import AcmeClient
from interfaces.egress import Egress
from tests.contracts.ca_world import LOOPBACK, TxtZone, World, csr_der
from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.ca_faults import (
    Form,
    already_replaced,
    at_other_times,
    bad_nonce,
    drop_after,
    drop_before,
    instead,
    no_such_certificate,
    problem,
    rate_limited,
    reworded,
    status,
    still_processing,
    suggestion,
    truncate,
    untouched,
    when_replacing,
)
from tests.servers.ca_proxy import SIGNED, CaProxy, Endpoint, Fault, proxied
from tests.servers.caddy import CaddyCa
from tests.servers.https import Answer
from tests.servers.pebble import Pebble
from tests.servers.responder import DnsResponder

KEY = ec.generate_private_key(ec.SECP256R1())
NAMED = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


Ca = CaddyCa | Pebble | Acme2Certifier


@dataclass(frozen=True)
class Stage:
    """A CA behind a proxy, and our client before it."""

    world: World
    proxy: CaProxy
    ca: Ca

    def order(self, account: CaAccount, replaces: str | None = None) -> OrderObject:
        return self.world.ca.new_order(account, [self.world.dns_name], None, replaces)

    def told(self) -> list[tuple[str, int, int]]:
        """By endpoint: what the CA answered, and what the client was told."""
        return [(each.endpoint, each.status, each.told) for each in self.proxy.exchanges]


def ca_of(name: str, folder: Path, dns_server: str) -> Ca:
    match name:
        case "pebble":
            return Pebble(folder, dns_server, nonce_reject_percent=0, alternate_roots=1)
        case "acme2certifier":
            return Acme2Certifier(folder, dns_server)
        case _:
            return CaddyCa(folder, dns_server)


@pytest.fixture(params=["caddy"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    zone = TxtZone()
    with ExitStack() as stack:
        dns = stack.enter_context(DnsResponder(zone.answer)).address
        ca = ca_of(request.param, tmp_path / "ca", dns)
        stack.enter_context(ca)
        proxy = stack.enter_context(proxied(ca.directory_url, ca.ca_bundle_pem))
        client = stack.enter_context(closing(AcmeClient(Egress([LOOPBACK]), "ScaiVault/0.1.0")))
        world = World(client, proxy.directory_url, zone, lambda: 0, ca_bundle_pem=proxy.ca_bundle_pem)
        yield Stage(world, proxy, ca)


each_ca = pytest.mark.parametrize(
    "stage",
    ["caddy", *(pytest.param(name, marks=pytest.mark.peers) for name in ("pebble", "acme2certifier"))],
    indirect=True,
)


@each_ca
def test_every_endpoint_is_known_by_what_the_ca_said(stage: Stage) -> None:
    started, account = datetime.now(UTC), stage.world.register()
    url = stage.world.issue(account, KEY, [stage.world.dns_name])
    stage.world.ca.chain(account, url, "Nobody's Root")
    exchanges = stage.proxy.exchanges
    seen = Counter(each.endpoint for each in exchanges)
    once: tuple[Endpoint, ...] = (
        "directory",
        "new-nonce",
        "new-account",
        "new-order",
        "authorization",
        "challenge",
        "finalize",
    )
    assert {endpoint: seen[endpoint] for endpoint in once} == dict.fromkeys(once, 1)
    assert seen["order"] >= 1
    assert seen["certificate"] == (2 if isinstance(stage.ca, Pebble) else 1)  # Pebble has alternates
    assert set(seen) == {*once, "order", "certificate"}
    assert all(each.status == each.told for each in exchanges)
    assert [each.at for each in exchanges] == sorted(each.at for each in exchanges)
    assert [each.monotonic for each in exchanges] == sorted(each.monotonic for each in exchanges)
    assert started <= exchanges[0].at <= datetime.now(UTC)
    (requests,) = stage.proxy.since(0).requests_by_order().values()
    assert requests == len(exchanges) - len(["directory", "new-nonce", "new-account"]) - (seen["certificate"] - 1)


@each_ca
def test_a_new_order_is_seen_with_its_names_and_what_it_replaces_which_these_cas_pass_over(stage: Stage) -> None:
    account = stage.world.register()
    stage.order(account)
    stage.order(account, NAMED)
    placed = stage.proxy.since(0).at("new-order")
    assert [(each.dns_names, each.replaces, each.told) for each in placed] == [
        ((stage.world.dns_name,), None, 201),
        ((stage.world.dns_name,), NAMED, 201),
    ]


@each_ca
def test_renewal_is_suggested_by_the_test_and_not_by_the_ca(stage: Stage) -> None:
    start = datetime(2026, 11, 20, 12, tzinfo=UTC)
    said = [
        suggestion(start, start + timedelta(days=1), explanation_url="https://ca.example/why"),
        Answer(200, {}, b"<html>"),
        no_such_certificate(),
    ]
    asked: list[str] = []

    def suggest(ari_id: str) -> Answer:
        asked.append(ari_id)
        return said.pop(0)

    stage.proxy.suggest_renewal(suggest)
    account = stage.world.register()
    assert stage.world.ca.capabilities(stage.world.directory_url, stage.world.ca_bundle_pem).ari
    window = RenewalInfo(start, start + timedelta(days=1), "https://ca.example/why", 21600)
    assert stage.world.ca.renewal_info(account, NAMED) == window
    for failure in (CaUnavailable, CaRefused):
        with pytest.raises(failure):
            stage.world.ca.renewal_info(account, NAMED)
    assert asked == [NAMED] * 3
    assert [(each.status, each.told) for each in stage.proxy.since(0).at("renewal-info")] == [
        (0, 200),
        (0, 200),
        (0, 404),
    ]
    assert stage.order(account, NAMED).status == "pending"


@pytest.mark.parametrize(
    ("fault", "failure", "exchange"),
    [
        (drop_before, CaUnavailable, (0, 0)),
        (drop_after, CaUnavailable, (201, 0)),
        (truncate, CaUnavailable, (201, 201)),
        (status(503), CaUnavailable, (0, 503)),
        (problem("caa", 403), CaRefused, (0, 403)),
        (already_replaced(), CaRefused, (0, 409)),
        (rate_limited(60), CaThrottled, (0, 429)),
        (instead(Answer(200, {}, b"<html>")), CaUnavailable, (0, 200)),
        (reworded(lambda order: {**order, "status": "dreaming"}), CaUnavailable, (201, 201)),
    ],
)
def test_a_fault_happens_once_at_its_endpoint_and_then_all_is_well(
    stage: Stage, fault: Fault, failure: type[Failure], exchange: tuple[int, int]
) -> None:
    account = stage.world.register()
    stage.proxy.fail_next("new-order", untouched, fault)
    stage.order(account)
    with pytest.raises(failure):
        stage.order(account)
    stage.order(account)
    told = [(each.status, each.told) for each in stage.proxy.since(0).at("new-order")]
    assert told == [(201, 201), exchange, (201, 201)]


def test_an_order_meets_a_fault_only_where_it_replaces_a_certificate(stage: Stage) -> None:
    account = stage.world.register()
    stage.proxy.fail_at_rate(1, when_replacing(already_replaced()), ["new-order"])
    for _ in range(2):
        stage.order(account)
        with pytest.raises(CaRefused) as refusal:
            stage.order(account, NAMED)
        assert (refusal.value.problem.name, refusal.value.status) == ("alreadyReplaced", 409)


def test_what_was_done_before_an_answer_was_lost_is_done(stage: Stage) -> None:
    account = stage.world.register()
    order = stage.world.ready_order(account, [stage.world.dns_name])
    stage.proxy.fail_next("authorization", drop_after)
    with pytest.raises(CaUnavailable):
        stage.world.ca.authorizations(account, order.authorization_urls)
    stage.proxy.fail_next("new-account", drop_after)
    with pytest.raises(CaUnavailable):
        stage.world.register(account.key_pem)
    assert stage.world.register(account.key_pem) == account


@pytest.mark.parametrize("form", ["seconds", "date", "text"])
def test_a_rate_limit_is_said_in_three_forms(stage: Stage, form: Form) -> None:
    account = stage.world.register()
    stage.proxy.fail_next("new-order", rate_limited(600, form))
    with pytest.raises(CaThrottled) as failure:
        stage.order(account)
    assert failure.value.retry_after_seconds == pytest.approx(600, abs=2)
    assert ("retry after" in failure.value.problem.detail) == (form == "text")


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_nonces_are_refused_at_a_rate_and_the_one_that_comes_with_the_refusal_is_good(
    stage: Stage, rate: float
) -> None:
    account = stage.world.register()
    stage.proxy.fail_at_rate(rate, bad_nonce, seed=7)
    for _ in range(10):
        stage.order(account)
    placed = stage.proxy.since(0).at("new-order")
    assert {each.told for each in placed} == {201, 400}
    assert sum(each.status == 201 for each in placed) == 10
    assert len(stage.proxy.since(0).at("new-nonce")) == 1


def test_a_rate_is_drawn_alike_from_the_same_seed(stage: Stage) -> None:
    account, told = stage.world.register(), []
    for _ in range(2):
        before = len(stage.proxy.exchanges)
        stage.proxy.fail_at_rate(0.5, status(503), ["new-order"], seed=3)
        for _ in range(12):
            try:
                stage.order(account)
            except CaUnavailable:
                continue
        told.append([each.told for each in stage.proxy.since(before).at(*SIGNED)])
        stage.proxy.recover()
    assert told[0] == told[1]
    assert set(told[0]) == {201, 503}


def test_an_order_is_held_in_processing_though_the_ca_is_done(stage: Stage) -> None:
    account = stage.world.register()
    order = stage.world.ready_order(account, [stage.world.dns_name])
    stage.world.ca.finalize(account, order, csr_der(KEY, [stage.world.dns_name]))
    stage.proxy.fail_next("order", still_processing(7))
    held, done = (stage.world.ca.order(account, order.url) for _ in range(2))
    assert (held.status, held.certificate_url, held.retry_after_seconds) == ("processing", None, 7)
    assert done.status == "valid"


@pytest.mark.peers
@pytest.mark.parametrize("stage", ["acme2certifier"], indirect=True)
def test_a_cas_own_renewal_information_is_seen(stage: Stage) -> None:
    account = stage.world.register()
    stage.proxy.fail_next("renewal-info", status(503), untouched)
    for failure in (CaUnavailable, CaRefused):
        with pytest.raises(failure):
            stage.world.ca.renewal_info(account, NAMED)
    assert stage.told()[-2:] == [("renewal-info", 0, 503), ("renewal-info", 404, 404)]


def test_a_cas_clock_is_turned(stage: Stage) -> None:
    stage.proxy.fail_next("directory", at_other_times(-3600))
    with capture_logs() as logs:
        stage.world.register()
    assert [entry["seconds"] for entry in logs if entry["event"] == "clock_skew"] == [pytest.approx(-3600, abs=5)]


def test_a_ca_that_is_gone_is_seen_to_be(stage: Stage) -> None:
    account = stage.world.register()
    stage.ca.kill()
    with pytest.raises(CaUnavailable):
        stage.order(account)
    assert stage.told()[-1] == ("new-order", 0, 0)

"""What the application relies on at any CA: held against the fake, Caddy, Pebble and acme2certifier alike."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from application.errors import CaRefused, CaUnavailable
from application.ports import CaAccount, ExternalAccountBinding
from application.secret_value import SecretValue
from application.x509 import ari_id, ari_id_of, new_private_key
from domain.order import KeyType
from interfaces.acme.chains import topmost_issuer
from interfaces.acme.client import AcmeClient
from interfaces.egress import Egress
from tests.contracts.ca_world import LOOPBACK, CountingEgress, TxtZone, World, csr_der
from tests.fakes_ca import DIRECTORY_URL, FakeCa
from tests.fakes_ca_issuance import OTHER_ROOT
from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.caddy import CaddyCa
from tests.servers.pebble import Pebble
from tests.servers.process import wait_until
from tests.servers.responder import DnsResponder

USER_AGENT = "ScaiVault/0.1.0"


def peers(name: str) -> ParameterSet:
    return pytest.param(name, marks=pytest.mark.peers)


@pytest.fixture(scope="module")
def zone() -> Iterator[tuple[TxtZone, str]]:
    zone = TxtZone()
    with DnsResponder(zone.answer) as responder:
        yield zone, responder.address


@pytest.fixture(scope="module")
def caddy(tmp_path_factory: pytest.TempPathFactory, zone: tuple[TxtZone, str]) -> Iterator[CaddyCa]:
    with CaddyCa(tmp_path_factory.mktemp("caddy"), zone[1]) as server:
        yield server


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory, zone: tuple[TxtZone, str]) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("pebble"), zone[1], alternate_roots=1) as server:
        yield server


@pytest.fixture(scope="module")
def acme2certifier(tmp_path_factory: pytest.TempPathFactory, zone: tuple[TxtZone, str]) -> Iterator[Acme2Certifier]:
    with Acme2Certifier(tmp_path_factory.mktemp("acme2certifier"), zone[1]) as server:
        yield server


@pytest.fixture(params=["fake", "caddy", peers("pebble"), peers("acme2certifier")])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        zone = TxtZone()
        fake = FakeCa(zone.values)
        yield World(fake, DIRECTORY_URL, zone, fake.requests.total, OTHER_ROOT, ari=True, looks_at_replaces=True)
        return
    zone, _address = request.getfixturevalue("zone")
    server: CaddyCa | Pebble | Acme2Certifier = request.getfixturevalue(request.param)
    other_root = root_name(server, 1) if isinstance(server, Pebble) else ""
    egress = CountingEgress()
    with closing(AcmeClient(egress, USER_AGENT)) as client:
        yield World(
            client,
            server.directory_url,
            zone,
            lambda: len(egress.posted),
            other_root,
            server.ca_bundle_pem,
            ari=isinstance(server, Acme2Certifier),
            changes_keys=not isinstance(server, CaddyCa),
            revokes_by_key=not isinstance(server, Acme2Certifier),
        )


def root_name(pebble: Pebble, number: int) -> str:
    root = x509.load_pem_x509_certificate(pebble._get(f"{pebble.management_url}/roots/{number}").content)
    return str(root.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def leaf_of(chain_pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain_pem.encode())[0]


def test_registering_a_key_again_gives_the_same_account(world: World) -> None:
    account = world.register()
    assert world.register(account.key_pem).account_url == account.account_url
    assert world.register().account_url != account.account_url


@pytest.mark.parametrize("key_type", ["ec256", "ec384", "rsa2048"])
def test_every_kind_of_account_key_signs(world: World, key_type: KeyType) -> None:
    account = world.register(new_private_key(key_type))
    assert world.ca.new_order(account, [world.dns_name], None).status == "pending"


def test_a_directory_says_what_it_can(world: World) -> None:
    capabilities = world.ca.capabilities(world.directory_url, world.ca_bundle_pem)
    assert (capabilities.ari, capabilities.eab_required) == (world.ari, False)


def test_an_order_offers_dns_challenges_for_the_apex_and_the_wildcard(world: World) -> None:
    account = world.register()
    order = world.ca.new_order(account, [world.dns_name, f"*.{world.dns_name}"], None)
    assert order.status == "pending"
    assert order.expires_at is not None
    authorizations = world.ca.authorizations(account, order.authorization_urls)
    assert [each.url for each in authorizations] == list(order.authorization_urls)
    assert {(each.dns_name, each.wildcard) for each in authorizations} == {
        (world.dns_name, False),
        (world.dns_name, True),
    }
    offered = [each for said in authorizations for each in said.challenges if each.type == "dns-01"]
    assert [each.status for each in offered] == ["pending", "pending"]
    assert len({each.token for each in offered} - {""}) == 2
    assert world.ca.order(account, order.url).status == "pending"


def test_an_unknown_account_is_refused(world: World) -> None:
    account = world.register()
    unknown = CaAccount(
        account.directory_url, account.account_url + "0000", new_private_key("ec256"), account.ca_bundle_pem
    )
    with pytest.raises(CaRefused) as refusal:
        world.ca.new_order(unknown, [world.dns_name], None)
    assert refusal.value.problem.name == "accountDoesNotExist"


def test_a_certificate_for_the_apex_and_the_wildcard_is_issued(world: World) -> None:
    account, key = world.register(), ec.generate_private_key(ec.SECP256R1())
    dns_names = [world.dns_name, f"*.{world.dns_name}"]
    chain_pem = world.ca.chain(account, world.issue(account, key, dns_names), None)
    leaf, *intermediates = x509.load_pem_x509_certificates(chain_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(names.get_values_for_type(x509.DNSName)) == sorted(dns_names)
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(intermediates[0])


def test_a_challenge_without_its_value_makes_nothing_ready(world: World) -> None:
    account = world.register()
    order = world.ca.new_order(account, [world.dns_name], None)
    (authorization,) = world.ca.authorizations(account, order.authorization_urls)
    world.zone.publish(f"_acme-challenge.{world.dns_name}", "another value")
    world.ca.answer(account, [each.url for each in authorization.challenges if each.type == "dns-01"])

    def judged() -> bool:
        (said,) = world.ca.authorizations(account, order.authorization_urls)
        assert said.status != "valid"
        return said.status == "invalid" or any(each.error and each.error.detail for each in said.challenges)

    wait_until(judged, what="the challenge's failure is told")
    assert world.ca.order(account, order.url).status in {"pending", "invalid"}


@pytest.mark.parametrize("world", ["fake", "caddy", peers("pebble")], indirect=True)  # acme2certifier answers with 500
def test_a_malformed_csr_is_refused(world: World) -> None:
    account = world.register()
    order = world.ready_order(account, [world.dns_name])
    with pytest.raises(CaRefused) as refusal:
        world.ca.finalize(account, order, b"no csr")
    assert refusal.value.problem.name in {"badCSR", "malformed"}


def test_an_order_that_is_not_ready_is_not_finalized(world: World) -> None:
    account = world.register()
    order = world.ca.new_order(account, [world.dns_name], None)
    with pytest.raises(CaRefused) as refusal:
        world.ca.finalize(account, order, csr_der(ec.generate_private_key(ec.SECP256R1()), [world.dns_name]))
    assert refusal.value.problem.name == "orderNotReady"


def test_an_order_of_another_account_is_refused(world: World) -> None:
    order = world.ca.new_order(world.register(), [world.dns_name], None)
    with pytest.raises(CaRefused):
        world.ca.order(world.register(), order.url)


@pytest.mark.parametrize("world", ["fake", peers("pebble")], indirect=True)
def test_the_chain_of_another_root_is_given_where_it_is_preferred(world: World) -> None:
    account = world.register()
    certificate_url = world.issue(account, ec.generate_private_key(ec.SECP256R1()), [world.dns_name])
    default = world.ca.chain(account, certificate_url, None)
    assert topmost_issuer(default) not in {"", world.other_root}
    other = world.ca.chain(account, certificate_url, world.other_root)
    assert topmost_issuer(other) == world.other_root
    assert leaf_of(other) == leaf_of(default)


def test_a_preference_that_no_chain_meets_gives_the_default(world: World) -> None:
    account = world.register()
    certificate_url = world.issue(account, ec.generate_private_key(ec.SECP256R1()), [world.dns_name])
    default = world.ca.chain(account, certificate_url, None)
    assert world.ca.chain(account, certificate_url, "No Such Root") == default


def test_an_issuance_costs_no_request_too_many(world: World) -> None:
    dns_names = [world.dns_name, f"*.{world.dns_name}", f"www.{world.dns_name}"]
    account, before = world.register(), world.posts()
    certificate_url = world.issue(account, ec.generate_private_key(ec.SECP256R1()), dns_names)
    world.ca.chain(account, certificate_url, None)
    new_order, finalize, download = 1, 1, 1
    expected = new_order + len(dns_names) + len(dns_names) + world.polls + finalize + download
    assert world.posts() - before == expected


def issued(world: World, account: CaAccount, replaces: str | None = None) -> str:
    """A certificate's chain."""
    key = ec.generate_private_key(ec.SECP256R1())
    return world.ca.chain(account, world.issue(account, key, [world.dns_name], replaces), None)


def ari_id_of_chain(chain_pem: str) -> str:
    named = ari_id(chain_pem)
    assert named is not None
    return named


def test_renewal_is_suggested_within_the_certificates_life_or_nowhere(world: World) -> None:
    account = world.register()
    chain_pem = issued(world, account)
    suggested = world.ca.renewal_info(account, ari_id_of_chain(chain_pem))
    assert (suggested is not None) == world.ari
    if suggested is not None:
        leaf = leaf_of(chain_pem)
        assert suggested.window_start < suggested.window_end
        assert leaf.not_valid_before_utc < suggested.window_start < leaf.not_valid_after_utc
        assert suggested.window_start.utcoffset() == suggested.window_end.utcoffset() == timedelta(0)
        assert suggested.retry_after_seconds is not None


def test_renewal_of_an_unknown_certificate_is_refused_where_it_is_suggested(world: World) -> None:
    account = world.register()
    unknown = ari_id_of(b"nobody's key", 7)
    with pytest.raises(CaRefused) if world.ari else nullcontext():
        assert world.ca.renewal_info(account, unknown) is None


def test_renewal_is_suggested_to_anybody_who_asks(world: World) -> None:
    account = world.register()
    named = ari_id_of_chain(issued(world, account))
    stranger = CaAccount(account.directory_url, "", new_private_key("ec256"), account.ca_bundle_pem)
    assert world.ca.renewal_info(stranger, named) == world.ca.renewal_info(account, named)


def test_an_order_names_the_certificate_that_it_replaces(world: World) -> None:
    account = world.register()
    first = issued(world, account)
    second = issued(world, account, replaces=ari_id_of_chain(first))
    assert leaf_of(second).serial_number != leaf_of(first).serial_number


def test_a_certificate_is_replaced_once_where_the_ca_looks_at_it(world: World) -> None:
    account = world.register()
    first = ari_id_of_chain(issued(world, account))
    issued(world, account, replaces=first)
    if not world.looks_at_replaces:
        assert world.ca.new_order(account, [world.dns_name], None, first).url
        return
    with pytest.raises(CaRefused) as refusal:
        world.ca.new_order(account, [world.dns_name], None, first)
    assert (refusal.value.problem.name, refusal.value.status) == ("alreadyReplaced", 409)


def test_an_order_that_replaces_an_unknown_certificate_is_refused_where_the_ca_looks_at_it(world: World) -> None:
    account = world.register()
    with pytest.raises(CaRefused) if world.looks_at_replaces else nullcontext():
        assert world.ca.new_order(account, [world.dns_name], None, ari_id_of(b"nobody's key", 7)).url


@pytest.mark.peers
@pytest.mark.parametrize("write", [base64.urlsafe_b64encode, base64.b64encode])
def test_an_account_is_bound_to_an_external_one(
    tmp_path: Path, zone: tuple[TxtZone, str], write: Callable[[bytes], bytes]
) -> None:
    hmac_key = bytes(range(0xE0, 0x100))
    keys = {"kid-1": base64.urlsafe_b64encode(hmac_key).rstrip(b"=").decode()}
    with (
        Pebble(tmp_path, zone[1], external_account_keys=keys) as pebble,
        closing(AcmeClient(Egress([LOOPBACK]), USER_AGENT)) as ca,
    ):
        place = (pebble.directory_url, new_private_key("ec256"), "ops@acme.example")
        assert ca.capabilities(pebble.directory_url, pebble.ca_bundle_pem).eab_required
        assert ca.register(*place, ExternalAccountBinding("kid-1", SecretValue(write(hmac_key))), pebble.ca_bundle_pem)
        with pytest.raises(CaRefused) as refusal:
            ca.register(pebble.directory_url, new_private_key("ec256"), "ops@acme.example", None, pebble.ca_bundle_pem)
        assert refusal.value.problem.name == "externalAccountRequired"


# --- the life of an account -----------------------------------------------------------------------------------------


def test_an_account_is_found_by_its_key_alone(world: World) -> None:
    account = world.register()
    find = world.ca.find_account
    assert find(world.directory_url, account.key_pem, world.ca_bundle_pem) == account.account_url
    assert find(world.directory_url, new_private_key("ec256"), world.ca_bundle_pem) is None


def test_a_contact_is_changed(world: World) -> None:
    account = world.register()
    world.ca.update_account(account, "others@acme.example")
    assert world.ca.new_order(account, [world.dns_name], None).status == "pending"


def test_after_a_key_change_the_account_has_the_new_key_alone(world: World) -> None:
    account, new_key = world.register(), new_private_key("ec384")
    if not world.changes_keys:
        with pytest.raises(CaRefused):
            world.ca.change_key(account, new_key)
        return
    world.ca.change_key(account, new_key)
    renewed = CaAccount(account.directory_url, account.account_url, new_key, account.ca_bundle_pem)
    assert world.ca.new_order(renewed, [world.dns_name], None).status == "pending"
    assert world.ca.find_account(world.directory_url, new_key, world.ca_bundle_pem) == account.account_url
    assert world.ca.find_account(world.directory_url, account.key_pem, world.ca_bundle_pem) is None
    with pytest.raises(CaRefused):
        world.ca.new_order(account, [world.dns_name], None)


def test_a_key_that_another_account_has_is_not_taken(world: World) -> None:
    account, other = world.register(), world.register()
    with pytest.raises((CaRefused, CaUnavailable)):  # Pebble calls it an error of its own
        world.ca.change_key(account, other.key_pem)
    assert world.ca.new_order(account, [world.dns_name], None).status == "pending"


def test_a_deactivated_account_orders_nothing_more(world: World) -> None:
    account = world.register()
    world.ca.deactivate_account(account)
    with pytest.raises(CaRefused) as order:
        world.ca.new_order(account, [world.dns_name], None)
    assert order.value.problem.name in {"unauthorized", "accountDoesNotExist"}


# --- revoking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_its_own_key", [False, True], ids=["by the account", "by its own key"])
def test_a_certificate_is_revoked_once(world: World, *, by_its_own_key: bool) -> None:
    account, key = world.register(), ec.generate_private_key(ec.SECP256R1())
    chain_pem = world.ca.chain(account, world.issue(account, key, [world.dns_name]), None)
    key_pem = pem_of(key) if by_its_own_key else None
    if by_its_own_key and not world.revokes_by_key:
        with pytest.raises(CaRefused):
            world.ca.revoke(account, chain_pem, 4, key_pem)
        return
    world.ca.revoke(account, chain_pem, 4, key_pem)
    with pytest.raises(CaRefused) as again:
        world.ca.revoke(account, chain_pem, 4, key_pem)
    assert again.value.problem.name == "alreadyRevoked"


def test_a_certificate_of_another_account_is_not_revoked(world: World) -> None:
    account, other, key = world.register(), world.register(), ec.generate_private_key(ec.SECP256R1())
    chain_pem = world.ca.chain(account, world.issue(account, key, [world.dns_name]), None)
    with pytest.raises(CaRefused):
        world.ca.revoke(other, chain_pem, 1)
    with pytest.raises(CaRefused):
        world.ca.revoke(other, chain_pem, 1, new_private_key("ec256"))


def pem_of(key: ec.EllipticCurvePrivateKey) -> SecretValue:
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return SecretValue(key.private_bytes(serialization.Encoding.PEM, *form))

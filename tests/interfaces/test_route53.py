"""Route 53 beyond what every provider is held to: its record sets, its zones, its errors, its credentials."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest

from application.errors import (
    EgressRefused,
    Failure,
    ZoneConflict,
    ZoneRefused,
    ZoneThrottled,
    ZoneUnreachable,
)
from application.ports import TxtValue
from interfaces.dns import route53 as route53_module
from interfaces.dns.locks import ThreadLocks
from interfaces.dns.route53 import HostedZone, Route53Account, Route53Config, Route53Credentials
from interfaces.dns.route53_errors import EarlierChangeUnfinished, failure_of
from interfaces.dns.route53_zone import ATTEMPTS, SYNC_POLLS, Route53Zone
from interfaces.egress import Egress
from tests.fakes_dns import AwsError
from tests.servers.process import LOOPBACK, free_port
from tests.servers.route53 import MotoRoute53

NAME = "_acme-challenge.www.acme.example"
ONE, TWO = TxtValue(NAME, "one"), TxtValue(NAME, "two")
LOOPBACK_ALLOWED = Egress([ip_network("127.0.0.0/8")])


class StrictAccount(Route53Account):
    """Route 53 as its reference describes ChangeResourceRecordSets: a batch is done as a whole or not at all, a DELETE
    names exactly what is there, a CREATE what is not."""

    def __init__(self) -> None:
        super().__init__(Route53Config(), Route53Credentials(), LOOPBACK_ALLOWED)
        self.held: dict[str, Any] = {}
        self.batches: list[list[str]] = []
        self.before_change: list[Callable[[], object]] = []
        self.polls_until_in_sync = 0
        self._changing = threading.Lock()

    def put(self, *records: str, ttl_seconds: int = 300, name: str = NAME) -> None:
        """What somebody else writes."""
        values = [{"Value": record} for record in records]
        self.held[name] = {"Name": f"{name}.", "Type": "TXT", "TTL": ttl_seconds, "ResourceRecords": values}

    def records(self, name: str = NAME) -> list[str]:
        return [record["Value"] for record in self.held.get(name, {}).get("ResourceRecords", [])]

    def hosted_zones(self) -> Sequence[HostedZone]:
        return [HostedZone("acme.example", "Z1"), HostedZone("www.acme.example", "Z2"), HostedZone("example", "Z0")]

    def txt_record_set(self, zone_id: str, record_name: str) -> Any:  # noqa: ARG002
        return copy.deepcopy(self.held.get(record_name))

    def change(self, zone_id: str, changes: Sequence[Any]) -> str:
        if self.before_change:
            self.before_change.pop(0)()
        with self._changing:
            after = dict(self.held)
            for change in changes:
                name = change["ResourceRecordSet"]["Name"].rstrip(".")
                if change["Action"] == "DELETE" and after.pop(name, None) != change["ResourceRecordSet"]:
                    raise ZoneConflict("the values provided do not match the current values")
                if change["Action"] == "CREATE" and name in after:
                    raise ZoneConflict("it already exists")
                if change["Action"] != "DELETE":
                    after[name] = copy.deepcopy(change["ResourceRecordSet"])
            self.held = after
            self.batches.append([zone_id, *(change["Action"] for change in changes)])
        return "C1"

    def is_in_sync(self, change_id: str) -> bool:
        assert change_id == "C1"
        self.polls_until_in_sync -= 1
        return self.polls_until_in_sync < 0


def no_lock(_key: str) -> AbstractContextManager[None]:
    return nullcontext()


@pytest.fixture
def account() -> StrictAccount:
    return StrictAccount()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def zone(account: StrictAccount, pauses: list[float]) -> Route53Zone:
    return Route53Zone(account, 60, no_lock, pauses.append)


def test_values_of_one_call_go_in_one_batch_to_the_longest_zone(account: StrictAccount, zone: Route53Zone) -> None:
    zone.add([ONE, TWO, TxtValue("_acme-challenge.b.www.acme.example", "three")])
    assert account.batches == [["Z2", "CREATE", "CREATE"]]
    assert account.records() == ['"one"', '"two"']


def test_a_change_names_exactly_what_was_read(account: StrictAccount, zone: Route53Zone) -> None:
    zone.add([ONE])
    zone.add([TWO])
    zone.remove([ONE])
    zone.remove([TWO])
    assert account.batches == [
        ["Z2", "CREATE"],
        ["Z2", "DELETE", "CREATE"],
        ["Z2", "DELETE", "CREATE"],
        ["Z2", "DELETE"],
    ]
    assert account.held == {}


def test_one_lock_of_each_hosted_zone_is_held_while_it_is_changed(account: StrictAccount) -> None:
    held: list[str] = []

    @contextmanager
    def lock(key: str) -> Iterator[None]:
        held.append(key)
        batches = len(account.batches)
        yield
        assert len(account.batches) == batches + 1

    names = [NAME, "_acme-challenge.acme.example", "_acme-challenge.b.www.acme.example"]
    Route53Zone(account, 60, lock).add([TxtValue(name, "one") for name in names])
    assert held == ["route53/Z1", "route53/Z2"]


def test_what_is_as_wanted_is_not_written(account: StrictAccount, zone: Route53Zone) -> None:
    account.put('"one"', '"tw" "o"')
    zone.add([ONE, TWO])
    zone.remove([TxtValue(NAME, "three")])
    assert account.batches == []


def test_the_ttl_and_the_spelling_of_others_stay(account: StrictAccount, zone: Route53Zone) -> None:
    account.put('"for" "eign"', ttl_seconds=300)
    zone.add([ONE])
    assert account.records() == ['"for" "eign"', '"one"']
    assert account.held[NAME]["TTL"] == 300
    zone.remove([ONE])
    assert account.records() == ['"for" "eign"']


def test_a_new_set_has_the_configured_ttl(account: StrictAccount, zone: Route53Zone) -> None:
    zone.add([ONE])
    assert account.held[NAME]["TTL"] == 60


def test_a_value_written_between_reading_and_changing_survives(account: StrictAccount, zone: Route53Zone) -> None:
    account.before_change = [lambda: account.put('"foreign"')]
    zone.add([ONE])
    assert account.records() == ['"foreign"', '"one"']
    account.before_change = [lambda: account.put('"foreign"', '"one"', '"late"')]
    zone.remove([ONE])
    assert account.records() == ['"foreign"', '"late"']


def test_many_writers_without_any_lock_keep_each_others_values(account: StrictAccount) -> None:
    zones = [Route53Zone(account, 60, no_lock, lambda _seconds: None) for _ in range(4)]
    values = [TxtValue(NAME, f"value-{number}") for number in range(40)]

    def add_at_last(number: int) -> None:
        for _ in range(100):
            try:
                return zones[number % 4].add([values[number]])
            except ZoneConflict:
                continue
        pytest.fail("never won")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_at_last, range(len(values))))
    assert sorted(account.records()) == sorted(f'"{value.value}"' for value in values)


def test_a_set_that_keeps_changing_is_a_conflict(account: StrictAccount, zone: Route53Zone) -> None:
    account.before_change = [lambda number=number: account.put(f'"{number}"') for number in range(100)]  # type: ignore[misc]
    with pytest.raises(ZoneConflict):
        zone.add([ONE])
    assert len(account.before_change) == 100 - ATTEMPTS
    assert account.batches == []


def test_an_earlier_change_is_waited_for_and_is_throttling_in_the_end(
    account: StrictAccount, zone: Route53Zone, pauses: list[float]
) -> None:
    def unfinished() -> None:
        raise EarlierChangeUnfinished("not yet")

    account.before_change = [unfinished] * (ATTEMPTS - 1)
    zone.add([ONE])
    assert account.records() == ['"one"']
    account.before_change = [unfinished] * ATTEMPTS
    with pytest.raises(ZoneThrottled):
        zone.add([TWO])
    assert pauses == [0.5, 1.0, 1.5, 2.0] * 2


def test_an_added_value_is_waited_for_until_all_name_servers_have_it(
    account: StrictAccount, zone: Route53Zone, pauses: list[float]
) -> None:
    account.polls_until_in_sync = 3
    zone.add([ONE])
    assert pauses == [2.0] * 3


def test_the_wait_has_an_end_and_is_no_failure(account: StrictAccount, zone: Route53Zone, pauses: list[float]) -> None:
    account.polls_until_in_sync = 1000
    zone.add([ONE])
    assert pauses == [2.0] * SYNC_POLLS


def test_what_is_written_is_no_failure_when_its_state_cannot_be_asked_for(
    account: StrictAccount, zone: Route53Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(change_id: str) -> bool:
        raise ZoneRefused("permission_missing", change_id)

    monkeypatch.setattr(account, "is_in_sync", refuse)
    zone.add([ONE])
    assert account.records() == ['"one"']


def test_a_removal_is_not_waited_for(account: StrictAccount, zone: Route53Zone, pauses: list[float]) -> None:
    account.put('"one"')
    account.polls_until_in_sync = 1000
    zone.remove([ONE])
    assert pauses == []


@pytest.mark.parametrize(
    ("code", "message", "status", "expected"),
    [
        ("AccessDenied", "", 403, "permission_missing"),
        ("InvalidClientTokenId", "", 403, "credentials_rejected"),
        ("SignatureDoesNotMatch", "", 403, "credentials_rejected"),
        ("ExpiredToken", "", 403, "credentials_rejected"),
        ("NoSuchHostedZone", "", 404, "zone_not_found"),
        ("InvalidChangeBatch", "[RRSet with DNS name a. is not permitted in zone b.]", 400, "zone_not_found"),
        ("InvalidChangeBatch", "the values provided do not match", 400, ZoneConflict),
        ("Throttling", "Rate exceeded", 400, ZoneThrottled),
        ("PriorRequestNotComplete", "", 400, EarlierChangeUnfinished),
        ("", "", 429, ZoneThrottled),
        ("InternalFailure", "", 500, ZoneUnreachable),
        ("ServiceUnavailable", "", 503, ZoneUnreachable),
        ("NobodyKnows", "", 400, ZoneUnreachable),
    ],
)
def test_each_error_of_aws_has_its_meaning(code: str, message: str, status: int, expected: str | type[Failure]) -> None:
    failure = failure_of(code, message, status)
    assert expected == (failure.reason if isinstance(failure, ZoneRefused) else type(failure))


# --- against moto ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoRoute53]:
    with MotoRoute53(tmp_path_factory.mktemp("route53"), ["acme.example", "sub.acme.example"]) as server:
        yield server


def connect(
    server: MotoRoute53, egress: Egress = LOOPBACK_ALLOWED, session_token: str | None = None, **config: Any
) -> Route53Account:
    settings = Route53Config(**{"endpoint_url": server.endpoint_url, **config})
    return Route53Account(
        settings, Route53Credentials(server.access_key_id, server.secret_access_key, session_token), egress
    )


def test_private_zones_are_no_place_for_a_challenge(moto: MotoRoute53) -> None:
    moto.client.create_hosted_zone(
        Name="private.acme.example",
        CallerReference="private",
        HostedZoneConfig={"PrivateZone": True},
        VPC={"VPCRegion": "us-east-1", "VPCId": "vpc-1"},
    )
    account = connect(moto)
    assert "private.acme.example" not in {held.dns_name for held in account.hosted_zones()}
    Route53Zone(account, 60, ThreadLocks()).add([TxtValue("_acme-challenge.private.acme.example", "one")])
    records = moto.records("acme.example")
    assert "_acme-challenge.private.acme.example" in {record.name for record in records}


def test_a_pinned_zone_is_the_only_one(moto: MotoRoute53) -> None:
    zone = Route53Zone(connect(moto, hosted_zone_id=moto.zone_ids["acme.example"]), 60, ThreadLocks())
    assert zone.zones() == ["acme.example"]
    zone.add([TxtValue("_acme-challenge.pinned.sub.acme.example", "one")])
    assert "_acme-challenge.pinned.sub.acme.example" in {record.name for record in moto.records("acme.example")}
    with pytest.raises(ZoneRefused):
        zone.add([TxtValue("_acme-challenge.other.example", "one")])


def test_a_pin_to_no_zone_is_told(moto: MotoRoute53) -> None:
    with pytest.raises(ZoneRefused) as refused:
        connect(moto, hosted_zone_id="ZNONE").hosted_zones()
    assert refused.value.reason == "zone_not_found"


def test_zones_beyond_the_first_page_are_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [f"zone-{number:03}.example" for number in range(101)]
    with MotoRoute53(tmp_path_factory.mktemp("many"), names) as server:
        zone = Route53Zone(connect(server), 60, ThreadLocks())
        assert list(zone.zones()) == names
        zone.add([TxtValue("_acme-challenge.zone-100.example", "one")])
        assert server.txt("_acme-challenge.zone-100.example") == ["one"]


def test_a_role_is_assumed_once_and_again_before_it_ends(moto: MotoRoute53, monkeypatch: pytest.MonkeyPatch) -> None:
    account = connect(moto, role_arn="arn:aws:iam::123456789012:role/acme")
    account.hosted_zones()
    first = account._built
    assert first is not None
    assert first[0]._request_signer._credentials.access_key.startswith("ASIA")  # type: ignore[attr-defined]
    account.hosted_zones()
    assert account._built is first
    monkeypatch.setattr(route53_module, "RENEW_BEFORE", timedelta(days=1))
    account.hosted_zones()
    assert account._built is not first


@pytest.fixture
def misleading_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"http://{LOOPBACK}:{free_port()}"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ROUTE_53", "AWS_ENDPOINT_URL_STS", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, nobody)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "/nowhere.pem")


@pytest.mark.usefixtures("misleading_environment")
def test_the_environment_does_not_decide_whom_to_ask(moto: MotoRoute53) -> None:
    assert connect(moto, role_arn="arn:aws:iam::123456789012:role/acme").hosted_zones()


@pytest.mark.usefixtures("misleading_environment")
def test_aws_itself_is_asked_and_believed_by_the_public_roots_alone() -> None:
    client, _ = Route53Account(Route53Config(), Route53Credentials("AKIA", "key"), LOOPBACK_ALLOWED)._build()
    assert client.meta.endpoint_url == "https://route53.amazonaws.com"
    assert client._endpoint.http_session._verify is True  # type: ignore[attr-defined]
    assert client._endpoint.http_session._proxy_config._proxies == {}  # type: ignore[attr-defined]


def test_a_host_without_credentials_is_rejected(moto: MotoRoute53, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    account = Route53Account(Route53Config(endpoint_url=moto.endpoint_url), Route53Credentials(), LOOPBACK_ALLOWED)
    with pytest.raises(ZoneRefused) as refused:
        account.hosted_zones()
    assert refused.value.reason == "credentials_rejected"


def test_the_hosts_own_credentials_are_used_where_none_are_given(
    moto: MotoRoute53, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_access_key)
    account = Route53Account(Route53Config(endpoint_url=moto.endpoint_url), Route53Credentials(), LOOPBACK_ALLOWED)
    assert account.hosted_zones()


def test_an_endpoint_that_must_not_be_dialled_is_not(moto: MotoRoute53) -> None:
    with pytest.raises(EgressRefused):
        connect(moto, egress=Egress([])).hosted_zones()


def test_plain_http_needs_the_operators_leave_even_to_a_public_address(moto: MotoRoute53) -> None:
    public = Egress([], resolve=lambda *_place: ["203.0.112.1"])
    with pytest.raises(EgressRefused, match="https only"):
        connect(moto, egress=public, endpoint_url="http://aws.example").hosted_zones()


def test_the_address_that_was_judged_is_the_one_that_is_dialled(moto: MotoRoute53) -> None:
    """A name that leads somewhere else at the second look."""
    answers = iter([LOOPBACK, "169.254.169.254"])
    egress = Egress([ip_network("127.0.0.0/8")], resolve=lambda *_place: [next(answers)])
    port = urlsplit(moto.endpoint_url).port
    account = connect(moto, egress=egress, endpoint_url=f"http://aws.nowhere.invalid:{port}")
    assert account.hosted_zones()
    assert next(answers) == "169.254.169.254"


def test_an_endpoint_with_a_name_that_is_none_may_be_tried_again(moto: MotoRoute53) -> None:
    with pytest.raises(ZoneUnreachable):
        connect(moto, endpoint_url="https://xn--a.example").hosted_zones()


def test_an_endpoint_that_does_not_resolve_may_be_tried_again(moto: MotoRoute53) -> None:
    with pytest.raises(ZoneUnreachable):
        connect(moto, endpoint_url="https://aws.nowhere.invalid").hosted_zones()


def test_no_credential_is_in_what_is_told(moto: MotoRoute53) -> None:
    message = f"the key {moto.secret_access_key} and the token t0ken do not fit" + " x" * 3000
    with AwsError("SignatureDoesNotMatch", message, status=403) as server:
        account = connect(moto, session_token="t0ken", endpoint_url=server.endpoint_url)
        with pytest.raises(ZoneRefused) as refused:
            account.hosted_zones()
    assert "the key [hidden] and the token [hidden] do not fit" in refused.value.detail
    assert len(refused.value.detail) == 1000

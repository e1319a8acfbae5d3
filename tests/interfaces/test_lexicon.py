"""How lexicon's modules leave, what they see of this machine, and what their words mean."""

from __future__ import annotations

import pkgutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from lexicon._private import providers as modules

from application.errors import EgressRefused, Failure, ResolverFailed, ZoneRefused, ZoneUnreachable
from application.ports import DnsZone, ProviderAccess, TxtValue
from application.secret_value import SecretValue
from interfaces.dns import lexicon_modules
from interfaces.dns.egress import Egress as EgressPort
from interfaces.dns.lexicon_modules import LexiconModule, UnsuitableModule
from interfaces.dns.providers import Providers
from interfaces.egress import Egress
from tests.dns_stand_ins.api import answering
from tests.dns_stand_ins.lexicon import PowerDns
from tests.fakes_dns import MemoryValues

ZONE, OTHER_ZONE = "acme.example", "other.example"
NAME = f"_acme-challenge.www.{ZONE}"
LOOPBACK_ALLOWED = Egress([ip_network("127.0.0.0/8")])


class Answering:
    """Egress whose clients dial nobody: `asked` holds the requests, `answer` gives what comes back."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self.asked: list[httpx.Request] = []
        self._answer = answer

    def addresses(self, host: str, port: int, *, only_allowed: bool = False) -> Sequence[str]:
        raise EgressRefused(f"{host} {port} {only_allowed}")

    def client(self, ca_bundle_pem: str | None = None, timeout_seconds: float = 15) -> httpx.Client:
        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            return self._answer(request)

        assert ca_bundle_pem is None
        return httpx.Client(transport=httpx.MockTransport(answer), timeout=timeout_seconds)


@pytest.fixture
def api() -> Iterator[PowerDns]:
    with PowerDns([ZONE]) as api:
        yield api


def zone_of(
    config: Mapping[str, Any],
    credentials: Mapping[str, str],
    egress: EgressPort = LOOPBACK_ALLOWED,
    managed_zones: Sequence[str] = (ZONE,),
) -> DnsZone:
    secret = {name: SecretValue(value) for name, value in credentials.items()}
    access = ProviderAccess("lexicon", managed_zones, config, secret)
    return Providers(MemoryValues(), egress).connect(access)


def power_dns(api: PowerDns, **wished: Any) -> DnsZone:
    config = {"provider_name": "powerdns", "pdns_server": api.url, **wished.pop("config", {})}
    return zone_of(config, {"auth_token": api.key}, **wished)


def suitable() -> Sequence[str]:
    names = []
    for module in pkgutil.iter_modules(modules.__path__):
        try:
            names.append(LexiconModule(module.name).name)
        except UnsuitableModule:
            continue
    return names


# --- the way out ---


@pytest.mark.parametrize("name", suitable())
def test_no_module_dials_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[object] = []

    def refuse(*to: object, **_more: object) -> None:
        dialled.append(to)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    egress = Answering(lambda _request: httpx.Response(401, json={"message": "who are you?"}))
    options = LexiconModule(name).options()
    config = {each: "https://dns.acme.example" for each in options if not each.startswith("auth_")}
    zone = zone_of(config | {"provider_name": name}, {each: "x:y:z" for each in options if each not in config}, egress)
    with pytest.raises(Failure):
        zone.add([TxtValue(NAME, "value")])
    assert dialled == []


def test_most_modules_are_suitable_and_speak_through_the_guard() -> None:
    assert len(suitable()) > 60
    egress = Answering(lambda _request: httpx.Response(401))
    for name in ("cloudflare", "digitalocean", "hetzner", "porkbun", "dnsmadeeasy", "vultr"):
        with pytest.raises(ZoneRefused) as refused:
            zone_of(
                {"provider_name": name},
                dict.fromkeys(LexiconModule(name).options() - {"zone_id"}, "credential"),
                egress,
            ).zones()
        assert refused.value.reason == "credentials_rejected"
    assert len({request.url.host for request in egress.asked}) == 6
    assert {request.url.scheme for request in egress.asked} == {"https"}


def test_what_must_not_be_dialled_is_not(api: PowerDns) -> None:
    with pytest.raises(EgressRefused):
        power_dns(api, egress=Egress([])).zones()
    assert api.asked == []


def test_a_name_without_an_address_may_have_one_later() -> None:
    def unknown(_request: httpx.Request) -> httpx.Response:
        raise ResolverFailed("no address")

    with pytest.raises(ZoneUnreachable, match="no address"):
        zone_of({"provider_name": "vultr"}, {"auth_token": "x"}, Answering(unknown)).zones()


def test_where_an_answer_leads_is_not_followed(api: PowerDns) -> None:
    api.always = answering(302, Location=f"{api.url}/elsewhere")
    with pytest.raises(ZoneUnreachable):
        power_dns(api).zones()
    assert len(api.asked) == 1


def test_nothing_of_the_environment_is_heeded(api: PowerDns, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "LEXICON_POWERDNS_PDNS_SERVER"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("LEXICON_POWERDNS_AUTH_TOKEN", "wrong")
    assert power_dns(api).zones() == [ZONE]


def test_a_file_of_this_machine_is_no_server(tmp_path: Path) -> None:
    there = tmp_path / "socket"
    there.touch()
    with pytest.raises(Failure, match="No scheme"):
        zone_of({"provider_name": "powerdns", "pdns_server": str(there)}, {"auth_token": "x"}).zones()


def test_files_of_this_machine_are_not_read(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret of the machine")
    given = {"auth_service_account_info": f"file::{key}"}
    with pytest.raises(ZoneUnreachable, match="files are not read here"):
        zone_of({"provider_name": "googleclouddns"}, given, Answering(lambda _: httpx.Response(200))).zones()


@pytest.mark.parametrize(
    ("name", "answer"), [("zilore", 401), ("dnsservices", 401), ("safedns", 404), ("scaleway", 400)]
)
def test_what_a_module_prints_or_logs_is_not_shown(
    name: str, answer: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    said = Answering(lambda _: httpx.Response(answer, json={"message": "who are you?"}))
    options = dict.fromkeys(LexiconModule(name).options(), "credential")
    with suppress(Failure):
        zone_of({"provider_name": name}, options, said).add([TxtValue(NAME, "value")])
    assert said.asked
    assert (capsys.readouterr(), caplog.records) == (("", ""), [])


def test_a_module_is_a_copy_that_nobody_else_sees(api: PowerDns) -> None:
    power_dns(api).zones()
    assert f"{lexicon_modules.PACKAGE}.powerdns" not in sys.modules


# --- zones and words ---


def test_the_zones_are_those_where_it_may_sign_in(api: PowerDns) -> None:
    assert power_dns(api, managed_zones=[OTHER_ZONE, f"*.{ZONE}"]).zones() == [ZONE]


def test_a_zone_may_be_named_that_holds_the_managed_ones(api: PowerDns) -> None:
    zone = power_dns(api, config={"zone": ZONE}, managed_zones=[f"www.{ZONE}", f"*.www.{ZONE}"])
    zone.add([TxtValue(NAME, "value")])
    assert (zone.zones(), api.txt(NAME)) == ([ZONE], ["value"])


def test_a_value_is_written_with_the_ttl_that_was_set(api: PowerDns) -> None:
    power_dns(api, config={"ttl": 123}).add([TxtValue(NAME, "value")])
    assert [request.body["rrsets"][0]["ttl"] for request in api.asked if request.method == "PATCH"] == [123]


def test_a_refusal_of_lexicons_own_is_told_by_its_words() -> None:
    """Vultr's module asks for all zones, and finds that ours is none of them."""
    nothing = Answering(lambda _: httpx.Response(200, json={"domains": [], "meta": {"links": {"next": ""}}}))
    with pytest.raises(ZoneRefused, match="Domain not found") as refused:
        zone_of({"provider_name": "vultr"}, {"auth_token": "credential"}, nothing).zones()
    assert refused.value.reason == "zone_not_found"


def test_a_credential_is_hidden_in_the_spelling_of_a_url_too() -> None:
    token = "a/b+c d"
    said = Answering(lambda _: httpx.Response(500, text=f"{token} or {quote(token, safe='')}"))
    with pytest.raises(ZoneUnreachable) as failure:
        zone_of({"provider_name": "vultr"}, {"auth_token": token}, said).zones()
    assert failure.value.detail == "lexicon vultr: 500 [hidden] or [hidden]"

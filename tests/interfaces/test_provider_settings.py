"""From a provider's `config` and `credentials` to a connected zone, or to the name of each wrong field."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from application.errors import EgressRefused
from application.ports import DnsZone, ProviderAccess
from application.provider_config import CommonConfig, common_config, host_and_port
from application.secret_value import SecretValue
from domain.errors import InvalidFields
from interfaces.dns import providers as providers_module
from interfaces.dns.providers import Providers
from interfaces.dns.rfc2136 import Rfc2136Credentials
from tests.fakes_dns import MemoryValues


def pem_of(key: PrivateKeyTypes) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


TSIG = {"tsig_key_name": "acme-updates", "tsig_secret": "c2VjcmV0"}
AWS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI"}
SERVER = {"server": "ns1.acme.example"}
RSA_PEM = pem_of(rsa.generate_private_key(65537, 2048))
KEY_FILE = {
    "type": "service_account",
    "client_email": "dns@acme-dns-1.iam.gserviceaccount.com",
    "private_key_id": "0123456789abcdef",
    "private_key": RSA_PEM,
    "token_uri": "https://oauth2.googleapis.com/token",
    "universe_domain": "googleapis.com",
}
AZURE = {
    "tenant_id": "acme.onmicrosoft.com",
    "client_id": "0" * 8 + "-0000" * 3 + "-" + "a" * 12,
    "client_secret": "o~8Q.",
}
AZURE_PLACE = {"subscription_id": "F" * 8 + "-0000" * 3 + "-" + "a" * 12, "resource_group": "dns-(prod)_ü.1"}
GOOGLE = {"service_account_json": json.dumps(KEY_FILE)}
PDNS, PDNS_KEY = {"base_url": "http://ns1.acme.example:8081"}, {"api_key": "s3cr3t"}
LEXICON = {"provider_name": "powerdns", "pdns_server": "https://dns.acme.example"}
ACME_DNS = {"base_url": "https://auth.acme.example"}
ACME_DNS_ACCOUNT = {
    "username": "c36f50e8-4632-44f0-83fe-e070fef28a10",
    "password": "htB9mR9DYgcu9bX_afHF62erXaH2TS7bg9KW3F7Z",
    "subdomain": "8e5700ea-a4bf-41c7-8a77-e990661dcc6a",
}


class NoEgress:
    """Whoever asks it would have dialled."""

    def addresses(self, host: str, port: int, *, only_allowed: bool = False) -> Sequence[str]:
        raise EgressRefused(f"{host} {port} {only_allowed}")

    def client(self, ca_bundle_pem: str | None = None, timeout_seconds: float = 15) -> httpx.Client:
        def dial(request: httpx.Request) -> httpx.Response:
            raise EgressRefused(f"{request.url} {ca_bundle_pem}")

        return httpx.Client(transport=httpx.MockTransport(dial), timeout=timeout_seconds)


@pytest.fixture
def providers() -> Providers:
    return Providers(MemoryValues(), NoEgress())


def access(provider_type: str, config: Mapping[str, Any], credentials: Mapping[str, str]) -> ProviderAccess:
    secret = {name: SecretValue(value) for name, value in credentials.items()}
    return ProviderAccess(provider_type, ["acme.example"], config, secret)


def problems(providers: Providers, *arguments: Any) -> dict[str, str]:
    """The refused fields with their codes."""
    with pytest.raises(InvalidFields) as refused:
        providers.connect(access(*arguments))
    return {problem.field: problem.code for problem in refused.value.fields}


@pytest.mark.parametrize(
    ("provider_type", "config", "credentials"),
    [
        ("route53", {}, {}),
        ("route53", {}, AWS),
        ("route53", {}, {**AWS, "session_token": "FwoGZXIvYXdzEBY=="}),
        (
            "route53",
            {
                "region": "eu-central-1",
                "endpoint_url": "https://aws.corp.example:4566/",
                "role_arn": "arn:aws:iam::123456789012:role/dns/acme",
                "hosted_zone_id": "/hostedzone/Z1D633PJN98FT9",
            },
            AWS,
        ),
        ("route53", {"endpoint_url": "http://[::1]:4566"}, AWS),
        ("route53", {"endpoint_url": None, "role_arn": None, "hosted_zone_id": "Z1D633PJN98FT9"}, AWS),
        ("rfc2136", SERVER, TSIG),
        ("rfc2136", {"server": "2001:db8::1", "port": 5353}, {**TSIG, "tsig_algorithm": "hmac-sha512"}),
        ("digitalocean", {}, {"api_token": f"dop_v1_{'a' * 64}"}),
        ("digitalocean", {"base_url": "https://digitalocean.corp.example/v2"}, {"api_token": "t"}),
        ("powerdns", PDNS, PDNS_KEY),
        ("powerdns", {"base_url": "https://dns.acme.example/pdns/", "server_id": "ns-1.acme"}, PDNS_KEY),
        ("acmedns", ACME_DNS, ACME_DNS_ACCOUNT),
        ("acmedns", {**ACME_DNS, "propagation": "strict"}, {**ACME_DNS_ACCOUNT, "subdomain": "a"}),
        ("lexicon", LEXICON, {"auth_token": "x"}),
        ("lexicon", {**LEXICON, "pdns_server_id": "other", "zone": "example", "ttl": 5}, {"auth_token": "x"}),
        ("lexicon", {"provider_name": "hetzner"}, {"auth_token": "x"}),
        ("lexicon", {"provider_name": "ionos"}, {"api_key": "x"}),
        ("google", {"project": "acme-dns-1"}, GOOGLE),
        ("google", {"project": "acme.example:dns", "base_url": "https://dns.corp.example/dns/v1"}, GOOGLE),
        ("azure", AZURE_PLACE, AZURE),
        ("azure", {**AZURE_PLACE, "base_url": None}, {**AZURE, "tenant_id": AZURE["client_id"]}),
        ("azure", {**AZURE_PLACE, "base_url": "https://azure.corp.example/management"}, AZURE),
        ("embedded", {}, {}),
        (
            "embedded",
            {
                "ttl": 1,
                "propagation": "skip",
                "propagation_timeout": "90s",
                "nameservers": ["[::1]:53", "ns.example:5353"],
            },
            {},
        ),
    ],
)
def test_what_the_contract_lists_is_taken_and_nobody_is_dialled(
    providers: Providers, provider_type: str, config: dict[str, Any], credentials: dict[str, str]
) -> None:
    providers.connect(access(provider_type, config, credentials))


def test_an_unknown_type_is_refused(providers: Providers) -> None:
    assert problems(providers, "godaddy", {}, {}) == {"provider_type": "unknown"}


def test_each_wrong_field_is_named_at_once(providers: Providers) -> None:
    config = {"port": "53", "ttl": 0, "propagation": "soon", "nameservers": "ns1", "zone": "acme.example"}
    credentials = {"tsig_secret": "no base64!", "tsig_algorithm": "hmac-md5", "api_key": "x"}
    assert problems(providers, "rfc2136", config, credentials) == {
        "config.server": "required",
        "config.port": "invalid",
        "config.ttl": "invalid",
        "config.propagation": "invalid",
        "config.nameservers": "invalid",
        "config.zone": "unknown",
        "credentials.tsig_key_name": "required",
        "credentials.tsig_secret": "invalid",
        "credentials.tsig_algorithm": "invalid",
        "credentials.api_key": "unknown",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("region", "evil.example/#"),
        ("region", "us-east-1\n"),
        ("endpoint_url", "ftp://aws.corp.example"),
        ("endpoint_url", "https://user:password@aws.corp.example"),
        ("endpoint_url", "https://aws.corp.example/path"),
        ("endpoint_url", "aws.corp.example"),
        ("endpoint_url", "https://aws.corp.example:99999"),
        ("endpoint_url", "https://aws.corp.example:0"),
        ("endpoint_url", "https://[:::]"),
        ("endpoint_url", "https://aws..example"),
        ("endpoint_url", "https://-aws_.example"),
        ("role_arn", "acme"),
        ("hosted_zone_id", "../change"),
        ("hosted_zone_id", 7),
    ],
)
def test_config_of_route53_in_another_form_is_refused(providers: Providers, field: str, value: object) -> None:
    assert problems(providers, "route53", {field: value}, AWS) == {f"config.{field}": "invalid"}


@pytest.mark.parametrize(
    ("credentials", "missing"),
    [
        ({"access_key_id": "AKIA"}, {"secret_access_key"}),
        ({"secret_access_key": "x"}, {"access_key_id"}),
        ({"session_token": "x"}, {"access_key_id", "secret_access_key"}),
    ],
)
def test_half_of_the_credentials_of_route53_is_not_enough(
    providers: Providers, credentials: dict[str, str], missing: set[str]
) -> None:
    assert problems(providers, "route53", {}, credentials) == {f"credentials.{name}": "required" for name in missing}


@pytest.mark.parametrize(
    ("credentials", "wrong"),
    [
        ({"access_key_id": ""}, "access_key_id"),
        ({"secret_access_key": "two words"}, "secret_access_key"),
        ({"secret_access_key": "line\n"}, "secret_access_key"),
    ],
)
def test_credentials_of_route53_in_another_form_are_refused(
    providers: Providers, credentials: dict[str, str], wrong: str
) -> None:
    assert problems(providers, "route53", {}, {**AWS, **credentials}) == {f"credentials.{wrong}": "invalid"}


@pytest.mark.parametrize("server", ["", "two names", "ns1/..", "ns1:53@x", "ns1\n", "-" * 300])
def test_a_server_in_another_form_is_refused(providers: Providers, server: str) -> None:
    assert problems(providers, "rfc2136", {"server": server}, TSIG) == {"config.server": "invalid"}


@pytest.mark.parametrize("port", [0, 65536, -1, 5.5, True, None])
def test_a_port_that_is_none_is_refused(providers: Providers, port: object) -> None:
    assert problems(providers, "rfc2136", {**SERVER, "port": port}, TSIG) == {"config.port": "invalid"}


@pytest.mark.parametrize(("length", "taken"), [(253, True), (254, False)])
def test_a_key_name_is_no_longer_than_a_dns_name(providers: Providers, length: int, taken: bool) -> None:
    given = {**TSIG, "tsig_key_name": ("x" * 49 + ".") * 5 + "y" * (length - 250)}
    if taken:
        providers.connect(access("rfc2136", SERVER, given))
        providers.connect(access("rfc2136", SERVER, {**given, "tsig_key_name": given["tsig_key_name"] + "."}))
    else:
        assert problems(providers, "rfc2136", SERVER, given) == {"credentials.tsig_key_name": "invalid"}


@pytest.mark.parametrize(
    ("config", "credentials", "wrong"),
    [
        ({}, {}, {"config.base_url": "required", "credentials.api_key": "required"}),
        ({"base_url": "ns1.acme.example:8081"}, PDNS_KEY, {"config.base_url": "invalid"}),
        ({**PDNS, "server_id": "../config"}, PDNS_KEY, {"config.server_id": "invalid"}),
        ({**PDNS, "server_id": ""}, PDNS_KEY, {"config.server_id": "invalid"}),
        (PDNS, {"api_key": "line\n"}, {"credentials.api_key": "invalid"}),
    ],
)
def test_settings_of_powerdns_in_another_form_are_refused(
    providers: Providers, config: dict[str, Any], credentials: dict[str, str], wrong: dict[str, str]
) -> None:
    assert problems(providers, "powerdns", config, credentials) == wrong


@pytest.mark.parametrize(
    ("config", "credentials", "wrong"),
    [
        ({}, {}, {"credentials.api_token": "required"}),
        ({}, {"api_token": "two words"}, {"credentials.api_token": "invalid"}),
        ({"base_url": "api.digitalocean.com"}, {"api_token": "t"}, {"config.base_url": "invalid"}),
    ],
)
def test_settings_of_digitalocean_in_another_form_are_refused(
    providers: Providers, config: dict[str, Any], credentials: dict[str, str], wrong: dict[str, str]
) -> None:
    assert problems(providers, "digitalocean", config, credentials) == wrong


@pytest.mark.parametrize("project", ["", "acme dns", "../other", "acme/dns", "Acme", "a?b", "acme-", "acme\n", 7])
def test_a_project_in_another_form_is_refused(providers: Providers, project: object) -> None:
    assert problems(providers, "google", {"project": project}, GOOGLE) == {"config.project": "invalid"}


@pytest.mark.parametrize(
    "key_file",
    [
        "no JSON",
        "[]",
        json.dumps({**KEY_FILE, "type": "authorized_user"}),
        json.dumps({name: value for name, value in KEY_FILE.items() if name != "private_key"}),
        json.dumps({**KEY_FILE, "private_key": "s3cr3t!"}),
        json.dumps({**KEY_FILE, "private_key": pem_of(ec.generate_private_key(ec.SECP256R1()))}),
        '{"type":' + "[" * 8000,
        *(
            json.dumps({**KEY_FILE, "token_uri": uri})
            for uri in (
                "http://oauth2.googleapis.com/token",
                "https://oauth2.googleapis.com.evil.example/token",
                "https://evilgoogleapis.com/token",
                "https://evil.example/googleapis.com/token",
                "https://googleapis.com@evil.example/token",
                "https://oauth2.googleapis.com:8443/token",
                "https://evil.example\\.googleapis.com/token",
                "https://evil.example#.googleapis.com/token",
            )
        ),
    ],
)
def test_a_key_of_a_service_account_that_is_none_is_refused(providers: Providers, key_file: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        providers.connect(access("google", {"project": "acme-dns-1"}, {"service_account_json": key_file}))
    assert [problem.field for problem in refused.value.fields] == ["credentials.service_account_json"]
    assert "s3cr3t" not in str(refused.value)


def test_tokens_may_come_from_elsewhere_where_the_api_does(providers: Providers) -> None:
    elsewhere = json.dumps({**KEY_FILE, "token_uri": "https://dns.corp.example/token"})
    config = {"project": "acme-dns-1", "base_url": "https://dns.corp.example/v1"}
    providers.connect(access("google", config, {"service_account_json": elsewhere}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subscription_id", "acme"),
        ("subscription_id", AZURE_PLACE["subscription_id"] + "\n"),
        ("subscription_id", "../" * 12),
        ("resource_group", ""),
        ("resource_group", "dns/../other"),
        ("resource_group", "dns."),
        ("resource_group", "dns?x"),
        ("resource_group", "x" * 91),
        ("base_url", "ftp://azure.corp.example"),
    ],
)
def test_config_of_azure_in_another_form_is_refused(providers: Providers, field: str, value: object) -> None:
    assert problems(providers, "azure", {**AZURE_PLACE, field: value}, AZURE) == {f"config.{field}": "invalid"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant_id", "acme/../other"),
        ("tenant_id", ".."),
        ("tenant_id", ""),
        ("client_id", "acme"),
        ("client_secret", ""),
        ("client_secret", "two words"),
    ],
)
def test_credentials_of_azure_in_another_form_are_refused(providers: Providers, field: str, value: str) -> None:
    assert problems(providers, "azure", AZURE_PLACE, {**AZURE, field: value}) == {f"credentials.{field}": "invalid"}


def test_credentials_that_are_no_text_are_refused(providers: Providers) -> None:
    given = ProviderAccess(
        "rfc2136", [], SERVER, {**access("", {}, TSIG).credentials, "tsig_secret": SecretValue(b"\xff")}
    )
    with pytest.raises(InvalidFields) as refused:
        providers.connect(given)
    assert [problem.field for problem in refused.value.fields] == ["credentials.tsig_secret"]


def test_no_refusal_repeats_a_credential(providers: Providers) -> None:
    with pytest.raises(InvalidFields) as refused:
        providers.connect(access("rfc2136", SERVER, {**TSIG, "tsig_secret": "s3cr3t!", "tsig_algorithm": "s3cr3t!"}))
    assert "s3cr3t" not in str(refused.value)


def test_credentials_do_not_print_themselves() -> None:
    assert repr(Rfc2136Credentials("key", "c2VjcmV0")) == "Rfc2136Credentials(<hidden>)"


def test_acme_dns_needs_its_address_and_its_account(providers: Providers) -> None:
    assert problems(providers, "acmedns", {}, {}) == {
        "config.base_url": "required",
        "credentials.username": "required",
        "credentials.password": "required",
        "credentials.subdomain": "required",
    }


@pytest.mark.parametrize("subdomain", ["", "a.b", "-a", "a-", "a_b", "x" * 64, "a\n"])
def test_a_subdomain_of_acme_dns_is_one_label(providers: Providers, subdomain: str) -> None:
    given = {**ACME_DNS_ACCOUNT, "subdomain": subdomain}
    assert problems(providers, "acmedns", ACME_DNS, given) == {"credentials.subdomain": "invalid"}


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, {"config.provider_name": "required"}),
        ({"provider_name": "../x"}, {"config.provider_name": "invalid"}),
        ({"provider_name": "nobody"}, {"config.provider_name": "unknown"}),
        ({"provider_name": "base"}, {"config.provider_name": "unknown"}),
        ({"provider_name": "powerdns", "zone": "other.example"}, {"config.zone": "unsuitable"}),
        ({"provider_name": "powerdns", "zone": "example", "delegated": "x"}, {"config.delegated": "unknown"}),
        ({"provider_name": "powerdns", "pdns_server": ["x"]}, {"config.pdns_server": "invalid"}),
        ({"provider_name": "powerdns", "auth_token": "x"}, {"config.auth_token": "unexpected"}),
        ({"provider_name": "powerdns", "pdns_server_id": ""}, {"config.pdns_server_id": "invalid"}),
    ],
)
def test_lexicon_is_told_what_its_module_declares(
    providers: Providers, config: dict[str, Any], wrong: dict[str, str]
) -> None:
    assert problems(providers, "lexicon", config, {}) == wrong


def test_credentials_of_lexicon_are_options_of_its_module(providers: Providers) -> None:
    given = {"auth_api_key": "x", "auth_username": "", "endpoint": "x"}
    assert problems(providers, "lexicon", {"provider_name": "transip"}, given) == {
        "credentials.auth_username": "invalid",
        "credentials.endpoint": "unknown",
    }


@pytest.mark.parametrize(
    "name", ["route53", "gandi", "localzone", "ddns", "auto", "oci", "valuedomain", "namecom", "linode4"]
)
def test_modules_of_lexicon_that_would_pass_by_the_guard_are_refused(providers: Providers, name: str) -> None:
    assert problems(providers, "lexicon", {"provider_name": name}, {}) == {"config.provider_name": "unsuitable"}


def test_without_the_package_there_is_no_type_lexicon(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "interfaces.dns.lexicon_modules", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "lexicon"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lexicon", None)
    with pytest.raises(InvalidFields, match=r"pip install 'scaivault\[lexicon\]'") as refused:
        providers.connect(access("lexicon", LEXICON, {"auth_token": "x"}))
    assert [problem.field for problem in refused.value.fields] == ["provider_type"]


def test_the_embedded_type_takes_nothing_of_its_own(providers: Providers) -> None:
    wrong = problems(providers, "embedded", {"base_url": "https://x.example"}, {"api_key": "x"})
    assert wrong == {"config.base_url": "unknown", "credentials.api_key": "unknown"}


def test_the_common_config_has_the_contracts_defaults() -> None:
    assert common_config({}) == CommonConfig(60, "advisory", timedelta(minutes=5), ())


def test_the_common_config_leaves_other_fields_alone() -> None:
    config = {
        "server": "x",
        "ttl": 5,
        "propagation": "strict",
        "propagation_timeout": "1h",
        "nameservers": ["127.0.0.1:53"],
    }
    assert common_config(config) == CommonConfig(5, "strict", timedelta(hours=1), ("127.0.0.1:53",))


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"ttl": "60"}, {"config.ttl": "invalid"}),
        ({"ttl": 86401}, {"config.ttl": "invalid"}),
        ({"propagation": "eventually"}, {"config.propagation": "invalid"}),
        ({"propagation_timeout": 300}, {"config.propagation_timeout": "invalid"}),
        ({"propagation_timeout": "5 minutes"}, {"config.propagation_timeout": "invalid_duration"}),
        (
            {"nameservers": ["ns1.example:53", "ns2.example", "ns3.example:0"], "propagation_timeout": "0s"},
            {
                "config.nameservers[1]": "invalid",
                "config.nameservers[2]": "invalid",
                "config.propagation_timeout": "invalid_duration",
            },
        ),
    ],
)
def test_each_wrong_common_field_is_named(config: dict[str, Any], wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidFields) as refused:
        common_config(config)
    assert {problem.field: problem.code for problem in refused.value.fields} == wrong


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:53", ("127.0.0.1", 53)),
        ("ns1.acme.example:65535", ("ns1.acme.example", 65535)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_host_and_port_are_taken_apart(text: str, parts: tuple[str, int]) -> None:
    assert host_and_port(text) == parts


@pytest.mark.parametrize(
    "text", ["", "ns1", "ns1:", ":53", "ns1:0", "ns1:65536", "::1:53", "[::1]", "a b:53", "u@h:53", "h:53\n"]
)
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no host:port"):
        host_and_port(text)


def test_the_same_access_gives_the_same_zone_and_another_credential_another(providers: Providers) -> None:
    first = providers.connect(access("route53", {}, AWS))
    assert providers.connect(access("route53", {}, AWS)) is first
    assert providers.connect(access("route53", {}, {**AWS, "secret_access_key": "new"})) is not first
    assert providers.connect(access("route53", {"region": "eu-west-1"}, AWS)) is not first


def test_a_zone_that_was_long_not_asked_for_is_let_go(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers_module, "MOST_KEPT", 2)

    def connect(server: str) -> DnsZone:
        return providers.connect(access("rfc2136", {"server": server}, TSIG))

    used, unused = connect("ns1"), connect("ns2")
    assert connect("ns1") is used
    connect("ns3")
    assert connect("ns1") is used
    assert connect("ns2") is not unused

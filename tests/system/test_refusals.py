"""Bad input to the whole service: the contract's code, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.prove.tutorial import ZONE, account_at, by_rfc2136, caddy_and_embedded
from tests.servers.bind import Bind
from tests.servers.ca_proxy import CaProxy, proxied
from tests.system.service import Client, Process, open_folder, running_service


@dataclass(frozen=True)
class World:
    service: Process
    client: Client
    proxy: CaProxy
    account_id: str

    def issue(self, *domains: str, **changes: Any) -> httpx.Response:
        body = {"account_id": self.account_id, "domains": domains, "challenge_type": "dns-01", **changes}
        return self.client.try_post("/v1/pki/acme/issue", body)

    def asked_of_ca(self) -> int:
        return len(self.proxy.exchanges)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        around = stack.enter_context(caddy_and_embedded(folder))
        account = around.account
        proxy = stack.enter_context(proxied(account["directory_url"], account["ca_bundle_pem"]))
        service = stack.enter_context(running_service(folder / "service", dns_address=around.dns_address))
        client = stack.enter_context(Client(service.url, service.token("pki:issue pki:admin audit:read")))
        client.post("/v1/dns/providers", around.provider)
        registered = client.post("/v1/pki/acme/accounts", account_at(proxy.directory_url, proxy.ca_bundle_pem))
        yield World(service, client, proxy, registered["id"])


def refusal(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    return response.status_code, error["code"]


def fields(response: httpx.Response) -> set[tuple[str, str]]:
    return {(field["field"], field["code"]) for field in response.json()["error"]["details"]["fields"]}


def test_a_name_in_no_managed_zone_ends_the_order_at_that_name_and_the_ca_is_not_asked(world: World) -> None:
    before = world.asked_of_ca()
    placed = world.issue("www.elsewhere.example", f"here.{ZONE}")
    assert placed.status_code == 202
    order = world.client.ended(placed.json()["order_id"])
    assert (order["status"], order["error"]["code"]) == ("invalid", "zone_not_managed")
    errors = {challenge["domain"]: challenge["error"] for challenge in order["challenges"]}
    assert errors["www.elsewhere.example"]["code"] == "zone_not_managed"
    assert errors[f"here.{ZONE}"] is None
    assert world.asked_of_ca() == before


def test_an_unknown_account_is_not_found(world: World) -> None:
    assert refusal(world.issue(f"a.{ZONE}", account_id="acme_staging_none")) == (404, "acme_account_not_found")


@pytest.mark.parametrize("challenge_type", ["http-01", "tls-alpn-01", "nonsense"])
def test_a_wildcard_with_another_challenge_type_is_refused(world: World, challenge_type: str) -> None:
    refused = world.issue(f"*.{ZONE}", challenge_type=challenge_type)
    assert refusal(refused) == (422, "validation_error")
    assert fields(refused) == {("challenge_type", "unsupported")}


@pytest.mark.parametrize("name", ["co.uk", "*.co.uk", "com"])
def test_a_public_suffix_is_refused(world: World, name: str) -> None:
    refused = world.issue(name)
    assert refusal(refused) == (422, "validation_error")
    assert ("domains[0]", "public_suffix") in fields(refused) or ("domains[0]", "invalid_name") in fields(refused)


@pytest.mark.parametrize(
    "name", ["xn--a.example", "-a.example", "a..example", "*.*.example", "a_b.example", "10.0.0.1"]
)
def test_a_bad_name_is_refused_where_it_stands(world: World, name: str) -> None:
    refused = world.issue(f"good.{ZONE}", name)
    assert refusal(refused) == (422, "validation_error")
    assert fields(refused) == {("domains[1]", "invalid_name")}


def test_a_token_without_the_scope_is_refused_and_the_refusal_is_on_record(world: World) -> None:
    with Client(world.service.url, world.service.token("pki:read")) as reader:
        refused = reader.try_post("/v1/pki/acme/issue", {})
        assert refusal(refused) == (403, "insufficient_scope")
        assert refused.json()["error"]["details"] == {"required": "pki:issue"}
    rows = world.client.get("/v1/audit/logs", action="access_denied", request_id=refused.headers["x-request-id"])[
        "logs"
    ]
    assert [row["extra_data"]["code"] for row in rows] == ["insufficient_scope"]


def test_malformed_json_is_refused(world: World) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {world.service.token('pki:issue')}"}
    url = f"{world.service.url}/v1/pki/acme/issue"
    refused = httpx.post(url, content=b'{"account_id": ', headers=headers, trust_env=False)
    assert refusal(refused) == (400, "invalid_request")


@pytest.mark.peers
def test_wrong_credentials_with_verify_connect_nothing(world: World, folder: Path) -> None:
    with Bind(folder, ["bind.example"]) as dns:
        wrong = {"tsig_key_name": dns.tsig_key_name, "tsig_secret": "d3Jvbmcgd3Jvbmcgd3Jvbmc="}
        refused = world.client.try_post("/v1/dns/providers", {**by_rfc2136(dns), "credentials": wrong})
    assert refusal(refused) == (422, "provider_verification_failed")
    assert refused.json()["error"]["details"]["reason"] == "credentials_rejected"
    assert [provider["name"] for provider in world.client.get("/v1/dns/providers")["data"]] == ["own"]


def test_the_same_names_in_progress_join_the_running_order(world: World) -> None:
    first = world.issue(f"*.twice.{ZONE}", f"twice.{ZONE}")
    second = world.issue(f"twice.{ZONE}", f"*.twice.{ZONE}")
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["order_id"] == second.json()["order_id"]
    assert world.client.ended(first.json()["order_id"])["status"] == "valid"


def test_a_name_twice_for_accounts_is_refused(world: World) -> None:
    refused = world.client.try_post(
        "/v1/pki/acme/accounts", account_at(world.proxy.directory_url, world.proxy.ca_bundle_pem)
    )
    assert refusal(refused) == (409, "name_in_use")


def test_a_ca_that_is_no_ca_is_told(world: World) -> None:
    body = {**account_at("https://127.0.0.1:9/directory", world.proxy.ca_bundle_pem), "name": "nobody"}
    assert refusal(world.client.try_post("/v1/pki/acme/accounts", body)) == (502, "backend_error")

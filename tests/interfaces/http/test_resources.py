"""What holds for each kind of resource: secrets, DNS providers, accounts, orders, certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from application.errors import CaUnavailable
from application.explanations import UNKNOWN
from domain.token import SCOPES, Limits
from tests.fakes_ca import FakeCa, refused
from tests.interfaces.http.client import (
    BLOCK,
    KEY_PEM,
    Api,
    actions,
    connect_provider,
    error_code,
    record_account,
    record_certificate,
    record_order,
    stored_text,
    token_id,
    wrong_fields,
)

PEM_FILE = "application/x-pem-file"


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


# --- secrets ---


def write(api: Api, token: str, path: str, **more: Any) -> Any:
    return api.ask(f"PUT /v1/secrets/{path}", token, {"data": {"value": "hunter2"}, "secret_type": "kv"} | more)


def test_the_first_write_creates_a_secret_and_a_further_one_adds_a_version(api: Api, token: str) -> None:
    first = write(api, token, "infra/dns/a")
    assert first.status_code == 201
    assert first.headers["location"] == "/v1/secrets/infra/dns/a"
    assert first.json() == {
        "path": "infra/dns/a",
        "version": 1,
        "secret_type": "kv",
        "created_at": first.json()["created_at"],
        "updated_at": first.json()["created_at"],
    }
    second = write(api, token, "infra/dns/a", data={"value": "hunter3"}, secret_type="json")
    assert second.status_code == 200
    assert "location" not in second.headers
    assert (second.json()["version"], second.json()["secret_type"]) == (2, "json")
    assert second.json()["created_at"] == first.json()["created_at"]
    assert api.ask(f"GET {first.headers['location']}", token).json()["data"] == {"value": "hunter3"}


def test_older_versions_stay_readable(api: Api, token: str) -> None:
    for number in (1, 2, 3):
        write(api, token, "a", data={"value": number})
    values = [api.ask(f"GET /v1/secrets/a?version={number}", token).json()["data"]["value"] for number in (1, 2, 3)]
    assert values == [1, 2, 3]
    assert api.ask("GET /v1/secrets/a", token).json()["version"] == 3
    for missing in (0, 4, -1, 10**20):
        answer = api.ask(f"GET /v1/secrets/a?version={missing}", token)
        assert (answer.status_code, error_code(answer)) == (404, "version_not_found")


def test_a_value_comes_back_as_it_was_and_is_kept_by_nobody_on_the_way(api: Api, token: str) -> None:
    data = {"text": "ü\U0001f512 \\u0000", "list": [1, 2.5, -3, None, True], "deep": {"er": {}}, "large": 2**63}
    write(api, token, "a", data=data, metadata={"owner": "ops"})
    answer = api.ask("GET /v1/secrets/a", token)
    assert answer.json()["data"] == data
    assert answer.json()["metadata"] == {"owner": "ops"}
    assert answer.headers["cache-control"] == "no-store"


def test_a_list_of_secrets_shows_no_value_and_can_be_narrowed(api: Api, token: str) -> None:
    for path in ("infra/a", "infra/b", "app/a"):
        write(api, token, path)
    answer = api.ask("GET /v1/secrets?prefix=infra/", token)
    assert [secret["path"] for secret in answer.json()["data"]] == ["infra/a", "infra/b"]
    assert set(answer.json()["data"][0]) == {"path", "version", "secret_type", "metadata", "created_at", "updated_at"}
    assert "hunter2" not in api.ask("GET /v1/secrets", token).text


def test_no_secret_is_stored_in_the_clear(api: Api, token: str) -> None:
    write(api, token, "a", data={"value": "a-most-secret-value"})
    assert "a-most-secret-value" not in stored_text(api)


@pytest.mark.parametrize("path", ["a", "0", "-", "_", "a/b", "/".join("abcdefghij"), "a" * 512, "a-b/c_d/0"])
def test_a_path_in_the_contracts_form_is_taken(api: Api, token: str, path: str) -> None:
    assert write(api, token, path).status_code == 201
    assert api.ask(f"GET /v1/secrets/{path}", token).json()["path"] == path


@pytest.mark.parametrize("path", ["A", "a.b", "a~b", "/".join("abcdefghijk"), "a" * 513, "a/B/c"])
def test_any_other_path_is_refused(api: Api, token: str, path: str) -> None:
    assert wrong_fields(write(api, token, path), 400, "invalid_path") == {"path": "invalid_path"}


@pytest.mark.parametrize("path", ["a/%2e%2e/b", "a//b", "a%2F%2Fb", "a%00", "a%20b", "%C3%A9", "a:b", "a%3Fb"])
def test_so_is_one_that_is_not_plain(api: Api, token: str, path: str) -> None:
    answer = write(api, token, path)
    assert (answer.status_code, error_code(answer)) == (400, "invalid_path")


@pytest.mark.parametrize("secret_type", ["kv", "json", "certificate", "ssh_key", "api_key"])
def test_these_are_the_types_of_secrets(api: Api, token: str, secret_type: str) -> None:
    assert write(api, token, "a", secret_type=secret_type).json()["secret_type"] == secret_type


@pytest.mark.parametrize("secret_type", ["", "KV", "password", "json "])
def test_another_type_is_refused(api: Api, token: str, secret_type: str) -> None:
    answer = write(api, token, "a", secret_type=secret_type)
    assert wrong_fields(answer, 400, "invalid_secret_type") == {"secret_type": "invalid_secret_type"}


def test_a_secret_that_is_not_there_is_not_found(api: Api, token: str) -> None:
    answer = api.ask("GET /v1/secrets/a", token)
    assert (answer.status_code, error_code(answer)) == (404, "secret_not_found")


def test_who_administers_the_pki_may_write_secrets_and_never_read_them(api: Api) -> None:
    admin = api.token("pki:admin")
    assert write(api, admin, "a").status_code == 201
    for path in ("/v1/secrets/a", "/v1/secrets"):
        assert api.ask(f"GET {path}", admin).json()["error"]["details"] == {"required": "secrets:read"}


def test_writing_and_reading_secrets_is_on_record_and_listing_shows_nothing(api: Api, token: str) -> None:
    write(api, token, "a/b")
    write(api, token, "a/b")
    api.ask("GET /v1/secrets/a/b?version=1", token)
    api.ask("GET /v1/secrets/a/b?version=3", token)
    assert actions(api, token) == [
        ("write", "secrets/a/b", True),
        ("write", "secrets/a/b", True),
        ("read", "secrets/a/b", True),
    ]


# --- DNS providers ---


ROUTE53 = {
    "name": "aws",
    "provider_type": "route53",
    "managed_zones": ["acme.example"],
    "credentials": {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "a-most-secret-key"},
}


def test_a_provider_is_created_without_showing_its_credentials(api: Api, token: str) -> None:
    answer = api.ask("POST /v1/dns/providers", token, ROUTE53)
    assert answer.status_code == 201
    provider = answer.json()
    assert answer.headers["location"] == f"/v1/dns/providers/{provider['id']}"
    assert provider["id"].startswith("dnsp_")
    assert provider == {
        "id": provider["id"],
        "name": "aws",
        "provider_type": "route53",
        "managed_zones": ["acme.example"],
        "is_active": True,
        "config": {},
        "credentials_path": None,
        "verified_at": None,
        "health": {"status": "unknown", "reason": None, "detail": None},
        "created_at": provider["created_at"],
    }
    assert api.ask(f"GET {answer.headers['location']}", token).json() == provider
    assert api.ask("GET /v1/dns/providers", token).json()["data"] == [provider]
    for secret in ("AKIAEXAMPLE", "a-most-secret-key"):
        assert secret not in answer.text
        assert secret not in stored_text(api)


def test_a_refused_provider_does_not_repeat_its_credentials(api: Api, token: str) -> None:
    body = ROUTE53 | {"credentials": {"access_key_id": "AKIAEXAMPLE", "a-most-secret-key": "x"}}
    answer = api.ask("POST /v1/dns/providers", token, ROUTE53 | {"credentials": {"secret_access_key": "hunter2"}})
    assert wrong_fields(answer) == {"credentials.access_key_id": "required"}
    assert "hunter2" not in answer.text
    assert "AKIAEXAMPLE" not in api.ask("POST /v1/dns/providers", token, body).text
    answer = api.ask("POST /v1/dns/providers", token, ROUTE53 | {"credentials": {"access_key_id": ["hunter2"]}})
    assert "hunter2" not in answer.text


def test_credentials_may_stand_in_a_secret(api: Api, token: str) -> None:
    write(api, token, "infra/dns/aws", data=ROUTE53["credentials"], secret_type="json")
    body = {name: value for name, value in ROUTE53.items() if name != "credentials"}
    answer = api.ask("POST /v1/dns/providers", token, body | {"credentials_path": "infra/dns/aws"})
    assert answer.status_code == 201
    assert answer.json()["credentials_path"] == "infra/dns/aws"
    assert "a-most-secret-key" not in answer.text


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"provider_type": "bind"}, {"provider_type": "unknown"}),
        ({"managed_zones": []}, {"managed_zones": "required"}),
        ({"managed_zones": ["acme.example", "a b"]}, {"managed_zones[1]": "invalid_name"}),
        ({"config": {"regoin": "us-east-1"}}, {"config.regoin": "unknown"}),
        ({"config": {"ttl": 0}}, {"config.ttl": "invalid"}),
        ({"config": {"ttl": "60"}}, {"config.ttl": "invalid"}),
        ({"config": {"nameservers": ["ns1"]}}, {"config.nameservers[0]": "invalid"}),
        ({"credentials_path": "a"}, {"credentials_path": "unexpected"}),
        ({"credentials": None, "credentials_path": "nowhere"}, {"credentials_path": "not_found"}),
    ],
)
def test_what_a_provider_cannot_be_is_said_by_field(
    api: Api, token: str, change: dict[str, Any], wrong: dict[str, str]
) -> None:
    assert wrong_fields(api.ask("POST /v1/dns/providers", token, ROUTE53 | change)) == wrong
    assert api.ask("GET /v1/dns/providers", token).json()["data"] == []


def test_a_duration_that_is_none_is_a_400(api: Api, token: str) -> None:
    body = ROUTE53 | {"config": {"propagation_timeout": "soon"}}
    answer = api.ask("POST /v1/dns/providers", token, body)
    assert wrong_fields(answer, 400, "invalid_duration") == {"config.propagation_timeout": "invalid_duration"}


def test_the_name_of_a_provider_is_its_own(api: Api, token: str) -> None:
    connect_provider(api, token, "dns")
    answer = api.ask("POST /v1/dns/providers", token, ROUTE53 | {"name": "dns"})
    assert (answer.status_code, error_code(answer)) == (409, "name_in_use")
    assert len(api.ask("GET /v1/dns/providers", token).json()["data"]) == 1


def test_verifying_tells_the_zones_and_what_is_missing(api: Api, token: str) -> None:
    zone = f"{api.new_id('zone').removeprefix('zone_')}.example"
    body = {"name": "own", "provider_type": "embedded", "managed_zones": [zone]}
    provider_id = api.ask("POST /v1/dns/providers", token, body).json()["id"]
    answer = api.ask(f"POST /v1/dns/providers/{provider_id}/verify", token, {"write_test": True})
    assert answer.status_code == 200
    verification = answer.json()
    assert (verification["verified"], verification["zones"], verification["missing_zones"]) == (
        True,
        [zone],
        [],
    )
    assert [(check["name"], check["ok"]) for check in verification["checks"]] == [
        ("list_zones", True),
        (f"write_test {zone}", True),
    ]
    assert api.ask(f"GET /v1/dns/providers/{provider_id}", token).json()["health"]["status"] == "healthy"
    assert [action for action, _, _ in actions(api, token)] == ["dns_provider_create", "dns_provider_verify"]


# --- accounts ---


ACCOUNT = {
    "name": "le",
    "provider": "custom",
    "environment": "staging",
    "email": "tls@acme.example",
    "directory_url": "https://ca.example/directory",
}


def fake_ca(api: Api) -> FakeCa:
    ca = api.parts.services.accounts._ca
    assert isinstance(ca, FakeCa)
    return ca


def test_an_account_is_registered_before_the_answer(api: Api, token: str) -> None:
    answer = api.ask("POST /v1/pki/acme/accounts", token, ACCOUNT)
    assert answer.status_code == 201
    account = answer.json()
    assert account["id"].startswith("acme_staging_")
    assert answer.headers["location"] == f"/v1/pki/acme/accounts/{account['id']}"
    assert (account["status"], account["email"]) == ("active", "tls@acme.example")
    assert account["account_url"]
    assert set(account["capabilities"]) == {"ari", "profiles", "eab_required", "caa_identities"}
    assert api.ask(f"GET {answer.headers['location']}", token).json() == account
    assert api.ask("GET /v1/pki/acme/accounts", token).json()["data"] == [account]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"provider": "nobody", "directory_url": None}, {"provider": "unknown"}),
        ({"provider": "buypass", "directory_url": None}, {"provider": "discontinued"}),
        ({"provider": "zerossl", "environment": "production", "directory_url": None}, {"eab": "required"}),
        ({"directory_url": None}, {"directory_url": "required"}),
        ({"provider": "letsencrypt"}, {"directory_url": "unexpected"}),
    ],
)
def test_what_an_account_cannot_be_is_said_by_field(
    api: Api, token: str, change: dict[str, Any], wrong: dict[str, str]
) -> None:
    assert wrong_fields(api.ask("POST /v1/pki/acme/accounts", token, ACCOUNT | change)) == wrong
    assert api.ask("GET /v1/pki/acme/accounts", token).json()["data"] == []


def test_what_the_ca_says_no_to_is_said_at_its_field(api: Api, token: str) -> None:
    fake_ca(api).fail("register", refused("invalidContact", "no such domain", 400))
    answer = api.ask("POST /v1/pki/acme/accounts", token, ACCOUNT)
    assert wrong_fields(answer) == {"email": "refused_by_ca"}


def test_a_ca_that_is_away_is_a_502_with_what_it_asked_for(api: Api, token: str) -> None:
    fake_ca(api).fail("capabilities", CaUnavailable("no answer", 30))
    answer = api.ask("POST /v1/pki/acme/accounts", token, ACCOUNT)
    assert (answer.status_code, error_code(answer)) == (502, "backend_error")
    assert answer.headers["retry-after"] == "30"
    assert answer.json()["error"]["retry_after"] == 30


def test_the_name_of_an_account_is_its_own(api: Api, token: str) -> None:
    assert api.ask("POST /v1/pki/acme/accounts", token, ACCOUNT).status_code == 201
    assert error_code(api.ask("POST /v1/pki/acme/accounts", token, ACCOUNT)) == "name_in_use"


# --- orders ---


def place(api: Api, token: str, account_id: str, *domains: str, **more: Any) -> Any:
    body = {"account_id": account_id, "domains": domains or ["www.acme.example"], "challenge_type": "dns-01"}
    return api.ask("POST /v1/pki/acme/issue", token, body | more)


def test_an_order_is_accepted_and_can_be_looked_at(api: Api, token: str) -> None:
    provider_id = connect_provider(api, token)
    account_id = record_account(api)
    answer = place(api, token, account_id, "*.Acme.example", "acme.example")
    assert answer.status_code == 202
    order = answer.json()
    assert order["order_id"].startswith("acme_order_")
    assert answer.headers["location"] == f"/v1/pki/acme/orders/{order['order_id']}"
    assert (order["status"], order["phase"]) == ("pending", "placing")
    assert order["domains"] == ["*.acme.example", "acme.example"]
    assert [challenge["wildcard"] for challenge in order["challenges"]] == [True, False]
    assert {challenge["record_name"] for challenge in order["challenges"]} == {"_acme-challenge.acme.example"}
    assert {challenge["dns_provider_id"] for challenge in order["challenges"]} == {provider_id}
    assert (order["certificate_id"], order["renews"]) == (None, None)
    assert api.ask(f"GET {answer.headers['location']}", token).json() == order


def test_the_same_order_while_it_runs_is_the_running_one(api: Api, token: str) -> None:
    connect_provider(api, token)
    account_id = record_account(api)
    first = place(api, token, account_id, "a.acme.example", "b.acme.example")
    again = place(api, token, account_id, "B.acme.example", "a.acme.example", "a.acme.example")
    assert again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert place(api, token, account_id, "a.acme.example").status_code == 202


@pytest.mark.parametrize(
    ("domains", "more", "wrong"),
    [
        ([], {"domains": []}, {"domains": "required"}),
        (["www.acme.example", "a b", "*.*.example"], {}, {"domains[1]": "invalid_name", "domains[2]": "invalid_name"}),
        (["192.0.2.1"], {}, {"domains[0]": "invalid_name"}),
        (["co.uk"], {}, {"domains[0]": "public_suffix"}),
        (["*.co.uk"], {}, {"domains[0]": "public_suffix"}),
        ([f"{n}.acme.example" for n in range(101)], {}, {"domains": "too_many"}),
        (["acme.example"], {"challenge_type": "http-01"}, {"challenge_type": "unsupported"}),
        (["*.acme.example"], {"challenge_type": "tls-alpn-01"}, {"challenge_type": "unsupported"}),
        (["acme.example"], {"profile": "shortlived"}, {"profile": "unknown"}),
    ],
)
def test_what_no_certificate_can_be_is_said_by_field(
    api: Api, token: str, domains: list[str], more: dict[str, Any], wrong: dict[str, str]
) -> None:
    assert wrong_fields(place(api, token, record_account(api), *domains, **more)) == wrong
    assert api.ask("GET /v1/pki/acme/orders", token).json()["data"] == []


def test_an_order_needs_an_account_and_a_provider_that_are_there(api: Api, token: str) -> None:
    assert error_code(place(api, token, "acme_staging_x")) == "acme_account_not_found"
    answer = place(api, token, record_account(api), dns_provider_id="dnsp_x")
    assert (answer.status_code, error_code(answer)) == (404, "dns_provider_not_found")


def test_a_token_may_be_limited_to_names(api: Api) -> None:
    limited = api.token("pki:issue", limits=Limits(dns_names=("*.acme.example",)))
    account_id = record_account(api)
    assert place(api, limited, account_id, "www.acme.example").status_code == 202
    answer = place(api, limited, account_id, "www.acme.example", "acme.example")
    assert (answer.status_code, error_code(answer)) == (403, "access_denied")
    assert "acme.example" in answer.json()["error"]["message"]


def test_an_order_can_be_cancelled_once(api: Api, token: str) -> None:
    order_id = record_order(api)
    answer = api.ask(f"POST /v1/pki/acme/orders/{order_id}/cancel", token)
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("invalid", "cancelled")
    answer = api.ask(f"POST /v1/pki/acme/orders/{order_id}/cancel", token)
    assert (answer.status_code, error_code(answer)) == (409, "version_conflict")
    assert answer.json()["error"]["details"] == {"order_id": order_id}
    assert [action for action, _, _ in actions(api, token)] == ["acme_order_create", "acme_order_cancel"]


# --- certificates ---


def test_a_certificate_is_one_line_with_its_versions(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, versions=2)
    certificate = api.ask(f"GET /v1/pki/certificates/{certificate_id}", token).json()
    assert (certificate["id"], certificate["version"], certificate["status"]) == (certificate_id, 2, "active")
    assert [version["version"] for version in certificate["versions"]] == [1, 2]
    assert (certificate["serial_number"], certificate["fingerprint_sha256"]) == ("02", "02" * 32)
    assert api.ask("GET /v1/pki/certificates", token).json()["data"] == [certificate]


def test_a_certificate_past_its_time_is_shown_as_expired(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, valid_for=timedelta(0))
    assert api.ask(f"GET /v1/pki/certificates/{certificate_id}", token).json()["status"] == "expired"
    assert [c["status"] for c in api.ask("GET /v1/pki/certificates", token).json()["data"]] == ["expired"]


def test_the_pem_is_that_of_the_newest_version_or_of_the_one_asked_for(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, versions=2)
    newest = api.ask(f"GET /v1/pki/certificates/{certificate_id}/pem", token)
    assert newest.status_code == 200
    assert newest.json() == {
        "certificate_pem": BLOCK.format("leaf 2") + BLOCK.format("issuer"),
        "leaf_pem": BLOCK.format("leaf 2"),
        "chain_pem": BLOCK.format("issuer"),
        "version": 2,
        "serial_number": "02",
        "fingerprint_sha256": "02" * 32,
        "not_after": newest.json()["not_after"],
    }
    older = api.ask(f"GET /v1/pki/certificates/{certificate_id}/pem?version=1", token)
    assert (older.json()["version"], older.json()["leaf_pem"]) == (1, BLOCK.format("leaf 1"))
    for missing in (0, 3, -1, 2**31, 10**20):
        answer = api.ask(f"GET /v1/pki/certificates/{certificate_id}/pem?version={missing}", token)
        assert (answer.status_code, error_code(answer)) == (404, "version_not_found")


def test_a_pem_that_is_known_already_is_not_sent_again(api: Api, token: str) -> None:
    line = f"GET /v1/pki/certificates/{record_certificate(api, versions=2)}/pem"
    etag = api.ask(line, token).headers["etag"]
    for said in (etag, f'"other", {etag}', f"W/{etag}", f'W/"other" ,\t,W/{etag}, "x,y"', f'"a,b",{etag}', "*", " * "):
        answer = api.ask(line, token, headers={"if-none-match": said})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    older = api.ask(f"{line}?version=1", token).headers["etag"]
    bare = api.ask(line, token, headers={"accept": PEM_FILE}).headers["etag"]
    assert len({etag, older, bare}) == 3
    inside = f'"{etag.strip(chr(34))}-and-more"'
    for said in (older, bare, etag.strip('"'), '"x"', inside, f"w/{etag}", f'"x" {etag}', f"{etag}x", '*, "x"', ""):
        assert api.ask(line, token, headers={"if-none-match": said}).status_code == 200


def test_the_bare_file_is_leaf_and_chain(api: Api, token: str) -> None:
    line = f"GET /v1/pki/certificates/{record_certificate(api)}/pem"
    answer = api.ask(line, token, headers={"accept": PEM_FILE})
    assert answer.headers["content-type"].split(";")[0] == PEM_FILE
    assert answer.headers["vary"] == "Accept"
    assert answer.text == BLOCK.format("leaf 1") + BLOCK.format("issuer")
    again = api.ask(line, token, headers={"accept": PEM_FILE, "if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_private_key_is_given_with_its_version_and_kept_by_nobody_on_the_way(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, versions=2)
    line = f"POST /v1/pki/certificates/{certificate_id}/private-key"
    answer = api.ask(line, token)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {"private_key_pem": KEY_PEM.format(2), "version": 2, "key_type": "ec256"}
    assert api.ask(line, token, {"version": 1}).json()["private_key_pem"] == KEY_PEM.format(1)
    answer = api.ask(line, token, {"version": 3})
    assert (answer.status_code, error_code(answer)) == (404, "version_not_found")
    assert "the key of" not in stored_text(api)


def test_each_reading_of_a_private_key_is_on_record(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, versions=2)
    edge = api.token("pki:export", limits=Limits(certificate_ids=(certificate_id,)))
    answer = api.ask(f"POST /v1/pki/certificates/{certificate_id}/private-key", edge, {"version": 1})
    (row,) = api.ask("GET /v1/audit/logs?action=pki_private_key_read", token).json()["logs"]
    assert row["identity_id"] == token_id(edge)
    assert row["resource_path"] == f"pki/certificates/{certificate_id}"
    assert row["extra_data"] == {"version": 1}
    assert row["request_id"] == answer.headers["x-request-id"]
    assert row["success"] is True


def test_a_key_that_was_never_here_cannot_be_given(api: Api, token: str) -> None:
    certificate_id = record_certificate(api, with_key=False)
    answer = api.ask(f"POST /v1/pki/certificates/{certificate_id}/private-key", token)
    assert (answer.status_code, error_code(answer)) == (409, "private_key_not_stored")
    assert "pki_private_key_read" not in [action for action, _, _ in actions(api, token)]


def test_reading_certificates_gives_no_keys(api: Api) -> None:
    certificate_id = record_certificate(api)
    reader = api.token("pki:read")
    assert api.ask(f"GET /v1/pki/certificates/{certificate_id}/pem", reader).status_code == 200
    answer = api.ask(f"POST /v1/pki/certificates/{certificate_id}/private-key", reader)
    assert (answer.status_code, error_code(answer)) == (403, "insufficient_scope")


def test_an_edges_token_is_for_its_one_certificate(api: Api, token: str) -> None:
    mine, other = record_certificate(api), record_certificate(api)
    edge = api.token("pki:read", "pki:export", "pki:issue", limits=Limits(certificate_ids=(mine,)))
    lines = [
        "GET /v1/pki/certificates/{}",
        "GET /v1/pki/certificates/{}/pem",
        "POST /v1/pki/certificates/{}/private-key",
    ]
    for line in lines:
        assert api.ask(line.format(mine), edge).status_code == 200
        answer = api.ask(line.format(other), edge)
        assert (answer.status_code, error_code(answer)) == (403, "access_denied")
    assert api.ask(f"POST /v1/pki/certificates/{other}/renew", edge).status_code == 403
    assert [c["id"] for c in api.ask("GET /v1/pki/certificates", edge).json()["data"]] == [mine]
    assert len(api.ask("GET /v1/pki/certificates", token).json()["data"]) == 2


def test_a_token_for_certain_certificates_sees_no_orders_but_theirs(api: Api, token: str) -> None:
    connect_provider(api, token)
    certificate_id, first = record_certificate(api), record_order(api, name="new.acme.example")
    renewal = api.ask(f"POST /v1/pki/certificates/{certificate_id}/renew", token).json()["order_id"]
    edge = api.token("pki:read", limits=Limits(certificate_ids=(certificate_id,)))
    assert api.ask(f"GET /v1/pki/acme/orders/{renewal}", edge).status_code == 200
    answer = api.ask(f"GET /v1/pki/acme/orders/{first}", edge)
    assert (answer.status_code, error_code(answer)) == (403, "access_denied")
    assert [order["order_id"] for order in api.ask("GET /v1/pki/acme/orders", edge).json()["data"]] == [renewal]


def test_a_token_for_certain_names_sees_nothing_of_others(api: Api) -> None:
    certificate_id, order_id = record_certificate(api), record_order(api)
    inside, outside = (
        api.token("pki:read", "pki:export", limits=Limits(dns_names=(glob,)))
        for glob in ("*.acme.example", "*.other.example")
    )
    for line in (
        f"GET /v1/pki/certificates/{certificate_id}",
        f"GET /v1/pki/certificates/{certificate_id}/pem",
        f"POST /v1/pki/certificates/{certificate_id}/private-key",
        f"GET /v1/pki/acme/orders/{order_id}",
    ):
        assert api.ask(line, inside).status_code == 200
        answer = api.ask(line, outside)
        assert (answer.status_code, error_code(answer)) == (403, "access_denied"), line
    for path in ("/v1/pki/certificates", "/v1/pki/acme/orders"):
        assert api.ask(f"GET {path}", inside).json()["data"]
        assert not api.ask(f"GET {path}", outside).json()["data"]


def test_what_is_not_there_is_not_found(api: Api, token: str) -> None:
    for line in (
        "GET /v1/pki/certificates/cert_x",
        "GET /v1/pki/certificates/cert_x/pem",
        "POST /v1/pki/certificates/cert_x/private-key",
        "POST /v1/pki/certificates/cert_x/renew",
    ):
        answer = api.ask(line, token)
        assert (answer.status_code, error_code(answer)) == (404, "certificate_not_found")


def test_an_id_of_another_kind_is_no_certificate(api: Api, token: str) -> None:
    order_id = record_order(api)
    for line in (f"POST /v1/pki/certificates/{order_id}/private-key", f"POST /v1/pki/certificates/{order_id}/renew"):
        assert error_code(api.ask(line, token)) == "certificate_not_found"
    answer = api.ask(f"POST /v1/pki/acme/orders/{record_certificate(api)}/cancel", token)
    assert error_code(answer) == "acme_order_not_found"


def test_a_renewal_is_an_order_for_the_same_line(api: Api, token: str) -> None:
    connect_provider(api, token)
    certificate_id = record_certificate(api)
    answer = api.ask(f"POST /v1/pki/certificates/{certificate_id}/renew", token, {"reason": "moved"})
    assert answer.status_code == 202
    order = answer.json()
    assert answer.headers["location"] == f"/v1/pki/acme/orders/{order['order_id']}"
    assert (order["renews"], order["certificate_id"]) == (certificate_id, certificate_id)
    assert order["domains"] == ["www.acme.example"]
    again = api.ask(f"POST /v1/pki/certificates/{certificate_id}/renew", token)
    assert order.pop("cost") == {"counts": None, "why": UNKNOWN, "limits": []}
    assert (again.status_code, again.json()) == (200, order | {"cost": None})


def test_a_renewal_waits_for_an_order_of_another_line_for_the_same_names(api: Api, token: str) -> None:
    connect_provider(api, token)
    account_id = record_account(api)
    one, other = (record_certificate(api, account_id=account_id) for _ in range(2))
    running = api.ask(f"POST /v1/pki/certificates/{one}/renew", token).json()["order_id"]
    answer = api.ask(f"POST /v1/pki/certificates/{other}/renew", token)
    assert (answer.status_code, error_code(answer)) == (409, "order_in_progress")
    assert answer.json()["error"]["details"] == {"order_id": running}


# --- forms ---


def test_times_are_in_utc_with_a_z_and_whole_seconds_but_for_the_audit_log(api: Api, token: str) -> None:
    for line in (
        f"GET /v1/pki/certificates/{record_certificate(api)}",
        f"GET /v1/dns/providers/{connect_provider(api, token)}",
        f"GET /v1/pki/acme/accounts/{record_account(api)}",
        f"GET /v1/pki/acme/orders/{record_order(api)}",
    ):
        times = list(times_in(api.ask(line, token).json()))
        assert times
        assert all(len(time) == len("2026-01-01T00:00:00Z") and time.endswith("Z") for time in times), times
    (*_, row) = api.ask("GET /v1/audit/logs", token).json()["logs"]
    assert row["timestamp"].endswith("Z")
    assert "." in row["timestamp"]


def times_in(document: Mapping[str, Any]) -> Sequence[str]:
    return [
        value for name, value in document.items() if name.endswith(("_at", "_after", "_before")) and value is not None
    ]


def test_the_public_routes_say_how_it_is(api: Api) -> None:
    assert api.ask("GET /v1/health").json() == {"status": "ok"}
    assert api.ask("GET /v1/health/ready").json()["status"] == "ready"  # other tests leave renewals undone: an alarm
    assert set(api.ask("GET /v1/version").json()) == {"version"}


def test_a_zone_of_another_tenants_embedded_provider_is_taken(api: Api, token: str, elsewhere: str) -> None:
    stranger = api.token("pki:admin", tenant_id=elsewhere)
    zone = f"{api.new_id('zone').removeprefix('zone_')}.example"
    body = {"name": "own", "provider_type": "embedded", "managed_zones": [zone]}
    assert api.ask("POST /v1/dns/providers", token, body).status_code == 201
    for overlapping in (zone, f"*.{zone}", f"below.{zone}", "example.example"):
        answer = api.ask("POST /v1/dns/providers", stranger, body | {"managed_zones": [overlapping]})
        if overlapping == "example.example":
            assert answer.status_code == 201
        else:
            assert wrong_fields(answer) == {"managed_zones[0]": "taken"}


def test_only_the_first_tenant_uses_the_hosts_role(api: Api, token: str) -> None:
    body = {name: value for name, value in ROUTE53.items() if name != "credentials"}
    assert wrong_fields(api.ask("POST /v1/dns/providers", token, body)) == {"credentials": "required"}


def test_what_is_known_may_stand_in_more_than_one_header(api: Api, token: str) -> None:
    line = f"/v1/pki/certificates/{record_certificate(api)}/pem"
    etag = api.ask(f"GET {line}", token).headers["etag"]

    def status(*tags: str) -> int:
        headers = [("authorization", f"Bearer {token}"), *(("if-none-match", tag) for tag in tags)]
        answer = api.run(api.client.get(line, headers=headers))
        return int(answer.status_code)

    assert status('"other"', f"W/{etag}") == 304
    assert status('"other"', '"another"') == 200

"""Certificate, chain and key of one version in one answer."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from application.secret_value import SecretValue
from domain.token import SCOPES, Limits
from interfaces.http.bundles import MEDIA_TYPES
from tests.interfaces.http import client
from tests.interfaces.http.client import Api, error_code, record_certificate, stored_text, token_id, wrong_fields
from tests.interfaces.http.test_waiting import Line
from tests.lines import leaf_key_of, public_key_of

PASSWORD = "correct horse"


@pytest.fixture
def token(api: Api) -> str:
    return api.token(*SCOPES)


@pytest.fixture
def line(api: Api) -> Line:
    """With two versions."""
    line = Line(api)
    line.renew()
    return line


def bundle(api: Api, token: str, certificate_id: str, **body: Any) -> httpx.Response:
    return api.ask(f"POST /v1/pki/certificates/{certificate_id}/bundle", token, body)


def test_a_bundle_is_of_the_newest_version_or_of_the_one_asked_for(api: Api, token: str, line: Line) -> None:
    newest = bundle(api, token, line.id)
    without_a_body = api.ask(f"POST /v1/pki/certificates/{line.id}/bundle", token)
    assert newest.status_code == without_a_body.status_code == 200
    assert newest.json() == without_a_body.json() == bundle(api, token, line.id, version=2).json()
    older = bundle(api, token, line.id, version=1).json()
    for number, answer in ((2, newest.json()), (1, older)):
        pem = api.ask(f"GET /v1/pki/certificates/{line.id}/pem?version={number}", token).json()
        key = api.ask(f"POST /v1/pki/certificates/{line.id}/private-key", token, {"version": number}).json()
        assert answer == {**pem, **key}
        assert leaf_key_of(answer["leaf_pem"]) == public_key_of(SecretValue(answer["private_key_pem"]))
    for missing in (0, 3, -1, 2**31, 2**62):
        answer = bundle(api, token, line.id, version=missing)
        assert (answer.status_code, error_code(answer)) == (404, "version_not_found")


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_each_form_says_what_it_is_and_is_kept_by_nobody_on_the_way(
    api: Api, token: str, line: Line, form: Any
) -> None:
    password = {"password": PASSWORD} if form in {"pkcs12", "jks"} else {}
    answer = bundle(api, token, line.id, format=form, version=1, **password)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == MEDIA_TYPES[form]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-scaivault-version"] == "1"
    assert "PRIVATE KEY" not in stored_text(api)
    assert PASSWORD not in stored_text(api)


def test_the_bare_files_are_read_by_openssl(api: Api, token: str, line: Line, tmp_path: Path) -> None:
    everything = bundle(api, token, line.id).json()
    pem = bundle(api, token, line.id, format="pem").text
    assert pem == everything["private_key_pem"] + everything["certificate_pem"]
    path = tmp_path / "edge.p12"
    path.write_bytes(bundle(api, token, line.id, format="pkcs12", password=PASSWORD, alias="edge").content)
    command = ["openssl", "pkcs12", "-in", str(path), "-passin", f"pass:{PASSWORD}", "-nodes"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert everything["private_key_pem"] in told
    assert everything["leaf_pem"] in told
    assert "friendlyName: edge" in told


def test_each_bundle_is_on_record_as_a_reading_of_the_key(api: Api, token: str, line: Line) -> None:
    edge = api.token("pki:export", limits=Limits(certificate_ids=(line.id,)))
    answer = bundle(api, edge, line.id, version=1)
    (row,) = api.ask("GET /v1/audit/logs?action=pki_private_key_read", token).json()["logs"]
    assert (row["identity_id"], row["resource_path"]) == (token_id(edge), f"pki/certificates/{line.id}")
    assert (row["extra_data"], row["request_id"]) == ({"version": 1}, answer.headers["x-request-id"])


def test_where_it_cannot_be_put_on_record_nothing_is_given(
    api: Api, token: str, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(api.parts.store, "record", refuse)
    answer = bundle(api, token, line.id)
    assert (answer.status_code, error_code(answer)) == (500, "internal_error")
    assert "PRIVATE KEY" not in answer.text


def test_a_file_that_has_a_password_needs_one_and_others_take_none(api: Api, token: str, line: Line) -> None:
    for form in ("pkcs12", "jks"):
        assert wrong_fields(bundle(api, token, line.id, format=form)) == {"password": "required"}
    for form in ("json", "pem"):
        answer = bundle(api, token, line.id, format=form, password=PASSWORD, alias="edge")
        assert wrong_fields(answer) == {"password": "not_taken", "alias": "not_taken"}
    assert "pki_private_key_read" not in [action for action, _, _ in client.actions(api, token)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", "seven77"),
        ("password", "x" * 129),
        ("password", "passwörter"),
        ("password", "with\ttab\t"),
        ("password", "password\n"),
        ("alias", ""),
        ("alias", "x" * 65),
        ("alias", "a b"),
        ("alias", "edge\n"),
        ("alias", "ä"),
        ("format", "der"),
        ("format", "PEM"),
        ("version", "1"),
        ("version", 1.5),
    ],
)
def test_what_no_program_would_take_is_refused(api: Api, token: str, line: Line, field: str, value: Any) -> None:
    answer = bundle(api, token, line.id, **{"format": "pkcs12", "password": PASSWORD, field: value})
    assert wrong_fields(answer, 400, "invalid_request") == {field: "shape"}


def test_who_may_read_certificates_gets_no_bundle(api: Api, line: Line) -> None:
    answer = bundle(api, api.token("pki:read"), line.id)
    assert (answer.status_code, error_code(answer)) == (403, "insufficient_scope")
    for limits in (Limits(certificate_ids=("cert_other",)), Limits(dns_names=("*.other.example",))):
        limited = api.token("pki:export", limits=limits)
        for query in ("", "?after=0", "?after=9&wait=60"):
            answer = api.ask(f"POST /v1/pki/certificates/{line.id}/bundle{query}", limited)
            assert (answer.status_code, error_code(answer)) == (403, "access_denied")


def test_what_is_not_there_has_no_bundle(api: Api, token: str, elsewhere: str) -> None:
    theirs = record_certificate(api, elsewhere)
    for certificate_id in ("cert_x", theirs):
        for query in ("", "?after=0", "?after=9&wait=60"):
            answer = api.ask(f"POST /v1/pki/certificates/{certificate_id}/bundle{query}", token)
            assert (answer.status_code, error_code(answer)) == (404, "certificate_not_found")


def test_a_key_that_was_never_here_is_in_no_bundle(api: Api, token: str) -> None:
    answer = bundle(api, token, record_certificate(api, with_key=False))
    assert (answer.status_code, error_code(answer)) == (409, "private_key_not_stored")

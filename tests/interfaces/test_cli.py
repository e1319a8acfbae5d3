from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from application.secret_value import SecretValue
from application.tokens import NotAuthenticated
from domain.provenance import DEFAULT_TENANT
from domain.token import SCOPES, Limits, Token
from interfaces import main as wiring
from interfaces.parts import Parts
from interfaces.settings import settings_from
from projections.catch_up import catch_up
from projections.views import FOLLOWING, INLINE

KEY = base64.b64encode(bytes(range(32))).decode()
VIEWS = [*(view.name for view in (*INLINE, *FOLLOWING)), "todo"]


class Said(NamedTuple):
    code: int
    out: str
    err: str


Scaivault = Callable[..., Said]


@pytest.fixture
def environment(database: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database, "SCAIVAULT_MASTER_KEY": f"test:{KEY}", "SCAIVAULT_LOG_FORMAT": "json"}


@pytest.fixture
def scaivault(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Scaivault:
    """The command line as it is typed, in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(wiring, "set_up_logs", lambda _: None)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["scaivault", *words])
        try:
            code: object = wiring.main()
        except SystemExit as end:
            code = end.code
        assert isinstance(code, int)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def parts(environment: Mapping[str, str]) -> Iterator[Parts]:
    with wiring.assemble(settings_from(environment)) as assembled:
        yield assembled


def token_id(token: str) -> str:
    return "tok_" + token.split("_")[1]


def create(scaivault: Scaivault, *more: str, scopes: str = "pki:read") -> str:
    said = scaivault("token", "create", "--scopes", scopes, *more)
    assert said.code == 0, said.err
    return said.out.strip()


# --- token create ---


def test_a_new_token_is_all_that_is_printed(scaivault: Scaivault, parts: Parts) -> None:
    code, out, err = scaivault("token", "create", "--scopes", "pki:issue pki:admin")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    caller = parts.tokens.authenticate(SecretValue(out.strip()), "req_1", None, None)
    assert caller.scopes == ("pki:issue", "pki:admin")
    assert caller.tenant_id == DEFAULT_TENANT
    assert caller.limits == Limits()


def test_it_lasts_ninety_days_unless_said_otherwise(scaivault: Scaivault, parts: Parts) -> None:
    for more, lasts in (([], timedelta(days=90)), (["--expires", "12h"], timedelta(hours=12))):
        token = parts.store.load(Token, token_id(create(scaivault, *more)))
        assert abs(token.expires_at - datetime.now(UTC) - lasts) < timedelta(minutes=5)


def test_it_may_have_a_name_a_tenant_and_limits(scaivault: Scaivault, parts: Parts) -> None:
    limits = ["--dns-names", "*.acme.example, acme.example", "--certificates", "cert_1", "--networks", "10.0.0.0/8,::1"]
    token = create(scaivault, "--name", "edge 7", "--tenant", "tnt_acme", *limits)
    caller = parts.tokens.authenticate(SecretValue(token), "req_1", None, None)
    assert caller.tenant_id == "tnt_acme"
    assert caller.limits == Limits(("*.acme.example", "acme.example"), ("cert_1",), ("10.0.0.0/8", "::1/128"))
    (shown,) = json.loads(scaivault("token", "list", "--tenant", "tnt_acme", "--json").out)["tokens"]
    assert (shown["name"], shown["scopes"]) == ("edge 7", ["pki:read"])


@pytest.mark.parametrize("scopes", ["admin pki:read", "pki:read,admin", " admin,  pki:read admin "])
def test_scopes_are_separated_by_spaces_or_commas(scaivault: Scaivault, parts: Parts, scopes: str) -> None:
    token = parts.store.load(Token, token_id(create(scaivault, scopes=scopes)))
    assert token.scopes == ("pki:read", "admin")


@pytest.mark.parametrize(
    "words", [["--json", "token", "create"], ["token", "--json", "create"], ["token", "create", "--json"]]
)
def test_json_may_be_asked_for_anywhere(scaivault: Scaivault, words: Sequence[str]) -> None:
    code, out, err = scaivault(*words, "--scopes", "admin")
    assert (code, err) == (0, "")
    assert list(json.loads(out)) == ["token"]


def test_who_made_it_is_on_record_and_the_token_is_not(scaivault: Scaivault, parts: Parts) -> None:
    token = create(scaivault)
    (recorded,) = parts.history.read(0, 10)
    assert (recorded.by.identity_type, recorded.by.tenant_id) == ("operator", DEFAULT_TENANT)
    with parts.pool.connection() as connection:
        rows = connection.execute(
            "SELECT state::text FROM events UNION ALL SELECT document::text FROM tokens"
        ).fetchall()
    assert token.rpartition("_")[2] not in str(rows)


# --- what makes no sense ---


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ([], "command"),
        (["nonsense"], "nonsense"),
        (["token"], "token_command"),
        (["token", "create"], "--scopes"),
        (["token", "create", "--scopes", "pki:isue"], "no such scope: pki:isue; there are pki:read"),
        (["token", "create", "--scopes", ""], "no such scope"),
        (["token", "create", "--scopes", "admin", "--expires", "soon"], "a duration is a whole number"),
        (["token", "create", "--scopes", "admin", "--expires", "101y"], "a duration is a whole number"),
        (["token", "create", "--scopes", "admin", "--expires", "99999d"], "longer than a hundred years"),
        (["token", "create", "--scopes", "admin", "--networks", "10.0.0.1/8"], "host bits"),
        (["token", "create", "--scopes", "admin", "--networks", "office"], "office"),
        (["token", "create", "--scopes", "admin", "--colour", "red"], "--colour"),
        (["token", "revoke"], "token_id"),
        (["rebuild", "nonsense"], "nonsense"),
        (["rebuild", "tokens", "nonsense"], "nonsense"),
        (["migrate", "--verify"], "--verify"),
    ],
)
def test_what_makes_no_sense_is_told_and_ends_with_5(scaivault: Scaivault, words: Sequence[str], about: str) -> None:
    code, out, err = scaivault(*words)
    assert (code, out) == (5, "")
    assert about in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words", [["--help"], ["token", "--help"], ["token", "create", "--help"], ["rebuild", "--help"]]
)
def test_help_is_there(scaivault: Scaivault, words: Sequence[str]) -> None:
    code, out, err = scaivault(*words)
    assert (code, err) == (0, "")
    assert "usage: scaivault" in out


# --- token list and revoke ---


def test_the_list_is_the_tenants_own_and_shows_no_token(scaivault: Scaivault) -> None:
    tokens = [create(scaivault, "--name", name) for name in ("first", "second")]
    other = create(scaivault, "--tenant", "tnt_acme")
    code, out, _ = scaivault("token", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [token_id(token) for token in tokens]
    assert [line.split()[-1] for line in out.splitlines()] == ["first", "second"]
    shown = out + scaivault("token", "list", "--json").out
    assert not any(token.rpartition("_")[2] in shown for token in (*tokens, other))
    assert [line.split()[0] for line in scaivault("token", "list", "--tenant", "tnt_acme").out.splitlines()] == [
        token_id(other)
    ]


def test_nothing_to_list_is_nothing(scaivault: Scaivault) -> None:
    assert scaivault("token", "list") == (0, "", "")
    assert json.loads(scaivault("token", "list", "--json").out) == {"tokens": []}


def test_a_revoked_token_ends_at_once(scaivault: Scaivault, parts: Parts) -> None:
    token = create(scaivault)
    assert scaivault("token", "revoke", token_id(token)) == (0, f"revoked {token_id(token)}\n", "")
    with pytest.raises(NotAuthenticated) as refused:
        parts.tokens.authenticate(SecretValue(token), "req_1", None, None)
    assert refused.value.code == "token_revoked"
    assert " revoked " in scaivault("token", "list").out
    again = scaivault("token", "revoke", token_id(token), "--json")
    assert (again.code, json.loads(again.out)) == (0, {"revoked": token_id(token)})
    assert len(parts.history.read(0, 10)) == 2


def test_a_revocation_is_on_record_where_the_token_belongs(scaivault: Scaivault, parts: Parts) -> None:
    token = create(scaivault, "--tenant", "tnt_acme")
    scaivault("token", "revoke", token_id(token))
    assert [recorded.by.tenant_id for recorded in parts.history.read(0, 10)] == ["tnt_acme", "tnt_acme"]


@pytest.mark.parametrize("unknown", ["tok_unknown", "x", ""])
def test_a_token_that_is_not_there_ends_with_4(scaivault: Scaivault, unknown: str) -> None:
    code, out, err = scaivault("token", "revoke", unknown)
    assert code == 4
    assert "does not exist" in out + err
    assert "error" in json.loads(scaivault("token", "revoke", unknown, "--json").out)


# --- migrate ---


def test_migrating_what_is_migrated_does_nothing(scaivault: Scaivault) -> None:
    assert scaivault("migrate") == (0, "nothing to do\n", "")
    assert json.loads(scaivault("migrate", "--json").out) == {"done": []}


def test_migrating_an_empty_database_makes_all_of_it(scaivault: Scaivault, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    done = json.loads(scaivault("migrate", "--json").out)["done"]
    assert [line for line in done if line.startswith("built ")] == [f"built {view}" for view in VIEWS if view != "todo"]
    assert scaivault("migrate").out == "nothing to do\n"
    assert create(scaivault)


@pytest.mark.parametrize("words", [["token", "create", "--scopes", "admin"], ["token", "list"], ["rebuild"]])
def test_before_that_all_others_say_what_is_missing(scaivault: Scaivault, database: str, words: Sequence[str]) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    code, out, err = scaivault(*words)
    assert (code, out) == (1, "")
    assert err == "scaivault: the database is not migrated: run scaivault migrate\n"


# --- rebuild ---


def test_a_view_that_differs_from_its_events_is_found_and_made_anew(scaivault: Scaivault, parts: Parts) -> None:
    tokens = [create(scaivault) for _ in range(3)]
    with parts.pool.connection() as connection:
        connection.execute("DELETE FROM tokens WHERE id = %s", [token_id(tokens[1])])
    code, out, err = scaivault("rebuild", "--verify")
    assert (code, err) == (1, "")
    assert "tokens: 3 rows, 0 only live, 1 only rebuilt\n" in out
    assert out.count(", equal\n") == len(VIEWS) - 1
    assert len(scaivault("token", "list").out.splitlines()) == 2
    assert scaivault("rebuild", "tokens") == (0, "rebuilt tokens\n", "")
    assert len(scaivault("token", "list").out.splitlines()) == 3
    assert scaivault("rebuild", "--verify").code == 0


def test_all_views_can_be_made_anew_at_once(scaivault: Scaivault, parts: Parts) -> None:
    create(scaivault)
    for follower, read in parts.followers:
        catch_up(parts.pool, follower, read)
    with parts.pool.connection() as connection:
        before = connection.execute("SELECT document::text FROM audit_log").fetchall()
    assert json.loads(scaivault("rebuild", "--json").out) == {"rebuilt": VIEWS}
    with parts.pool.connection() as connection:
        assert connection.execute("SELECT document::text FROM audit_log").fetchall() == before
    said = scaivault("rebuild", "--verify", "--json")
    assert said.code == 0
    assert [view["name"] for view in json.loads(said.out)["views"]] == VIEWS


def test_only_the_views_named_are_compared(scaivault: Scaivault) -> None:
    assert scaivault("rebuild", "--verify", "orders", "todo").out.splitlines() == [
        "orders: 0 rows, equal",
        "todo: 0 rows, equal",
    ]


# --- the program itself ---


def test_the_installed_program_does_the_same(environment: Mapping[str, str], parts: Parts) -> None:
    program = str(Path(sys.executable).with_name("scaivault"))

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        passed = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            [program, *words],
            env={**passed, **environment, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    created = run("token", "create", "--scopes", " ".join(SCOPES))
    assert (created.returncode, created.stderr) == (0, "")
    token = created.stdout.removesuffix("\n")
    assert parts.tokens.authenticate(SecretValue(token), "req_1", None, None).scopes == SCOPES
    refused = run("serve", SCAIVAULT_BIND="0.0.0.0:80")
    assert (refused.returncode, refused.stdout) == (78, "")
    assert refused.stderr.startswith("scaivault: SCAIVAULT_BIND: ")

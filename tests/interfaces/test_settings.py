from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.secret_value import SecretValue
from interfaces import main as wiring
from interfaces.sealing.master_keys import MasterKey
from interfaces.settings import EXIT_CODE, BadSetting, Settings, settings_from

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
URL = "postgresql://scaivault:hunter2@db.example/scaivault"
NAMES = {
    "DATABASE_URL",
    "SCAIVAULT_DATA_DIR",
    "SCAIVAULT_BIND",
    "SCAIVAULT_BASE_URL",
    "SCAIVAULT_TLS_CERT_FILE",
    "SCAIVAULT_TLS_KEY_FILE",
    "SCAIVAULT_ALLOW_PLAIN_HTTP",
    "SCAIVAULT_MASTER_KEY_FILE",
    "SCAIVAULT_MASTER_KEY",
    "SCAIVAULT_PREVIOUS_MASTER_KEYS",
    "SCAIVAULT_DNS_BIND",
    "SCAIVAULT_DNS_RESOLVERS",
    "SCAIVAULT_EGRESS_ALLOW",
    "SCAIVAULT_WORKERS",
    "SCAIVAULT_POSTGRES_BIN",
    "SCAIVAULT_LOG_LEVEL",
    "SCAIVAULT_LOG_FORMAT",
}


def refused(environment: Mapping[str, str]) -> BadSetting:
    with pytest.raises(BadSetting) as caught:
        settings_from(environment)
    return caught.value


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, str]:
    """Files that settings may name."""
    for name, mode, text in (("cert.pem", 0o644, ""), ("key.pem", 0o600, ""), ("master.key", 0o600, f"mk-2:{KEY}\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    return {name: str(tmp_path / name) for name in ("cert.pem", "key.pem", "master.key")} | {"folder": str(tmp_path)}


# --- each setting ---


def test_nothing_has_to_be_set() -> None:
    settings = settings_from({})
    data_dir = Path("/var/lib/scaivault") if os.geteuid() == 0 else Path.home() / ".local/share/scaivault"
    assert settings == Settings(
        database_url=None,
        data_dir=data_dir,
        bind=("127.0.0.1", 8443),
        base_url="http://127.0.0.1:8443",
        tls_cert_file=None,
        tls_key_file=None,
        master_key=None,
        previous_master_keys=[],
        dns_bind=None,
        dns_resolvers=[],
        egress_allow=[],
        workers=16,
        postgres_bin=None,
        log_level="info",
        log_format="console" if sys.stderr.isatty() else "json",
    )
    assert settings.master_key_file == data_dir / "master.key"


def test_a_user_who_is_not_root_has_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert settings_from({"HOME": "/home/ada"}).data_dir == Path("/home/ada/.local/share/scaivault")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_an_empty_value_is_as_good_as_none(name: str) -> None:
    assert settings_from({name: ""}) == settings_from({})


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("SCAIVAULT_DATA_DIR", "/srv/scaivault", "data_dir", Path("/srv/scaivault")),
        ("SCAIVAULT_BIND", "[::1]:443", "bind", ("::1", 443)),
        ("SCAIVAULT_BIND", "localhost:1", "bind", ("localhost", 1)),
        ("SCAIVAULT_BASE_URL", "https://vault.acme.example", "base_url", "https://vault.acme.example"),
        ("SCAIVAULT_MASTER_KEY", f"mk-1:{KEY}", "master_key", MasterKey("mk-1", SecretValue(bytes(range(32))))),
        (
            "SCAIVAULT_PREVIOUS_MASTER_KEYS",
            f"mk-1:{KEY}, mk-0:{OTHER_KEY},",
            "previous_master_keys",
            [MasterKey("mk-1", SecretValue(bytes(range(32)))), MasterKey("mk-0", SecretValue(bytes(range(1, 33))))],
        ),
        ("SCAIVAULT_DNS_BIND", "0.0.0.0:53", "dns_bind", ("0.0.0.0", 53)),
        (
            "SCAIVAULT_DNS_RESOLVERS",
            "192.0.2.1:53, [2001:db8::1]:5353",
            "dns_resolvers",
            ["192.0.2.1:53", "[2001:db8::1]:5353"],
        ),
        (
            "SCAIVAULT_EGRESS_ALLOW",
            "10.0.0.0/8, 192.168.1.7,fd00::/8",
            "egress_allow",
            [ip_network("10.0.0.0/8"), ip_network("192.168.1.7/32"), ip_network("fd00::/8")],
        ),
        ("SCAIVAULT_WORKERS", "1", "workers", 1),
        ("SCAIVAULT_WORKERS", "64", "workers", 64),
        ("SCAIVAULT_LOG_LEVEL", "debug", "log_level", "debug"),
        ("SCAIVAULT_LOG_LEVEL", "WARNING", "log_level", "warning"),
        ("SCAIVAULT_LOG_FORMAT", "json", "log_format", "json"),
        ("SCAIVAULT_LOG_FORMAT", "Console", "log_format", "console"),
    ],
)
def test_a_good_value_is_taken(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(settings_from({name: text}), field) == value


def test_files_and_folders_that_are_there_are_taken(files: Mapping[str, str]) -> None:
    settings = settings_from(
        {
            "SCAIVAULT_TLS_CERT_FILE": files["cert.pem"],
            "SCAIVAULT_TLS_KEY_FILE": files["key.pem"],
            "SCAIVAULT_MASTER_KEY_FILE": files["master.key"],
            "SCAIVAULT_POSTGRES_BIN": files["folder"],
            "SCAIVAULT_DATA_DIR": files["folder"],
        }
    )
    assert (settings.tls_cert_file, settings.tls_key_file) == (Path(files["cert.pem"]), Path(files["key.pem"]))
    assert settings.base_url == "https://127.0.0.1:8443"
    assert settings.master_key == MasterKey("mk-2", SecretValue(bytes(range(32))))
    assert (settings.postgres_bin, settings.data_dir) == (Path(files["folder"]), Path(files["folder"]))


@pytest.mark.parametrize("url", [URL, "postgres://db.example/", "host=/run/postgresql dbname=scaivault", "dbname=x"])
def test_a_database_is_named_by_a_url_or_by_words(url: str) -> None:
    settings = settings_from({"DATABASE_URL": url, "SCAIVAULT_MASTER_KEY": f"mk-1:{KEY}"})
    assert settings.database_url == SecretValue(url)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", "postgresql//scaivault:hunter2@db.example/scaivault"),
        ("DATABASE_URL", "mysql://scaivault:hunter2@db.example/scaivault"),
        ("DATABASE_URL", "host=db.example passwort=hunter2"),
        ("SCAIVAULT_DATA_DIR", "cert.pem"),
        ("SCAIVAULT_BIND", "8443"),
        ("SCAIVAULT_BIND", ":8443"),
        ("SCAIVAULT_BIND", "127.0.0.1"),
        ("SCAIVAULT_BIND", "127.0.0.1:0"),
        ("SCAIVAULT_BIND", "127.0.0.1:65536"),
        ("SCAIVAULT_BIND", "::1:8443"),
        ("SCAIVAULT_BASE_URL", "vault.acme.example"),
        ("SCAIVAULT_BASE_URL", "ftp://vault.acme.example"),
        ("SCAIVAULT_BASE_URL", "https://"),
        ("SCAIVAULT_BASE_URL", "https://[::1"),
        ("SCAIVAULT_TLS_CERT_FILE", "/nowhere/cert.pem"),
        ("SCAIVAULT_TLS_KEY_FILE", "/"),
        ("SCAIVAULT_ALLOW_PLAIN_HTTP", "yes"),
        ("SCAIVAULT_MASTER_KEY", KEY),
        ("SCAIVAULT_MASTER_KEY", f"mk 1:{KEY}"),
        ("SCAIVAULT_MASTER_KEY", f"mk-1:{KEY[:-4]}"),
        ("SCAIVAULT_MASTER_KEY", f"mk-1:{KEY}{KEY}"),
        ("SCAIVAULT_MASTER_KEY", "mk-1:hunter2!"),
        ("SCAIVAULT_MASTER_KEY", "mk-1:ünter2"),
        ("SCAIVAULT_MASTER_KEY_FILE", "/nowhere/master.key"),
        ("SCAIVAULT_MASTER_KEY_FILE", "cert.pem"),
        ("SCAIVAULT_MASTER_KEY_FILE", "key.pem"),
        ("SCAIVAULT_MASTER_KEY_FILE", "folder"),
        ("SCAIVAULT_PREVIOUS_MASTER_KEYS", f"mk-1:{KEY},hunter2"),
        ("SCAIVAULT_DNS_BIND", "53"),
        ("SCAIVAULT_DNS_RESOLVERS", "192.0.2.1"),
        ("SCAIVAULT_DNS_RESOLVERS", "dns.example:53"),
        ("SCAIVAULT_DNS_RESOLVERS", "192.0.2.1:53 192.0.2.2:53"),
        ("SCAIVAULT_EGRESS_ALLOW", "10.0.0.1/8"),
        ("SCAIVAULT_EGRESS_ALLOW", "10.0.0.0/33"),
        ("SCAIVAULT_EGRESS_ALLOW", "10.0.0.0/8;fd00::/8"),
        ("SCAIVAULT_EGRESS_ALLOW", "internal"),
        ("SCAIVAULT_WORKERS", "0"),
        ("SCAIVAULT_WORKERS", "-1"),
        ("SCAIVAULT_WORKERS", "16.0"),
        ("SCAIVAULT_WORKERS", "many"),
        ("SCAIVAULT_WORKERS", "1" * 5000),
        ("SCAIVAULT_POSTGRES_BIN", "/nowhere"),
        ("SCAIVAULT_POSTGRES_BIN", "cert.pem"),
        ("SCAIVAULT_LOG_LEVEL", "trace"),
        ("SCAIVAULT_LOG_FORMAT", "text"),
    ],
)
def test_a_bad_value_stops_the_start_and_names_its_variable(files: Mapping[str, str], name: str, text: str) -> None:
    problem = refused({name: files.get(text, text)})
    assert problem.name == name
    assert str(problem).startswith(f"{name}: ")
    assert "hunter2" not in str(problem)
    assert KEY[:-4] not in str(problem)
    assert problem.__cause__ is None
    assert problem.__suppress_context__


def test_a_master_key_that_others_may_read_is_none(files: Mapping[str, str]) -> None:
    Path(files["master.key"]).chmod(0o640)
    problem = refused({"SCAIVAULT_MASTER_KEY_FILE": files["master.key"]})
    assert "0600" in str(problem)
    assert KEY not in str(problem)


@settings(deadline=None)
@given(
    st.sampled_from(["DATABASE_URL", "SCAIVAULT_MASTER_KEY", "SCAIVAULT_PREVIOUS_MASTER_KEYS"]),
    st.text(st.characters(exclude_characters=":"), min_size=1),
)
def test_whatever_stands_where_a_secret_belongs_is_not_repeated(name: str, text: str) -> None:
    """But for what stands before a colon: the id of a key."""
    said = ""
    try:
        settings_from({name: f"hunter2{text}"})
    except BadSetting as problem:
        said = str(problem)
    assert "hunter2" not in said


# --- settings that contradict each other ---


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "vault.acme.example", "127.1"])
def test_plain_http_beyond_loopback_is_refused(files: Mapping[str, str], host: str) -> None:
    bind = {"SCAIVAULT_BIND": f"{host}:8443"}
    assert refused(bind).name == "SCAIVAULT_BIND"
    assert refused(bind | {"SCAIVAULT_ALLOW_PLAIN_HTTP": "0"}).name == "SCAIVAULT_BIND"
    assert settings_from(bind | {"SCAIVAULT_ALLOW_PLAIN_HTTP": "1"}).base_url == f"http://{host}:8443"
    tls = {"SCAIVAULT_TLS_CERT_FILE": files["cert.pem"], "SCAIVAULT_TLS_KEY_FILE": files["key.pem"]}
    assert settings_from(bind | tls).base_url == f"https://{host}:8443"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_plain_http_on_loopback_is_not(host: str) -> None:
    assert settings_from({"SCAIVAULT_BIND": f"{host}:1"}).base_url == f"http://{host}:1"


def test_a_certificate_and_its_key_are_set_together(files: Mapping[str, str]) -> None:
    assert refused({"SCAIVAULT_TLS_CERT_FILE": files["cert.pem"]}).name == "SCAIVAULT_TLS_KEY_FILE"
    assert refused({"SCAIVAULT_TLS_KEY_FILE": files["key.pem"]}).name == "SCAIVAULT_TLS_CERT_FILE"


def test_a_database_of_ones_own_needs_a_master_key(files: Mapping[str, str]) -> None:
    assert refused({"DATABASE_URL": URL}).name == "SCAIVAULT_MASTER_KEY_FILE"
    assert settings_from({"DATABASE_URL": URL, "SCAIVAULT_MASTER_KEY": f"mk-1:{KEY}"}).master_key is not None
    assert settings_from({"DATABASE_URL": URL, "SCAIVAULT_MASTER_KEY_FILE": files["master.key"]}).master_key is not None


def test_a_master_key_is_given_once(files: Mapping[str, str]) -> None:
    both = {"SCAIVAULT_MASTER_KEY_FILE": files["master.key"], "SCAIVAULT_MASTER_KEY": f"mk-1:{KEY}"}
    assert refused(both).name == "SCAIVAULT_MASTER_KEY"


def test_settings_show_no_secret() -> None:
    settings = settings_from(
        {
            "DATABASE_URL": URL,
            "SCAIVAULT_MASTER_KEY": f"mk-1:{KEY}",
            "SCAIVAULT_PREVIOUS_MASTER_KEYS": f"mk-0:{OTHER_KEY}",
        }
    )
    assert "hunter2" not in repr(settings)
    assert KEY not in repr(settings)
    assert OTHER_KEY not in repr(settings)
    assert repr(bytes(range(32))) not in repr(settings)


# --- the exit code ---


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], int]:
    def started(environment: Mapping[str, str]) -> int:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["scaivault", "token", "list"])
        return wiring.main()

    return started


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"SCAIVAULT_BIND": "0.0.0.0:80"}, "SCAIVAULT_BIND"),
        ({"DATABASE_URL": URL}, "SCAIVAULT_MASTER_KEY_FILE"),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL"),
        ({"SCAIVAULT_WORKERS": "none"}, "SCAIVAULT_WORKERS"),
        ({"SCAIVAULT_MASTER_KEY": "mk-1:hunter2"}, "SCAIVAULT_MASTER_KEY"),
    ],
)
def test_a_setting_that_forbids_the_start_ends_it_with_78(
    start: Callable[[Mapping[str, str]], int],
    capsys: pytest.CaptureFixture[str],
    environment: Mapping[str, str],
    name: str,
) -> None:
    assert start(environment) == EXIT_CODE == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"scaivault: {name}: ")
    assert said.err.count("\n") == 1
    assert "hunter2" not in said.err

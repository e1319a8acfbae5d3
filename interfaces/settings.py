"""The settings: read once from the environment, checked, and then fixed.

A value that is no good stops the start, and so does one that contradicts another: a certificate without its key, or a
master key given twice."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Literal, TypeVar, get_args
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from application.provider_config import host_and_port
from application.secret_value import SecretValue
from interfaces.egress import Network
from interfaces.sealing.master_keys import MasterKey, parse_master_key, parse_master_keys, read_master_key_file

T = TypeVar("T")

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]

EXIT_CODE = 78  # EX_CONFIG of sysexits.h


class BadSetting(Exception):
    """A setting that forbids the start. Its value is never repeated: it may be a secret."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class Settings(msgspec.Struct, frozen=True):
    """`database_url` None: the embedded PostgreSQL. `master_key` None: the embedded mode makes one."""

    database_url: SecretValue | None
    data_dir: Path
    bind: tuple[str, int]
    base_url: str
    tls_cert_file: Path | None
    tls_key_file: Path | None
    master_key: MasterKey | None
    previous_master_keys: Sequence[MasterKey]
    dns_bind: tuple[str, int] | None
    dns_resolvers: Sequence[str]
    egress_allow: Sequence[Network]
    workers: int
    postgres_bin: Path | None
    log_level: LogLevel
    log_format: LogFormat

    @property
    def master_key_file(self) -> Path:
        """Where the embedded mode keeps the key it made."""
        return self.data_dir / "master.key"


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Raises BadSetting, which names the variable."""

    def read(name: str, parse: Callable[[str], T], default: T) -> T:
        text = environment.get(name, "")
        if not text:
            return default
        try:
            return parse(text)
        except (ValueError, OSError) as problem:
            raise BadSetting(name, str(problem)) from None

    database_url = read("DATABASE_URL", _database_url, None)
    bind = read("SCAIVAULT_BIND", host_and_port, ("127.0.0.1", 8443))
    tls_cert_file = read("SCAIVAULT_TLS_CERT_FILE", _file, None)
    tls_key_file = read("SCAIVAULT_TLS_KEY_FILE", _file, None)
    if (tls_cert_file is None) != (tls_key_file is None):
        missing = "SCAIVAULT_TLS_KEY_FILE" if tls_key_file is None else "SCAIVAULT_TLS_CERT_FILE"
        raise BadSetting(missing, "certificate and key are set together or not at all")
    allow_plain_http = read("SCAIVAULT_ALLOW_PLAIN_HTTP", _switch, default=False)
    if tls_cert_file is None and not _is_loopback(bind[0]) and not allow_plain_http:
        raise BadSetting("SCAIVAULT_BIND", "plain HTTP beyond loopback needs TLS files or SCAIVAULT_ALLOW_PLAIN_HTTP=1")
    if environment.get("SCAIVAULT_MASTER_KEY_FILE") and environment.get("SCAIVAULT_MASTER_KEY"):
        raise BadSetting("SCAIVAULT_MASTER_KEY", "set either this or SCAIVAULT_MASTER_KEY_FILE")
    master_key = read("SCAIVAULT_MASTER_KEY_FILE", lambda text: read_master_key_file(Path(text)), None)
    master_key = master_key or read("SCAIVAULT_MASTER_KEY", parse_master_key, None)
    if database_url is not None and master_key is None:
        raise BadSetting("SCAIVAULT_MASTER_KEY_FILE", "with DATABASE_URL set a master key is needed")
    scheme = "http" if tls_cert_file is None else "https"
    host = f"[{bind[0]}]" if ":" in bind[0] else bind[0]
    return Settings(
        database_url=database_url,
        data_dir=read("SCAIVAULT_DATA_DIR", _future_folder, _default_data_dir(environment)),
        bind=bind,
        base_url=read("SCAIVAULT_BASE_URL", _url, f"{scheme}://{host}:{bind[1]}"),
        tls_cert_file=tls_cert_file,
        tls_key_file=tls_key_file,
        master_key=master_key,
        previous_master_keys=read("SCAIVAULT_PREVIOUS_MASTER_KEYS", parse_master_keys, []),
        dns_bind=read("SCAIVAULT_DNS_BIND", host_and_port, None),
        dns_resolvers=read("SCAIVAULT_DNS_RESOLVERS", _hosts_and_ports, []),
        egress_allow=read("SCAIVAULT_EGRESS_ALLOW", _networks, []),
        workers=read("SCAIVAULT_WORKERS", _positive, 16),
        postgres_bin=read("SCAIVAULT_POSTGRES_BIN", _folder, None),
        log_level=read("SCAIVAULT_LOG_LEVEL", _log_level, "info"),
        log_format=read("SCAIVAULT_LOG_FORMAT", _log_format, "console" if sys.stderr.isatty() else "json"),
    )


def _default_data_dir(environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/scaivault")
    return Path(environment.get("HOME") or Path.home()) / ".local/share/scaivault"


def _database_url(text: str) -> SecretValue:
    """A URL or `key=value` pairs. libpq's own complaints repeat what it was given, so they are not passed on."""
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        raise ValueError("is no PostgreSQL URL") from None
    return SecretValue(text)


def _url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("is no http or https URL")
    return text


def _switch(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("0 or 1")
    return text == "1"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    return path


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise ValueError(f"{path} is no folder")
    return path


def _future_folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is no folder")
    return path


def _hosts_and_ports(text: str) -> Sequence[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        ip_address(host_and_port(part)[0])
    return parts


def _networks(text: str) -> Sequence[Network]:
    try:
        return [ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError("networks (CIDR) by commas") from None


def _positive(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError("a whole number from 1 on")
    return int(text)


def _log_level(text: str) -> LogLevel:
    for level in get_args(LogLevel):
        if text.lower() == level:
            return level  # type: ignore[no-any-return]
    raise ValueError(f"one of {', '.join(get_args(LogLevel))}")


def _log_format(text: str) -> LogFormat:
    for form in get_args(LogFormat):
        if text.lower() == form:
            return form  # type: ignore[no-any-return]
    raise ValueError(f"one of {', '.join(get_args(LogFormat))}")

"""The modules of dns-lexicon (https://dns-lexicon.readthedocs.io), made to leave by the guarded way out.

They speak by `requests`, which asks nobody what may be dialled, waits for ever, and heeds proxies and `.netrc`. Here each use
of a module gets a copy of its own, in which `requests` is ours, and files, the environment, the terminal and the log are not
there. A module that imports anything else by which it could dial is none of ours. This keeps careless code in, not hostile
code.

`lexicon.client.Client` is not used: to guess a zone's name, which we know, it fetches a list from the web."""

from __future__ import annotations

import ast
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn, Self
from urllib.parse import quote

import httpx
import requests
from lexicon.config import ConfigResolver
from lexicon.exceptions import AuthenticationError
from lexicon.interfaces import Provider

from application.errors import Failure, ResolverFailed, ZoneRefused, ZoneUnreachable
from interfaces.dns.http_api import failure_by_status
from interfaces.foreign_text import clean
from interfaces.retry_after import retry_after_seconds

PACKAGE = "lexicon._private.providers"
NAME = re.compile(r"[a-z][a-z0-9]*")
ABOUT_A_ZONE = re.compile(r"\b(domain|zone)", re.IGNORECASE)
# fmt: off
HARMLESS = frozenset({
    "__future__", "argparse", "base64", "binascii", "bs4", "builtins", "collections", "contextlib", "cryptography",
    "datetime", "email.utils", "hashlib", "hmac", "importlib.metadata", "importlib_metadata", "json",
    "lexicon.exceptions", "lexicon.interfaces", "logging", "pyotp", "random", "re", "requests.adapters",
    "requests.auth", "requests.exceptions", "simplejson", "string", "sys", "time", "types", "typing", "urllib.parse",
    "urllib3.util.retry", "uuid", "warnings", "xml.etree",
})
# fmt: on
"""What neither dials nor reads files, with all that is below."""
REPLACED = frozenset({"os", "requests", "requests_unixsocket"})
NO_SESSIONS = frozenset({"requests:HTTPError", "requests:Response"})
ONLY_A_CLASS = frozenset({"lexicon._private.discovery:lexicon_version", "lexicon.config:ConfigResolver"})
LOWEST_ERROR = 400


class UnsuitableModule(Exception):
    """`code` is the refusal's: `unknown` or `unsuitable`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LexiconModule:
    """One of lexicon's providers. Raises UnsuitableModule."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._spec = _checked(name)

    def options(self) -> frozenset[str]:
        """The names of all that it can be told, with underscores."""
        parser = _Declared()
        _copy(self._spec, {}).Provider.configure_parser(parser)
        return frozenset(parser.names)

    @contextmanager
    def opened(
        self, http: httpx.Client, zone: str, options: Mapping[str, object], ttl_seconds: int, secrets: tuple[str, ...]
    ) -> Iterator[Provider]:
        """Signed in at that zone. Whatever goes wrong inside becomes a Failure that tells none of `secrets`."""
        way_out = _WayOut(http)
        told: dict[str, Any] = {
            "provider_name": self.name,
            "domain": zone,
            "ttl": ttl_seconds,
            self.name: dict(options),
        }
        try:
            module = _copy(self._spec, _surroundings(way_out))
            config = ConfigResolver().with_dict(told)  # type: ignore[no-untyped-call]
            provider: Provider = module.Provider(config)
            provider.authenticate()
            try:
                yield provider
            finally:
                provider.cleanup()
        except Exception as error:  # noqa: BLE001  lexicon's modules raise whatever comes to hand, bare ones too
            raise self._failure(error, way_out, secrets) from None

    def _failure(self, error: Exception, way_out: _WayOut, secrets: tuple[str, ...]) -> Failure:
        hidden = (*secrets, *(quote(secret, safe="") for secret in secrets))
        if way_out.failure is not None:
            return way_out.failure
        answer = way_out.answer
        if answer is not None and answer.status_code >= LOWEST_ERROR:
            detail = clean(f"lexicon {self.name}: {answer.status_code} {answer.text}", hidden)
            return failure_by_status(answer.status_code, detail, retry_after_seconds(answer.headers))
        detail = clean(f"lexicon {self.name}: {str(error) or type(error).__name__}", hidden)
        if isinstance(error, AuthenticationError):
            return ZoneRefused("zone_not_found" if ABOUT_A_ZONE.search(str(error)) else "credentials_rejected", detail)
        return ZoneUnreachable(detail)


@cache
def _checked(name: str) -> ModuleSpec:
    spec = find_spec(f"{PACKAGE}.{name}") if NAME.fullmatch(name) else None
    if spec is None or spec.origin is None:
        raise UnsuitableModule("unknown", "is none of dns-lexicon's providers")
    with io.open_code(spec.origin) as file:
        unguarded = sorted(imported for imported in _imports(ast.parse(file.read())) if not _is_harmless(imported))
    if unguarded:
        raise UnsuitableModule("unsuitable", f"reaches its provider past the guard, by {', '.join(unguarded)}")
    return spec


def _imports(tree: ast.AST) -> Iterator[str]:
    """`module`, or `module:name` where a name is taken out of it."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names):
                yield from (f"{module}:{alias.name}" for alias in names)


def _is_harmless(imported: str) -> bool:
    module, _, _ = imported.partition(":")
    if imported in REPLACED | NO_SESSIONS | ONLY_A_CLASS:
        return True
    return any(module == harmless or module.startswith(harmless + ".") for harmless in HARMLESS)


def _copy(spec: ModuleSpec, names: Mapping[str, object]) -> ModuleType:
    """The module executed anew, registered nowhere, with those names in place of its own."""
    module = module_from_spec(spec)
    if spec.loader is None:
        raise ImportError(spec.name)
    spec.loader.exec_module(module)
    vars(module).update(names)
    return module


def _surroundings(way_out: _WayOut) -> Mapping[str, object]:
    no_files = SimpleNamespace(exists=lambda _path: False)
    no_machine = SimpleNamespace(path=no_files, environ={})
    silence = logging.Logger(PACKAGE)  # noqa: LOG001  nobody's child, as whole answers are logged and printed
    silence.disabled = True
    return {
        "requests": _Requests(way_out),
        "open": _not_opened,
        "os": no_machine,
        "print": silence.debug,
        "LOGGER": silence,
    }


def _not_opened(*_arguments: object, **_options: object) -> NoReturn:
    raise PermissionError("files are not read here")


class _Declared:
    """Stands for the ArgumentParser that a module declares its options to."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add_argument(self, flag: str, **_more: object) -> None:
        self.names.add(flag.lstrip("-").replace("-", "_"))

    def add_mutually_exclusive_group(self, **_more: object) -> Self:
        return self


class _WayOut:
    """By the guarded client, for one use of a module: the last answer, and what kept a request from having one."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.answer: httpx.Response | None = None
        self.failure: Failure | None = None

    def send(self, request: requests.PreparedRequest) -> httpx.Response:
        self.answer = self.failure = None
        headers: Any = {**request.headers, "Accept-Encoding": "identity"}
        body: Any = request.body
        try:
            self.answer = self._http.request(request.method or "GET", request.url or "", headers=headers, content=body)
        except ResolverFailed as failure:
            self.failure = ZoneUnreachable(failure.detail)
            raise self.failure from None
        except Failure as failure:
            self.failure = failure
            raise
        except httpx.HTTPError as error:
            raise requests.ConnectionError(str(error) or type(error).__name__) from None
        return self.answer


class _GuardedAdapter(requests.adapters.BaseAdapter):
    def __init__(self, way_out: _WayOut) -> None:
        super().__init__()
        self._way_out = way_out

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: object = None,
        verify: object = True,
        cert: object = None,
        proxies: object = None,
    ) -> requests.Response:
        """Its own time-out, roots and way hold, whatever is asked for."""
        del stream, timeout, verify, cert, proxies
        answer = self._way_out.send(request)
        response = requests.Response()
        response.status_code, response.reason = answer.status_code, answer.reason_phrase
        response.headers = requests.structures.CaseInsensitiveDict(answer.headers)
        response.encoding = requests.utils.get_encoding_from_headers(response.headers)
        response.raw = io.BytesIO(answer.content)
        response.url, response.request = request.url or "", request
        return response

    def close(self) -> None:
        """The client is not ours."""


class _GuardedSession(requests.Session):
    def __init__(self, way_out: _WayOut) -> None:
        super().__init__()
        self.trust_env = False
        self.adapters.clear()
        for scheme in ("https://", "http://"):
            super().mount(scheme, _GuardedAdapter(way_out))

    def mount(self, prefix: str | bytes, adapter: requests.adapters.BaseAdapter) -> None:
        """Nothing takes the place of the guarded way."""


class _Requests:
    """What a module's copy knows as `requests`."""

    exceptions = requests.exceptions
    auth = requests.auth
    adapters = requests.adapters
    HTTPError = requests.HTTPError
    Request = requests.Request
    Response = requests.Response

    def __init__(self, way_out: _WayOut) -> None:
        self.Session = self.session = partial(_GuardedSession, way_out)
        one: Callable[[str], Callable[..., requests.Response]] = lambda method: partial(self.request, method)  # noqa: E731
        self.get, self.post, self.put = one("GET"), one("POST"), one("PUT")
        self.patch, self.delete = one("PATCH"), one("DELETE")

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        with self.Session() as session:
            return session.request(method, url, **options)

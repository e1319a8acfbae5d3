"""A key that is not ours, as the documentation says it: made by openssl, certified by a real CA, never here."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.prove.tutorial import ZONE, caddy_and_embedded
from tests.system.service import Client, open_folder, running_service

DOCUMENT = Path(__file__).parents[2] / "docs" / "certificates.md"
SECTION = re.compile(r"## Keys that are yours\n.*?```bash\n(?P<script>.*?)```", re.DOTALL)


def as_documented(folder: Path, **environment: str) -> Any:
    """What its last command prints."""
    found = SECTION.search(DOCUMENT.read_text())
    assert found is not None
    script = found["script"].replace("acme.example", ZONE)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return msgspec.json.decode(done.stdout)


@pytest.mark.peers
def test_a_certificate_for_a_key_that_is_never_here() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(open_folder())
        around = stack.enter_context(caddy_and_embedded(folder))
        service = stack.enter_context(running_service(folder / "service", dns_address=around.dns_address))
        token = service.token("pki:issue pki:admin")
        client = stack.enter_context(Client(service.url, token))
        client.post("/v1/dns/providers", around.provider)
        account_id = client.post("/v1/pki/acme/accounts", around.account)["id"]
        placed = as_documented(folder, SCAIVAULT_URL=service.url, SCAIVAULT_TOKEN=token, ACCOUNT_ID=account_id)
        order = client.ended(placed["order_id"])
        assert order["status"] == "valid", order
        line = f"/v1/pki/certificates/{order['certificate_id']}"
        leaf_pem = client.get(f"{line}/pem")["leaf_pem"]
        refusal = client.try_post(f"{line}/private-key")
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (409, "private_key_not_stored")
        theirs = subprocess.run(
            ["openssl", "pkey", "-in", "acme.key", "-pubout"], cwd=folder, capture_output=True, check=True
        )
        certified = subprocess.run(
            ["openssl", "x509", "-pubkey", "-noout"], input=leaf_pem.encode(), capture_output=True, check=True
        )
        assert certified.stdout == theirs.stdout

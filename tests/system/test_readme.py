"""The README's tutorial, typed as it stands; only the bodies of the provider and the account are ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.prove.tutorial import ZONE, caddy_and_embedded
from tests.servers.webhooks import WebhookReceiver
from tests.system.service import Client, running_service

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_curl_lines_of_the_readme_do_what_they_say(folder: Path) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert len(blocks) == 8, "the tutorial's steps"
    with ExitStack() as stack:
        around = stack.enter_context(caddy_and_embedded(folder))
        hook = stack.enter_context(WebhookReceiver(folder / "hook"))
        service = stack.enter_context(running_service(folder / "service", dns_address=around.dns_address))
        (folder / "provider.json").write_text(json.dumps(around.provider))
        (folder / "account.json").write_text(json.dumps(around.account))
        script = "set -euo pipefail\n" + "\n".join(blocks).replace("https://hooks.acme.example/tls", hook.url)
        environment = {
            "PATH": os.environ["PATH"],
            "SCAIVAULT_URL": service.url,
            "SCAIVAULT_TOKEN": service.token("pki:issue pki:admin audit:read"),
        }
        typed = subprocess.run(
            ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert typed.returncode == 0, typed.stderr + typed.stdout
        renewed = hook.wait_for(bool)[0]
        assert json.loads(renewed.body)["event_type"] == "certificate.renewed"
    assert (folder / "fullchain.pem").read_text().count("BEGIN CERTIFICATE") == 2
    assert (folder / "privkey.pem").stat().st_mode & 0o077 == 0
    assert '"pki_private_key_read"' in typed.stdout


def test_an_edge_fetches_pairs_that_fit_and_reloads_only_after_a_change(folder: Path) -> None:
    with ExitStack() as stack:
        around = stack.enter_context(caddy_and_embedded(folder))
        service = stack.enter_context(running_service(folder / "service", dns_address=around.dns_address))
        client = stack.enter_context(Client(service.url, service.token("pki:issue pki:admin")))
        client.post("/v1/dns/providers", around.provider)
        account_id = client.post("/v1/pki/acme/accounts", around.account)["id"]
        order = {"account_id": account_id, "domains": [ZONE], "challenge_type": "dns-01"}
        certificate_id = client.ended(client.post("/v1/pki/acme/issue", order)["order_id"])["certificate_id"]
        environment = {
            "PATH": os.environ["PATH"],
            "SCAIVAULT_URL": service.url,
            "SCAIVAULT_TOKEN": service.token("pki:read pki:export", "--certificates", certificate_id),
            "CERT_ID": certificate_id,
            "CERT_DIR": str(folder / "tls"),
            "RELOAD": f"echo reloaded >> {folder}/reloads",
        }

        def fetch() -> str:
            """What openssl says of the pair on disk."""
            subprocess.run([ROOT / "scripts/fetch-cert.sh"], env=environment, check=True, timeout=60)
            tls = folder / "tls"
            shown = subprocess.run(
                ["bash", "-c", "openssl x509 -in fullchain.pem -noout -pubkey; openssl pkey -in privkey.pem -pubout"],
                cwd=tls,
                capture_output=True,
                text=True,
                check=True,
            )
            of_certificate, of_key = re.findall(r"-----BEGIN.*?END PUBLIC KEY-----", shown.stdout, re.DOTALL)
            assert of_certificate == of_key
            assert (tls / "privkey.pem").stat().st_mode & 0o077 == 0
            return str(of_certificate)

        first = fetch()
        assert fetch() == first
        assert (folder / "reloads").read_text() == "reloaded\n"
        client.ended(client.post(f"/v1/pki/certificates/{certificate_id}/renew")["order_id"])
        assert fetch() != first
        assert (folder / "reloads").read_text() == "reloaded\n" * 2

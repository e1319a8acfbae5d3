"""Metrics over processes: what one measured, another one tells."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.servers.process import free_port, wait_until
from tests.system.service import Client, Process, running_database

CA = "127.0.0.1"
ASKED = f'scaivault_ca_request_duration_seconds_count{{ca="{CA}",outcome="error"}}'


def register(service: Process, token: str) -> None:
    """At a CA that is not there."""
    body = {
        "name": "nobody",
        "provider": "custom",
        "environment": "staging",
        "email": "tls@acme.example",
        "directory_url": f"https://{CA}:{free_port()}/directory",
    }
    with Client(service.url, token) as client:
        assert client.try_post("/v1/pki/acme/accounts", body).status_code >= 500


def scraped(service: Process, token: str) -> dict[str, float]:
    """By the sample's name with its labels."""
    answer = httpx.get(f"{service.url}/v1/metrics", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    lines = answer.raise_for_status().text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_what_a_process_measured_every_other_one_tells_also_after_its_end(folder: Path) -> None:
    with running_database(folder) as settings, Process(folder / "one", "api", settings) as one:
        token = one.token("pki:admin audit:read")
        with (
            Process(folder / "other", "api", settings) as other,
            Process(folder / "worker", "worker", settings) as worker,
        ):
            register(other, token)
            assert other.interrupt() == 0
            found = scraped(one, token)
            assert found[ASKED] == 1

            wait_until(
                lambda: scraped(one, token)['scaivault_follower_behind_events{follower="order_statistics"}'] == 0,
                what="the worker follows",
            )
            assert worker.interrupt() == 0
        register(one, token)
        wait_until(lambda: scraped(one, token)[ASKED] == 2, what="the second one is written")

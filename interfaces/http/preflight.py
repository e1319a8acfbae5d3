"""`/v1/pki/acme/preflight`: what an order would meet, without placing it."""

from __future__ import annotations

from litestar import post
from litestar.params import JSONBody

from domain.preflight import Report
from interfaces.http.authentication import FromApp, FromToken
from interfaces.http.orders import Issue
from interfaces.http.outside import outside_call
from interfaces.http.problems import ERRORS


@post("/pki/acme/preflight", opt={"scope": "pki:issue"}, responses=ERRORS, status_code=200, sync_to_thread=True)
def preflight(data: JSONBody[Issue], caller: FromToken, services: FromApp) -> Report:
    """Asks DNS, and nobody else. Nothing is recorded."""
    with outside_call(services):
        return services.preflight.look(
            account_id=data.account_id,
            domains=data.domains,
            challenge_type=data.challenge_type,
            key_type=data.key_type,
            csr_pem=data.csr_pem,
            profile=data.profile,
            dns_provider_id=data.dns_provider_id,
            caller=caller,
        )

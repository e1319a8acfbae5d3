"""Sending one event to one subscription's address, signed."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import msgspec

from application.errors import EgressRefused, EndpointUnreachable
from application.ports import Clock, KeyStore, Sign, WebhookRequest, WebhookSender
from application.redaction import redact
from application.secret_value import SecretValue
from domain.errors import SealBroken
from domain.subscription import Subscription

SEALED_KIND = "webhook-secret"
TAKEN = range(200, 300)
GONE = 410


class Outcome(msgspec.Struct, frozen=True):
    """`status` is None where the receiver gave none; `text` is what it said, without secrets."""

    status: int | None
    detail: str
    retry_after_seconds: float | None
    duration_ms: int
    text: str = ""

    @property
    def is_taken(self) -> bool:
        return self.status in TAKEN

    @property
    def is_gone(self) -> bool:
        return self.status == GONE


class Webhooks:
    def __init__(self, keys: KeyStore, sender: WebhookSender, sign: Sign, clock: Clock) -> None:
        self._keys = keys
        self._sender = sender
        self._sign = sign
        self._clock = clock

    def send(self, subscription: Subscription, event_id: str, event_type: str, body: str) -> Outcome:
        """One attempt. Raises StoreUnavailable."""
        started = monotonic()

        def failed(detail: str) -> Outcome:
            return Outcome(None, detail, None, _milliseconds_since(started))

        try:
            secrets = self._secrets(subscription)
            request = self._request(subscription, event_id, event_type, body.encode(), secrets)
            response = self._sender.send(request)
        except SealBroken:
            return failed("the signing secret does not open")
        except (EndpointUnreachable, EgressRefused) as failure:
            return failed(failure.detail)
        said = response.body.decode(errors="replace").replace("\0", "")
        return Outcome(
            response.status,
            f"the receiver answered {response.status}",
            response.retry_after_seconds,
            _milliseconds_since(started),
            redact(said, [*(secret.reveal_text() for secret in secrets), *_signatures(request)]),
        )

    def _secrets(self, subscription: Subscription) -> Sequence[SecretValue]:
        return [
            self._keys.open(SEALED_KIND, subscription.tenant_id, subscription.id, sealed_id)
            for sealed_id in subscription.secrets_in_force(self._clock.now())
        ]

    def _request(
        self,
        subscription: Subscription,
        event_id: str,
        event_type: str,
        body: bytes,
        secrets: Sequence[SecretValue],
    ) -> WebhookRequest:
        headers = self._sign(
            event_id=event_id,
            event_type=event_type,
            timestamp_seconds=int(self._clock.now().timestamp()),
            body=body,
            secrets=secrets,
        )
        return WebhookRequest(subscription.url or "", headers, body, subscription.ca_bundle_pem)


def _signatures(request: WebhookRequest) -> Sequence[str]:
    headers = (value for name, value in request.headers.items() if name.lower().endswith("signature"))
    return [signature for value in headers for signature in value.split()]


def _milliseconds_since(started: float) -> int:
    return round((monotonic() - started) * 1000)

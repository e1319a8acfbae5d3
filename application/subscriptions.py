"""Subscribing to events."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence

from application.caller import Caller
from application.event_store import EventStore
from application.ports import Clock, Ids, KeyStore
from application.secret_value import SecretValue
from application.urls import is_plain_url
from application.x509 import require_ca_bundle
from domain.errors import Denied, FieldProblem, InvalidFields
from domain.subscription import EVENT_TYPES, EventType, Subscription, WebhookTarget, is_path_glob, lies_under

SEALED_KIND = "webhook-secret"
SHORTEST_SECRET = 16
MOST_PATHS = 100


class Subscriptions:
    def __init__(self, store: EventStore, keys: KeyStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._ids = ids

    def subscribe(
        self,
        *,
        name: str,
        paths: Sequence[str],
        events: Sequence[str],
        url: str,
        secret: SecretValue | None,
        ca_bundle_pem: str | None,
        caller: Caller,
    ) -> tuple[str, SecretValue | None]:
        """The subscription's id, and the signing secret where none was given: it is shown this once.

        Raises InvalidFields, and Denied: `pki:admin` may subscribe below `pki/`, more needs `subscriptions:write`."""
        event_types = _require_valid(paths, events, url, secret)
        require_ca_bundle(ca_bundle_pem, "delivery.ca_bundle_pem")
        if not (caller.may("pki:admin") and all(lies_under(path, "pki") for path in paths)):
            caller.require("subscriptions:write")
        _require_within_limits(paths, caller)
        subscription_id = self._ids.new("sub")
        signing_secret = secret or _new_secret()
        sealed_secret_id = self._keys.seal(SEALED_KIND, caller.tenant_id, subscription_id, signing_secret)
        subscription = Subscription.subscribe(
            subscription_id,
            tenant_id=caller.tenant_id,
            identity_id=caller.token_id,
            name=name,
            paths=tuple(paths),
            event_types=event_types,
            target=WebhookTarget(url, sealed_secret_id, ca_bundle_pem),
            now=self._clock.now(),
        )
        self._store.record(subscription, by=caller.provenance)
        return subscription_id, None if secret else signing_secret


def _require_within_limits(paths: Sequence[str], caller: Caller) -> None:
    """A token for certain certificates hears of those alone, each named; what a name limit lets through no path can say.
    Raises Denied."""
    limits = caller.limits
    allowed = {f"pki/certificates/{certificate_id}" for certificate_id in limits.certificate_ids}
    if limits.dns_names or (allowed and not allowed.issuperset(paths)):
        raise Denied("access_denied", "this token may not hear of other certificates")


def _new_secret() -> SecretValue:
    return SecretValue("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())


def _require_valid(
    paths: Sequence[str], events: Sequence[str], url: str, secret: SecretValue | None
) -> tuple[EventType, ...]:
    if max(len(paths), len(events)) > MOST_PATHS:
        raise InvalidFields(FieldProblem("paths", "too_many", f"at most {MOST_PATHS} paths and event types"))
    problems = [
        FieldProblem(f"paths[{index}]", "invalid_glob", "segments without a leading slash; ** only as a whole segment")
        for index, path in enumerate(paths)
        if not is_path_glob(path)
    ]
    problems += [
        FieldProblem(f"events[{index}]", "unknown", f"known are {', '.join(EVENT_TYPES)}")
        for index, event in enumerate(events)
        if event not in EVENT_TYPES
    ]
    if not paths:
        problems.append(FieldProblem("paths", "required", "at least one path is needed"))
    if not events:
        problems.append(FieldProblem("events", "required", "at least one event type is needed"))
    if not is_plain_url(url, {"http", "https"}):
        problems.append(FieldProblem("delivery.url", "invalid", "an https URL without user information is needed"))
    if secret is not None and len(secret.reveal()) < SHORTEST_SECRET:
        problems.append(FieldProblem("delivery.secret", "too_short", f"at least {SHORTEST_SECRET} characters"))
    if problems:
        raise InvalidFields(*problems)
    return tuple(event_type for event_type in EVENT_TYPES if event_type in events)

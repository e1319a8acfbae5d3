"""Asking the CAs when they want their certificates renewed (ARI, RFC 9773).

An answer that says what is known already is not recorded: the row on the to-do list is all that it moves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import structlog

from application.accounts import Accounts
from application.errors import Failure, Retryable
from application.event_store import EventStore, History
from application.ports import CertificateAuthority, Chance, Clock
from application.process.todo import NO_LIMITS, Claim, Decision, Step, Turn, logged_step
from application.x509 import ari_id
from domain.acme import RenewalInfo
from domain.certificate import Certificate, Suggestion
from domain.errors import AccountNotActive
from domain.provenance import of_process
from domain.renewal import ASKED_OTHERWISE, LATEST_ASKED, Window, ask_again_after, draw, is_usable

NAME = "renewal_info"
AFTER_FAILURE_SECONDS = 3600.0

log = structlog.get_logger()


class AskRenewalInfo(Step, frozen=True): ...


def next_step(certificate: Certificate) -> AskRenewalInfo | None:
    """None for what is not renewed by itself, is being renewed, or has expired. Pure."""
    if not certificate.auto_renew or certificate.renewing is not None or certificate.has_expired:
        return None
    return AskRenewalInfo(certificate.ask_at)


def turn(certificate: Certificate) -> Turn:
    """An account whose CA does not answer takes a few of the slots, not all."""
    return Turn(lane=certificate.account_id)


DECISION = Decision(NAME, next_step, turn)


class RenewalInfos:
    name = NAME

    def __init__(
        self,
        store: EventStore,
        history: History,
        accounts: Accounts,
        ca: CertificateAuthority,
        chance: Chance,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._accounts = accounts
        self._ca = ca
        self._chance = chance
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> timedelta | None:
        certificate = self._store.load(Certificate, claim.subject)
        step = next_step(certificate)
        if step is None:
            return None
        with logged_step(step, certificate_id=certificate.id):
            return self._ask(certificate, claim)

    def give_up(self, claim: Claim) -> None:
        """There is nothing to give up: the lifetime's rule holds."""

    def _ask(self, certificate: Certificate, claim: Claim) -> timedelta | None:
        ari = ari_id(certificate.current.chain_pem)
        if ari is None:
            return LATEST_ASKED
        try:
            _, at_ca = self._accounts.at_ca(certificate.account_id)
            said = self._ca.renewal_info(at_ca, ari)
        except Failure as failure:
            log.warning("renewal_info_failed", certificate_id=certificate.id, detail=failure.detail)
            wait = failure.retry_after_seconds if isinstance(failure, Retryable) else None
            return ask_again_after(AFTER_FAILURE_SECONDS if wait is None else wait)
        except AccountNotActive:
            return LATEST_ASKED
        return LATEST_ASKED if said is None else self._hear(certificate, ari, said, claim)

    def _hear(self, certificate: Certificate, ari: str, said: RenewalInfo, claim: Claim) -> timedelta | None:
        now, again = self._clock.now(), ask_again_after(said.retry_after_seconds)
        window = Window(said.window_start, said.window_end)
        if not is_usable(window, certificate.current.lifetime):
            log.warning("renewal_info_unusable", certificate_id=certificate.id, start=window.start, end=window.end)
            return again
        if certificate.suggestion is not None and window.end > now:
            again = max(again, ASKED_OTHERWISE)  # a window that moves each time is not followed each time
        suggestion = Suggestion(ari, window, draw(window, self._chance(), now))
        certificate.see_renewal_info(suggestion, said.explanation_url, now + again, now)
        if not certificate.pending_events:
            return again
        by = of_process(NAME, self._history.origin(certificate.id), certificate.id, certificate.version)
        self._store.record(certificate, by=by, claim=claim)
        return None

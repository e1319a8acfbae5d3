"""What an account wants done in the background: completing the change of its key, destroying keys that are no longer in
force, and reading anew what the CA offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import assert_never

import structlog

from application.accounts import SEALED_KIND, Accounts, offer_of
from application.errors import CaRefused, Failure, Permanent, Retryable
from application.event_store import EventStore, History
from application.ports import CertificateAuthority, Clock, KeyStore
from application.process.todo import NO_LIMITS, Claim, Decision, Step, logged_step
from domain.account import Account, AccountKey
from domain.acme import Problem
from domain.provenance import Provenance, of_process

NAME = "account"
OFFER_EVERY = timedelta(days=1)
AFTER_FAILURE = timedelta(seconds=30)
MOST_WAIT = timedelta(hours=1)

log = structlog.get_logger()


class ChangeKey(Step, frozen=True): ...


class DestroyKeys(Step, frozen=True): ...


class ReadOffer(Step, frozen=True): ...


AccountStep = ChangeKey | DestroyKeys | ReadOffer


def next_step(account: Account) -> AccountStep | None:
    """The earliest of all. Pure."""
    return min(_steps(account), key=lambda step: step.due_at, default=None)


def _steps(account: Account) -> Iterator[AccountStep]:
    if account.new_key is not None:
        yield ChangeKey(account.modified_on)
    if account.retired_keys:
        yield DestroyKeys(account.modified_on)
    if account.status != "deactivated":
        yield ReadOffer(account.offer_read_at + OFFER_EVERY)


DECISION = Decision(NAME, next_step)


class AccountUpkeep:
    name = NAME

    def __init__(
        self,
        store: EventStore,
        history: History,
        accounts: Accounts,
        keys: KeyStore,
        ca: CertificateAuthority,
        clock: Clock,
    ) -> None:
        self._store = store
        self._history = history
        self._accounts = accounts
        self._keys = keys
        self._ca = ca
        self._clock = clock

    def lane_limits(self) -> Mapping[str, int]:
        return NO_LIMITS

    def perform(self, claim: Claim) -> timedelta | None:
        account = self._store.load(Account, claim.subject)
        step = next_step(account)
        if step is None:
            return None
        with logged_step(step, account_id=account.id):
            wait = self._perform(step, account)
        if not account.pending_events:
            return wait
        self._store.record(account, by=self._by(account), claim=claim)
        return None

    def give_up(self, claim: Claim) -> None:
        """A key change that crashes again and again is called off; the rest is tried for ever."""
        account = self._store.load(Account, claim.subject)
        account.key_change_failed(Problem("about:blank", "the service failed at it again and again"), self._clock.now())
        self._store.record(account, by=self._by(account), claim=claim)

    def _perform(self, step: AccountStep, account: Account) -> timedelta | None:
        now = self._clock.now()
        match step:
            case ChangeKey() if account.new_key is not None:
                return self._change_key(account, account.new_key)
            case ChangeKey() | DestroyKeys():
                self._keys.shred(account.retired_keys)
                account.keys_destroyed(account.retired_keys, now)
            case ReadOffer():
                return self._read_offer(account)
            case _:
                assert_never(step)
        return None

    def _change_key(self, account: Account, key: AccountKey) -> timedelta | None:
        """Whatever was done before a crash: the CA is asked first which key it knows (RFC 8555 §7.3.1)."""
        new_key_pem = self._keys.open(SEALED_KIND, account.tenant_id, account.id, key.sealed_id)
        try:
            known = self._ca.find_account(account.directory_url, new_key_pem, account.ca_bundle_pem)
            if known is None:
                self._ca.change_key(self._accounts.speak_as(account), new_key_pem)
            elif known != account.account_url:
                account.key_change_failed(Problem("about:blank", f"the key belongs to {known}"), self._clock.now())
                return None
        except Retryable as failure:
            log.warning("key_change_waits", account_id=account.id, detail=failure.detail)
            return _wait(failure)
        except Permanent as failure:
            problem = failure.problem if isinstance(failure, CaRefused) else Problem("about:blank", failure.detail)
            account.key_change_failed(problem, self._clock.now())
        else:
            account.key_changed(self._clock.now())
        return None

    def _read_offer(self, account: Account) -> timedelta:
        try:
            account.see_offer(
                offer_of(self._ca.capabilities(account.directory_url, account.ca_bundle_pem)), self._clock.now()
            )
        except Failure as failure:
            log.warning("directory_unread", account_id=account.id, detail=failure.detail)
            return MOST_WAIT
        return OFFER_EVERY

    def _by(self, account: Account) -> Provenance:
        return of_process(NAME, self._history.origin(account.id), account.id, account.version)


def _wait(failure: Retryable) -> timedelta:
    return min(MOST_WAIT, max(AFTER_FAILURE, timedelta(seconds=failure.retry_after_seconds or 0)))

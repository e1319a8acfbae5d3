"""C4: the CA refuses newOrders with `rateLimited`, and says in three ways until when."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, get_args

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.prove.fault_scenarios.suggested import Windows, at_once
from tests.servers.ca_faults import Form, problem
from tests.servers.ca_proxy import Passing
from tests.servers.https import Answer
from tests.servers.process import wait_until

WAIT_SECONDS = 8.0
TOLERANCE_SECONDS = 1.0  # an HTTP date has whole seconds
LATE_SECONDS = 10.0  # on a busy machine
OF_ACCOUNT = "too many new orders (300) from this account in the last 3h0m0s"
OF_SET = "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s"
WITHOUT_NAME = "the service is overloaded by you"
DETAILS = {"seconds": OF_ACCOUNT, "date": WITHOUT_NAME, "text": OF_ACCOUNT}


class Limiter:
    """Refuses what it concerns for so long, from the first such newOrder on, that it `arm`s for."""

    def __init__(self, concerns: Callable[[Passing], bool], form: Form, detail: str) -> None:
        self._concerns, self._form, self._detail = concerns, form, detail
        self._lock = threading.Lock()
        self._armed = False
        self.until = 0.0
        """Monotonic."""
        self.refused = 0

    def arm(self) -> None:
        with self._lock:
            self._armed, self.refused = True, 0

    def refusal(self, passing: Passing) -> Answer | None:
        if not self._concerns(passing):
            return None
        with self._lock:
            now = time.monotonic()
            if self._armed:
                self._armed, self.until = False, now + WAIT_SECONDS
            left = self.until - now
            if left <= TOLERANCE_SECONDS:
                return None
            self.refused += 1
        return problem("rateLimited", 429, self._detail, retry_after_seconds=ceil(left), form=self._form)(passing)


def one_of(limiters: Sequence[Limiter], passing: Passing) -> Answer:
    refusals = (limiter.refusal(passing) for limiter in limiters)
    return next((refusal for refusal in refusals if refusal is not None), None) or passing.pass_on()


def of_account(account_url: str) -> Callable[[Passing], bool]:
    """By the `kid` that a request is signed with (RFC 8555 §6.2)."""

    def concerns(passing: Passing) -> bool:
        protected = json.loads(passing.asked.body)["protected"]
        return bool(json.loads(base64.urlsafe_b64decode(protected + "=="))["kid"] == account_url)

    return concerns


def of_names(*dns_names: str) -> Callable[[Passing], bool]:
    return lambda passing: {each["value"] for each in passing.payload["identifiers"]} == set(dns_names)


def rate_limited(folder: Path, findings: Findings, short: bool) -> None:
    del short
    windows = Windows()
    with stage(folder, suggest=windows) as on:
        forms: Sequence[Form] = get_args(Form)
        accounts = {form: on.register(form) for form in forms}
        limiters = {
            form: Limiter(of_account(_account_url(on, account_id)), form, DETAILS[form])
            for form, account_id in accounts.items()
        }
        of_set = Limiter(of_names(f"set.{ZONE}"), "seconds", OF_SET)
        on.proxy.fail_at_rate(1.0, partial(one_of, [*limiters.values(), of_set]), ["new-order"])
        with ThreadPoolExecutor(len(forms) + 1) as pool:
            of_forms = [
                pool.submit(_of_form, on, findings, form, accounts[form], limiters[form], windows) for form in forms
            ]
            refused = [pool.submit(_of_set, on, findings, of_set), *of_forms]
        on.tally(findings, refused=[each.result() for each in refused])


def _of_form(on: Stage, findings: Findings, form: Form, account_id: str, limiter: Limiter, windows: Windows) -> str:
    """An account's bucket. Gives the order that had to be refused."""
    renewed, due = (on.issue(f"{form}-{label}", account_id) for label in ("renewed", "due"))

    # A renewal that meets the limit.
    limiter.arm()
    waiting = on.renew(renewed)
    held = _refusal_of(on, waiting)
    findings.equal(f"{form}: a renewal that meets the limit", held["phase"], "waiting")
    _next_post(on, findings, form, f"{form}-soon", account_id, limiter)
    findings.equal(f"{form}: the renewal ends", on.ended(waiting)["status"], "valid")
    _left_alone(on, findings, f"{form}: renewal", f"{form}-renewed", limiter)

    # An order that meets it, and a renewal that falls due meanwhile.
    limiter.arm()
    refused = on.place(f"{form}-new", account_id)
    ended = on.ended(refused)
    findings.equal(f"{form}: a requested order ends", ended["status"], "invalid")
    _has_code(findings, f"{form}: its error", ended["error"])
    _next_post(on, findings, form, f"{form}-next", account_id, limiter)
    other = on.issue(f"{form}-other")
    placed_at = on.new_orders(f"{form}-other")[0].monotonic
    findings.check(f"{form}: another account is served meanwhile", other, holds=placed_at < limiter.until)
    windows.set(on.ari_id(due, 1), at_once())
    on.ask_now(due)
    on.wait_for_version(due, 2)
    _left_alone(on, findings, f"{form}: renewal that fell due meanwhile", f"{form}-due", limiter)
    _issue_afterwards(on, findings, form, f"{form}-next", limiter, account_id)
    findings.equal(f"{form}: newOrders that the CA refused in that time", limiter.refused, 1)
    return refused


def _of_set(on: Stage, findings: Findings, limiter: Limiter) -> str:
    limiter.arm()
    refused = on.place("set")
    ended = on.ended(refused)
    _has_code(findings, "one set of names: its error", ended["error"])
    findings.equal("one set of names: the limit that is told", _told_limit(on), "certificates_per_set")
    other = on.issue("other-set")
    placed_at = on.new_orders("other-set")[0].monotonic
    findings.check("one set of names: another set is served", other, holds=placed_at < limiter.until)
    _issue_afterwards(on, findings, "one set of names", "set", limiter)
    findings.equal("one set of names: newOrders that the CA refused", limiter.refused, 1)
    return refused


def _told_limit(on: Stage) -> object:
    answer = on.try_issue("set")
    return answer.json()["error"]["details"]["limit"] if answer.status_code == 429 else answer.status_code


def _issue_afterwards(
    on: Stage, findings: Findings, what: str, label: str, limiter: Limiter, account_id: str | None = None
) -> None:
    """As a client does that obeys the answer."""
    wait_until(lambda: time.monotonic() >= limiter.until, what="the limit's time", deadline_seconds=2 * WAIT_SECONDS)
    placed: list[str] = []

    def is_taken() -> bool:
        answer = on.try_issue(label, account_id)
        placed.extend([answer.json()["order_id"]] if answer.is_success else [])
        return answer.is_success

    wait_until(is_taken, what="the order is taken", deadline_seconds=LATE_SECONDS)
    findings.equal(f"{what}: the order that is placed afterwards ends", on.ended(placed[0])["status"], "valid")
    _left_alone(on, findings, f"{what}: that order", label, limiter)


def _next_post(on: Stage, findings: Findings, form: Form, label: str, account_id: str, limiter: Limiter) -> None:
    answer = on.try_issue(label, account_id)
    findings.equal(f"{form}: the next POST is answered", answer.status_code, 429)
    if answer.is_success:
        return
    _has_code(findings, f"{form}: the answer's error", answer.json()["error"])
    left = limiter.until - time.monotonic()
    said = float(answer.headers["Retry-After"])
    findings.between(f"{form}: its Retry-After", left - TOLERANCE_SECONDS, said, left + 2 * TOLERANCE_SECONDS)
    findings.equal(f"{form}: newOrders at the CA for it", len(on.new_orders(label)), 0)


def _left_alone(on: Stage, findings: Findings, what: str, label: str, limiter: Limiter) -> None:
    """After the first refusal there is no newOrder for the name before the time that the CA named."""
    begun = limiter.until - WAIT_SECONDS
    later = [each.monotonic for each in on.new_orders(label) if each.monotonic > begun + 0.05]
    first = min(later, default=0.0) - limiter.until
    findings.between(f"{what}: s between the time and the newOrder", -TOLERANCE_SECONDS, first, LATE_SECONDS)


def _refusal_of(on: Stage, order_id: str) -> Any:
    on.wait_for_row("orders", order_id, lambda order: order["error"] is not None, "it tells why it waits")
    return on.order(order_id)


def _has_code(findings: Findings, what: str, error: Any) -> None:
    is_so = error["code"] == "backend_rate_limited" and 0 < (error["retry_after"] or 0) <= WAIT_SECONDS + 1
    findings.check(what, f"{error['code']}, retry_after {error['retry_after']}", holds=is_so)


def _account_url(on: Stage, account_id: str) -> str:
    return str(on.client.get(f"/v1/pki/acme/accounts/{account_id}")["account_url"])


SCENARIOS = [Scenario("C4", "429 rateLimited: seconds, date, only in the text", rate_limited)]

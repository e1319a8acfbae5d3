"""C23: what a CA wants of an account before it does anything: a binding to an account of its own (RFC 8555 §7.3.4), and
agreement to terms that have changed (§7.3.3)."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import Stage, stage
from tests.servers.acme2certifier import Acme2Certifier
from tests.servers.ca_faults import problem
from tests.servers.ca_proxy import SIGNED, Passing
from tests.servers.https import Answer
from tests.servers.pebble import Pebble

KID = "kid-1"
HMAC_KEY = bytes([0xFB, 0xFF, 0xFE]) * 10 + b"\xfb\xff"  # its base64 has both signs that base64url writes otherwise
IN_BASE64 = base64.b64encode(HMAC_KEY).decode()
IN_BASE64URL = base64.urlsafe_b64encode(HMAC_KEY).decode()
FORMS: Mapping[str, str] = {
    "base64": IN_BASE64,
    "base64 without padding": IN_BASE64.rstrip("="),
    "base64url": IN_BASE64URL,
    "base64url without padding": IN_BASE64URL.rstrip("="),
    "pasted with a line break": f" {IN_BASE64[:20]}\n{IN_BASE64[20:]} ",
}
MINUTE = timedelta(minutes=1)
SOONEST_MINUTES = 58
TERMS = "https://ca.faults.example/agreement/2"
WAITING = 3


def bound_pebble(folder: Path, dns_address: str) -> Pebble:
    keys = {KID: IN_BASE64URL.rstrip("=")}
    return Pebble(folder, dns_address, nonce_reject_percent=0, authz_reuse_percent=0, external_account_keys=keys)


def bound_acme2certifier(folder: Path, dns_address: str) -> Acme2Certifier:
    return Acme2Certifier(folder, dns_address, external_account_keys={KID: IN_BASE64URL.rstrip("=")})


def eab(hmac_key: str, kid: str = KID) -> Mapping[str, str]:
    return {"kid": kid, "hmac_key": hmac_key}


class Terms:
    """The CA has changed its terms, and does nothing for an account that has not agreed to them since."""

    def __init__(self) -> None:
        self._agreed = threading.Event()

    def new_order(self, passing: Passing) -> Answer:
        if self._agreed.is_set():
            return passing.pass_on()
        return problem("userActionRequired", 403, "The terms of service have changed", instance=TERMS)(passing)

    def account(self, passing: Passing) -> Answer:
        if passing.payload.get("termsOfServiceAgreed") is True:
            self._agreed.set()
        return passing.pass_on()


def conditions_of_accounts(folder: Path, findings: Findings, short: bool) -> None:
    del short
    with stage(folder / "acme2certifier", bound_acme2certifier, eab=eab(IN_BASE64)) as on:
        _bindings(on, findings, "acme2certifier")
        on.tally(findings)
    with stage(folder / "pebble", bound_pebble, eab=eab(IN_BASE64)) as on:
        _bindings(on, findings, "Pebble")
        _terms(on, findings)
        on.tally(findings)


def _bindings(on: Stage, findings: Findings, ca: str) -> None:
    offered = on.client.get(f"/v1/pki/acme/accounts/{on.account_id}")["capabilities"]
    findings.equal(f"{ca}: a binding is required, as told", offered["eab_required"], True)
    for form, hmac_key in FORMS.items():
        answer = on.try_register(form, eab(hmac_key))
        findings.equal(f"{ca}, {form}: answer", answer.status_code, 201)
        if answer.is_success:
            certificate_id = on.issue(f"by-{form.replace(' ', '-')}", str(answer.json()["id"]))
            findings.equal(f"{ca}, {form}: the stored key is the leaf's own", on.key_fits(certificate_id, 1), True)
    at_ca = len(on.proxy.since(0).at("new-account"))
    another = base64.b64encode(bytes(32)).decode()
    _is_refused(on, findings, f"{ca}, without a binding", None, "eab")
    _is_refused(on, findings, f"{ca}, another HMAC key", eab(another), "eab")
    _is_refused(on, findings, f"{ca}, another key id", eab(IN_BASE64, "kid-2"), "eab")
    findings.equal(f"{ca}: registrations that the CA refused", len(on.proxy.since(0).at("new-account")) - at_ca, 3)
    _is_refused(on, findings, f"{ca}, an HMAC key that is no base64", eab("§§§"), "eab.hmac_key")
    findings.equal(
        f"{ca}: registrations that the CA refused, after that", len(on.proxy.since(0).at("new-account")) - at_ca, 3
    )


def _is_refused(on: Stage, findings: Findings, what: str, binding: Mapping[str, str] | None, field: str) -> None:
    answer = on.try_register(f"refused: {what}", binding)
    findings.equal(f"{what}: answer", answer.status_code, 422)
    told = answer.json()["error"]["details"]["fields"] if answer.status_code == 422 else []
    is_clear = [each["field"] for each in told] == [field] and all(each["message"] for each in told)
    findings.check(f"{what}: what is told", told, holds=is_clear)


def _terms(on: Stage, findings: Findings) -> None:
    renewed = on.issue("renewed")
    terms = Terms()
    on.proxy.fail_at_rate(1.0, terms.new_order, ["new-order"])
    on.proxy.fail_at_rate(1.0, terms.account, ["account"])
    begun = len(on.proxy.exchanges)
    parked = [*(on.place(f"parked-{number}") for number in range(WAITING)), on.renew(renewed)]
    _wait_for_an_hour(on, findings, "changed terms", parked, attempts=1)
    shown = on.client.get(f"/v1/pki/acme/accounts/{on.account_id}")
    findings.equal("changed terms: the account", shown["status"], "action_required")
    findings.check("changed terms: its words", shown["status_message"], holds=TERMS in shown["status_message"])
    for order_id in parked:
        on.do_now("issuance", order_id)
    _wait_for_an_hour(on, findings, "an hour later", parked, attempts=2)
    once = on.topics(on.account_id).count("account.action_required")
    findings.equal("changed terms: how often that was told", once, 1)
    asked = Counter(each.endpoint for each in on.proxy.since(begun).at(*SIGNED))
    findings.equal("signed requests by then", dict(asked), {"new-order": 2 * len(parked)})

    agreed = on.client.patch(f"/v1/pki/acme/accounts/{on.account_id}", {"agree_to_terms": True})
    findings.equal("after agreement: the account", (agreed["status"], agreed["status_message"]), ("active", None))
    for order_id in parked:
        on.do_now("issuance", order_id)
    statuses = [on.ended(order_id)["status"] for order_id in parked]
    findings.equal("after agreement: the parked orders end", statuses, ["valid"] * len(parked))
    findings.equal("after agreement: version of what was renewed", on.certificate(renewed)["version"], 2)
    told = [each.told for each in on.proxy.since(begun).at("new-order")]
    findings.equal("newOrders (refused, taken)", (told.count(403), told.count(201)), (2 * len(parked), len(parked)))


def _wait_for_an_hour(on: Stage, findings: Findings, when: str, parked: Sequence[str], attempts: int) -> None:
    for order_id in parked:
        on.wait_for_row("orders", order_id, lambda order: order["attempts"] == attempts, "it has asked the CA")
    orders = [on.order(order_id) for order_id in parked]
    findings.equal(f"{when}: orders that wait", {order["phase"] for order in orders}, {"waiting"})
    findings.equal(
        f"{when}: that say where to agree", sum(TERMS in order["error"]["message"] for order in orders), len(parked)
    )
    due_in = [(on.due_at("issuance", order_id) - datetime.now(UTC)) / MINUTE for order_id in parked]
    findings.check(
        f"{when}: minutes to the next newOrders", [round(each) for each in due_in], holds=min(due_in) > SOONEST_MINUTES
    )


SCENARIOS = [
    Scenario("C23", "a binding is required, in each form of its key; the terms change", conditions_of_accounts)
]

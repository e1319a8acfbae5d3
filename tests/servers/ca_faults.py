"""What can go wrong at a CA, for `CaProxy.fail_next` and `CaProxy.fail_at_rate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

from domain.acme import ERROR_NAMESPACE
from tests.servers.ca_proxy import NO_ANSWER, Fault, Passing
from tests.servers.https import Answer

Form = Literal["seconds", "date", "text"]
"""Where a `Retry-After` is said: in the header in either form, or only in the problem's text."""


def untouched(passing: Passing) -> Answer:
    """No fault: for a place between others."""
    return passing.pass_on()


def drop_before(_passing: Passing) -> Answer:
    """The CA is not asked."""
    return NO_ANSWER


def drop_after(passing: Passing) -> Answer:
    """The CA acts, and nobody hears of it."""
    passing.pass_on()
    return NO_ANSWER


def truncate(passing: Passing) -> Answer:
    """Half of what the CA said, and then the connection ends."""
    answer = passing.pass_on()
    head = (
        f"HTTP/1.1 {answer.status} Half\r\nContent-Type: application/json\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    )
    return Answer(answer.status, raw=lambda write: write(head.encode() + answer.body[: len(answer.body) // 2]))


def bad_nonce(passing: Passing) -> Answer:
    """The CA is not asked, and the nonce that comes with the refusal is one that it will take (RFC 8555 §6.5)."""
    return _problem("badNonce", 400, "the proxy likes another", {"Replay-Nonce": passing.fresh_nonce()})


def status(code: int, retry_after_seconds: float | None = None, form: Form = "seconds") -> Fault:
    """No problem document, as from a web server before the CA."""
    return lambda _passing: Answer(code, _retry_after(retry_after_seconds, form), b"<html>no</html>")


def problem(
    name: str,
    code: int,
    detail: str = "",
    *,
    retry_after_seconds: float | None = None,
    form: Form = "seconds",
    **members: object,
) -> Fault:
    """A refusal with a problem document of ACME's namespace; `members` are further ones, like `subproblems`."""

    def fault(_passing: Passing) -> Answer:
        text = detail or f"the proxy says {name}"
        if form == "text" and retry_after_seconds is not None:
            at = datetime.now(UTC) + timedelta(seconds=retry_after_seconds)
            text += f", retry after {at:%Y-%m-%d %H:%M:%S} UTC: see https://letsencrypt.org/docs/rate-limits/"
        return _problem(name, code, text, _retry_after(retry_after_seconds, form), members)

    return fault


def rate_limited(retry_after_seconds: float, form: Form = "seconds") -> Fault:
    detail = "too many new orders (300) from this account in the last 3h0m0s"
    return problem("rateLimited", 429, detail, retry_after_seconds=retry_after_seconds, form=form)


def already_replaced() -> Fault:
    """RFC 9773 §5, for a newOrder."""
    return problem("alreadyReplaced", 409, "the certificate that this order replaces has been replaced")


def when_replacing(fault: Fault) -> Fault:
    """Only for a newOrder that replaces a certificate."""
    return lambda passing: fault(passing) if "replaces" in passing.payload else passing.pass_on()


def reworded(change: Callable[[dict[str, Any]], object]) -> Fault:
    """The CA acts, and the JSON that it answers is changed on the way."""

    def fault(passing: Passing) -> Answer:
        answer = passing.pass_on()
        return Answer(answer.status, answer.headers, json.dumps(change(json.loads(answer.body))).encode())

    return fault


def still_processing(retry_after_seconds: float | None = None) -> Fault:
    """An order that is not done yet, whatever the CA says of it (RFC 8555 §7.4)."""
    return lambda passing: as_processing(passing.pass_on(), retry_after_seconds)


def as_processing(answer: Answer, retry_after_seconds: float | None = None) -> Answer:
    """What the CA said of an order, as if it were at it still."""
    order = {name: said for name, said in json.loads(answer.body).items() if name != "certificate"}
    asked_for = {name.lower(): said for name, said in _retry_after(retry_after_seconds, "seconds").items()}
    headers = {**{name.lower(): said for name, said in answer.headers.items()}, **asked_for}
    return Answer(answer.status, headers, json.dumps({**order, "status": "processing"}).encode())


def instead(answer: Answer) -> Fault:
    """The CA is not asked."""
    return lambda _passing: answer


def at_other_times(ahead_seconds: float) -> Fault:
    """The CA answers, and its clock is ahead of ours by so much."""

    def fault(passing: Passing) -> Answer:
        answer = passing.pass_on()
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_seconds), usegmt=True)
        headers = {**answer.headers, "Date": date, "Content-Length": str(len(answer.body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {answer.status} Elsewhen", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        body = b"" if passing.asked.method == "HEAD" else answer.body
        return Answer(answer.status, raw=lambda write: write("\r\n".join(lines).encode() + body))

    return fault


def suggestion(
    start: datetime, end: datetime, *, retry_after_seconds: float | None = 21600, explanation_url: str | None = None
) -> Answer:
    """Renewal information (RFC 9773 §4.2), for `CaProxy.suggest_renewal`."""
    window = {"start": start.isoformat(), "end": end.isoformat()}
    document = {"suggestedWindow": window, **({"explanationURL": explanation_url} if explanation_url else {})}
    headers = {"Content-Type": "application/json", **_retry_after(retry_after_seconds, "seconds")}
    return Answer(200, headers, json.dumps(document).encode())


def no_such_certificate() -> Answer:
    """Let's Encrypt's for an ARI id that it does not know."""
    return _problem("malformed", 404, "Certificate not found")


def _problem(
    name: str,
    code: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> Answer:
    document = {"type": ERROR_NAMESPACE + name, "detail": detail, "status": code, **(members or {})}
    head = {"Content-Type": "application/problem+json", **(headers or {})}
    return Answer(code, head, json.dumps(document).encode())


def _retry_after(seconds: float | None, form: Form) -> Mapping[str, str]:
    if seconds is None or form == "text":
        return {}
    if form == "seconds":
        return {"Retry-After": f"{seconds:.0f}"}
    return {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)}

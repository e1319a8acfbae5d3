"""Problem documents (RFC 7807, RFC 8555 §6.7), and which failure an answer means.

A foreign server wrote them, so nothing in them is relied on: what is not a string is not there."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from application.errors import CaRefused, CaThrottled, CaUnavailable
from domain.acme import Problem, Subproblem
from interfaces.foreign_text import clean
from interfaces.retry_after import retry_after_seconds, seconds_in_words

_MOST_SUBPROBLEMS = 200
_LONGEST_LIMIT_SECONDS = 8 * 86400.0  # Let's Encrypt's longest window is a week


def problem_of(document: object) -> Problem | None:
    """None for what is no JSON object."""
    if not isinstance(document, dict):
        return None
    subproblems = document.get("subproblems")
    return Problem(
        type=_text(document, "type") or "about:blank",
        detail=_detail(document),
        subproblems=tuple(
            _subproblem(each)
            for each in (subproblems if isinstance(subproblems, list) else [])[:_MOST_SUBPROBLEMS]
            if isinstance(each, dict)
        ),
    )


def problem_in(response: httpx.Response) -> Problem | None:
    """The problem that a response carries, also under a wrong content type if its type is a URN."""
    try:
        problem = problem_of(msgspec.json.decode(response.content))
    except (ValueError, RecursionError):
        return None
    declared = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if problem is None or declared == "application/problem+json" or problem.type.startswith("urn:"):
        return problem
    return None


def failure_in(response: httpx.Response, problem: Problem | None) -> CaThrottled | CaUnavailable | CaRefused:
    """What a response without success means. `problem` is the one that it carries; without one only the status is told:
    a URL of a stranger could lead to somebody whose words are not his to read."""
    status, retry_after = response.status_code, retry_after_seconds(response.headers)
    detail = clean(f"HTTP {status} from {response.url}" + (f": {problem.detail}" if problem else ""))
    if (
        status == httpx.codes.SERVICE_UNAVAILABLE
    ):  # Let's Encrypt sheds load as `rateLimited`, which is no limit of ours
        return CaUnavailable(detail, retry_after)
    if problem and problem.name == "rateLimited":
        return CaThrottled(problem, _limited_seconds(response, problem))
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return CaThrottled(problem or Problem("about:blank", detail), retry_after)
    if status == httpx.codes.NOT_IMPLEMENTED:  # asking again would not change it
        return CaRefused(problem or Problem("about:blank", detail), status)
    if problem is None or problem.name == "serverInternal" or not httpx.codes.is_client_error(status):
        return CaUnavailable(detail, retry_after)
    return CaRefused(problem, status)


def _limited_seconds(response: httpx.Response, problem: Problem) -> float | None:
    said = retry_after_seconds(response.headers, _LONGEST_LIMIT_SECONDS)
    return seconds_in_words(problem.detail, response.headers, _LONGEST_LIMIT_SECONDS) if said is None else said


def _detail(document: dict[str, Any]) -> str:
    """With the URL at which the human has to act, where that is asked for (RFC 8555 §6.7, `userActionRequired`)."""
    detail = _text(document, "detail") or _text(document, "title")
    instance = _text(document, "instance")
    return f"{detail} ({instance})" if instance.startswith("https://") and instance not in detail else detail


def _subproblem(document: dict[str, Any]) -> Subproblem:
    identifier = document.get("identifier")
    dns_name = _text(identifier, "value") if isinstance(identifier, dict) else ""
    return Subproblem(dns_name, _text(document, "type") or "about:blank", _text(document, "detail"))


def _text(document: dict[str, Any], member: str) -> str:
    value = document.get(member)
    return clean(value) if isinstance(value, str) else ""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from application.secret_value import SecretValue
from interfaces.logs import set_up_logs
from interfaces.settings import settings_from

FORMATS = ["json", "console"]
SECRET = "hunter2"
"""Used by its name alone: the source lines of a traceback show what is written in them."""

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], Sequence[Mapping[str, Any]]]:
    """What was logged in JSON since the last call."""

    def read() -> Sequence[Mapping[str, Any]]:
        said = capsys.readouterr()
        assert said.out == ""
        return [json.loads(line) for line in said.err.splitlines()]

    return read


def set_up(form: str = "json", level: str = "info") -> None:
    set_up_logs(settings_from({"SCAIVAULT_LOG_FORMAT": form, "SCAIVAULT_LOG_LEVEL": level}))


def fail_holding(secret: str) -> None:
    """Raises with a secret in a local variable and a hidden one in its arguments."""
    hidden = SecretValue(secret)
    raise ValueError("no good", hidden)


def test_each_line_is_json_with_its_time_and_level(lines: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    set_up()
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        log.info("request", status=200)
    log.warning("odd\nthing", name="ü\U0001f512\x1b[31m\r\n")
    first, second = lines()
    assert datetime.fromisoformat(first["timestamp"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert {name: value for name, value in first.items() if name != "timestamp"} == {
        "event": "request",
        "level": "info",
        "request_id": "req_1",
        "status": 200,
    }
    assert (second["event"], second["level"], second["name"]) == ("odd\nthing", "warning", "ü\U0001f512\x1b[31m\r\n")
    assert "request_id" not in second


def test_what_json_does_not_know_is_written_as_text(lines: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    set_up()
    log.info("things", at=datetime(2026, 1, 1, tzinfo=UTC), path=Path("/srv"), raw=b"\xff", thing={1, 2}, none=None)
    (line,) = lines()
    assert "2026" in line["at"]
    assert "/srv" in line["path"]
    assert line["none"] is None


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_less_than_the_level_is_not_shown(
    lines: Callable[[], Sequence[Mapping[str, Any]]], level: str, shown: int
) -> None:
    set_up(level=level)
    for say in (log.debug, log.info, log.warning, log.error):
        say("said")
    assert len(lines()) == shown


def test_a_library_is_heard_in_the_same_form_from_warnings_on(lines: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    set_up(level="debug")
    library = logging.getLogger("uvicorn.error")
    library.info("started %s", "well")
    library.warning("went %s", "odd")
    try:
        fail_holding(SECRET)
    except ValueError:
        library.exception("crashed")
    odd, crashed = lines()
    assert (odd["event"], odd["level"]) == ("went odd", "warning")
    assert (crashed["event"], crashed["level"]) == ("crashed", "error")
    assert "fail_holding" in crashed["exception"]
    assert SECRET not in crashed["exception"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_traceback_shows_neither_locals_nor_hidden_values(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(form)
    try:
        fail_holding(SECRET)
    except ValueError as problem:
        log.exception("crashed")
        log.exception("crashed", exc_info=problem)
        logging.getLogger("library").exception("crashed")
    said = capsys.readouterr().err
    assert said.count("fail_holding") >= 3
    assert said.count("SecretValue(<hidden>)") == 3
    assert SECRET not in said


@pytest.mark.parametrize("form", FORMATS)
def test_a_hidden_value_stays_hidden_wherever_it_is_put(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(form)
    secret = SecretValue(SECRET)
    log.info("said", secret=secret, deep={"list": [secret]}, text=f"{secret}")
    logging.getLogger("library").warning("%s %r", secret, secret)
    said = capsys.readouterr().err
    assert said.count("<hidden>") == 5
    assert SECRET not in said


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("level", ["debug", "info"])
def test_where_webhooks_go_is_not_logged(form: str, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their URLs often carry a secret, and httpx tells each request it makes as info."""
    set_up(form, level)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(204))) as client:
        assert client.post(f"https://hooks.example/{SECRET}").is_success
    assert capsys.readouterr().err == ""
    for name in ("httpx", "httpcore", "httpcore.connection", "botocore", "urllib3", "psycopg.pool"):
        assert logging.getLogger(name).getEffectiveLevel() == logging.WARNING


def test_nothing_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    log.error("said")
    logging.getLogger("library").error("said")
    assert capsys.readouterr().out == ""


def test_setting_up_again_says_nothing_twice(lines: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
    set_up()
    set_up()
    log.info("said")
    logging.getLogger("library").warning("said")
    assert len(lines()) == 2

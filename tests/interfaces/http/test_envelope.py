from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from interfaces.clock import UlidIds
from interfaces.http.envelope import DEEPEST_JSON, LARGEST_BODY, Envelope, Message, Receive, Scope, Send

REQUEST_ID = "req_of-the_Client-1"
JSON = (b"content-type", b"application/json")


@dataclass
class Inner:
    """The application inside. It answers `status`, or raises `failure` before or after it began to answer."""

    status: int = 200
    failure: Exception | None = None
    fails_late: bool = False
    heard: list[bytes] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        message = await receive()
        assert not message["more_body"]
        self.heard.append(message["body"])
        if self.status in {401, 403}:
            scope["state"]["error_code"] = "access_denied"
        if self.failure is not None and not self.fails_late:
            raise self.failure
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"x-inner", b"1")]})
        if self.failure is not None:
            raise self.failure
        await send({"type": "http.response.body", "body": b"inner"})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        error = json.loads(self.body)["error"]
        assert error["request_id"] == self.headers["x-request-id"]
        code: str = error["code"]
        return code


@dataclass
class Around:
    """The envelope around an inner application, and all that went through it, in order."""

    inner: Inner = field(default_factory=Inner)
    passed: list[str] = field(default_factory=list)

    def ask(
        self,
        *chunks: bytes,
        method: str = "POST",
        target: bytes = b"/v1/things",
        query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (JSON,),
        goes_away: bool = False,
    ) -> Answer | None:
        """None where nothing was answered."""
        sent: list[Message] = []
        waiting = [
            {"type": "http.request", "body": chunk, "more_body": goes_away or number < len(chunks)}
            for number, chunk in enumerate(chunks or [b""], start=1)
        ]

        async def receive() -> Message:
            self.passed.append("receive")
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.passed.append(message["type"])
            sent.append(message)

        async def record_refusal(_: Scope, code: str) -> None:
            await asyncio.sleep(0)
            self.passed.append(f"recorded {code}")

        scope = {
            "type": "http",
            "method": method,
            "path": target.decode("latin-1"),
            "raw_path": target,
            "query_string": query,
            "headers": list(headers),
            "client": ("192.0.2.7", 4711),
        }
        asyncio.run(Envelope(self.inner, UlidIds(), record_refusal)(scope, receive, send))
        if not sent:
            return None
        assert [message["type"] for message in sent].count("http.response.start") == 1
        said = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], said, b"".join(message.get("body", b"") for message in sent[1:]))


def asked(*chunks: bytes, **more: Any) -> Answer:
    answer = Around().ask(*chunks, **more)
    assert answer is not None
    return answer


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# --- request ids ---


def test_a_request_id_in_the_known_form_is_kept() -> None:
    around = Around()
    answer = around.ask(headers=[(b"x-request-id", REQUEST_ID.encode())])
    assert answer is not None
    assert answer.headers["x-request-id"] == REQUEST_ID
    assert around.inner.scopes[0]["state"]["request_id"] == REQUEST_ID


@pytest.mark.parametrize("given", [b"", b"a b", b"a\nb", b"x" * 65, b"../etc", "é".encode(), b'{"a":1}', b"a;b"])
def test_any_other_is_replaced_by_a_new_one(given: bytes) -> None:
    first = asked(headers=[(b"x-request-id", given)]).headers["x-request-id"]
    second = asked(headers=[(b"x-request-id", given)]).headers["x-request-id"]
    assert first.startswith("req_")
    assert second.startswith("req_")
    assert first != second


def test_every_answer_carries_one() -> None:
    answers = [
        asked(),
        asked(target=b"/%00"),
        asked(b"{"),
        Around(Inner(status=404)).ask(),
        Around(Inner(failure=RuntimeError())).ask(),
    ]
    assert [answer.status for answer in answers if answer] == [200, 400, 400, 404, 500]
    assert all(answer.headers["x-request-id"].startswith("req_") for answer in answers if answer)


# --- paths ---


@pytest.mark.parametrize("target", [b"/", b"/v1/secrets/a/b-c_d", b"/v1/x.y~z", b"/v1/a%2Fb", b"/v1/...", b"/%7Ea"])
def test_a_plain_path_goes_through(target: bytes) -> None:
    assert asked(target=target).status == 200


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/../admin",
        b"/v1/secrets/..",
        b"/./v1",
        b"/v1/%2e%2e/admin",
        b"/v1/%2E%2e%2Fadmin",
        b"/v1/.%2e/x",
        b"/v1/a%2f..%2fb",
        b"/v1/%00",
        b"/v1/a%0d%0ab",
        b"/v1/a\nb",
        b"/v1/%252e%252e/x",
        b"/v1/%25",
        b"/v1/%",
        b"/v1/%zz",
        b"/v1/a b",
        b"/v1/a%20b",
        b"/v1/\\..",
        b"/v1/a%5cb",
        b"/v1/a;b",
        b"/v1//x",
        b"//v1",
        b"/v1/a%2f%2fb",
        b"/v1/%ff",
        b"/v1/%c0%ae%c0%ae/x",
        "/v1/é".encode("latin-1"),
        "/v1/é".encode(),
        "/v1/\uff0e\uff0e/x".encode(),
        b"http://elsewhere/v1",
        b"*",
        b"",
    ],
)
def test_a_path_that_is_not_plain_or_climbs_goes_no_further(target: bytes) -> None:
    around = Around()
    answer = around.ask(target=target)
    assert answer is not None
    assert (answer.status, answer.code) == (400, "invalid_path")
    assert not around.inner.scopes


@settings(deadline=None)
@given(st.binary(max_size=40))
@example(b"%2e%2e%2f")
def test_whatever_stands_in_a_path_only_plain_ones_arrive(tail: bytes) -> None:
    around = Around()
    answer = around.ask(target=b"/v1/" + tail)
    assert answer is not None
    assert answer.status in {200, 400}
    if answer.status == 200:
        assert b".." not in tail.replace(b"%2e", b".").replace(b"%2E", b".").replace(b"%2F", b"/").split(b"/")


def test_a_nul_in_a_query_is_refused() -> None:
    assert asked(query=b"prefix=a%00b").code == "invalid_request"
    assert asked(query=b"prefix=a%2500b").status == 200


# --- bodies: size ---


def test_the_largest_body_goes_through_whole() -> None:
    around = Around()
    body = b'"' + b"x" * (LARGEST_BODY - 2) + b'"'
    answer = around.ask(body[:1000], b"", body[1000:], headers=[JSON, (b"content-length", str(LARGEST_BODY).encode())])
    assert answer is not None
    assert answer.status == 200
    assert around.inner.heard == [body]


def test_a_larger_one_is_refused_by_its_content_length_before_it_is_read() -> None:
    around = Around()
    answer = around.ask(b'""', headers=[JSON, (b"content-length", str(LARGEST_BODY + 1).encode())])
    assert answer is not None
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert "receive" not in around.passed


def test_a_larger_one_in_chunks_is_refused_where_it_becomes_too_large() -> None:
    around = Around()
    answer = around.ask(*[b" " * 1024] * 1000)
    assert answer is not None
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert around.passed.count("receive") == LARGEST_BODY // 1024 + 1
    assert not around.inner.scopes


@pytest.mark.parametrize("length", [b"-1", b"many", b"1e3", b""])
def test_a_content_length_that_is_no_number_does_not_help(length: bytes) -> None:
    answer = asked(b" " * (LARGEST_BODY + 1), headers=[JSON, (b"content-length", length)])
    assert answer.code == "request_too_large"


def test_half_a_request_is_none() -> None:
    around = Around()
    assert around.ask(b'{"a": 1}', goes_away=True) is None
    assert not around.inner.scopes


# --- bodies: form ---


@pytest.mark.parametrize(
    "media_type", [b"application/json", b"Application/JSON; charset=utf-8", b"application/json ;a=b"]
)
def test_a_body_is_json_by_its_content_type(media_type: bytes) -> None:
    assert asked(b"{}", headers=[(b"content-type", media_type)]).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/json")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"application/json+patch")],
        [(b"content-type", b"multipart/form-data; boundary=application/json")],
    ],
)
def test_a_body_of_another_or_no_content_type_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    answer = asked(b"{}", headers=headers)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_no_body_needs_no_content_type() -> None:
    assert asked(b"", headers=[]).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b'"\xc3\x28"',
        b'"\xed\xa0\x80"',
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"{",
        b"[1,]",
        b"{'a': 1}",
        b"{} {}",
        b"// {}",
        b'{"a": 01}',
        b'"a\nb"',
        b'"\\x"',
        b"nul",
        b"   ",
        b"NaN",
        b'{"a": NaN}',
        b"[Infinity]",
        b'{"a": {"b": -Infinity}}',
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'[{"b": {"a": 1, "c": 2, "a": 3}}]',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": "a"}',
        b'["\\\\\\u0000"]',
        b"1" * 5000,
        b"}{",
        b"]]]]",
        b'"open [[[',
        b'"open \\',
    ],
)
def test_what_is_no_clean_json_goes_no_further(body: bytes) -> None:
    around = Around()
    answer = around.ask(body)
    assert answer is not None
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert not around.inner.scopes


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b" null ",
        b"-1.5e3",
        b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}',
        b'{"a": 1, "A": 2}',
        b'["NaN", "Infinity"]',
        b'"\\\\u0000"',
        b'"\\\\\\\\u0000"',
        '"ü"'.encode(),
        b'"\\u00fc"',
    ],
)
def test_what_only_looks_like_it_goes_through_unchanged(body: bytes) -> None:
    around = Around()
    answer = around.ask(body)
    assert answer is not None
    assert answer.status == 200
    assert around.inner.heard == [body]


def test_thirty_two_levels_are_accepted_and_thirty_three_are_not() -> None:
    assert asked(nested(DEEPEST_JSON)).status == 200
    assert asked(nested(DEEPEST_JSON + 1)).code == "invalid_request"
    assert asked(b'{"a":' * 32 + b"1" + b"}" * 32).status == 200
    assert asked(b'{"a":' * 33 + b"1" + b"}" * 33).code == "invalid_request"
    assert asked(b"[" + b",".join([nested(DEEPEST_JSON - 1)] * 50) + b"]").status == 200


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["a",'])
def test_a_hundred_thousand_brackets_overflow_nothing(opening: bytes) -> None:
    body = (opening * 100_000)[:LARGEST_BODY]
    assert asked(body).code == "invalid_request"


def test_brackets_in_strings_do_not_count() -> None:
    assert asked(b'{"a": "' + b"[{" * 100 + b'"}').status == 200
    assert asked(b'{"' + b"[" * 100 + b'": 1}').status == 200


def test_an_escaped_quote_does_not_end_a_string() -> None:
    assert asked(b'["\\"' + b"[" * 100 + b'"]').status == 200
    assert asked(b'["\\\\\\"' + b"[" * 100 + b'"]').status == 200
    assert asked(b'["\\\\",' + nested(DEEPEST_JSON) + b"]").code == "invalid_request"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "body", [b'"' + b'\\"' * 60_000, b'"' + b"\\" * 120_000, b'"\\"' * 40_000, b'["' + b'\\\\"' * 40_000]
)
def test_no_arrangement_of_quotes_takes_more_than_an_instant(body: bytes) -> None:
    """Looking for the end of each string anew would take minutes."""
    assert asked(body).status == 400


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('"\\[]{}\x01ü,:'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[]{}a'), inner, max_size=3),
)


def depth_of(document: object) -> int:
    match document:
        case list():
            return 1 + max(map(depth_of, document), default=0)
        case dict():
            return 1 + max(map(depth_of, document.values()), default=0)
        case _:
            return 0


@settings(deadline=None)
@given(documents, st.integers(0, DEEPEST_JSON + 2), st.booleans())
def test_any_document_goes_through_unchanged_unless_it_is_too_deep(
    document: object, more: int, ascii_only: bool
) -> None:
    for _ in range(more):
        document = [document]
    around = Around()
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    answer = around.ask(body)
    assert answer is not None
    too_deep = depth_of(document) > DEEPEST_JSON
    assert answer.status == (400 if too_deep else 200)
    assert around.inner.heard == ([] if too_deep else [body])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_answered(body: bytes) -> None:
    assert asked(body).status in {200, 400}


# --- refusals and crashes ---


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_on_record_before_its_first_byte_leaves(status: int) -> None:
    around = Around(Inner(status=status))
    around.ask()
    assert around.passed == ["receive", "recorded access_denied", "http.response.start", "http.response.body"]


@pytest.mark.parametrize("status", [200, 304, 400, 404, 409, 500])
def test_no_other_answer_is(status: int) -> None:
    around = Around(Inner(status=status))
    around.ask()
    assert around.passed == ["receive", "http.response.start", "http.response.body"]


def test_what_nobody_foresaw_shows_nothing_of_its_cause_and_is_logged() -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = Around(Inner(failure=RuntimeError("hunter2"))).ask(headers=[(b"x-request-id", REQUEST_ID.encode())])
    assert answer is not None
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"hunter2" not in answer.body
    assert b"RuntimeError" not in answer.body
    assert answer.headers["cache-control"] == "no-store"
    crashed, request = lines
    assert (crashed["event"], crashed["log_level"], crashed["request_id"]) == ("request_crashed", "error", REQUEST_ID)
    assert crashed["exc_info"]
    assert (request["event"], request["status"]) == ("request", 500)


def test_a_crash_in_the_middle_of_an_answer_is_logged_and_no_second_one_begins() -> None:
    with capture_logs() as lines:
        answer = Around(Inner(failure=RuntimeError(), fails_late=True)).ask()
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"")
    assert [line["event"] for line in lines] == ["request_crashed", "request"]


# --- the line in the log ---


def test_each_request_is_one_line_that_holds_no_secret() -> None:
    headers = [JSON, (b"authorization", b"Bearer skt_hunter2"), (b"x-request-id", REQUEST_ID.encode())]
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        Around().ask(b'{"password": "hunter3"}', query=b"token=hunter4", headers=headers)
    (line,) = lines
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": REQUEST_ID,
        "method": "POST",
        "path": "/v1/things",
        "status": 200,
        "identity_id": None,
        "source_ip": "192.0.2.7",
    }


def test_the_line_of_a_refused_body_does_not_hold_it_either() -> None:
    with capture_logs() as lines:
        answer = Around().ask(b'{"password": hunter3}')
    assert answer is not None
    assert b"hunter3" not in answer.body
    assert "hunter3" not in str(lines)
    assert [line["status"] for line in lines] == [400]


def test_the_request_id_is_bound_for_all_lines_of_the_request_and_no_longer() -> None:
    bound: list[Mapping[str, Any]] = []

    class Looking(Inner):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            bound.append(dict(structlog.contextvars.get_contextvars()))
            await super().__call__(scope, receive, send)

    Around(Looking()).ask(headers=[(b"x-request-id", REQUEST_ID.encode())])
    assert bound == [{"request_id": REQUEST_ID}]
    assert "request_id" not in structlog.contextvars.get_contextvars()


# --- what is no request ---


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_request_is_passed_on_as_it_is(kind: str) -> None:
    inner = Inner()
    scope = {"type": kind}

    async def never(*_: object) -> Any:
        raise AssertionError

    asyncio.run(Envelope(inner, UlidIds(), never)(scope, never, never))
    assert inner.scopes == [{"type": kind}]

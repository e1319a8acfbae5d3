"""Nonces, problems, the directory and the wire: what the client does with a server of any quality."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from application.errors import CaRefused, CaThrottled, CaTimedOut, CaUnavailable, EgressRefused
from application.ports import CaAccount
from domain.acme import ERROR_NAMESPACE, Subproblem
from interfaces.acme import client as client_module
from interfaces.acme.account_key import signing_key
from interfaces.acme.client import AcmeClient
from interfaces.acme.problems import failure_in, problem_of
from interfaces.acme.server import AcmeServer, Directory
from interfaces.egress import Egress
from interfaces.foreign_text import clean
from tests.interfaces.scripted_ca import ORDER, PEM_KEY, Stage, json_answer, problem_answer, staged
from tests.servers.https import Answer, Asked, ca_bundle_pem

LOOPBACK = ip_network("127.0.0.0/8")
NOON = {"Date": "Mon, 23 Nov 2026 12:00:00 GMT"}
LIMITED = (
    "too many new orders (300) from this account in the last 3h0m0s, retry after 2026-11-23 12:10:00 UTC: see "
    "https://letsencrypt.org/docs/rate-limits/#new-orders-per-account"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "detail", "title", "subproblems", "identifier", "value"]), inner, max_size=6
        )
    ),
    max_leaves=20,
)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def order(stage: Stage) -> None:
    stage.client.order(stage.account, stage.url("/order"))


# --- nonces ---


def test_every_answer_gives_the_next_nonce_so_one_is_asked_for_only_at_the_start(stage: Stage) -> None:
    stage.ca.replies["/order"] = [json_answer(ORDER), problem_answer("malformed"), Answer(500), json_answer(ORDER)]
    order(stage)
    for failure in (CaRefused, CaUnavailable):
        with pytest.raises(failure):
            order(stage)
    order(stage)
    assert stage.count("HEAD", "/newNonce") == 1
    assert len({each["nonce"] for each in stage.posted()}) == 4


def test_a_refused_nonce_is_followed_by_the_one_that_came_with_the_refusal(stage: Stage) -> None:
    refusals = [problem_answer("badNonce", headers={"Replay-Nonce": nonce}) for nonce in ("AAAA", "BBBB")]
    stage.ca.replies["/order"] = [*refusals, json_answer(ORDER)]
    order(stage)
    assert [each["nonce"] for each in stage.posted()][1:] == ["AAAA", "BBBB"]
    assert stage.count("HEAD", "/newNonce") == 1


def test_a_server_that_refuses_ninety_nine_nonces_is_still_served(stage: Stage) -> None:
    stage.ca.replies["/order"] = [*[problem_answer("badNonce")] * 99, json_answer(ORDER)]
    order(stage)
    assert stage.count("POST", "/order") == 100


def test_a_server_that_refuses_every_nonce_is_left_alone(stage: Stage) -> None:
    stage.ca.replies["/order"] = [problem_answer("badNonce")]
    with pytest.raises(CaUnavailable, match="nonces"):
        order(stage)
    assert stage.count("POST", "/order") == 100
    assert len({each["nonce"] for each in stage.posted()}) == 100


@pytest.mark.parametrize("replay_nonce", ["", "not base64url!", "A", "AB", "AAAA=="])
def test_a_refusal_without_a_usable_nonce_has_one_asked_for(stage: Stage, replay_nonce: str) -> None:
    refusal = problem_answer("badNonce", headers={"Replay-Nonce": replay_nonce})
    stage.ca.replies["/order"] = [refusal, json_answer(ORDER)]
    order(stage)
    assert stage.count("HEAD", "/newNonce") == 2


def test_a_server_without_nonces_is_unavailable(stage: Stage) -> None:
    stage.ca.replies["/newNonce"] = [Answer(headers={"Replay-Nonce": ""}), Answer(503, {"Replay-Nonce": ""})]
    for _ in range(2):
        with pytest.raises(CaUnavailable):
            order(stage)


def test_many_threads_never_use_a_nonce_twice(stage: Stage) -> None:
    stage.ca.replies["/order"] = [json_answer(ORDER)]

    def ten_orders() -> None:
        for _ in range(10):
            order(stage)

    threads = [threading.Thread(target=ten_orders) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each["nonce"] for each in stage.posted()}) == 80
    assert stage.count("HEAD", "/newNonce") <= 8
    assert stage.count("GET", "/directory") == 1


# --- problems ---


def test_a_problem_is_told_with_its_subproblems_and_status(stage: Stage) -> None:
    subproblems = [
        {"type": ERROR_NAMESPACE + "caa", "detail": "forbidden", "identifier": {"type": "dns", "value": "a.example"}},
        {"type": ERROR_NAMESPACE + "dns", "detail": "none", "identifier": {"type": "new-type", "value": "x"}},
        {"detail": "nameless"},
    ]
    stage.ca.replies["/order"] = [problem_answer("compound", 403, subproblems=subproblems)]
    with pytest.raises(CaRefused) as refusal:
        order(stage)
    assert (refusal.value.problem.name, refusal.value.status) == ("compound", 403)
    assert refusal.value.problem.subproblems == (
        Subproblem("a.example", ERROR_NAMESPACE + "caa", "forbidden"),
        Subproblem("x", ERROR_NAMESPACE + "dns", "none"),
        Subproblem("", "about:blank", "nameless"),
    )


def test_a_problem_is_seen_under_a_wrong_content_type(stage: Stage) -> None:
    stage.ca.replies["/order"] = [problem_answer("unauthorized", 403, headers={"Content-Type": "application/json"})]
    with pytest.raises(CaRefused) as refusal:
        order(stage)
    assert refusal.value.problem.name == "unauthorized"


@pytest.mark.parametrize(
    ("answer", "retry_after_seconds"),
    [
        (problem_answer("rateLimited", 429, {"Retry-After": "120"}), 120),
        (problem_answer("rateLimited", 403, {"Retry-After": "0"}), 0),
        (problem_answer("malformed", 429), None),
        (Answer(429, {"Retry-After": "9" * 400}, b"slow down"), 86400),
        (problem_answer("rateLimited", 429, {"Retry-After": "9" * 400}), 8 * 86400),
        (problem_answer("rateLimited", 429, detail=LIMITED.replace("2026", "2125")), 8 * 86400),
        (problem_answer("rateLimited", 429, detail=LIMITED.replace("2026", "2025")), 0),
    ],
)
def test_a_rate_limit_is_told_with_its_patience(
    stage: Stage, answer: Answer, retry_after_seconds: float | None
) -> None:
    stage.ca.replies["/order"] = [answer]
    with pytest.raises(CaThrottled) as failure:
        order(stage)
    assert failure.value.retry_after_seconds == retry_after_seconds
    assert failure.value.detail


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"),
        Answer(403, {"Content-Type": "text/html"}, b"<html>Forbidden</html>"),
        Answer(404, {"Content-Type": "application/json"}, b'{"message": "no such thing"}'),
        Answer(301, {"Location": "/elsewhere"}),
        Answer(200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"),
        Answer(200, {}, b'{"status": "pending"}'),
        Answer(200, {}, b"\xff\xfe"),
        Answer(200, {}, b"[" * 500_000),
        Answer(400, {"Content-Type": "application/problem+json"}, b"[" * 500_000),
        problem_answer("malformed", 500),
        problem_answer("serverInternal", 400),
        json_answer({**ORDER, "status": "pondering"}),
        json_answer({**ORDER, "expires": "2026-01-01T00:00:00"}),
        json_answer({**ORDER, "padding": "x" * 1024 * 1024}),
        Answer(raw=lambda write: write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")),
        Answer(raw=lambda _write: None),
    ],
    ids=range(17),
)
def test_an_answer_that_is_no_acme_may_be_better_later(stage: Stage, answer: Answer) -> None:
    stage.ca.replies["/order"] = [answer]
    with pytest.raises(CaUnavailable) as failure:
        order(stage)
    assert 0 < len(failure.value.detail) <= 1000


@pytest.mark.parametrize(
    ("name", "headers", "retry_after_seconds"),
    [
        ("rateLimited", {}, 600),
        ("rateLimited", {"Retry-After": "in a while"}, 600),
        ("rateLimited", {"Retry-After": "30"}, 30),
        ("rateLimited", {"Retry-After": "Thu, 26 Nov 2026 12:00:00 GMT"}, 3 * 86400),
        ("malformed", {}, None),
        ("malformed", {"Retry-After": "Thu, 26 Nov 2026 12:00:00 GMT"}, 86400),
    ],
)
def test_the_time_in_a_rate_limits_words_is_taken_where_no_header_says_it(
    name: str, headers: dict[str, str], retry_after_seconds: float | None
) -> None:
    request = httpx.Request("POST", "https://ca.example/newOrder")
    said = problem_of({"type": ERROR_NAMESPACE + name, "detail": LIMITED})
    failure = failure_in(httpx.Response(429, headers={**NOON, **headers}, request=request), said)
    assert isinstance(failure, CaThrottled)
    assert failure.retry_after_seconds == retry_after_seconds


def test_a_server_error_is_told_with_its_patience(stage: Stage) -> None:
    stage.ca.replies["/order"] = [Answer(503, {"Retry-After": "30"})]
    with pytest.raises(CaUnavailable) as failure:
        order(stage)
    assert failure.value.retry_after_seconds == 30


def test_of_an_answer_that_is_no_acme_nothing_but_the_status_is_told(stage: Stage) -> None:
    for status, failure in ((403, CaUnavailable), (502, CaUnavailable), (429, CaThrottled)):
        stage.ca.replies["/order"] = [Answer(status, {"Content-Type": "text/plain"}, b"root:x:0:0")]
        with pytest.raises(failure) as told:
            order(stage)
        assert told.value.detail == f"HTTP {status} from {stage.url('/order')}"


def test_a_server_that_does_not_answer_in_time_has_timed_out() -> None:
    said = threading.Event()

    def never(_write: Callable[[bytes], object]) -> None:
        said.wait(30)

    with staged(timeout_seconds=0.3) as stage:
        stage.ca.replies["/order"] = [Answer(raw=never)]
        with pytest.raises(CaTimedOut):
            order(stage)
        said.set()


def test_a_server_that_is_not_there_is_unavailable(stage: Stage) -> None:
    for url in (
        "https://localhost:1/directory",
        "https://nowhere.invalid/directory",
        "https://0177.0.0.1/directory",
        "https://xn--/",
    ):
        with pytest.raises(CaUnavailable):
            stage.client.capabilities(url, None)


def test_a_server_in_a_network_that_is_not_allowed_is_refused(stage: Stage) -> None:
    with pytest.raises(EgressRefused):
        AcmeClient(Egress([]), "ScaiVault/0.1.0").capabilities(stage.account.directory_url, ca_bundle_pem())


@given(JSON)
def test_no_problem_document_is_too_odd(document: object) -> None:
    problem = problem_of(document)
    assert (problem is None) == (not isinstance(document, dict))


@given(st.text())
def test_stored_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()


def test_stored_text_has_a_limit_and_no_terminal_codes() -> None:
    assert clean("a\x1b[31m\r\nb\u202ec" + "x" * 9000) == ("a [31m b c" + "x" * 9000)[:1000]


# --- the directory ---


def test_the_directory_is_read_once_a_day(stage: Stage) -> None:
    moments = iter((0.0, 86_399.0, 86_400.0, 100_000.0))
    with httpx.Client(transport=httpx.MockTransport(lambda _request: directory_response())) as http:
        asked: list[str] = []
        http.event_hooks = {"request": [lambda request: asked.append(str(request.url))]}
        server = AcmeServer(stage.account.directory_url, http, "ScaiVault/0.1.0", lambda: next(moments))
        for _ in range(4):
            server.directory()
    assert len(asked) == 2


def directory_response() -> httpx.Response:
    return httpx.Response(200, json={"newNonce": "n", "newAccount": "a", "newOrder": "o"})


class Moment:
    """A clock and a directory that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers: Callable[[], httpx.Response] = directory_response
        self.elsewhere = httpx.Response(404)
        self.asked = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return self.answers() if request.url.path == "/directory" else self.elsewhere


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def server(moment: Moment) -> Iterator[AcmeServer]:
    http = httpx.Client(transport=httpx.MockTransport(moment.answer))
    with closing(AcmeServer("https://ca.example/directory", http, "ScaiVault/0.1.0", lambda: moment.now)) as server:
        yield server


def failing() -> httpx.Response:
    return httpx.Response(503)


def test_an_old_directory_serves_on_while_it_cannot_be_had_anew(moment: Moment, server: AcmeServer) -> None:
    first = server.directory()
    moment.now, moment.answers = 86_400.0, failing
    assert [server.directory() for _ in range(3)] == [first] * 3
    assert moment.asked == 2
    moment.now += 300
    assert server.directory() is first
    assert moment.asked == 3
    moment.now, moment.answers = moment.now + 300, directory_response
    assert server.directory() is not first


def together(server: AcmeServer, moment: Moment, answer: Callable[[], httpx.Response], count: int) -> list[object]:
    """What each of so many gets who ask while the directory is being read: the directory or the failure."""
    waiting, started = threading.Semaphore(0), threading.Event()

    def answers() -> httpx.Response:
        started.set()
        for _ in range(count - 1):
            assert waiting.acquire(timeout=20)
        return answer()

    def ask() -> object:
        try:
            return server.directory()
        except CaUnavailable as failure:
            return failure

    moment.answers = answers
    now, lock = server._monotonic, server._reading

    def arrive() -> float:
        waiting.release()
        return now()

    with ThreadPoolExecutor(count) as threads:
        first = threads.submit(ask)
        assert started.wait(20)
        server._monotonic = arrive
        others = [threads.submit(ask) for _ in range(count - 1)]
        said = [each.result() for each in (first, *others)]
    server._monotonic = now
    assert not lock.locked()
    return said


@pytest.mark.parametrize("answer", [directory_response, failing])
def test_all_who_ask_while_the_directory_is_read_share_what_comes_of_it(
    moment: Moment, server: AcmeServer, answer: Callable[[], httpx.Response]
) -> None:
    said = together(server, moment, answer, 5)
    assert len({id(each) for each in said}) == 1
    assert moment.asked == 1


def test_nobody_waits_for_a_new_directory_who_has_an_old_one(moment: Moment, server: AcmeServer) -> None:
    old = server.directory()
    moment.now = 86_400.0
    over = threading.Event()

    def hang() -> httpx.Response:
        assert over.wait(20)
        return failing()

    moment.answers = hang
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(server.directory)
        while not server._reading.locked():
            pass
        assert server.directory() is old
        over.set()
        assert reading.result() is old


def test_a_failure_is_not_kept_for_who_asks_later(moment: Moment, server: AcmeServer) -> None:
    moment.answers = failing
    with pytest.raises(CaUnavailable):
        server.directory()
    moment.answers = directory_response
    assert server.directory().new_nonce == "n"


@pytest.mark.parametrize("status", [500, 502, 503])
def test_the_directory_stays_in_an_outage(stage: Stage, status: int) -> None:
    stage.ca.replies["/newOrder"] = [Answer(status)]
    for _ in range(2):
        with pytest.raises(CaUnavailable):
            stage.client.new_order(stage.account, ["a.example"], None)
    assert stage.count("GET", "/directory") == 1


def test_the_server_that_was_not_asked_for_longest_is_forgotten_and_its_connections_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MOST_SERVERS", 2)

    def ask(path: str) -> httpx.Client:
        url = stage.url(path)
        stage.ca.replies[path] = [json_answer({"newNonce": "n", "newAccount": "a", "newOrder": "o"})]
        stage.client.capabilities(url, ca_bundle_pem())
        return stage.client._servers[url, ca_bundle_pem()]._http

    one, two = ask("/one"), ask("/two")
    assert ask("/one") is one
    three = ask("/three")
    gc.collect()
    assert [http.is_closed for http in (one, two, three)] == [False, True, False]
    assert ask("/two") is not two


def test_a_server_that_is_forgotten_while_it_is_asked_still_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MOST_SERVERS", 1)
    urls = [stage.url(f"/authz/{number}") for number in range(3)]

    def answer(_asked: Asked) -> Answer:
        stage.client._server(stage.url("/other"), ca_bundle_pem())
        gc.collect()
        said = {"identifier": {"type": "dns", "value": "acme.example"}, "status": "valid"}
        return json_answer(said)

    for number in range(3):
        stage.ca.replies[f"/authz/{number}"] = [answer]
    assert [each.url for each in stage.client.authorizations(stage.account, urls)] == urls


@pytest.mark.parametrize(
    "unfit",
    [
        Answer(404),
        problem_answer("malformed", 404),
        json_answer({"no": "order"}, 201, {"Location": "/order/1"}),
        json_answer(ORDER, 201),
    ],
    ids=["404", "404 with a problem", "no order", "no Location"],
)
def test_an_order_that_meets_an_endpoint_that_has_moved_can_be_placed_again(stage: Stage, unfit: Answer) -> None:
    stage.client.capabilities(stage.account.directory_url, ca_bundle_pem())
    stage.ca.replies["/newOrder"] = [unfit]
    stage.ca.directory["newOrder"] = stage.url("/moved")
    stage.ca.replies["/moved"] = [json_answer(ORDER, 201, {"Location": stage.url("/order/2")})]
    with pytest.raises(CaUnavailable):
        stage.client.new_order(stage.account, ["a.example"], None)
    assert stage.client.new_order(stage.account, ["a.example"], None).url == stage.url("/order/2")


def test_of_two_orders_that_meet_the_same_moved_endpoint_both_can_be_placed_again(stage: Stage) -> None:
    """The second one's answer comes when the directory has been read anew already."""
    url = stage.url("/newOrder")
    server, key = stage.client._server(stage.account.directory_url, ca_bundle_pem()), signing_key(PEM_KEY)
    server.directory()
    stage.ca.replies["/newOrder"] = [problem_answer("malformed", 404)]
    stage.ca.directory["newOrder"] = stage.url("/moved")
    for _ in range(2):
        with pytest.raises(CaUnavailable, match="moved"):
            server.post(url, b"{}", key, stage.account.account_url)


def test_what_is_not_found_where_the_directory_still_leads_is_a_refusal(stage: Stage) -> None:
    """Let's Encrypt says so of a certificate that is to be replaced and that it does not know."""
    stage.ca.replies["/newOrder"] = [problem_answer("malformed", 404)]
    for _ in range(2):
        with pytest.raises(CaRefused):
            stage.client.new_order(stage.account, ["a.example"], None, "aYhba4.AIdlQy")


def test_new_nonces_that_are_none_have_the_directory_read_again(stage: Stage) -> None:
    stage.ca.replies["/order"] = [json_answer(ORDER)]
    stage.ca.replies["/newNonce"] = [Answer(headers={"Replay-Nonce": ""})]
    with pytest.raises(CaUnavailable):
        order(stage)
    stage.ca.directory["newNonce"] = stage.url("/moved")
    stage.ca.replies["/moved"] = [Answer(200)]
    order(stage)


def test_what_a_ca_offers_is_read_anew_although_its_directory_is_known(stage: Stage) -> None:
    def profiles() -> Mapping[str, str]:
        return stage.client.capabilities(stage.account.directory_url, ca_bundle_pem()).profiles

    stage.ca.directory["meta"] = {"profiles": {"classic": "90 days"}}
    assert profiles() == {"classic": "90 days"}
    stage.ca.directory["meta"] = {"profiles": {}}
    assert profiles() == {}


def test_what_a_ca_offered_is_not_told_for_what_it_offers(stage: Stage) -> None:
    stage.client.capabilities(stage.account.directory_url, ca_bundle_pem())
    stage.ca.replies["/directory"] = [Answer(503)]
    with pytest.raises(CaUnavailable):
        stage.client.capabilities(stage.account.directory_url, ca_bundle_pem())
    stage.ca.replies["/order"] = [json_answer(ORDER)]
    order(stage)


@pytest.mark.parametrize("status", [200, 404])
def test_renewal_information_that_does_not_fit_has_the_directory_read_again_once_an_hour(
    moment: Moment, server: AcmeServer, status: int
) -> None:
    def ask_twenty_times() -> int:
        for _ in range(20):
            server.directory()
            with pytest.raises(CaUnavailable):
                server.resource(server.get("https://ca.example/ari/a.b"), Directory)
        return moment.asked - asked

    server.directory()
    moment.elsewhere = httpx.Response(status, content=b"none")
    asked = moment.asked
    assert ask_twenty_times() == 20
    moment.now, asked = 3600.0, moment.asked
    assert ask_twenty_times() == 20 + 1
    moment.now, moment.answers, asked = 7200.0, failing, moment.asked
    assert ask_twenty_times() == 20 + 1
    moment.now, asked = 7500.0, moment.asked
    assert ask_twenty_times() == 20 + 1


def test_the_directory_stays_after_a_refusal(stage: Stage) -> None:
    stage.ca.replies["/newOrder"] = [problem_answer("rejectedIdentifier")]
    for _ in range(2):
        with pytest.raises(CaRefused):
            stage.client.new_order(stage.account, ["a.example"], None)
    assert stage.count("GET", "/directory") == 1


@pytest.mark.parametrize("answer", [Answer(500), Answer(200, {}, b"<html>"), json_answer({"newNonce": "x"})])
def test_a_directory_that_is_none_is_not_kept(stage: Stage, answer: Answer) -> None:
    stage.ca.replies["/directory"] = [answer]
    with pytest.raises(CaUnavailable):
        stage.client.capabilities(stage.account.directory_url, ca_bundle_pem())
    del stage.ca.replies["/directory"]
    assert not stage.client.capabilities(stage.account.directory_url, ca_bundle_pem()).ari


# --- clocks ---

AT_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clocks:
    """The CA's clock stands at noon; ours, and how long an answer takes, are the test's."""

    def __init__(self) -> None:
        self.ours = AT_NOON
        self.monotonic = 0.0
        self.answer_takes = timedelta(0)
        self.headers = dict(NOON)

    def answer(self, _request: httpx.Request) -> httpx.Response:
        self.ours += self.answer_takes
        return httpx.Response(200, headers=self.headers)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def watching(clocks: Clocks) -> Iterator[AcmeServer]:
    http = httpx.Client(transport=httpx.MockTransport(clocks.answer))
    place = ("https://ca.example/directory", http, "ScaiVault/0.1.0")
    with closing(AcmeServer(*place, lambda: clocks.monotonic, lambda: clocks.ours)) as server:
        yield server


def ask(server: AcmeServer) -> list[tuple[str, int]]:
    """What was logged about clocks."""
    with capture_logs() as logs:
        server.get("https://ca.example/ari")
    assert {entry["event"] for entry in logs} <= {"clock_skew"}
    assert {entry["log_level"] for entry in logs} <= {"warning"}
    return [(entry["ca_host"], entry["seconds"]) for entry in logs]


@pytest.mark.parametrize(
    ("ours_ahead_seconds", "told"), [(0, []), (60, []), (-60, []), (61.2, [-61]), (-86400, [86400])]
)
def test_clocks_that_are_more_than_a_minute_apart_are_told(
    clocks: Clocks, watching: AcmeServer, ours_ahead_seconds: float, told: list[int]
) -> None:
    clocks.ours += timedelta(seconds=ours_ahead_seconds)
    assert watching.skew_seconds is None
    assert ask(watching) == [("ca.example", seconds) for seconds in told]
    assert watching.skew_seconds == pytest.approx(-ours_ahead_seconds)


def test_clocks_that_are_apart_are_told_once_an_hour(clocks: Clocks, watching: AcmeServer) -> None:
    clocks.ours += timedelta(hours=1)
    said = []
    for clocks.monotonic in (0.0, 1.0, 3599.0, 3600.0, 7199.0):
        said.append(len(ask(watching)))
    assert said == [1, 0, 0, 1, 0]


def test_a_clock_that_is_right_again_is_known_to_be(clocks: Clocks, watching: AcmeServer) -> None:
    clocks.ours += timedelta(hours=1)
    ask(watching)
    clocks.ours = AT_NOON
    ask(watching)
    assert watching.skew_seconds == 0


def test_the_time_that_an_answer_takes_is_no_skew(clocks: Clocks, watching: AcmeServer) -> None:
    clocks.ours, clocks.answer_takes = AT_NOON - timedelta(seconds=45), timedelta(seconds=90)
    assert ask(watching) == []
    assert watching.skew_seconds == 0


@pytest.mark.parametrize("headers", [{}, {"Date": "today"}, {**NOON, "Age": "7200"}])
def test_an_answer_that_does_not_tell_its_time_says_nothing_of_clocks(
    clocks: Clocks, watching: AcmeServer, headers: dict[str, str]
) -> None:
    clocks.ours += timedelta(hours=1)
    clocks.headers = headers
    assert ask(watching) == []
    assert watching.skew_seconds is None


def test_the_clients_clock_is_the_one_that_is_compared() -> None:
    with staged() as stage, closing(AcmeClient(Egress([LOOPBACK]), "ScaiVault/0.1.0", now=lambda: AT_NOON)) as client:
        with capture_logs() as logs:
            client.capabilities(stage.account.directory_url, ca_bundle_pem())
        assert [(entry["event"], entry["ca_host"]) for entry in logs] == [("clock_skew", "localhost")]


# --- the wire ---


def test_requests_are_signed_for_their_url_and_account_over_one_connection(stage: Stage) -> None:
    stage.ca.replies["/order"] = [json_answer(ORDER)]
    order(stage)
    order(stage)
    posts = [asked for asked in stage.server.asked if asked.method == "POST"]
    assert {each["url"] for each in stage.posted()} == {stage.url("/order")}
    assert {(each["kid"], each["alg"]) for each in stage.posted()} == {(stage.account.account_url, "ES256")}
    assert {each["payload"] for each in stage.posted()} == {b""}
    assert {asked.headers["User-Agent"] for asked in stage.server.asked} == {"ScaiVault/0.1.0"}
    assert {asked.headers["Accept-Language"] for asked in stage.server.asked} == {"en"}
    assert {asked.headers["Content-Type"] for asked in posts} == {"application/jose+json"}
    assert len({asked.peer for asked in stage.server.asked}) == 1


def test_accounts_at_one_server_share_its_nonces(stage: Stage) -> None:
    stage.ca.replies["/order"] = [json_answer(ORDER)]
    for number in range(3):
        url = stage.url(f"/account/{number}")
        account = CaAccount(stage.account.directory_url, url, PEM_KEY, ca_bundle_pem())
        stage.client.order(account, stage.url("/order"))
    assert (stage.count("HEAD", "/newNonce"), stage.count("GET", "/directory")) == (1, 1)


def test_a_signing_key_shows_nothing_of_itself() -> None:
    assert PEM_KEY.reveal_text().splitlines()[1] not in repr(signing_key(PEM_KEY))

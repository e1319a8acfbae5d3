"""Nonces, problems, the directory and the wire: what the client does with a server of any quality."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from application.errors import CaRefused, CaThrottled, CaTimedOut, CaUnavailable, EgressRefused
from application.ports import CaAccount
from domain.acme import ERROR_NAMESPACE, Subproblem
from interfaces.acme import client as client_module
from interfaces.acme.account_key import signing_key
from interfaces.acme.client import AcmeClient
from interfaces.acme.problems import problem_of
from interfaces.acme.server import AcmeServer
from interfaces.egress import Egress
from interfaces.foreign_text import clean
from tests.interfaces.scripted_ca import ORDER, PEM_KEY, Stage, json_answer, problem_answer, staged
from tests.servers.https import Answer, Asked, ca_bundle_pem

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
        (problem_answer("rateLimited", 503, {"Retry-After": "0"}), 0),
        (problem_answer("malformed", 429), None),
        (Answer(429, {"Retry-After": "9" * 400}, b"slow down"), 86400),
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
        self.asked = 0

    def answer(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return self.answers()


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


@pytest.mark.parametrize("unfit", [Answer(404), problem_answer("malformed", 404), json_answer({"no": "order"}, 201)])
def test_the_directory_is_read_again_after_an_answer_that_does_not_fit_it(stage: Stage, unfit: Answer) -> None:
    headers = {**unfit.headers, "Location": stage.url("/order/1")}
    stage.ca.replies["/newOrder"] = [Answer(unfit.status, headers, unfit.body)]
    with pytest.raises((CaUnavailable, CaRefused)):
        stage.client.new_order(stage.account, ["a.example"], None)
    stage.ca.directory["newOrder"] = stage.url("/moved")
    stage.ca.replies["/moved"] = [json_answer(ORDER, 201, {"Location": stage.url("/order/2")})]
    assert stage.client.new_order(stage.account, ["a.example"], None).url == stage.url("/order/2")


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

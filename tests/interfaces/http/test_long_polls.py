"""Those who wait are told what they ask for, however their look-up, the reads and the appends fall between each other.

The reader's threads are moved by hand, so each test says in which order things happen."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application.caller import Caller
from application.errors import StoreUnavailable
from application.polling import Polling
from application.wishes import Changes
from domain.announcement import Announced
from domain.errors import TooMany
from domain.terms import Audience, Terms
from interfaces.http import long_polls
from interfaces.http.long_polls import Asking, LongPolls
from interfaces.http.problems import TooBusy
from tests.interfaces.http import client
from tests.interfaces.http.client import Api, error_code, operator, record_certificate
from tests.servers.process import wait_until

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE_SECONDS = 20.0
LONG, MOMENT = 60.0, 0.01
RETRY_SECONDS = 0.01
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
ISSUED, RENEWED = "certificate.issued", "certificate.renewed"


@dataclass
class History:
    """What was announced. It can be out of reach, and tokens can be revoked."""

    all: list[Announced] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    reads: list[int] = field(default_factory=list)
    is_away: bool = False
    are_tokens_away: bool = False

    def announce(
        self, path: str = "a", event_type: str = ISSUED, tenant_id: str = "tnt_1", names: tuple[str, ...] = ()
    ) -> Announced:
        position = self.last + 1
        announced = Announced(
            position, f"evt_{position}", tenant_id, event_type, path, names, NEW_YEAR, f"{path}@1", None, "{}"
        )
        self.all.append(announced)
        return announced

    @property
    def last(self) -> int:
        return len(self.all)

    def read(self, after: int, limit: int) -> Sequence[Announced]:
        self.reads.append(after)
        if self.is_away:
            raise StoreUnavailable("away", RETRY_SECONDS)
        return self.all[after : after + limit]

    def still_so(self, asking: Sequence[Asking]) -> frozenset[Asking]:
        if self.are_tokens_away:
            raise StoreUnavailable("away", RETRY_SECONDS)
        return frozenset((terms, token_id) for terms, token_id in asking if token_id not in self.revoked)


@dataclass
class Work:
    """What somebody gave to a thread: `begin` does it, `end` lets them know."""

    do: Callable[[], Any]
    future: Future[Any]
    outcome: Future[Any] = field(default_factory=Future)

    def begin(self) -> None:
        try:
            self.outcome.set_result(self.do())
        except StoreUnavailable as failure:
            self.outcome.set_exception(failure)

    def end(self) -> None:
        failure = self.outcome.exception()
        if failure is not None:
            self.future.set_exception(failure)
        else:
            self.future.set_result(self.outcome.result())


class ByHand(Executor):
    """A thread that does nothing by itself."""

    def __init__(self) -> None:
        self.given: deque[Work] = deque()

    def submit(self, do: Callable[..., T], /, *args: Any, **named: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self.given.append(Work(functools.partial(do, *args, **named), future))
        return future


class World:
    """Some who wait for what a history tells."""

    def __init__(self) -> None:
        self.history = History()
        self.threads = ByHand()
        self.polls = LongPolls(self.history.read, self.history.still_so, self.threads)

    def wait(
        self, asked: Terms, upto: int | None = None, token_id: str = "tok_1", seconds: float = LONG
    ) -> asyncio.Task[Sequence[Announced]]:
        """Somebody who looked up to `upto`, or to the end."""
        upto = self.history.last if upto is None else upto
        return asyncio.create_task(self.polls.wait(asked, upto, token_id, seconds))

    async def settled(self) -> None:
        """Everybody who can go on has gone on."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def begin(self) -> Work:
        """The read that is asked for has seen the history as it is now."""
        await self.settled()
        work = self.threads.given.popleft()
        work.begin()
        return work

    async def end(self, work: Work) -> None:
        work.end()
        await self.settled()

    async def run(self) -> None:
        """Until nothing is left to be read."""
        await self.settled()
        while self.threads.given:
            await self.end(await self.begin())

    async def happen(self, *paths: str) -> Sequence[Announced]:
        """They are announced, the listener hears of it, and what is new is read."""
        announced = [self.history.announce(path) for path in paths]
        self.polls.wake()
        await self.run()
        return announced

    async def waiting(self, *asked: Terms) -> Sequence[asyncio.Task[Sequence[Announced]]]:
        """They wait, and nothing is being read."""
        tasks = [self.wait(terms) for terms in asked]
        await self.run()
        return tasks


def terms(*paths: str, subscription_id: str = "", **different: Any) -> Terms:
    fields: dict[str, Any] = {
        "tenant_id": "tnt_1",
        "event_types": (ISSUED,),
        "dns_names": (),
        "ordered": False,
        "after": 0,
        "upto": None,
    }
    return Terms(subscription_id=subscription_id or f"sub_{paths}", paths=paths, **{**fields, **different})


async def until(is_true: Callable[[], bool]) -> None:
    """The loop goes on until then. Whoever calls it has a deadline."""
    while not is_true():  # noqa: ASYNC110  nothing in the product tells of it
        await asyncio.sleep(0)


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs it with a deadline. What the loop has to complain of fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        complaints: list[dict[str, Any]] = []

        async def within_time() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
            async with asyncio.timeout(DEADLINE_SECONDS):
                await test(*args, **kwargs)

        asyncio.run(within_time())
        assert complaints == []

    return run


# What they are told


@in_loop
async def test_each_is_told_what_its_terms_ask_for_and_nothing_else() -> None:
    world = World()
    by_path, by_glob, by_type, by_name, elsewhere = await world.waiting(
        terms("a/1"),
        terms("a/*"),
        terms("a/1", event_types=(RENEWED,)),
        terms("**", dns_names=("*.acme.example",)),
        terms("**", tenant_id="tnt_2"),
    )
    first, second = world.history.announce("a/1"), world.history.announce("a/2")
    renewed = world.history.announce("a/1", RENEWED)
    named = world.history.announce("b", names=("www.acme.example",))
    of_another = world.history.announce("a/1", tenant_id="tnt_2")
    world.polls.wake()
    await world.run()
    assert await by_path == [first]
    assert await by_glob == [first, second]
    assert await by_type == [renewed]
    assert await by_name == [named]
    assert await elsewhere == [of_another]


@in_loop
async def test_who_wants_none_of_it_waits_on() -> None:
    world = World()
    wants, waits = await world.waiting(terms("a"), terms("b"))
    await world.happen("a", "c")
    assert wants.done()
    assert not waits.done()
    (told,) = await world.happen("b")
    assert await waits == [told]


@in_loop
async def test_two_with_equal_terms_are_both_told() -> None:
    world = World()
    first, second = await world.waiting(terms("a"), terms("a"))
    (told,) = await world.happen("a")
    assert await first == await second == [told]


@in_loop
async def test_with_equal_terms_each_is_told_what_comes_behind_its_own_look_up() -> None:
    world = World()
    early = world.wait(terms("a"))
    first = world.history.announce("a")
    late = world.wait(terms("a"))
    second = world.history.announce("a")
    await world.run()
    assert await early == [first, second]
    assert await late == [second]


@in_loop
async def test_who_leaves_and_comes_again_is_told_the_next_one_only() -> None:
    world = World()
    for _ in range(3):
        (poll,) = await world.waiting(terms("a"))
        (told,) = await world.happen("a")
        assert await poll == [told]


@in_loop
async def test_each_growth_is_read_once_however_many_wait() -> None:
    world = World()
    polls = await world.waiting(*(terms(str(number)) for number in range(100)))
    world.history.reads.clear()
    await world.happen("1", "2", "none")
    assert world.history.reads == [0]
    assert sum(poll.done() for poll in polls) == 2


@in_loop
async def test_one_read_is_under_way_at_a_time() -> None:
    world = World()
    await world.waiting(terms("a"))
    world.polls.wake()
    read = await world.begin()
    world.polls.wake()
    world.wait(terms("b"))
    await world.settled()
    assert not world.threads.given
    await world.end(read)
    assert len(world.threads.given) == 1


@in_loop
async def test_nobody_waiting_nothing_is_read() -> None:
    world = World()
    await world.waiting(terms("a"))
    await world.happen("a")
    world.history.reads.clear()
    await world.happen("a")
    assert world.history.reads == []


# Between the look-up and the waiting


@in_loop
async def test_an_event_after_the_look_up_of_the_first_of_all_is_not_missed() -> None:
    world = World()
    looked_upto = world.history.last
    (told, _) = await world.happen("a", "b")  # the listener woke nobody, for nobody waited
    poll = world.wait(terms("a"), looked_upto)
    await world.run()
    assert await poll == [told]


@in_loop
async def test_an_event_that_was_read_for_others_is_told() -> None:
    world = World()
    looked_upto = world.history.last
    await world.waiting(terms("b"))
    (told,) = await world.happen("a")
    poll = world.wait(terms("a"), looked_upto)
    await world.run()
    assert await poll == [told]
    poll = world.wait(terms("a"))  # who has looked behind it waits
    await world.run()
    assert not poll.done()


@in_loop
async def test_who_comes_while_its_event_is_read_for_others_is_told() -> None:
    world = World()
    await world.waiting(terms("b"))
    looked_upto = world.history.last
    told = world.history.announce("a")
    world.polls.wake()
    read = await world.begin()
    poll = world.wait(terms("a"), looked_upto)
    await world.settled()
    assert not poll.done()
    await world.end(read)
    await world.run()
    assert await poll == [told]


@pytest.mark.parametrize("when", ["before it waits", "while it comes"])
@in_loop
async def test_what_nobody_wants_sends_nobody_back_to_look(when: str) -> None:
    world = World()
    await world.waiting(terms("b"))
    looked_upto = world.history.last
    world.history.announce("c")
    world.polls.wake()
    if when == "before it waits":
        await world.run()
        poll = world.wait(terms("a"), looked_upto)
    else:
        read = await world.begin()
        poll = world.wait(terms("a"), looked_upto)
        await world.end(read)
    await world.run()
    assert not poll.done()


@in_loop
async def test_who_comes_while_nothing_new_is_read_for_others_waits() -> None:
    world = World()
    await world.waiting(terms("b"))
    world.polls.wake()
    read = await world.begin()
    poll = world.wait(terms("a"))
    await world.end(read)
    await world.run()
    assert not poll.done()
    (told,) = await world.happen("a")
    assert await poll == [told]


@pytest.mark.parametrize("is_heard", ["while it is read", "after it was read"])
@in_loop
async def test_an_event_behind_a_read_that_is_under_way_is_read_next(is_heard: str) -> None:
    world = World()
    (poll,) = await world.waiting(terms("a"))
    world.polls.wake()
    read = await world.begin()
    told = world.history.announce("a")
    if is_heard == "while it is read":
        world.polls.wake()
    await world.end(read)
    if is_heard == "after it was read":
        world.polls.wake()
    await world.run()
    assert await poll == [told]


@in_loop
async def test_who_looked_further_than_the_read_under_way_is_told_of_what_is_new_alone() -> None:
    world = World()
    await world.waiting(terms("b"))
    world.polls.wake()
    read = await world.begin()
    world.history.announce("a")
    poll = world.wait(terms("a"))
    await world.end(read)
    await world.run()
    assert not poll.done()
    (told,) = await world.happen("a")
    assert await poll == [told]


@pytest.mark.parametrize("seen", ["nothing", "the event", "more than the new one looked at"])
@pytest.mark.parametrize("looked", ["earlier", "later"])
@in_loop
async def test_a_read_for_those_who_have_left_deceives_no_newcomer(seen: str, looked: str) -> None:
    world = World()
    world.history.announce("c")
    (gone,) = await world.waiting(terms("b"))
    looked_upto = world.history.last - (looked == "earlier")
    if seen != "nothing":
        world.history.announce("a")
    if seen == "more than the new one looked at":
        world.history.announce("b")
    world.polls.wake()
    read = await world.begin()
    gone.cancel()
    await world.settled()
    if seen == "nothing":
        world.history.announce("a")
    poll = world.wait(terms("a"), looked_upto)
    await world.end(read)
    await world.run()
    assert [announced.path for announced in await poll] in ([], ["a"])


@in_loop
async def test_a_full_page_is_followed_by_the_next() -> None:
    world = World()
    first, second = await world.waiting(terms("first"), terms("last"))
    paths = ["first", *["other"] * (long_polls.PAGE - 1), "last"]
    announced = [world.history.announce(path) for path in paths]
    world.polls.wake()
    await world.run()
    assert await first == [announced[0]]
    assert await second == [announced[-1]]


@in_loop
async def test_who_comes_while_a_full_page_is_read_misses_nothing_of_the_next() -> None:
    world = World()
    await world.waiting(terms("b"))
    for _ in range(long_polls.PAGE):
        world.history.announce("other")
    world.polls.wake()
    read = await world.begin()
    upto = world.history.last
    told = world.history.announce("a")
    poll = world.wait(terms("a"), upto)
    await world.end(read)
    await world.run()
    assert await poll == [told]


@in_loop
async def test_wanted_events_of_two_pages_are_told_a_page_at_a_time() -> None:
    world = World()
    (poll,) = await world.waiting(terms("a"))
    announced = [world.history.announce("a") for _ in range(long_polls.PAGE + 1)]
    world.polls.wake()
    await world.run()
    assert await poll == announced[: long_polls.PAGE]
    again = world.wait(terms("a"), announced[long_polls.PAGE - 1].position)
    await world.run()
    assert await again in ((), announced[long_polls.PAGE :])


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("announce"), st.sampled_from(["a", "b", "c"])),
        st.tuples(st.just("look"), st.integers(0, 3)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["wake", "begin", "end", "away", "back"]), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ACTS)
def test_in_whatever_order_it_happens_nobody_misses_anything(acts: Sequence[tuple[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(long_polls, "PAGE", 2)
        Story().run(acts)


class Story:
    """Four with different wishes look and wait, while others append and threads read, a page of two at a time."""

    def __init__(self) -> None:
        self.world = World()
        self.wishes = [("a",), ("b",), ("a", "b"), ("*",)]
        self.looked = [0, 0, 0, 0]
        self.polls: dict[int, tuple[int, asyncio.Task[Sequence[Announced]]]] = {}
        self.ended: list[tuple[int, int, Sequence[Announced]]] = []
        self.reading: Work | None = None

    @in_loop
    async def run(self, acts: Sequence[tuple[str, Any]]) -> None:
        for act, what in acts:
            await self.do(act, what)
        self.world.history.is_away = False
        if self.reading is not None:
            await self.world.end(self.reading)
        self.world.polls.wake()  # each append is heard of at last
        await self.world.run()
        for who, (upto, poll) in self.polls.items():
            if poll.done():
                self.ended.append((who, upto, poll.result()))
            else:
                assert self.wanted(who, upto) == []
        for who, upto, told in self.ended:
            assert list(told) == self.wanted(who, upto)[: len(told)]
            assert told or self.world.history.last > upto, "sent back to look where nothing is new"
        left = sum(not poll.done() for _, poll in self.polls.values())
        assert len(self.world.polls._waiting) == left
        for _, poll in self.polls.values():
            poll.cancel()

    def wanted(self, who: int, upto: int) -> Sequence[Announced]:
        wish = self.wishes[who]
        return [each for each in self.world.history.all[upto:] if wish == ("*",) or each.path in wish]

    async def do(self, act: str, what: Any) -> None:
        world = self.world
        match act:
            case "announce":
                world.history.announce(what)
            case "wake":
                world.polls.wake()
            case "away" | "back":
                world.history.is_away = act == "away"
            case "look":
                self.looked[what] = world.history.last
            case "wait" if what not in self.polls:
                upto = self.looked[what]
                self.polls[what] = (upto, world.wait(terms(*self.wishes[what]), upto))
                await asyncio.sleep(0)
            case "leave" if what in self.polls:
                upto, poll = self.polls.pop(what)
                if poll.done():
                    self.ended.append((what, upto, poll.result()))
                    self.looked[what] = world.history.last
                poll.cancel()
            case "begin" if self.reading is None:
                await world.settled()
                if world.threads.given:
                    self.reading = await world.begin()
            case "end" if self.reading is not None:
                self.reading.end()
                self.reading = None
                await asyncio.sleep(0)


# When the store is out of reach


@pytest.mark.parametrize("what", ["is_away", "are_tokens_away"])
@pytest.mark.parametrize("who", ["the listener", "another who waits"])
@in_loop
async def test_what_could_not_be_read_is_told_once_somebody_asks_again(what: str, who: str) -> None:
    world = World()
    (poll,) = await world.waiting(terms("a"))
    setattr(world.history, what, True)
    (told,) = await world.happen("a")
    assert not poll.done()
    setattr(world.history, what, False)
    if who == "the listener":
        world.polls.wake()
    else:
        world.wait(terms("b"))
    await world.run()
    assert await poll == [told]


@in_loop
async def test_what_could_not_be_read_is_told_once_the_store_is_back() -> None:
    world = World()
    (poll,) = await world.waiting(terms("a"))
    world.history.is_away = True
    (told,) = await world.happen("a")
    world.history.is_away = False
    await until(lambda: bool(world.threads.given))
    await world.run()
    assert await poll == [told]


@in_loop
async def test_a_page_that_fails_behind_one_that_was_told_is_read_again() -> None:
    world = World()
    first, second = await world.waiting(terms("first"), terms("last"))
    paths = ["first", *["other"] * (long_polls.PAGE - 1), "last"]
    announced = [world.history.announce(path) for path in paths]
    world.polls.wake()
    await world.end(await world.begin())
    assert await first == [announced[0]]
    world.history.is_away = True
    await world.run()
    assert not second.done()
    world.history.is_away = False
    world.polls.wake()
    await world.run()
    assert await second == [announced[-1]]


# Ends


@in_loop
async def test_when_the_time_is_over_there_is_nothing() -> None:
    world = World()
    assert await world.polls.wait(terms("a"), 0, "tok_1", MOMENT) == ()
    assert not world.polls._waiting


@in_loop
async def test_when_the_time_is_over_while_its_event_is_read_there_is_nothing_and_no_harm() -> None:
    world = World()
    other = world.wait(terms("a"))
    poll = world.wait(terms("a"), seconds=MOMENT)
    told = world.history.announce("a")
    read = await world.begin()
    assert await poll == ()
    await world.end(read)
    assert await other == [told]


@in_loop
async def test_closing_lets_everybody_go_with_nothing() -> None:
    world = World()
    polls = await world.waiting(*(terms(str(number)) for number in range(100)))
    world.polls.close()
    assert [await poll for poll in polls] == [()] * 100


@in_loop
async def test_closing_from_another_thread_while_something_is_read_lets_everybody_go() -> None:
    watched()
    world = World()
    (poll,) = await world.waiting(terms("a"))
    world.history.announce("a")
    world.polls.wake()
    read = await world.begin()
    in_another_thread(world.polls.close)
    assert await poll == ()
    await world.end(read)


@in_loop
async def test_after_closing_nobody_waits() -> None:
    world = World()
    world.polls.close()  # before any loop is known
    assert world.polls.is_closed
    assert await world.polls.wait(terms("a"), 0, "tok_1", LONG) == ()
    assert not world.threads.given


@in_loop
async def test_who_asks_so_no_longer_is_told_nothing_and_looks_again() -> None:
    world = World()
    revoked, other = world.wait(terms("a"), token_id="tok_1"), world.wait(terms("a"), token_id="tok_2")
    await world.run()
    world.history.revoked.add("tok_1")
    (told,) = await world.happen("a")
    assert await revoked == ()
    assert await other == [told]


@in_loop
async def test_so_many_may_wait_and_no_more_until_one_leaves() -> None:
    world = World()
    polls = await world.waiting(
        *(terms("a", subscription_id=f"sub_{number}") for number in range(long_polls.MOST_WAITING))
    )
    with pytest.raises(TooBusy, match="polls"):
        await world.polls.wait(terms("a"), 0, "tok_1", LONG)
    assert await cancelled(polls[0])
    (last,) = await world.waiting(terms("a"))
    assert len(world.polls._waiting) == long_polls.MOST_WAITING
    (told,) = await world.happen("a")
    assert await last == [told]
    assert not world.polls._waiting


@in_loop
async def test_of_one_subscription_so_many_may_wait_and_no_more_until_one_leaves() -> None:
    world = World()
    polls = await world.waiting(*(terms("a") for _ in range(long_polls.MOST_WAITING_EACH)))
    with pytest.raises(TooMany):
        await world.polls.wait(terms("a"), 0, "tok_1", LONG)
    await world.waiting(terms("b"))
    assert await cancelled(polls[0])
    await world.waiting(terms("a"))
    with pytest.raises(TooMany):
        await world.polls.wait(terms("a"), 0, "tok_1", LONG)
    await world.happen("a", "b")
    assert not world.polls._of_each


@in_loop
async def test_nothing_is_made_ready_again_while_the_same_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(all_terms: Sequence[Terms]) -> Audience:
        made.append(len(all_terms))
        return Audience(all_terms)

    monkeypatch.setattr(long_polls, "Audience", counted)
    world = World()
    polls = list(await world.waiting(terms("a"), terms("b"), terms("c")))
    made.clear()
    for path in "abc" * 3:
        (told,) = await world.happen(path)
        assert await polls["abc".index(path)] == [told]
        (polls["abc".index(path)],) = await world.waiting(terms(path))
    assert len(made) <= 1


@pytest.mark.parametrize("when", ["before the read", "while it is read", "after it was told"])
@in_loop
async def test_who_is_cancelled_leaves_nothing_behind(when: str) -> None:
    world = World()
    gone, stays = await world.waiting(terms("a"), terms("a"))
    if when == "before the read":
        assert await cancelled(gone)
    told = world.history.announce("a")
    world.polls.wake()
    read = await world.begin()
    if when == "while it is read":
        assert await cancelled(gone)
    if when == "after it was told":
        read.end()
        await asyncio.sleep(0)
        gone.cancel()
    else:
        await world.end(read)
    assert await stays == [told]
    await world.settled()
    assert not world.polls._waiting
    assert not world.threads.given


# Threads and loops


def in_another_thread(call: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(call).result(DEADLINE_SECONDS)


def watched() -> None:
    """From now on the loop refuses what only its own thread may do."""
    asyncio.get_running_loop().set_debug(True)


async def cancelled(task: asyncio.Task[Any]) -> bool:
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@in_loop
async def test_a_wake_from_another_thread_is_heard() -> None:
    watched()
    history = History()
    with ThreadPoolExecutor(2) as threads:
        polls = LongPolls(history.read, history.still_so, threads)
        poll = asyncio.create_task(polls.wait(terms("a"), 0, "tok_1", LONG))
        await until(lambda: bool(history.reads) and polls._reader.done())
        told = history.announce("a")
        in_another_thread(polls.wake)
        assert await poll == [told]


@in_loop
async def test_many_threads_append_and_wake_and_nobody_misses_anything() -> None:
    history, lock = History(), threading.Lock()
    many = 50

    def append(path: str) -> None:
        for _ in range(many):
            with lock:
                history.announce(path)
            polls.wake()

    async def follow(path: str) -> int:
        upto = seen = 0
        while seen < many:
            with lock:
                found = [each for each in history.all[upto:] if each.path == path]
                last = history.last
            found = found or list(await polls.wait(terms(path), last, "tok_1", LONG))
            seen, upto = seen + len(found), found[-1].position if found else last
        return seen

    with ThreadPoolExecutor(2) as threads, ThreadPoolExecutor(4) as appenders:
        polls = LongPolls(history.read, history.still_so, threads)
        for path in "abcd":
            appenders.submit(append, path)
        assert await asyncio.gather(*(follow(path) for path in "aabbccdd")) == [many] * 8


@in_loop
async def test_a_wake_before_anybody_waited_is_no_error_and_nothing_is_missed() -> None:
    world = World()
    in_another_thread(world.polls.wake)
    told = world.history.announce("a")
    world.polls.wake()
    poll = world.wait(terms("a"), 0)
    await world.run()
    assert await poll == [told]


def test_a_wake_or_close_after_the_loop_has_ended_is_no_error() -> None:
    world = World()

    async def wait_a_moment() -> None:
        await world.polls.wait(terms("a"), 0, "tok_1", MOMENT)

    asyncio.run(wait_a_moment())
    world.polls.wake()
    world.polls.close()


# Over HTTP, on the real views


@dataclass(frozen=True)
class Poller:
    """A token with a subscription to all certificates."""

    api: Api
    token: str
    subscription_id: str

    @property
    def polls(self) -> LongPolls:
        return self.api.parts.services.long_polls

    def poll(self, meanwhile: Callable[[], object], seconds: int = 20, *, is_heard: bool = True) -> httpx.Response:
        """The answer to a poll. Once it waits something happens, of which the listener hears, or does not."""
        path = f"/v1/subscriptions/{self.subscription_id}/poll"
        headers = {"Authorization": f"Bearer {self.token}"}

        async def both() -> httpx.Response:
            async with asyncio.timeout(DEADLINE_SECONDS):
                asking = self.api.client.get(path, params={"timeout": seconds}, headers=headers)
                poll = asyncio.create_task(asking)
                await until(lambda: self.is_waiting() or poll.done())
                await asyncio.to_thread(meanwhile)
                if is_heard:
                    self.polls.wake()
                return await poll

        answer: httpx.Response = self.api.run(both())
        assert not self.polls._waiting
        return answer

    def is_waiting(self) -> bool:
        return bool(self.polls._waiting) and self.polls._reader.done()

    def happen(self) -> None:
        record_certificate(self.api)

    def happen_after_revocation(self) -> None:
        self.api.parts.tokens.revoke(client.token_id(self.token), operator(self.api.tenant_id))
        self.happen()


@pytest.fixture
def poller(api: Api) -> Poller:
    token = api.token("subscriptions:read", "subscriptions:write", "audit:read")
    return Poller(api, token, subscribed(api, token))


def subscribed(api: Api, token: str, **delivery: int) -> str:
    body = {
        "name": "edge",
        "paths": ["pki/certificates/*"],
        "events": [ISSUED],
        "delivery": {"type": "polling", **delivery},
    }
    subscription_id: str = api.ask("POST /v1/subscriptions", token, body).json()["id"]
    return subscription_id


def test_a_poll_is_told_of_what_happens_while_it_waits(poller: Poller) -> None:
    answer = poller.poll(poller.happen).json()
    assert [event["event_type"] for event in answer["data"]] == [ISSUED]
    assert answer["cursor"] == answer["data"][0]["event_id"]
    assert answer["has_more"] is False


def test_a_poll_whose_time_is_over_looks_once_more(poller: Poller) -> None:
    answer = poller.poll(poller.happen, seconds=1, is_heard=False).json()
    assert len(answer["data"]) == 1


def test_a_poll_without_anything_new_is_answered_with_nothing(poller: Poller) -> None:
    answer = poller.poll(lambda: None, seconds=1)
    assert (answer.status_code, answer.json()) == (200, {"data": [], "cursor": None, "has_more": False})


def test_a_poll_by_a_token_that_is_revoked_meanwhile_is_refused_and_that_is_on_record(poller: Poller) -> None:
    answer = poller.poll(poller.happen_after_revocation)
    assert (answer.status_code, error_code(answer)) == (401, "token_revoked")
    logs = poller.api.ask("GET /v1/audit/logs", poller.api.token("audit:read")).json()["logs"]
    refused = [row for row in logs if not row["success"]]
    assert [row["identity_id"] for row in refused] == [client.token_id(poller.token)]


def test_a_poll_whose_time_is_over_gives_nothing_to_a_token_that_was_revoked(poller: Poller) -> None:
    answer = poller.poll(poller.happen_after_revocation, seconds=1, is_heard=False)
    assert answer.status_code == 401 or answer.json()["data"] == []


def test_a_poll_by_a_token_that_expires_meanwhile_is_told_so(api: Api) -> None:
    token = api.token("subscriptions:read", "subscriptions:write", valid_for=timedelta(seconds=1.5))
    poller = Poller(api, token, subscribed(api, token))
    ends = datetime.now(UTC) + timedelta(seconds=1.5)

    def expire() -> None:
        wait_until(lambda: datetime.now(UTC) >= ends, what="the token has expired")
        poller.happen()

    answer = poller.poll(expire)
    assert (answer.status_code, error_code(answer)) == (401, "token_expired")


@pytest.mark.parametrize("change", ["ended", "handed over", "narrowed"])
def test_a_poll_whose_subscription_changes_meanwhile_is_not_told_by_the_old_terms(poller: Poller, change: str) -> None:
    api = poller.api
    owner = Caller(api.tenant_id, client.token_id(poller.token), ("subscriptions:write",), client.UNLIMITED, "req_1")
    another = client.token_id(api.token("subscriptions:read"))
    changes = {"handed over": Changes(identity_id=another), "narrowed": Changes(paths=["pki/certificates/another"])}

    def happen() -> None:
        if change == "ended":
            api.parts.services.subscriptions.unsubscribe(poller.subscription_id, owner)
        else:
            api.parts.services.subscriptions.revise(poller.subscription_id, changes[change], owner)
        poller.happen()

    answer = poller.poll(happen, seconds=2)
    assert answer.status_code in {403, 404} or answer.json()["data"] == []


def test_on_closing_a_poll_ends_without_another_look(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller.polls, "is_closed", False)  # opens again after the test
    polling = poller.api.parts.services.polling
    looks: list[object] = []

    def pending(*asked: Any) -> Any:
        looks.append(asked)
        return Polling.pending(polling, *asked)

    monkeypatch.setattr(polling, "pending", pending)
    answer = poller.poll(poller.polls.close)
    assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert len(looks) == 1


def test_more_polls_than_may_wait_are_told_to_come_again(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_polls, "MOST_WAITING", 0)
    answer = poller.poll(lambda: None)
    assert (answer.status_code, error_code(answer)) == (503, "service_unavailable")
    assert answer.headers["retry-after"] == str(answer.json()["error"]["retry_after"])


def test_acknowledgements_that_cross_each_other_stop_no_poll(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = api.token("subscriptions:read", "subscriptions:write")
    subscription_id = subscribed(api, token, buffer_size=2)
    store = api.parts.store
    crossing: list[Any] = []

    def poll() -> Sequence[str]:
        answer = api.ask(f"GET /v1/subscriptions/{subscription_id}/poll?timeout=0", token).json()
        return [event["event_id"] for event in answer["data"]]

    def acknowledge(event_id: str, *, is_slow: bool = False) -> None:
        with monkeypatch.context() as patched:
            if is_slow:
                patched.setattr(store, "record", lambda event, by: crossing.append((event, by)))
            path = f"/v1/subscriptions/{subscription_id}/ack"
            assert api.ask(f"POST {path}", token, {"event_ids": [event_id]}).status_code == 200

    for _ in range(3):
        record_certificate(api)
    first, second = poll()
    acknowledge(second, is_slow=True)
    acknowledge(first)
    acknowledge(poll()[1], is_slow=True)
    for event, by in crossing:
        store.record(event, by=by)
    assert poll() == []
    record_certificate(api)
    assert len(poll()) == 1

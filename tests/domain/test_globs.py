from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import globs as module
from domain.globs import LARGEST_MEMO, GlobIndex, is_path_glob, lies_under


def index_takes(glob: str, path: str) -> bool:
    return GlobIndex([(glob, 7)]).owners(path) == {7}


def takes(glob: str, path: str) -> bool:
    """One glob by itself, row by row over the segments: slow, and what the index must agree with."""
    segments = path.split("/")
    reachable = [True, *([False] * len(segments))]
    for part in glob.split("/"):
        if part == "**":
            for at in range(1, len(reachable)):
                reachable[at] = reachable[at] or reachable[at - 1]
        else:
            reachable = [False] + [reachable[at] and segment_takes(part, text) for at, text in enumerate(segments)]
    return reachable[-1]


def segment_takes(pattern: str, segment: str) -> bool:
    """Goes back to the last `*` only."""
    at, star, after_star, resume = 0, False, 0, 0
    part = 0
    while at < len(segment):
        if part < len(pattern) and pattern[part] == "*":
            star, after_star, resume = True, part + 1, at
            part += 1
        elif part < len(pattern) and pattern[part] in {"?", segment[at]}:
            part += 1
            at += 1
        elif star:
            resume += 1
            part, at = after_star, resume
        else:
            return False
    return all(character == "*" for character in pattern[part:])


def takes_by_trying(glob: Sequence[str], path: Sequence[str]) -> bool:
    """By trying everything, and each segment by a regular expression."""
    if not glob:
        return not path
    first, rest = glob[0], glob[1:]
    if first == "**":
        return any(takes_by_trying(rest, path[skipped:]) for skipped in range(len(path) + 1))
    segment = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in first)
    return bool(path) and re.fullmatch(segment, path[0]) is not None and takes_by_trying(rest, path[1:])


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("pki/certificates/cert_1", "pki/certificates/cert_1", True),
        ("pki/certificates/cert_1", "pki/certificates/cert_10", False),
        ("pki/certificates/*", "pki/certificates/cert_1", True),
        ("pki/certificates/*", "pki/certificates", False),
        ("pki/certificates/*", "pki/certificates/cert_1/more", False),
        ("pki/certificates/cert_01k*", "pki/certificates/cert_01kx", True),
        ("pki/certificates/cert_01k*", "pki/certificates/cert_01k", True),
        ("pki/certificates/cert_01k*", "pki/certificates/cert_01j", False),
        ("pki/*/cert_1", "pki/certificates/cert_1", True),
        ("pki/*", "pki/acme/orders", False),
        ("pki/cert*s/*_1", "pki/certificates/cert_1", True),
        ("pki/**", "pki/certificates/cert_1", True),
        ("pki/**", "pki/x", True),
        ("pki/**", "pki", True),
        ("pki/**", "pkix/certificates", False),
        ("**", "pki/certificates/cert_1", True),
        ("**/cert_1", "pki/certificates/cert_1", True),
        ("**/cert_1", "cert_1", True),
        ("**/cert_1", "pki/cert_1/x", False),
        ("**/db-?/password", "secrets/app-17/db-3/password", True),
        ("**/db-?/password", "secrets/app-17/db-33/password", False),
        ("pki/**/cert_1", "pki/cert_1", True),
        ("pki/**/cert_1", "pki/a/b/c/cert_1", True),
        ("pki/**/cert_1", "pki/a/b/c/cert_2", False),
        ("**/a/**/b", "x/a/y/a/z/b", True),
        ("**/**/**/**/a", "a", True),
        ("a/**/**", "a", True),
        ("pki/certificates/cert_?", "pki/certificates/cert_1", True),
        ("pki/certificates/cert_?", "pki/certificates/cert_", False),
        ("pki/certificates/cert_?", "pki/certificates/cert_12", False),
        ("pki?certificates", "pki/certificates", False),
        ("pki*certificates", "pki/certificates", False),
        ("a.c", "abc", False),
        ("PKI/*", "pki/x", False),
        ("/pki/*", "pki/x", False),
        ("pki/x", "pki/*", False),
        ("pki/x", "pki/?", False),
        ("pki/x", "**", False),
    ],
)
def test_a_star_stays_in_its_segment_two_stars_are_any_segments_and_a_question_mark_is_one_character(
    glob: str, path: str, matches: bool
) -> None:
    assert index_takes(glob, path) is takes(glob, path) is matches


GLOB_SEGMENTS = st.just("**") | st.text("ab*?", max_size=5)
GLOBS = st.lists(GLOB_SEGMENTS, min_size=1, max_size=5).map("/".join)
PATHS = st.lists(st.text("ab", max_size=5), min_size=1, max_size=5).map("/".join)
ANY_TEXT = st.text("ab/*?", max_size=12)


@settings(deadline=None, max_examples=500)
@given(GLOBS, PATHS)
def test_a_glob_takes_what_trying_everything_finds(glob: str, path: str) -> None:
    assert index_takes(glob, path) is takes_by_trying(glob.split("/"), path.split("/"))


@settings(deadline=None, max_examples=500)
@given(GLOBS | ANY_TEXT, PATHS | ANY_TEXT)
def test_a_glob_in_the_index_takes_what_it_takes_by_itself(glob: str, path: str) -> None:
    assert index_takes(glob, path) is takes(glob, path)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(st.tuples(GLOBS | ANY_TEXT, st.integers(0, 9)), max_size=20),
    st.lists(PATHS | ANY_TEXT, max_size=20),
    st.sampled_from([0, 50, LARGEST_MEMO]),
)
def test_many_globs_in_one_index_take_what_each_takes_by_itself_however_little_is_remembered(
    owned: Sequence[tuple[str, int]], paths: Sequence[str], memo: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LARGEST_MEMO", memo)
        index = GlobIndex(owned)
        for path in paths:
            assert index.owners(path) == {owner for glob, owner in owned if takes(glob, path)}


def test_an_owner_of_several_globs_and_several_owners_of_one_are_each_told_once() -> None:
    index = GlobIndex([("pki/**", 1), ("pki/*", 1), ("pki/*", 2), ("pki/x", 3), ("secrets/**", 4)])
    assert index.owners("pki/x") == {1, 2, 3}
    assert index.owners("other") == set()


def test_an_index_of_no_globs_takes_nothing() -> None:
    assert GlobIndex([]).owners("pki/x") == set()


Work = list[int]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """How many nodes were live at each step that was not remembered."""
    live: Work = []
    advance = module._Automaton._advance

    def counted(self: module._Automaton, state: module._State, symbol: str) -> module._State:
        live.append(len(state.live))
        return advance(self, state, symbol)

    monkeypatch.setattr(module._Automaton, "_advance", counted)
    return live


STARS = ["*" + "*".join(kinds) + "*b" for kinds in product("a?", repeat=8)][:200]
HOSTILE = [
    pytest.param(["*a" * 249 + "*b"], "a" * 512, id="stars in a segment"),
    pytest.param(["**/" * 160 + "b"], "a/" * 249 + "a", id="stars for segments"),
    pytest.param(["**/a/" * 80 + "b"], "a/" * 249 + "a", id="stars between segments"),
    pytest.param(["**/*a*a*a*a/" * 30 + "b"], "aaaaaaaa/" * 50 + "a", id="both"),
    pytest.param(STARS, "a" * 512, id="many with stars"),
    pytest.param([f"**/{stars}/**/b" for stars in STARS], "aaaaaaaa/" * 50 + "a", id="many with both"),
    pytest.param(["*a" + "?" * 201 + "b"], "ab" * 256, id="a window"),
]


@pytest.mark.parametrize(("globs", "path"), HOSTILE)
def test_no_step_looks_at_more_than_the_characters_of_all_globs_and_each_character_is_read_once(
    globs: Sequence[str], path: str, work: Work
) -> None:
    assert GlobIndex((glob, 0) for glob in globs).owners(path) == set()
    assert len(work) <= len(path) + len(path.split("/"))
    assert max(work) <= 1 + sum(map(len, globs))


@pytest.mark.parametrize(("globs", "path"), HOSTILE)
def test_a_path_that_comes_again_is_no_work(globs: Sequence[str], path: str, work: Work) -> None:
    index = GlobIndex((glob, 0) for glob in globs)
    index.owners(path)
    work.clear()
    index.owners(path)
    assert work == []


def test_stars_that_follow_each_other_are_one(work: Work) -> None:
    assert GlobIndex([("**/" * 100 + "a", 0)]).owners("b/a") == {0}
    assert max(work) <= 2


def test_a_glob_that_begins_otherwise_is_no_work(work: Work) -> None:
    index = GlobIndex((f"secrets/app-{number}/**", number) for number in range(1000))
    assert index.owners("secrets/app-17/db/password") == {17}
    assert max(work) <= 2


def memory_held() -> int:
    """In the measure of LARGEST_MEMO, by all indexes there are."""
    states = [found for found in gc.get_objects() if type(found) is module._State]
    return sum(10 + len(state.live) + len(state.owners) + sum(map(len, state.after)) for state in states)


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collector")
def test_what_is_remembered_is_bounded_whatever_the_paths_and_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_MEMO", 10_000)
    before = memory_held()
    index = GlobIndex([("*a" + "?" * 14, 1), ("**/a/*/*/*/*/*/*/*/*", 2)])
    random = Random(1)
    held = []
    for number in range(300):
        index.owners("/".join("".join(random.choices("ab", k=3)) for _ in range(20)))
        index.owners("".join(random.choices("ab", k=100)))
        index.owners("/".join(random.choices("ab", k=100)))
        if number % 20 == 0:
            held.append(memory_held() - before)
    largest_step = 10 + 20 + 100  # a state with its live nodes, and the segment that led there
    assert 10_000 < max(held) <= 2 * (10_000 + largest_step)


@pytest.fixture
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_change_often")
@pytest.mark.parametrize("memo", [0, 300, LARGEST_MEMO])
def test_threads_that_share_an_index_find_what_each_would_alone(memo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_MEMO", memo)
    globs = ["a/**", "**/b", "*a?/*", "a*/**/?b*", "ab/ba", "**/*a*b*/**"]
    paths = ["/".join(segments) for segments in product(["a", "b", "ab", "aab", "ba"], repeat=3)]
    index = GlobIndex(zip(globs, range(len(globs)), strict=True))

    def found(seed: int) -> dict[str, frozenset[int]]:
        return {path: index.owners(path) for path in Random(seed).sample(paths, len(paths))}

    alone = {path: {number for number, glob in enumerate(globs) if takes(glob, path)} for path in paths}
    with ThreadPoolExecutor(8) as pool:
        assert all(together == alone for together in pool.map(found, range(16)))


@pytest.mark.parametrize(
    "glob", ["pki", "pki/certificates/cert_1", "pki/**", "**", "*", "a/*/b?c/**", "A-Z.0_9", "a*b*c", "a" * 512]
)
def test_a_glob_has_segments_and_no_leading_slash(glob: str) -> None:
    assert is_path_glob(glob)


@pytest.mark.parametrize(
    "glob", ["", "/", "/pki", "pki/", "pki//x", "pki/**x", "***", "a/b**", "a b", "pki/[ab]", "é", "a\n", "a" * 513]
)
def test_anything_else_is_no_glob(glob: str) -> None:
    assert not is_path_glob(glob)


@pytest.mark.parametrize(
    ("glob", "lies"),
    [
        ("pki/**", True),
        ("pki/certificates/*", True),
        ("pki", False),
        ("pkix/*", False),
        ("*/certificates", False),
        ("**", False),
        ("pk?/certificates", False),
    ],
)
def test_a_glob_lies_under_a_root_that_it_names_literally(glob: str, lies: bool) -> None:
    assert lies_under(glob, "pki") is lies

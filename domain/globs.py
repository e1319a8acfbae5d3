"""Globs over paths, and an index of many that goes over a path once, never back.

`*` is any number of characters within a segment, `**` any number of segments, `?` one character."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

SEGMENT = re.compile(r"(?:[A-Za-z0-9_.?*-])+")
LONGEST_GLOB = 512
LARGEST_MEMO = 250_000  # live nodes, owners, characters, and ten for each state; each is some 60 bytes at most


def is_path_glob(glob: str) -> bool:
    """Segments without a leading slash; `**` only as a whole segment."""
    segments = glob.split("/")
    return len(glob) <= LONGEST_GLOB and all(
        SEGMENT.fullmatch(segment) and ("**" not in segment or segment == "**") for segment in segments
    )


def lies_under(glob: str, root: str) -> bool:
    """Whether everything that the glob can match lies under the literal first segment `root`."""
    return glob.startswith(root + "/")


class GlobIndex:
    """Globs with their owners. Two automata: one reads a path's segments, and asks the other, which reads a segment's
    characters, for the segments of globs that take one. Threads may share an index."""

    def __init__(self, globs: Iterable[tuple[str, int]]) -> None:
        split = [(glob.split("/"), owner) for glob, owner in globs]
        segments = dict.fromkeys(segment for glob, _ in split for segment in glob if segment != "**")
        self._wild = [segment for segment in segments if "*" in segment or "?" in segment]
        numbered = ((segment, number) for number, segment in enumerate(self._wild))
        self._characters = _Automaton(numbered, "*", lambda character: {character, "?"})
        self._segments = _Automaton(split, "**", self._that_take)

    def owners(self, path: str) -> frozenset[int]:
        """Of all globs that take the path."""
        return self._segments.owners(path.split("/"))

    def _that_take(self, segment: str) -> set[str]:
        return {segment, *(self._wild[number] for number in self._characters.owners(segment))}


class _Automaton:
    """Reads symbols, and knows whose patterns took them all. A pattern's token takes one symbol, `many` any number.

    Its states are made when first met, each from the nodes that are live in it, at most one for each token of the
    patterns. When they have become too large together, it forgets them.

    Threads: a state's `live` and `owners` never change, and whatever `after` leads to is right for good, so reading takes
    no lock. What is noted down is noted under the lock. A state that was forgotten meanwhile still leads on."""

    def __init__(
        self, patterns: Iterable[tuple[Iterable[str], int]], many: str, that_take: Callable[[str], set[str]]
    ) -> None:
        """`that_take` tells which tokens take a symbol. One that is spelled like the symbol always does."""
        self._many = many
        self._that_take = that_take
        self._root = _Node()
        for tokens, owner in patterns:
            self._add(tokens, owner)
        self._states: dict[frozenset[_Node], _State] = {}
        self._lock = threading.Lock()
        self._forget()

    def owners(self, symbols: Iterable[str]) -> frozenset[int]:
        state = self._start
        for symbol in symbols:
            state = state.after.get(symbol) or self._advance(state, symbol)
        return state.owners

    def _add(self, tokens: Iterable[str], owner: int) -> None:
        node = self._root
        for token in tokens:
            repeats = token == self._many
            if not (repeats and node.repeats):
                node = node.after.setdefault(token, _Node(repeats))
        node.owners.append(owner)

    def _advance(self, state: _State, symbol: str) -> _State:
        tokens = self._that_take(symbol)
        live = {node for node in state.live if node.repeats}
        for node in state.live:
            for token in node.after.keys() & tokens:
                live.add(node.after[token])
        with self._lock:
            if self._remembered > LARGEST_MEMO:
                self._forget()
            after = state.after[symbol] = self._state(live)
            self._remembered += len(symbol)
        return after

    def _state(self, nodes: set[_Node]) -> _State:
        """Where these are live, and what comes after a `many` that takes nothing."""
        live = frozenset(nodes) | {node.after[self._many] for node in nodes if self._many in node.after}
        if live not in self._states:
            owners = frozenset(owner for node in live for owner in node.owners)
            self._states[live] = _State(live, owners)
            self._remembered += len(live) + len(owners) + 10
        return self._states[live]

    def _forget(self) -> None:
        for state in self._states.values():
            state.after.clear()  # states lead to each other in circles, and would wait for the garbage collector
        self._states.clear()
        self._remembered = 0
        self._start = self._state({self._root})


@dataclass(eq=False, slots=True)
class _Node:
    """Where patterns are that began alike. One after a `many` takes every symbol and `repeats`."""

    repeats: bool = False
    after: dict[str, _Node] = field(default_factory=dict)
    owners: list[int] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _State:
    """What can be said after some symbols, and the states after one more, as far as they were met."""

    live: frozenset[_Node]
    owners: frozenset[int]
    after: dict[str, _State] = field(default_factory=dict)

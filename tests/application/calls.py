"""A watch over all ports: what was called in which order, and where a process dies or the outside fails."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from application.errors import Failure

Port = TypeVar("Port")
Asked = TypeVar("Asked")


class Killed(BaseException):
    """The process is gone: nothing of it reports, releases or cleans up."""


class Death(NamedTuple):
    """The call that follows on `after` others since the last death ends with `of`, before or after it `acted`."""

    after: int
    acted: bool
    of: BaseException


class Calls:
    """Every call of a port, by name, in order. One of them may be the last of its process, or somebody else's turn."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.deaths = 0
        self._deadly: deque[Death] = deque()
        self._alive_since = 0
        self._before: dict[str, deque[Callable[[], object]]] = defaultdict(deque)
        self._outages: list[tuple[str, Callable[[], bool], Failure | Killed]] = []

    def kill(self, *deaths: Death) -> None:
        """These from now on, and no others."""
        self._alive_since = len(self.made)
        self._deadly = deque(deaths)

    def before(self, call: str, happens: Callable[[], object]) -> None:
        """Once, before the next such call."""
        self._before[call].append(happens)

    def fail_while(self, port: str, lasts: Callable[[], bool], failure: Failure | Killed) -> None:
        self._outages.append((port, lasts, failure))

    def of(self, name: str, port: Port) -> Port:
        return cast("Port", _Watched(self, name, port))

    def make(self, call: str, act: Callable[[], Asked]) -> Asked:
        number = len(self.made) - self._alive_since
        death = self._deadly.popleft() if self._deadly and self._deadly[0].after == number else None
        self.made.append(call)
        if self._before[call]:
            self._before[call].popleft()()
        if death is not None and not death.acted:
            self._die(death)
        for port, lasts, failure in self._outages:
            if call.startswith(port) and lasts():
                raise failure
        answer = act()
        if death is not None:
            self._die(death)
        return answer

    def _die(self, death: Death) -> NoReturn:
        self.deaths += 1
        self._alive_since = len(self.made)
        raise death.of


class _Watched:
    def __init__(self, calls: Calls, name: str, port: object) -> None:
        self._calls, self._name, self._port = calls, name, port

    def __getattr__(self, method: str) -> Any:
        asked = getattr(self._port, method)
        return lambda *args, **kwargs: self._calls.make(f"{self._name}.{method}", lambda: asked(*args, **kwargs))

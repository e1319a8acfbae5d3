"""C21: the service's own clock is wrong, or is set while it runs; and the CA's is.

libfaketime turns what the process sees as the time of day, and leaves the monotonic clock alone, as `date` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from domain.renewal import Lifetime, fraction_of, plan_by_lifetime
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import Stage, stage
from tests.prove.fault_scenarios.suggested import Windows, from_now, in_a_month
from tests.servers.ca_faults import at_other_times, no_such_certificate
from tests.servers.ca_proxy import SIGNED
from tests.servers.https import Answer
from tests.servers.process import PeerMissing, wait_until

HOUR = timedelta(hours=1)
OFFSETS: Mapping[str, timedelta] = {
    "+5 min": timedelta(minutes=5),
    "-5 min": timedelta(minutes=-5),
    "+1 day": timedelta(days=1),
    "-1 day": timedelta(days=-1),
}
NONE = timedelta()
OPENS, CLOSES = timedelta(seconds=6), timedelta(seconds=7)
LATE_SECONDS = 20.0  # on a busy machine; a clock that counts is wrong by minutes
MOST_MORE = 4  # requests of an order: how often a slow CA is polled is not up to us
LIBRARIES = "*/faketime/libfaketimeMT.so.1"


class TurnedClock:
    """What a child process takes for the time of day: ours, and so much more."""

    def __init__(self, file: Path) -> None:
        found = next(Path("/usr/lib").glob(LIBRARIES), None)
        if found is None:
            raise PeerMissing("libfaketime", "Debian's package faketime")
        self._file = file
        self.offset = NONE
        self.environment = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.turn(NONE)

    def turn(self, offset: timedelta) -> None:
        """Also while it runs; it is seen within a second."""
        self.offset = offset
        written = self._file.with_suffix(".new")
        written.write_text(f"{offset.total_seconds():+.0f}\n")
        written.replace(self._file)

    def tidy(self, pid: int) -> None:
        """libfaketime leaves these behind where a process ends by `_exit`. It has them open by now."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)


def wrong_clocks(folder: Path, findings: Findings, short: bool) -> None:
    windows = Windows(no_such_certificate)
    with stage(folder, suggest=windows) as on:
        clock = TurnedClock(folder / "clock")
        right = on.place("right")
        on.ended(right)
        usual = _requests(on, "right")
        findings.check("requests of an order, by a right clock", usual, holds=usual > 0)
        offsets = dict(list(OFFSETS.items())[2:]) if short else OFFSETS
        for name, offset in offsets.items():
            with _restarted(on, clock, offset):
                _lives_by_the_database(on, findings, name, windows, usual, lambda: None)
                findings.equal(f"{name}: clock_skew in the log, of a CA that is right", _skews(on), [])
        with _restarted(on, clock, NONE):
            _lives_by_the_database(on, findings, "back 1 h", windows, usual, lambda: _turn(on, clock, -HOUR))
        with _restarted(on, clock, NONE):
            _elsewhen(on, findings)
        on.tally(findings)


@contextmanager
def _restarted(on: Stage, clock: TurnedClock, offset: timedelta) -> Iterator[None]:
    """The service with that clock, and a log of its own."""
    on.service.stop()
    on.service.log_path.write_bytes(b"")
    clock.turn(offset)
    on.service.variables = clock.environment
    on.service.start()
    clock.tidy(on.service.pid)
    _turn(on, clock, offset)
    yield


def _turn(on: Stage, clock: TurnedClock, offset: timedelta) -> None:
    clock.turn(offset)
    wait_until(lambda: _is_at(on, offset), what="the service's clock was turned")


def _is_at(on: Stage, offset: timedelta) -> bool:
    """By the times in its log."""
    on.client.get("/v1/health")
    ahead = _logged(on)[-1]["timestamp"] if _logged(on) else ""
    return bool(ahead) and abs(_parsed(ahead) - datetime.now(UTC) - offset) < timedelta(seconds=30)


def _lives_by_the_database(
    on: Stage, findings: Findings, name: str, windows: Windows, usual: int, meanwhile: Callable[[], object]
) -> None:
    """One certificate whose window opens in a moment, and one that is renewed by its lifetime. `meanwhile` is between."""
    label = "".join(each for each in name.lower().replace("+", "plus ") if each.isalnum())
    begun, position = datetime.now(UTC), _position(on)
    windows.rule = _first(from_now(OPENS, CLOSES), in_a_month)
    renewed = on.issue(f"{label}-renewed")
    suggested = json.loads(windows.asked[on.ari_id(renewed, 1) or ""].body)["suggestedWindow"]
    in_flight = on.place(f"{label}-in-flight")
    meanwhile()
    findings.equal(f"{name}: an order ends", on.ended(in_flight)["status"], "valid")
    on.wait_for_version(renewed, 2)
    placed = on.new_orders(f"{label}-renewed")[1].at
    late = (placed - _parsed(suggested["start"])).total_seconds()
    findings.between(f"{name}: s from the window's start to the renewal's newOrder", 0, late, LATE_SECONDS)
    on.asked_again_at(renewed)

    windows.rule = no_such_certificate
    lasting = on.issue(f"{label}-lasting")
    asked = datetime.now(UTC)
    again = (on.asked_again_at(lasting) - asked) / HOUR
    findings.between(f"{name}: h until the CA is asked again after a 404", 0.99, again, 1.01)
    shown = on.certificate(lasting)
    lifetime = Lifetime(_parsed(shown["not_before"]), _parsed(shown["not_after"]))
    planned = plan_by_lifetime(lifetime, fraction_of(shown["fingerprint_sha256"])).at
    off = (on.due_at("renewal", lasting) - planned).total_seconds()
    findings.between(f"{name}: s between the renewal's instant and that without skew", -0.001, off, 0.001)
    written = _event_times(on, position)
    outside = [at for at in written if not begun - timedelta(seconds=1) < at < datetime.now(UTC) + timedelta(seconds=1)]
    findings.check(
        f"{name}: events at another time than they happened", f"{len(outside)} of {len(written)}", holds=not outside
    )
    most = max(_requests(on, f"{label}-{each}") for each in ("renewed", "in-flight", "lasting"))
    findings.between(f"{name}: requests of an order at most", 1, most, usual + MOST_MORE)


def _elsewhen(on: Stage, findings: Findings) -> None:
    """The CA's clock is wrong: a little, which nobody needs to know, and an hour."""
    on.proxy.fail_at_rate(1.0, at_other_times(30), SIGNED)
    on.issue("ca-a-little-ahead")
    findings.equal("CA +30 s: clock_skew in the log", _skews(on), [])
    on.proxy.recover()
    on.proxy.fail_at_rate(1.0, at_other_times(HOUR.total_seconds()), SIGNED)
    on.issue("ca-ahead")
    told = [abs(seconds - HOUR.total_seconds()) <= LATE_SECONDS for seconds in _skews(on)]
    findings.check("CA +1 h: clock_skew in the log", _skews(on), holds=told == [True])
    on.proxy.recover()


def _skews(on: Stage) -> Sequence[Any]:
    return [each["seconds"] for each in _logged(on) if each["event"] == "clock_skew"]


def _logged(on: Stage) -> Sequence[dict[str, Any]]:
    """Lines of ours, one JSON object each; the last one may be half written."""
    lines = on.service.log_path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]


def _first(answer: Answer, then: Callable[[], Answer]) -> Callable[[], Answer]:
    left = [answer]
    return lambda: left.pop() if left else then()


def _requests(on: Stage, label: str) -> int:
    """The most that one order for the name took."""
    counts = on.proxy.since(0).requests_by_order()
    return max(counts[each.location] for each in on.new_orders(label))


def _position(on: Stage) -> int:
    row = on.rows.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
    return int(row[0]) if row else 0


def _event_times(on: Stage, position: int) -> Sequence[datetime]:
    rows = on.rows.execute("SELECT state->>'timestamp' FROM events WHERE position > %s", [position])
    return [_parsed(at) for (at,) in rows.fetchall()]


def _parsed(at: str) -> datetime:
    return datetime.fromisoformat(at)


SCENARIOS = [Scenario("C21", "our clock ±5 min, ±1 day, back by an hour in mid-run; the CA's ahead", wrong_clocks)]

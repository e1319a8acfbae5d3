"""What a scenario saw, and whether it was as it must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Findings:
    """Of one row of the fault table. The three counts are those that every row has to keep at none; `are_counted` says that
    a scenario came so far."""

    row: str
    checks: list[tuple[bool, str, str]] = field(default_factory=list)
    lost_orders: int = 0
    finalized_twice: int = 0
    orphan_values: int = 0
    are_counted: bool = False

    def check(self, what: str, figure: object, *, holds: bool) -> None:
        """`what` must hold; `figure` is what was seen."""
        self.checks.append((holds, what, str(figure)))

    def equal(self, what: str, seen: object, wanted: object) -> None:
        self.check(what, seen if seen == wanted else f"{seen}, wanted {wanted}", holds=seen == wanted)

    def between(self, what: str, least: float, seen: float, most: float) -> None:
        self.check(what, f"{seen:.1f} (of {least:g} to {most:g})", holds=least <= seen <= most)

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.lost_orders, self.finalized_twice, self.orphan_values

    @property
    def holds(self) -> bool:
        return self.are_counted and self.counts == (0, 0, 0) and all(holds for holds, _, _ in self.checks)

    @property
    def lines(self) -> list[str]:
        lines = [f"  {'holds' if holds else 'FAILS'}  {what}: {figure}" for holds, what, figure in self.checks]
        counts = "lost orders {}, finalized twice {}, orphan TXT values {}".format(*self.counts)
        return [*lines, f"  {counts if self.are_counted else 'not counted'}"]


@dataclass(frozen=True)
class Scenario:
    """`run` is given a folder of its own, and whether it is to be short: then waits of minutes are left out, by moving
    rows of the to-do list."""

    row: str
    fault: str
    run: Callable[[Path, Findings, bool], None]

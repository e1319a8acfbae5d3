"""`scaivault serve` that finds the authoritative servers of zones at another port than 53, which not everybody may open.

Nothing else differs: it is the command line itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from interfaces import main
from interfaces.dns.survey import ResolvingSurvey
from tests.system.service import Process

ROOT = Path(__file__).parents[2]
PORT = "AUTHORITATIVE_PORT"


class NearbyService(Process):
    """Its settings have `AUTHORITATIVE_PORT` too."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.prove.nearby_service", "serve"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(ROOT)}


def look_nearby(port: int) -> None:
    defaults = ResolvingSurvey.__init__.__kwdefaults__
    if defaults is None:
        raise TypeError("the port has no default")
    defaults["port"] = port


if __name__ == "__main__":
    look_nearby(int(os.environ[PORT]))
    sys.exit(main.main())

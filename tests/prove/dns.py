"""Claim: every DNS provider is held to the same suite of tests: the stand-ins, and BIND, Knot and PowerDNS for real.

Prints by provider how many of them hold, and how many do not fit it (a name server knows no 429, acme-dns no removal)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from interfaces.dns.providers import BY_NAME
from tests.contracts.dns_worlds import PEERS, WORLDS
from tests.system.service import open_folder

SUITE = "tests/contracts/test_dns_zone.py"
ROOT = Path(__file__).parents[2]


def outcomes(folder: Path) -> dict[str, Counter[str]]:
    """By provider."""
    report = folder / "report.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", SUITE, f"--junit-xml={report}"]
    subprocess.run(words, cwd=ROOT, check=False, capture_output=True)
    found: dict[str, Counter[str]] = {provider: Counter() for provider in WORLDS}
    for case in ET.parse(report).iter("testcase"):
        provider = next((each for each in WORLDS if f"[{each}" in (case.get("name") or "")), None)
        kinds = {child.tag for child in case}
        if provider is not None:
            found[provider][
                "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "held"
            ] += 1
    return found


def main(words: Sequence[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__).parse_args(words)
    with open_folder() as folder:
        found = outcomes(folder)
    for provider, counts in found.items():
        real = " (real)" if provider in PEERS else ""
        print(f"  {provider}{real}: {counts['held']} hold, {counts['failed']} fail, {counts['skipped']} do not fit it")
    untried = sorted(set(BY_NAME) - {"rfc2136"} - set(found))
    good = [provider for provider, counts in found.items() if counts["held"] and not counts["failed"]]
    print(
        f"dns: {len(good)} of {len(found)} held to the suite; {len(BY_NAME)} types, without a test {untried or 'none'}"
    )
    return 0 if len(good) == len(found) and not untried else 1


if __name__ == "__main__":
    sys.exit(main())

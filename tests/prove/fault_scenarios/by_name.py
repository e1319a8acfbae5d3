"""What a CA says, changed for single names: for scenarios in which many orders meet a fault of their own each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.servers.ca_faults import reworded
from tests.servers.ca_proxy import Fault

Document = dict[str, Any]
Change = Callable[[Document], Document]

WRONG_TOKEN = "a-token-of-which-the-CA-knows-nothing"


def names_in(said: Mapping[str, Any]) -> Sequence[str]:
    """Those that an order or an authorization is about, without the wildcard's `*.`; none for other documents."""
    identifiers = said.get("identifiers") or [each for each in (said.get("identifier"),) if each]
    return [str(each["value"]).removeprefix("*.") for each in identifiers]


def reworded_for(changes: Mapping[str, Change]) -> Fault:
    """The CA acts. What it says of an order or authorization for a name in `changes` is changed on the way."""

    def change(said: Document) -> Document:
        for name in names_in(said):
            if name in changes:
                said = changes[name](said)
        return said

    return reworded(change)


def ending_in(lifetime: timedelta) -> Change:
    """An order that the CA gives no longer than that from now on."""
    return lambda order: {**order, "expires": f"{datetime.now(UTC) + lifetime:%Y-%m-%dT%H:%M:%S.%fZ}"}


def with_a_wrong_token(authorization: Document) -> Document:
    """What we show is then not what the CA looks for: it sees for itself that the authorization fails."""
    challenges = [{**each, "token": WRONG_TOKEN} for each in authorization["challenges"]]
    return {**authorization, "challenges": challenges}

"""C9: many orders at once in one zone, several of them with values at one name, where strangers have theirs too."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from urllib.parse import urlsplit

from tests.prove.fault_scenarios.by_name import names_in
from tests.prove.fault_scenarios.findings import Findings, Scenario
from tests.prove.fault_scenarios.stage import ZONE, Stage, stage
from tests.servers.bind import Bind
from tests.servers.ca_proxy import Passing
from tests.servers.https import Answer
from tests.servers.process import wait_until

AT_ONCE = 16
IN_ALL, IN_ALL_SHORT = 200, 24
DEADLINE_SECONDS = 600.0
HELD_SECONDS = 20.0
BEFORE, MEANWHILE = "somebody else's, from before", "somebody else's, written meanwhile"


@dataclass(frozen=True)
class Wish:
    """An order for `dns_names` through the first account or the `other` one."""

    dns_names: Sequence[str]
    other: bool = False


def wishes(count: int) -> Sequence[Wish]:
    """Of four, three have a name to themselves, two of these with its wildcard; the fourth shares the third's name."""
    made = []
    for number in range(0, count, 4):
        alone, pair, shared = (f"{kind}{number}.{ZONE}" for kind in ("alone", "pair", "shared"))
        made += [Wish([alone]), Wish([pair, f"*.{pair}"]), Wish([shared, f"*.{shared}"]), Wish([shared], other=True)]
    return made


class Watch:
    """Sees at each challenge what DNS shows at its name, before the CA does. At the names of `foreign` a stranger writes at
    that moment. The first ones wait until it is `full`."""

    def __init__(self, dns: Bind, foreign: Collection[str]) -> None:
        self._dns, self._foreign = dns, set(foreign)
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self.full = threading.Event()
        self.shown: defaultdict[str, list[set[str]]] = defaultdict(list)
        """By the path of a challenge: what was there each time that it was answered."""

    def authorization(self, passing: Passing) -> Answer:
        answer = passing.pass_on()
        said = json.loads(answer.body)
        for name in names_in(said):
            self._names |= {urlsplit(each["url"]).path: name for each in said["challenges"]}
        return answer

    def challenge(self, passing: Passing) -> Answer:
        self.full.wait(HELD_SECONDS)
        name = self._names[passing.asked.path]
        with self._lock:
            is_first = name in self._foreign
            self._foreign.discard(name)
        if is_first:
            self._dns.add(f"_acme-challenge.{name}", "TXT", f'"{MEANWHILE}"')
        self.shown[passing.asked.path].append(set(self._dns.txt(f"_acme-challenge.{name}")))
        return passing.pass_on()


@dataclass(frozen=True)
class Value:
    """One of ours, for the challenge with this path."""

    name: str
    value: str
    order_id: str
    challenge: str


def together(folder: Path, findings: Findings, short: bool) -> None:
    wanted = wishes(IN_ALL_SHORT if short else IN_ALL)
    names = sorted({wish.dns_names[0] for wish in wanted})
    before, meanwhile = names[::3], names[1::3]
    foreign = sorted(
        (f"_acme-challenge.{name}", text) for text, at in ((BEFORE, before), (MEANWHILE, meanwhile)) for name in at
    )
    with Bind(folder / "dns", [ZONE]) as dns, stage(folder, dns=dns) as on:
        on.foreign |= {BEFORE, MEANWHILE}
        for name in before:
            dns.add(f"_acme-challenge.{name}", "TXT", f'"{BEFORE}"')
        watch = Watch(dns, meanwhile)
        on.proxy.fail_at_rate(1.0, watch.authorization, ["authorization"])
        on.proxy.fail_at_rate(1.0, watch.challenge, ["challenge"])
        orders = _run(on, wanted, watch)
        valid = [order_id for order_id in orders if on.order(order_id)["status"] == "valid"]
        findings.equal("orders that end well", f"{len(valid)} of {len(orders)}", f"{len(wanted)} of {len(wanted)}")
        findings.equal("newOrders", len(on.new_orders()), len(wanted))
        findings.equal("orders in progress at the same time, at most", _most_at_once(on, orders), AT_ONCE)
        _live_together(findings, [value for order_id in orders for value in _values(on, order_id)], watch)
        left = sorted((each.name, each.value) for each in dns.transfer(ZONE) if each.type == "TXT")
        findings.check("foreign values in the zone, and no other", f"{len(left)}", holds=left == foreign)
        on.tally(findings)


def _run(on: Stage, wanted: Sequence[Wish], watch: Watch) -> Sequence[str]:
    """`AT_ONCE` at once for as long as there are more. The orders' ids."""
    accounts = {False: on.account_id, True: on.register("other")}
    placed: list[str] = []
    running: set[str] = set()

    def all_done() -> bool:
        query = "SELECT id FROM orders WHERE id = ANY(%s) AND document->>'phase' = 'done'"
        running.difference_update(order_id for (order_id,) in on.rows.execute(query, [list(running)]).fetchall())
        for wish in wanted[len(placed) : len(placed) + AT_ONCE - len(running)]:
            placed.append(on.place_for(wish.dns_names, accounts[wish.other]))
            running.add(placed[-1])
        watch.full.set()
        return not running

    wait_until(all_done, what="all orders are done", deadline_seconds=DEADLINE_SECONDS)
    return placed


def _most_at_once(on: Stage, orders: Sequence[str]) -> int:
    """From where each was placed to where it ended."""
    steps = [
        (on.event(order_id, topic)["timestamp"], step)
        for order_id in orders
        for topic, step in (("order.placed", 1), ("order.completed", -1))
    ]
    return max(accumulate(step for _, step in sorted(steps)))


def _values(on: Stage, order_id: str) -> Sequence[Value]:
    challenges = on.event(order_id, "order.challenges_offered")["challenges"]
    return [
        Value(each["record"]["name"], each["record"]["value"], order_id, urlsplit(each["url"]).path)
        for each in challenges
    ]


def _live_together(findings: Findings, values: Sequence[Value], watch: Watch) -> None:
    """All values of an order are there at each of its challenges, also where two stand at one name; and those of another
    order beside them."""
    seen = [(value, shown) for value in values for shown in watch.shown[value.challenge]]
    own = {
        (each.order_id, each.name): {other.value for other in values if _belong_together(each, other)}
        for each in values
    }
    all_ours = {each.name: {other.value for other in values if other.name == each.name} for each in values}
    blind = [value for value, shown in seen if not own[value.order_id, value.name] <= shown]
    pairs = [value for value, shown in seen if len(own[value.order_id, value.name] & shown) > 1]
    beside = [value for value, shown in seen if all_ours[value.name] & shown - own[value.order_id, value.name]]
    findings.check(
        "challenges answered before all values of their order were there",
        f"{len(blind)} of {len(seen)}",
        holds=not blind,
    )
    wildcards = sum(len(each) > 1 for each in own.values())
    findings.equal("challenges at which a name's and its wildcard's value were there", len(pairs), 2 * wildcards)
    findings.check("challenges at which another order's value was there too", len(beside), holds=bool(beside))


def _belong_together(one: Value, other: Value) -> bool:
    return (one.order_id, one.name) == (other.order_id, other.name)


SCENARIOS = [
    Scenario("C9", "apex and wildcard, 16 orders at once in one zone, others' values at their names", together)
]

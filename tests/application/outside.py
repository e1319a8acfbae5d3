"""What lies outside beside the CA: DNS providers, name servers and a receiver of webhooks, each of them programmable."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from application.errors import Failure
from application.ports import Alias, ProviderAccess, TxtValue, Unseen, WebhookRequest, WebhookResponse
from domain.errors import FieldProblem, InvalidFields
from domain.names import base_name
from tests.application.calls import Calls
from tests.fakes_dns import FakeZone

Change = Literal["add", "remove"]


class ProgrammableZone(FakeZone):
    """Writes down its changes. Single changes can be made to fail, before or after they were done; zones that it `lacks`
    are not listed."""

    def __init__(self, zones: Sequence[str]) -> None:
        super().__init__(zones)
        self.changes: list[tuple[Change, frozenset[TxtValue]]] = []
        self.attempts = 0
        self.lacks: set[str] = set()
        self._before: dict[Change, deque[Failure]] = defaultdict(deque)
        self._after: dict[Change, deque[Failure]] = defaultdict(deque)

    def fail(self, change: Change, *failures: Failure) -> None:
        self._before[change].extend(failures)

    def lose_answer(self, change: Change, *failures: Failure) -> None:
        self._after[change].extend(failures)

    def add(self, values: Sequence[TxtValue]) -> None:
        self._change("add", values, super().add)

    def remove(self, values: Sequence[TxtValue]) -> None:
        self._change("remove", values, super().remove)

    def zones(self) -> Sequence[str]:
        return [zone for zone in super().zones() if zone not in self.lacks]

    @property
    def held(self) -> set[TxtValue]:
        return {TxtValue(name, value) for name, values in self._held.items() for value in values}

    def _change(self, change: Change, values: Sequence[TxtValue], act: Callable[[Sequence[TxtValue]], None]) -> None:
        self.attempts += 1
        if self._before[change]:
            raise self._before[change].popleft()
        act(values)
        self.changes.append((change, frozenset(values)))
        if self._after[change]:
            raise self._after[change].popleft()


class FakeZones:
    """DnsZones of the type `fake`, which needs the credential `api_token`: one zone per set of managed zones."""

    def __init__(self, calls: Calls) -> None:
        self.connected: list[ProviderAccess] = []
        self._calls = calls
        self._zones: dict[tuple[str, ...], ProgrammableZone] = {}

    def connect(self, access: ProviderAccess) -> FakeZone:
        if access.provider_type != "fake":
            raise InvalidFields(FieldProblem("provider_type", "unknown", "known is fake"))
        if "api_token" not in access.credentials:
            raise InvalidFields(FieldProblem("credentials.api_token", "required", "is required"))
        self.connected.append(access)
        return self._calls.of("zone", self.of(*access.managed_zones))

    def of(self, *managed_zones: str) -> ProgrammableZone:
        return self._zones.setdefault(managed_zones, ProgrammableZone([base_name(zone) for zone in managed_zones]))

    def txt(self, record_name: str) -> Collection[str]:
        return {value for zone in self._zones.values() for value in zone.txt(record_name)}

    @property
    def held(self) -> set[TxtValue]:
        return {value for zone in self._zones.values() for value in zone.held}


class FakeResolver:
    """Resolver. Three servers show what the zones hold, but for those that are `stale`; `failures` are raised first."""

    def __init__(self, txt: Callable[[str], Collection[str]]) -> None:
        self.stale: set[str] = set()
        self.asked: list[tuple[frozenset[TxtValue], Sequence[str]]] = []
        self.failures: deque[Failure] = deque()
        self.led: dict[str, Alias] = {}
        self.unknown: set[str] = set()
        self.looked_up = 0
        self._txt = txt

    def aliases(self, record_names: Sequence[str], nameservers: Sequence[str]) -> Mapping[str, Alias]:
        del nameservers
        self.looked_up += 1
        return {name: self.led.get(name, Alias(name)) for name in record_names if name not in self.unknown}

    def unseen(self, values: Sequence[TxtValue], nameservers: Sequence[str]) -> Sequence[Unseen]:
        self.asked.append((frozenset(values), nameservers))
        if self.failures:
            raise self.failures.popleft()
        return [
            Unseen(server, value.record_name, value.value)
            for server in nameservers or ("ns1.example:53", "ns2.example:53", "ns3.example:53")
            for value in values
            if server in self.stale or value.value not in self._txt(value.record_name)
        ]


class FakeWebhookSender:
    """WebhookSender. Answers 200 once `answers` are used up; `sent` has the requests that arrived."""

    def __init__(self) -> None:
        self.answers: deque[WebhookResponse | Failure] = deque()
        self.sent: list[WebhookRequest] = []

    def send(self, request: WebhookRequest) -> WebhookResponse:
        answer = self.answers.popleft() if self.answers else WebhookResponse(200, None, b"taken")
        if isinstance(answer, Failure):
            raise answer
        self.sent.append(request)
        return answer


class FakeResponseLog:
    """ResponseLog. `kept` has the status and text by delivery."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[int, str]] = {}

    def keep(self, delivery_id: str, status: int, text: str) -> None:
        self.kept[delivery_id] = (status, text)


class FakeNetwork:
    """RequireDialable. `failures` are what it says of some URLs; `asked` has those that it was asked about."""

    def __init__(self) -> None:
        self.failures: dict[str, Failure] = {}
        self.asked: list[str] = []

    def __call__(self, url: str) -> None:
        self.asked.append(url)
        if url in self.failures:
            raise self.failures[url]


class FewSuffixes:
    def is_public_suffix(self, dns_name: str) -> bool:
        return dns_name in {"com", "co.uk"}

    def registered_domain(self, dns_name: str) -> str:
        return ".".join(dns_name.split(".")[-2:])

"""DigitalOcean's API v2, as far as domains and TXT records go (https://docs.digitalocean.com/reference/api/).

It takes the same record twice. What it makes of a backslash nobody has written down: the stand-in refuses one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.dns_stand_ins.api import Answer, Request, StandIn

PLACE = re.compile(r"/v2/domains(?:/(?P<domain>[a-z0-9.-]+)/records(?:/(?P<record>\d+))?)?")
LONGEST_PAGE = 200
SHORTEST_TTL = 30
LONGEST_DATA = 512  # with the quotes around each string of 255 octets
LIMITS = {"RateLimit-Limit": "5000", "RateLimit-Remaining": "4816", "RateLimit-Reset": "1795490000"}


def holds(value: str) -> bool:
    """Whether DigitalOcean takes such data."""
    strings = -(-len(value) // 255)
    return 0 < len(value) + 3 * strings - 1 <= LONGEST_DATA and "\\" not in value


@dataclass(frozen=True)
class Record:
    """`name` is relative to its domain; `@` is the domain itself."""

    id: int
    domain: str
    name: str
    data: str
    ttl: int

    def full_name(self) -> str:
        return self.domain if self.name == "@" else f"{self.name}.{self.domain}"

    def shown(self) -> dict[str, Any]:
        unset = dict.fromkeys(("priority", "port", "weight", "flags", "tag"))
        return {"id": self.id, "type": "TXT", "name": self.name, "data": self.data, "ttl": self.ttl, **unset}


class DigitalOcean(StandIn):
    """`token` may do everything, `read_only` may look."""

    def __init__(
        self, domains: Sequence[str], *, domains_a_page: int = LONGEST_PAGE, records_a_page: int = LONGEST_PAGE
    ) -> None:
        super().__init__()
        self.base_url = f"{self.url}/v2"
        self.token, self.read_only = f"dop_v1_{'a' * 64}", f"dop_v1_{'b' * 64}"
        self.records: dict[int, Record] = {}
        self._ids = itertools.count(28448429)
        self._domains = list(domains)
        self._longest_pages = {"domains": domains_a_page, "domain_records": records_a_page}

    def txt(self, name: str) -> list[str]:
        return sorted(record.data for record in self.records.values() if record.full_name() == name)

    def write(self, name: str, value: str) -> None:
        domain = max((each for each in self._domains if f".{name}".endswith(f".{each}")), key=len)
        self._keep(domain, name.removesuffix(domain).removesuffix(".") or "@", value, 1800)

    def answer(self, request: Request) -> Answer:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or token not in (self.token, self.read_only):
            return refused(401, "unauthorized", "Unable to authenticate you")
        place = PLACE.fullmatch(request.path)
        if place is None or place["domain"] not in (None, *self._domains):
            return refused(404, "not_found", "The resource you requested could not be found.")
        if request.method != "GET" and token == self.read_only:
            return refused(403, "forbidden", "You are not authorized to perform this operation")
        match request.method:
            case "GET" if place["domain"] is None:
                shown = [{"name": name, "ttl": 1800, "zone_file": ""} for name in self._domains]
                return self._page(request, "domains", shown)
            case "GET" if place["record"] is None:
                wanted = [
                    record.shown()
                    for record in self.records.values()
                    if record.domain == place["domain"]
                    and request.query.get("type", "TXT") == "TXT"
                    and request.query.get("name", record.full_name()) == record.full_name()
                ]
                return self._page(request, "domain_records", wanted)
            case "POST" if place["domain"] is not None and place["record"] is None:
                return self._create(place["domain"], request)
            case "DELETE" if place["record"] is not None:
                if self.records.pop(int(place["record"]), None) is None:
                    return refused(404, "not_found", "The resource you requested could not be found.")
                return Answer(204, None, LIMITS)
            case _:
                return refused(405, "method_not_allowed", "Method not allowed")

    def _create(self, domain: str, request: Request) -> Answer:
        body = request.body
        if request.headers.get("content-type") != "application/json" or not isinstance(body, dict):
            return refused(400, "bad_request", "Request body is malformed.")
        if body.get("type") != "TXT" or not {"name", "data"} <= set(body):
            return refused(422, "unprocessable_entity", "Type, name and data are needed.")
        if not re.fullmatch(r"@|[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", body["name"]):
            return refused(422, "unprocessable_entity", "Name is invalid.")
        if not holds(body["data"]):
            return refused(422, "unprocessable_entity", "Data is invalid.")
        ttl = body.get("ttl", 1800)
        if type(ttl) is not int or ttl < SHORTEST_TTL:
            return refused(422, "unprocessable_entity", "TTL must be at least 30.")
        record = self._keep(domain, body["name"], body["data"], ttl)
        return Answer(201, {"domain_record": record.shown()}, LIMITS)

    def _keep(self, domain: str, name: str, data: str, ttl: int) -> Record:
        record = Record(next(self._ids), domain, name, data, ttl)
        self.records[record.id] = record
        return record

    def _page(self, request: Request, collection: str, everything: Sequence[Any]) -> Answer:
        page, size = int(request.query.get("page", 1)), int(request.query.get("per_page", 20))
        if not (0 < size <= LONGEST_PAGE and page > 0):
            return refused(400, "bad_request", "per_page or page is out of range")
        size = min(size, self._longest_pages[collection])
        last = max(1, -(-len(everything) // size))
        pages: dict[str, str] = {}
        if page > 1:
            pages |= {"first": f"{self.base_url}?page=1", "prev": f"{self.base_url}?page={page - 1}"}
        if page < last:
            pages |= {"next": f"{self.base_url}?page={page + 1}", "last": f"{self.base_url}?page={last}"}
        links = {"pages": pages} if pages else {}
        shown = everything[(page - 1) * size : page * size]
        return Answer(200, {collection: shown, "links": links, "meta": {"total": len(everything)}}, LIMITS)


def refused(status: int, kind: str, message: str) -> Answer:
    return Answer(status, {"id": kind, "message": message}, LIMITS)

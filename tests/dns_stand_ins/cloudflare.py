"""Cloudflare's API v4, as far as zones and TXT records go (https://developers.cloudflare.com/api/)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interfaces.dns.txt_strings import quoted, unquoted
from tests.dns_stand_ins.api import Answer, Request, StandIn

RECORDS = re.compile(r"/client/v4/zones/(?P<zone>[0-9a-f]{32})/dns_records(?:/(?P<record>[0-9a-f]{32}))?")
LONGEST_PAGE = {"zones": 50, "dns_records": 5000}
SHORTEST_TTL, AUTOMATIC = 60, 1


@dataclass(frozen=True)
class Record:
    id: str
    zone_id: str
    name: str
    content: str


class Cloudflare(StandIn):
    """`token` may do everything, `read_only` may look."""

    def __init__(self, zones: Sequence[str], *, zones_a_page: int | None = None) -> None:
        super().__init__()
        self.base_url = f"{self.url}/client/v4"
        self.token, self.read_only = "t" * 40, "r" * 40
        self._ids = (f"{number:032x}" for number in itertools.count(1))
        self._zones = {next(self._ids): zone for zone in zones}
        self._records: dict[str, Record] = {}
        self._zones_a_page = zones_a_page

    def txt(self, name: str) -> list[str]:
        return sorted(unquoted(record.content) for record in self._records.values() if record.name == name)

    def write(self, name: str, value: str) -> None:
        zone_id = max(
            (z for z, zone in self._zones.items() if f".{name}".endswith(f".{zone}")), key=lambda z: len(self._zones[z])
        )
        self._keep(zone_id, name, quoted(value))

    def answer(self, request: Request) -> Answer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not re.fullmatch(r"[A-Za-z0-9_-]{40}", token):
            return refused(400, 6003, "Invalid request headers")
        if token not in (self.token, self.read_only):
            return refused(403, 9109, "Invalid access token")
        if request.method != "GET" and token == self.read_only:
            return refused(403, 10000, "Authentication error")
        if request.path == "/client/v4/zones":
            zones = [{"id": zone_id, "name": name, "status": "active"} for zone_id, name in self._zones.items()]
            return self._page(request, "zones", zones)
        place = RECORDS.fullmatch(request.path)
        if place is None or place["zone"] not in self._zones:
            return refused(404, 7003, "Could not route, perhaps your object identifier is invalid?")
        match request.method:
            case "GET":
                held = [_shown(record) for record in self._records.values() if record.zone_id == place["zone"]]
                wanted = [
                    each
                    for each in held
                    if all(each[key] == request.query.get(key, each[key]) for key in ("type", "name"))
                ]
                return self._page(request, "dns_records", wanted)
            case "POST":
                return self._create(place["zone"], request.body)
            case "DELETE" if place["record"] in self._records:
                del self._records[place["record"]]
                return Answer(200, {"success": True, "errors": [], "messages": [], "result": {"id": place["record"]}})
            case "DELETE":
                return refused(404, 81044, "Record does not exist.")
            case _:
                return refused(405, 10405, "Method not allowed")

    def _create(self, zone_id: str, body: Any) -> Answer:
        if set(body) != {"type", "name", "content", "ttl"} or body["type"] != "TXT":
            return refused(400, 9005, "Content for this record is invalid.")
        if body["ttl"] != AUTOMATIC and body["ttl"] < SHORTEST_TTL:
            return refused(400, 9021, "Invalid TTL. Must be between 60 and 86,400 seconds, or 1 for Automatic.")
        if not f".{body['name']}".endswith(f".{self._zones[zone_id]}"):
            return refused(400, 9000, "DNS name is invalid.")
        if any(record.name == body["name"] and record.content == body["content"] for record in self._records.values()):
            return refused(400, 81058, "An identical record already exists.")
        record = self._keep(zone_id, body["name"], body["content"])
        return Answer(200, {"success": True, "errors": [], "messages": [], "result": _shown(record)})

    def _keep(self, zone_id: str, name: str, content: str) -> Record:
        record = Record(next(self._ids), zone_id, name, content)
        self._records[record.id] = record
        return record

    def _page(self, request: Request, kind: str, everything: Sequence[Any]) -> Answer:
        page, size = int(request.query.get("page", 1)), int(request.query.get("per_page", 20))
        if size > LONGEST_PAGE[kind]:
            return refused(400, 1002, "per_page is too large")
        size = (self._zones_a_page or size) if kind == "zones" else size
        shown = everything[(page - 1) * size : page * size]
        pages = max(1, -(-len(everything) // size))
        info = {
            "page": page,
            "per_page": size,
            "count": len(shown),
            "total_count": len(everything),
            "total_pages": pages,
        }
        return Answer(200, {"success": True, "errors": [], "messages": [], "result": shown, "result_info": info})


def refused(status: int, code: int, message: str) -> Answer:
    return Answer(
        status, {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}
    )


def _shown(record: Record) -> dict[str, Any]:
    return {"id": record.id, "type": "TXT", "name": record.name, "content": record.content, "ttl": 60}

"""PowerDNS Authoritative's HTTP API v1, as far as zones and TXT sets go, with the words and statuses of version 4.7
(https://doc.powerdns.com/authoritative/http-api/)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import dns.exception
import dns.rdata
import dns.rdtypes.ANY.TXT

from tests.dns_stand_ins.api import Answer, Request, StandIn

PLACE = re.compile(r"/api/v1/servers/localhost(?P<zones>/zones(?:/(?P<zone>[^/]+))?)?")
UNAUTHORIZED, NOT_FOUND = Answer(401, "Unauthorized"), Answer(404, "Not Found")
FIRST_TO_SHOW_DISABLED = 5


@dataclass
class RecordSet:
    """`records` maps a content to whether it is disabled."""

    ttl: int
    records: dict[str, bool] = field(default_factory=dict)
    comments: list[dict[str, Any]] = field(default_factory=list)


class PowerDns(StandIn):
    def __init__(self, zones: Sequence[str], *, version: str = "4.7.3") -> None:
        super().__init__()
        self.key = "k3y-of-the-api"
        self.version = version
        self.sets: dict[str, RecordSet] = {}
        """The TXT sets by their name without the final dot."""
        self._zones = [f"{zone}." for zone in zones]

    def txt(self, name: str) -> list[str]:
        held = self.sets.get(name, RecordSet(0)).records
        return sorted(_value(content) for content, disabled in held.items() if not disabled)

    def write(self, name: str, value: str) -> None:
        self.sets.setdefault(name, RecordSet(3600)).records[f'"{value}"'] = False

    def answer(self, request: Request) -> Answer:
        if request.headers.get("x-api-key") != self.key:
            return UNAUTHORIZED
        place = PLACE.fullmatch(request.path)
        if place is None:
            return NOT_FOUND
        if place["zones"] is None:
            return Answer(200, {"daemon_type": "authoritative", "id": "localhost", "version": self.version})
        if place["zone"] is None:
            return Answer(200, [{"id": zone, "name": zone, "kind": "Native", "serial": 1} for zone in self._zones])
        if place["zone"] not in self._zones:
            return NOT_FOUND
        match request.method:
            case "GET":
                return self._show(place["zone"], request)
            case "PATCH":
                return self._patch(place["zone"], request.body)
            case _:
                return Answer(405, "Method Not Allowed")

    def _show(self, zone: str, request: Request) -> Answer:
        name = request.query.get("rrset_name")
        shown = []
        for each, held in self.sets.items():
            if self._zone_of(f"{each}.") != zone or name not in (None, f"{each}."):
                continue
            records = [{"content": content, "disabled": disabled} for content, disabled in held.records.items()]
            if name is not None and int(self.version.split(".")[0]) < FIRST_TO_SHOW_DISABLED:
                records = [record for record in records if not record["disabled"]]
            if records:
                about = {"name": f"{each}.", "type": "TXT", "ttl": held.ttl, "comments": held.comments}
                shown.append({**about, "records": records})
        if name is None:
            nameserver = {"content": f"ns.{zone}", "disabled": False}
            shown.append({"name": zone, "type": "NS", "ttl": 3600, "comments": [], "records": [nameserver]})
        return Answer(200, {"id": zone, "name": zone, "kind": "Native", "rrsets": shown})

    def _patch(self, zone: str, body: Any) -> Answer:
        """All of the changes or none."""
        if not isinstance(body, dict):
            return Answer(400, "Bad Request")
        if not isinstance(body.get("rrsets"), list):
            return refused("No rrsets given in update request")
        after = dict(self.sets)
        for change in body["rrsets"]:
            if change["type"] != "TXT":
                return refused("only TXT here")
            if (problem := self._apply(zone, change, after)) is not None:
                return refused(problem)
        self.sets = after
        return Answer(204)

    def _apply(self, zone: str, change: Any, after: dict[str, RecordSet]) -> str | None:
        """What is wrong with the change, or None."""
        name = change["name"]
        if not name.endswith("."):
            return f"DNS Name '{name}' is not canonical"
        if self._zone_of(name) != zone:
            return f"RRset {name} IN TXT: Name is out of zone"
        place = name.removesuffix(".").lower()
        match change["changetype"]:
            case "DELETE":
                after.pop(place, None)
                return None
            case "REPLACE":
                return _replace(place, change, after)
            case _:
                return "Changetype not understood"

    def _zone_of(self, name: str) -> str | None:
        return max((zone for zone in self._zones if f".{name}".endswith(f".{zone}")), key=len, default=None)


def _replace(place: str, change: Any, after: dict[str, RecordSet]) -> str | None:
    if type(change.get("ttl")) is not int:
        return "Key 'ttl' not an Integer or not present"
    records: dict[str, bool] = {}
    for record in change["records"]:
        content = record["content"]
        if content in records:
            return f'Duplicate record in RRset {place}. IN TXT with content "{content}"'
        try:
            parsed = dns.rdata.from_text("IN", "TXT", content).to_text()
        except dns.exception.DNSException as error:
            return f"Record {place}./TXT '{content}': Parsing record content: {error}"
        if parsed != content:
            return f"Record {place}./TXT '{content}': Not in expected format (parsed as '{parsed}')"
        records[content] = record.get("disabled", False)
    comments = change.get("comments", after[place].comments if place in after else [])
    after.pop(place, None)
    if records:
        after[place] = RecordSet(change["ttl"], records, comments)
    return None


def refused(error: str) -> Answer:
    return Answer(422, {"error": error})


def _value(content: str) -> str:
    return b"".join(cast("dns.rdtypes.ANY.TXT.TXT", dns.rdata.from_text("IN", "TXT", content)).strings).decode()

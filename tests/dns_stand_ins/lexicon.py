"""PowerDNS's API v1 (https://doc.powerdns.com/authoritative/http-api/), as far as dns-lexicon speaks to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tests.dns_stand_ins.api import Answer, Request, StandIn

PLACE = re.compile(r"/api/v1/servers/localhost/zones/(?P<zone>[^/]+\.)")
QUOTED = re.compile(r'"([^"\\]|\\.){0,255}"')
RECORD_FIELDS, SET_FIELDS = {"content", "disabled"}, {"name", "type", "ttl", "changetype", "records"}


class PowerDns(StandIn):
    def __init__(self, zones: Sequence[str]) -> None:
        super().__init__()
        self.key = "k" * 24
        self._held: dict[str, dict[str, list[str]]] = {f"{zone}.": {} for zone in zones}

    def txt(self, name: str) -> list[str]:
        return sorted(content[1:-1] for sets in self._held.values() for content in sets.get(f"{name}.", []))

    def write(self, name: str, value: str) -> None:
        zone = max((zone for zone in self._held if f".{name}.".endswith(f".{zone}")), key=len)
        self._held[zone].setdefault(f"{name}.", []).append(f'"{value}"')

    def answer(self, request: Request) -> Answer:
        if request.headers.get("x-api-key") != self.key:
            return Answer(401, "Unauthorized")
        place = PLACE.fullmatch(request.path)
        if place is None or place["zone"] not in self._held:
            return Answer(404, {"error": "Not Found"})
        match request.method:
            case "GET":
                return Answer(200, self._shown(place["zone"]))
            case "PATCH":
                return self._change(place["zone"], request.body)
            case _:
                return Answer(405, {"error": "Method Not Allowed"})

    def _shown(self, zone: str) -> Any:
        rrsets = [
            {
                "name": name,
                "type": "TXT",
                "ttl": 60,
                "comments": [],
                "records": [{"content": content, "disabled": False} for content in contents],
            }
            for name, contents in self._held[zone].items()
        ]
        return {"id": zone, "name": zone, "kind": "Native", "rrsets": rrsets}

    def _change(self, zone: str, body: Any) -> Answer:
        for rrset in body["rrsets"]:
            name = rrset.get("name", "")
            if not name.endswith("."):
                return refused(f"DNS Name '{name}' is not canonical")
            if not f".{name}".endswith(f".{zone}"):
                return refused(f"RRset {name} IN TXT: Name is out of zone")
            if set(rrset) != SET_FIELDS or rrset["type"] != "TXT" or rrset["changetype"] != "REPLACE":
                return refused("Missing or wrong field")
            contents = [record["content"] for record in rrset["records"]]
            if not all(set(record) == RECORD_FIELDS for record in rrset["records"]):
                return refused("Missing or wrong field")
            if not all(map(QUOTED.fullmatch, contents)):
                return refused(f"Record {name}/TXT: Parsing record content: Data field in DNS should start with quote")
            if len(set(contents)) != len(contents):
                return refused(f"Duplicate record in RRset {name} IN TXT")
            self._held[zone][name] = contents
            if not contents:
                del self._held[zone][name]
        return Answer(204)


def refused(error: str) -> Answer:
    return Answer(422, {"error": error})

"""acme-dns, as far as `/update` goes (https://github.com/joohoi/acme-dns, `pkg/api`)."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass

from tests.dns_stand_ins.api import Answer, Request, StandIn

KEY = re.compile(r"[A-Za-z0-9_-]{40}")
SUBDOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
TXT = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass
class Row:
    """One of an account's two values. The real server counts whole seconds; here each write has a time of its own."""

    value: str = ""
    updated_at: int = 0


class AcmeDns(StandIn):
    """One account, in use from everywhere until `allowed` is turned off."""

    def __init__(self, subdomain: str = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a") -> None:
        super().__init__()
        self.base_url = self.url
        self.username = "c36f50e8-4632-44f0-83fe-e070fef28a10"
        self.password = "htB9mR9DYgcu9bX_afHF62erXaH2TS7bg9KW3F7Z"
        self.subdomain = subdomain
        self.allowed = True
        self._writes = 0
        self.empty()

    def empty(self) -> None:
        self._rows = [Row(), Row()]

    def txt(self) -> list[str]:
        """What it serves at the subdomain, sorted."""
        return sorted({row.value for row in self._rows if row.value})

    def write(self, value: str) -> None:
        """In place of the older one, also where the other one is the same."""
        self._writes += 1
        oldest = min(self._rows, key=lambda row: row.updated_at)
        oldest.value, oldest.updated_at = value, self._writes

    def answer(self, request: Request) -> Answer:
        if request.path != "/update":
            return Answer(404, "404 page not found\n")
        if request.method != "POST":
            return Answer(405, "Method Not Allowed\n", {"Allow": "OPTIONS, POST"})
        body = request.body if isinstance(request.body, dict) else {}
        if not self._is_known(request) or not self.allowed or body.get("subdomain") != self.subdomain:
            return refused(401, "forbidden")
        if not SUBDOMAIN.fullmatch(self.subdomain):
            return refused(400, "bad_subdomain")
        value = body.get("txt", "")
        if not isinstance(value, str) or not TXT.fullmatch(value):
            return refused(400, "bad_txt")
        self.write(value)
        return Answer(200, json.dumps({"txt": value}), {"Content-Type": "application/json"})

    def _is_known(self, request: Request) -> bool:
        key = request.headers.get("x-api-key", "")
        try:
            user = uuid.UUID(request.headers.get("x-api-user", ""))
        except ValueError:
            return False
        return KEY.fullmatch(key) is not None and (str(user), key) == (self.username, self.password)


def refused(status: int, error: str) -> Answer:
    return Answer(status, {"error": error}, {"Content-Type": "application/json"})

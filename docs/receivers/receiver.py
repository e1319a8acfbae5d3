#!/usr/bin/env python3
"""Takes ScaiVault's webhooks, each event once. It needs Python 3.11 or newer and nothing else.

    SCAIVAULT_WEBHOOK_SECRET=whsec_… PORT=8080 python3 receiver.py

It listens on loopback, behind a proxy of yours that speaks TLS. What it has seen is kept in `receiver.sqlite3`, in the
folder where it was started.
"""

import hmac
import json
import os
import re
import sqlite3
import sys
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["SCAIVAULT_WEBHOOK_SECRET"].encode()
PORT = int(os.environ["PORT"])
DATABASE = "receiver.sqlite3"
LARGEST_BODY_BYTES = 256 * 1024
TOLERANCE_SECONDS = 300
REMEMBERED_SECONDS = 60 * 24 * 3600


def is_signed(timestamp: str, signatures: str, body: bytes) -> bool:
    """Whether one of the values (there are two while the secret is rotated) is right, and the timestamp recent."""
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    mac = hmac.digest(SECRET, timestamp.encode() + b"." + body, "sha256")
    expected = f"sha256={mac.hex()}".encode()
    return any(hmac.compare_digest(value.encode(), expected) for value in signatures.split(" "))


def take(event_id: str, line: str) -> None:
    """Remember the event and do the work, in one transaction: either both happen or neither. A known one is passed by."""
    now = time.time()
    with closing(sqlite3.connect(DATABASE, timeout=10)) as connection, connection:
        connection.execute("DELETE FROM seen WHERE seen_at < ?", (now - REMEMBERED_SECONDS,))
        if connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (event_id, now)).rowcount == 1:
            sys.stdout.write(line + "\n")  # your work goes here, through this connection where it can
            sys.stdout.flush()


class Receiver(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        """An exception ends the connection without an answer, and so the event comes again."""
        length = self.headers.get("Content-Length", "")
        timestamp = self.headers.get("X-ScaiVault-Timestamp")
        signatures = self.headers.get("X-ScaiVault-Signature")
        if not re.fullmatch("[0-9]{1,12}", length):
            return self.answer(400)
        body = self.rfile.read(min(int(length), LARGEST_BODY_BYTES + 1))
        if len(body) > LARGEST_BODY_BYTES:
            return self.answer(413)
        if timestamp is None or signatures is None:
            return self.answer(400)
        if not is_signed(timestamp, signatures, body):
            return self.answer(401)
        try:
            event = json.loads(body)
            event_id, line = event["event_id"], "{event_type} {path} {sequence}".format(**event)
        except (ValueError, TypeError, KeyError):
            return self.answer(400)
        take(event_id, line)
        return self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: each new event is a line, and that is all."""


if __name__ == "__main__":
    if not SECRET:
        sys.exit("SCAIVAULT_WEBHOOK_SECRET is empty")
    with closing(sqlite3.connect(DATABASE)) as opened, opened:
        opened.execute("CREATE TABLE IF NOT EXISTS seen (event_id TEXT PRIMARY KEY, seen_at REAL NOT NULL)")
    ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()

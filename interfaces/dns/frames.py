"""DNS messages on TCP (RFC 1035 §4.2.2): two octets of length, then the message."""

from __future__ import annotations

import socket
import time


def read_frame(connection: socket.socket, seconds: float) -> bytes:
    """One whole message. Raises OSError when the other side closes first, or takes longer."""
    deadline = time.monotonic() + seconds
    length = int.from_bytes(_exactly(connection, 2, deadline), "big")
    return _exactly(connection, length, deadline)


def write_frame(connection: socket.socket, wire: bytes, seconds: float) -> None:
    connection.settimeout(seconds)
    connection.sendall(len(wire).to_bytes(2, "big") + wire)


def _exactly(connection: socket.socket, length: int, deadline: float) -> bytes:
    octets = b""
    while len(octets) < length:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        part = connection.recv(length - len(octets))
        if not part:
            raise ConnectionResetError("the connection was closed before the end of the message")
        octets += part
    return octets

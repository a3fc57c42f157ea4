"""Notices calls to other machines, whatever library makes them: Python reports each before it is made (PEP 578)."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

ASKED = {  # event -> which of its arguments names the other side
    "socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0,
}  # fmt: skip
OWN = {"", "localhost", socket.gethostname()}


def is_here(address: object) -> bool:
    """Whether an address is this machine's own: a loopback or unspecified one, a local socket's file, no address."""
    if isinstance(address, tuple):
        address = address[0]
        if isinstance(address, bytes):
            address = address.decode()
        if not isinstance(address, str):
            return True
        try:
            number = ipaddress.ip_address(address)
        except ValueError:
            return address in OWN
        return number.is_loopback or number.is_unspecified
    return True  # a path, or None


class Guard:
    """Refuses calls to other machines while it is on, and keeps what was refused: a caller may swallow the error."""

    def __init__(self) -> None:
        self.on, self.refused = False, list[str]()
        sys.addaudithook(self._look)  # there is no taking it away

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event not in ASKED:
            return
        other = arguments[ASKED[event]]
        named = event in ("socket.getaddrinfo", "socket.gethostbyname")
        if not is_here((other,) if named else other):
            self.refused.append(f"{event} {other}")
            raise ConnectionRefusedError(f"a test without the mark `network` asks another machine: {event} {other}")

"""Importing toughen asks no other machine, and no test does that does not say so."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from network import is_here
from paths import ROOT
from test_structure import modules

IMPORTS = """
import importlib, sys

def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        calls.append((event, arguments[-1:]))
        raise OSError("no network")

calls = []
sys.addaudithook(refuse)
import toughen
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1, calls)
"""


def test_no_module_asks_another_machine_as_it_is_imported() -> None:
    """In a process where each call on a socket fails: none is tried."""
    names = sorted(name for name in modules() if not name.endswith("__main__"))
    done = subprocess.run([sys.executable, "-c", IMPORTS, *names], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(names)} []" and len(names) > 200


@pytest.mark.parametrize(
    ("address", "here"),
    [
        (("127.0.0.1", 80), True),
        (("127.8.0.1", 80), True),
        (("::1", 80, 0, 0), True),
        (("localhost", 80), True),
        (("0.0.0.0", 0), True),
        ((None,), True),
        ("/tmp/socket", True),
        (("192.0.2.1", 80), False),  # addresses and a name for documentation (RFC 5737, 3849, 2606)
        (("2001:db8::1", 80, 0, 0), False),
        (("example.org",), False),
        ((b"example.org",), False),
    ],
)
def test_what_is_another_machine(address: object, here: bool) -> None:
    assert is_here(address) is here


def test_other_machines_are_refused_in_tests(refused: list[str]) -> None:
    """Nothing is sent: the refusal comes before the call."""
    with pytest.raises(ConnectionRefusedError, match="without the mark `network`"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(ConnectionRefusedError):
        socket.getaddrinfo("example.org", 80)
    with socket.socket(type=socket.SOCK_DGRAM) as sending, pytest.raises(ConnectionRefusedError):
        sending.sendto(b"", ("192.0.2.1", 80))
    assert len(refused) == 3
    refused.clear()


def test_this_machine_is_not(refused: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()[:2], timeout=1).close()
    assert not refused

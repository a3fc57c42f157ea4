"""The audit of the locks: what it asks, what it makes of the answers, and that no answer is no advisory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from test_installation import lacking
from test_tooling import LOCKS, pins


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which is a program."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    return __import__("audit")


def known(name: str, *advisories: str) -> dict[str, Any]:
    """What pip-audit says of a package, as its README shows it."""
    return {
        "name": name,
        "version": "1.0",
        "vulns": [{"id": each, "fix_versions": ["1.1"], "aliases": [], "description": "Bad."} for each in advisories],
    }


SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1.0)"}


def test_every_pin_of_every_lock_is_asked_about_once(audit: Any) -> None:
    expected = [(pin.name, str(pin.specifier)[2:].split("+")[0]) for lock in LOCKS for pin in pins(lock.name)]
    rounds = audit.rounds(audit.pinned(LOCKS))
    asked = [item for each in rounds for item in each.items()]
    assert {"audit.txt", "lock.txt", "torch.txt", "torch-cpu.txt"} <= {lock.name for lock in LOCKS}
    assert sorted(asked) == sorted(set(expected)) and len(asked) > 150
    assert sum(name == "torch" for name, _ in asked) == 2  # the CPU build's version and the index's


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([known("a"), known("b")], 0, "2 locked packages, no known vulnerability"),
        ([known("a"), known("b", "PYSEC-1")], 1, "b 1.0: PYSEC-1, mended in 1.1"),
        ([SKIPPED, known("b")], 0, "not looked up: a: Dependency not found"),
        ([SKIPPED, known("b", "PYSEC-1")], 1, "PYSEC-1"),
        ([SKIPPED], 0, "audit skipped"),
    ],
    ids=["none", "one", "unknown", "unknown and one", "a source that knows nothing"],
)
def test_an_advisory_fails_and_nothing_else(found: list[Any], status: int, words: str, audit: Any) -> None:
    assert audit.judge(found)[0] == status and words in audit.judge(found)[1]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("requests.exceptions.ConnectionError: HTTPSConnectionPool(host='index.example'): Max retries exceeded", 0),
        ("requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='index.example'): Read timed out.", 0),
        ("ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed", 0),
        ("ERROR:pip_audit._cli:requirement file is not valid", 2),
    ],
)
def test_a_source_that_cannot_be_reached_is_told_from_a_failure(
    said: str,
    status: int,
    audit: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (program := tmp_path / "pip-audit").write_text(f'#!/bin/sh\ncat >&2 <<"end"\n{said}\nend\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(audit, "tool", lambda: program)
    assert audit.main([]) == status
    out, err = capsys.readouterr()
    assert (("audit skipped" in out) if status == 0 else ("the audit failed" in err)) and said in out + err


def test_what_is_known_counts_where_the_source_is_lost(audit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(program: Path, packages: dict[str, str], osv_url: str | None) -> list[dict[str, Any]]:
        if len(packages) < 100:  # the second round
            raise audit.Unreached
        return [known("b", "PYSEC-1")]

    monkeypatch.setattr(audit, "tool", lambda: Path("pip-audit"))
    monkeypatch.setattr(audit, "ask", ask)
    assert audit.main([]) == 1


@contextmanager
def advisories(name: str, version: str) -> Iterator[str]:
    """A server that answers as OSV's does and knows one bad version; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hit = (asked["package"]["name"], asked["version"]) == (name, version)
            versions = [{"introduced": "0"}, {"fixed": "999.0"}]
            affected = {
                "package": {"name": name, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": versions}],
            }
            answer = {"vulns": [{"id": "PYSEC-1", "summary": "Bad.", "affected": [affected]}]} if hit else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.network
def test_pip_audit_itself(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (torch,) = (pin for pin in pins("torch-cpu.txt"))
    version = str(torch.specifier)[2:].split("+")[0]
    try:
        audit.tool()
    except audit.Unreached as reason:
        lacking(f"a package index ({reason})")
    with advisories("torch", version) as url:
        assert audit.main(["--osv_url", url]) == 1
    assert f"torch {version}: PYSEC-1, mended in 999.0" in capsys.readouterr().out
    with advisories("no-package-of-ours", "1.0") as url:
        assert audit.main(["--osv_url", url]) == 0
    assert "no known vulnerability" in capsys.readouterr().out
    assert audit.main(["--osv_url", url]) == 0  # the server is gone
    assert "audit skipped" in capsys.readouterr().out

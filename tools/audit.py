"""Look for published vulnerabilities of the locked packages.

python tools/audit.py [--osv_url URL]

All packages of all locks are asked about, also those for other systems than this one. pip-audit asks. It is locked in
requirements/audit.txt and installed in .venv/audit, apart from the environment that toughen runs in.

Exit status: 0 where nothing is known, or where the source of advisories cannot be reached, which is said; 1 where an
advisory names a locked version; 2 where the audit itself failed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "requirements"
TOOL = LOCKS / "audit.txt"
ENVIRONMENT = ROOT / ".venv" / "audit"
SECONDS = 15  # to wait for each answer
PIN = re.compile(r"([\w.-]+)==([\w.!]+)(?:\+[\w.]+)?[ ;\\\n]")  # a build's own suffix, as +cpu, is in no advisory
UNREACHED = re.compile(
    r"No matching distribution found|Could not find a version|ConnectionError|Max retries|[Tt]imed? ?out"
    r"|Could not connect|ProxyError|SSLError|50[0-9] Server Error|403 Client Error"
)
Package = tuple[str, str]
"""Name and version."""


class Unreached(Exception):
    """The package index or the vulnerability service does not answer."""


def pinned(locks: Iterable[Path]) -> set[Package]:
    """All packages in the lock files."""
    lines = [line for lock in locks for line in lock.read_text().splitlines(keepends=True)]
    return {(match[1], match[2]) for line in lines if (match := PIN.match(line))}


def rounds(packages: Iterable[Package]) -> list[dict[str, str]]:
    """The packages, each name at most once in a round: a list of requirements may not name one twice."""
    found: list[dict[str, str]] = []
    for name, version in sorted(packages):
        fits = next((each for each in found if name not in each), None)
        if fits is None:
            found.append(fits := {})
        fits[name] = version
    return found


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program and capture its output."""
    return subprocess.run(command, capture_output=True, text=True)


def tool() -> Path:
    """The path of pip-audit, which is installed if it is missing.

    Raises:
        Unreached: it must be installed, and the package index does not answer.
        RuntimeError: it could not be installed for another reason.
    """
    programs = ENVIRONMENT / ("Scripts" if sys.platform == "win32" else "bin")
    known = ENVIRONMENT / "lock.txt"
    if known.is_file() and known.read_text() == TOOL.read_text():
        return programs / "pip-audit"
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    pip: list[str | Path] = [
        programs / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "-q",
        "--no-deps",
    ]
    done = run([*pip, "--require-hashes", "-r", TOOL])
    if done.returncode:
        raise (Unreached if UNREACHED.search(done.stderr) else RuntimeError)(last_line(done.stderr))
    known.write_text(TOOL.read_text())
    return programs / "pip-audit"


def ask(program: Path, packages: dict[str, str], osv_url: str | None) -> list[dict[str, Any]]:
    """pip-audit's report on packages: dictionaries with "name", and "vulns" or "skip_reason".

    Raises:
        Unreached: the source of advisories does not answer.
        RuntimeError: pip-audit failed for another reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "packages.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()))
        options = ["--format", "json", "--progress-spinner", "off", "--timeout", str(SECONDS)]
        options += [] if osv_url is None else ["--vulnerability-service", "osv", "--osv-url", osv_url]
        done = run([program, "-r", listed, "--no-deps", "--disable-pip", "--cache-dir", folder, *options])
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise (Unreached if UNREACHED.search(done.stderr) else RuntimeError)(last_line(done.stderr)) from None
    return found


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def judge(found: Sequence[dict[str, Any]]) -> tuple[int, str]:
    """Exit status and message for the reports on all packages."""
    asked = [package for package in found if "vulns" in package]
    unknown = sorted(f"{package['name']}: {package['skip_reason']}" for package in found if "vulns" not in package)
    hit = [(package, advisory) for package in asked for advisory in package["vulns"]]
    lines = [f"not looked up: {each}" for each in unknown]
    for package, advisory in sorted(hit, key=lambda each: (each[0]["name"], each[1]["id"])):
        mended = ", ".join(advisory["fix_versions"]) or "no version yet"
        lines.append(f"{package['name']} {package['version']}: {advisory['id']}, mended in {mended}")
    if hit:
        return 1, "\n".join([*lines, "Lock newer versions: make lock UPGRADE=--upgrade"])
    if not asked:
        return 0, "audit skipped: the source of advisories knows none of the packages, so that it is none"
    return 0, "\n".join([*lines, f"{len(asked)} locked packages, no known vulnerability"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--osv_url", metavar="URL", help="ask this server of OSV advisories (default: PyPI's)")
    osv_url = parser.parse_args(arguments).osv_url
    found: list[dict[str, Any]] = []
    reason: Exception | None = None
    try:
        program = tool()
        for packages in rounds(pinned(sorted(LOCKS.glob("*.txt")))):
            found += ask(program, packages, osv_url)
    except (Unreached, RuntimeError) as error:
        reason = error
    status, words = judge(found)
    if status or reason is None:
        print(words)
    elif isinstance(reason, Unreached):
        print(f"audit skipped: the package index or the source of advisories cannot be reached ({reason})")
    else:
        print(f"the audit failed: {reason}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())

"""What the checks have found so far, in a file beside the attacks' state, and what they may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toughen.core.distributed import world
from toughen.evaluation.checks.base import Check
from toughen.runs.files import read_json, write_json
from toughen.runs.json_types import first_mismatch

FIELDS: dict[str, Any] = {
    "budget": int | None, "size": int | None, "spent": float, "checks": dict[str, dict[str, Any]],
    "looks": dict[str, list[bool]], "closed": list[str],
}  # fmt: skip


@dataclass
class Kept:
    """What is known of a number, and what was paid for it.

    Attributes:
        path: the file; None keeps nothing.
        asked: what the checks depend on besides the attacks' state.
        budget: forwards of one image that they may cost together; None sets no price.
        size: images per block of the model that is asked; None means the attacks' own.
        spent: what they have cost so far.
        checks: questions that were answered.
        looks: per attack, which of the first images of its sample it broke.
        closed: attacks that were found to have no room.
    """

    path: Path | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    size: int | None = None
    spent: float = 0.0
    checks: dict[str, Check] = field(default_factory=dict)
    looks: dict[str, list[bool]] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Keep it: the file before or this one is there whole, whenever the process is killed."""
        if self.path is not None:
            world().on_main(self._write, self.path)

    def _write(self, path: Path) -> None:
        found = {name: getattr(self, name) for name in FIELDS} | {"asked": dict(self.asked)}
        found["checks"] = {name: asdict(check) for name, check in self.checks.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)


def restore(path: Path | None, asked: Mapping[str, Any]) -> Kept | None:
    """What was left of these very checks; None where nothing was, or what is there is of others or damaged."""
    if path is None or not path.is_file():
        return None
    try:
        found = read_json(path)
        if not isinstance(found, dict) or found.pop("asked", None) != dict(asked) or first_mismatch(found, FIELDS):
            return None
        found["checks"] = {name: Check(**each) for name, each in found["checks"].items()}
    except (ValueError, TypeError):
        return None
    return Kept(path, asked, **found)

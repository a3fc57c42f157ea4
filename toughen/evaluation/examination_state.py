"""The state of the checks: their results so far and their budget, in a file beside the attacks' state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toughen.core.distributed import world
from toughen.evaluation.checks.base import Check
from toughen.runs.files import read_json, write_json
from toughen.utils.type_hints import first_mismatch

FIELDS: dict[str, Any] = {
    "budget": int | None, "size": int | None, "spent": float, "checks": dict[str, dict[str, Any]],
    "probes": dict[str, list[bool]], "closed": list[str],
}  # fmt: skip


@dataclass
class ExaminationState:
    """Results of checks, and what they have cost.

    Attributes:
        path: the file; None stores nothing.
        key: what the checks depend on besides the attacks' state; a file with another key is not used.
        budget: forward passes of one image that all checks may take together; None sets no limit.
        size: images per batch; None means those of the attacks.
        spent: forward passes so far.
        checks: results of the checks of the model, by name.
        probes: by probe, which of the first images of its sample it broke.
        closed: probes that are not extended any more, because the budget was too small.
    """

    path: Path | None = None
    key: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None
    size: int | None = None
    spent: float = 0.0
    checks: dict[str, Check] = field(default_factory=dict)
    probes: dict[str, list[bool]] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write the file in one step, so that a kill leaves the earlier or the new one."""
        if self.path is not None:
            world().on_main(self._write, self.path)

    def _write(self, path: Path) -> None:
        fields = {name: getattr(self, name) for name in FIELDS} | {"key": dict(self.key)}
        fields["checks"] = {name: asdict(check) for name, check in self.checks.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, fields)


def restore(path: Path | None, key: Mapping[str, Any]) -> ExaminationState | None:
    """The state in a file; None if there is none, or if it has another key or is damaged."""
    if path is None or not path.is_file():
        return None
    try:
        fields = read_json(path)
        if not isinstance(fields, dict) or fields.pop("key", None) != dict(key) or first_mismatch(fields, FIELDS):
            return None
        fields["checks"] = {name: Check(**each) for name, each in fields["checks"].items()}
    except (ValueError, TypeError):
        return None
    return ExaminationState(path, key, **fields)

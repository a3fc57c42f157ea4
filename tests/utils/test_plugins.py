"""Import of a user's own module, and what is said where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from toughen.utils.plugins import import_object


def test_a_missing_package_is_told_from_a_missing_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_wanting.py").write_text("import no_such_package.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError) as refused:
        import_object("own_wanting.Attack", "attack")
    assert str(refused.value) == (
        "attack 'own_wanting.Attack' cannot be imported: own_wanting imports no_such_package, which is neither "
        "installed nor on PYTHONPATH"
    )
    for path in ("no_such_module.Attack", "no_such_package.part.Attack"):
        with pytest.raises(ValueError, match="is its folder on PYTHONPATH"):
            import_object(path, "attack")

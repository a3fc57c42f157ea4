"""What was measured is found again, and only where it is of what is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toughen.papers.published import EXHIBITS
from toughen.papers.published.exhibits import Table
from toughen.papers.run_spec import RunSpec, run_spec
from toughen.papers.scales import SCALES
from toughen.papers.store import ABOUT, Quantity, Store
from toughen.papers.tasks import table_run_spec

FULL = SCALES["full"]
MODEL = run_spec("rmgm-mnist", "mnist", 0, FULL)
SOURCE = run_spec("standard-mnist --seed 1", "mnist", 0, FULL)


def keep(root: Path, model: RunSpec, quantity: Quantity, value: float) -> None:
    how: dict[str, Any] = {"images": quantity.images or 10000, "drawn": "first" if quantity.images else "all"}
    Store(root).write(model, quantity, value, **how, seconds=1.0, provenance={"commit": "c"})


def black_box(source: RunSpec, images: int | None = None) -> Quantity:
    return Quantity("fgsm", "0.3", images, source)


def found(root: Path, quantity: Quantity) -> list[float | None]:
    """What both ways of looking give."""
    cells = [look(MODEL, quantity) for look in (Store(root).read, Store(root).best)]
    return [cell["value"] if cell else None for cell in cells]


def test_images_of_a_source_with_another_recipe_are_others(tmp_path: Path) -> None:
    """Although the words that train it are the same."""
    changed = RunSpec(SOURCE.words, "mnist", 0, FULL, more={"epochs": 99})
    keep(tmp_path, MODEL, black_box(SOURCE), 0.11)
    assert found(tmp_path, black_box(SOURCE)) == [0.11, 0.11]
    assert found(tmp_path, black_box(changed)) == [None, None]
    keep(tmp_path, MODEL, black_box(changed), 0.9)
    assert found(tmp_path, black_box(changed)) == [0.9, 0.9]
    assert found(tmp_path, black_box(SOURCE)) == [0.11, 0.11]


def test_a_figure_of_a_model_with_a_seed_of_its_own_is_found(tmp_path: Path) -> None:
    clean = Quantity("clean")
    keep(tmp_path, SOURCE, clean, 0.99)
    for look in (Store(tmp_path).read, Store(tmp_path).best):
        cell = look(SOURCE, clean)
        assert cell is not None and (cell["value"], cell["seed"]) == (0.99, 1)


@pytest.mark.parametrize("images", [None, 500])
def test_a_setting_that_a_source_has_got_since_is_no_difference(images: int | None, tmp_path: Path) -> None:
    """As before it had one: neither in the cell, nor in the name of its file, which is made of them."""
    keep(tmp_path, MODEL, black_box(SOURCE, images), 0.5)
    (path,) = tmp_path.glob("full/*/cells/*.json")
    cell = json.loads(path.read_text())
    assert cell["source_settings"].pop("padding") == "zero"  # the default
    path.with_name("fgsm-00000000.json").write_text(json.dumps(cell))
    path.unlink()
    assert found(tmp_path, black_box(SOURCE, images)) == [0.5, 0.5]
    cell["source_settings"]["padding"] = "reflect"
    path.with_name("fgsm-00000000.json").write_text(json.dumps(cell))
    assert found(tmp_path, black_box(SOURCE, images)) == [None, None]


def test_a_figure_on_other_images_is_not_the_one_that_is_asked_for(tmp_path: Path) -> None:
    keep(tmp_path, MODEL, black_box(SOURCE, 500), 0.5)
    keep(tmp_path, MODEL, black_box(SOURCE), 0.4)
    assert found(tmp_path, black_box(SOURCE, 500)) == [0.5, 0.4]  # best: of the most images
    assert found(tmp_path, black_box(SOURCE)) == [0.4, 0.4]


def test_nor_is_one_that_an_ensemble_s_source_has_got(tmp_path: Path) -> None:
    table = EXHIBITS["rmgm-table3"]
    assert isinstance(table, Table)
    panel = table.panels[0]
    model = table_run_spec(panel, panel.row("EAT B"), 0, FULL)
    keep(tmp_path, model, Quantity("clean"), 0.99)
    (folder,) = tmp_path.glob("full/*")
    about = json.loads((folder / ABOUT).read_text())
    sources = about["settings"]["method"]["init_args"]["sources"]
    assert [each["model"] for each in sources] == ["B", "C", "D"] and sources[0].pop("padding") == "zero"
    (folder / ABOUT).write_text(json.dumps(about))
    folder.rename(folder.with_name("eat-mnist-000000000000"))
    cell = Store(tmp_path).read(model, Quantity("clean"))
    assert cell is not None and cell["value"] == 0.99
    sources[1]["epochs"] = 7
    (tmp_path / "full/eat-mnist-000000000000" / ABOUT).write_text(json.dumps(about))
    assert Store(tmp_path).read(model, Quantity("clean")) is None

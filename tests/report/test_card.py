"""Model cards, read by the hub's own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import refused, toughen
from huggingface_hub import ModelCard
from run_files import write_run

from toughen.report.card import card, public_name


def test_the_hubs_library_reads_the_figures(tmp_path: Path) -> None:
    """90 % clean and 50 % under both attacks of 200 images, at L-infinity 0.3: what the files say."""
    found: Any = ModelCard(card(write_run(tmp_path / "run"), "me/robust-digits"))
    results = found.data.eval_results
    assert results is not None and [each.metric_value for each in results] == [0.9, 0.5]
    assert results[1].metric_name == "accuracy under attack, L∞ eps 0.3" and results[0].dataset_name == "digits"
    assert found.data.library_name == "toughen" and found.data.pipeline_tag == "image-classification"
    for line in (
        "| none (clean images) | 90.0 % |  |  |",
        "| `fgsm` | 60.0 % | 2 | 0.5 s |",  # 400 passes over 200 images
        "| `pgd-20` | 50.0 % | 40 | 10 s |",
        "| all attacks together | **50.0 %** |  |  |",
        "Verdict on the robust accuracy: **doubtful**. Use the number with care: a check failed. (1 check passed, "
        "1 failed, 1 could not be made)",
        "- accuracy falls with eps: It rises from 10.0 % to 20.0 %.",
        "| cost | 8.0 forward passes per image and step; standard training takes 3 |",
        "| time | 90 s for 3 epochs |",
        'model = toughen.load("hf://me/robust-digits")  # images in [0, 1] to logits',
    ):
        assert line in found.content.splitlines(), line


def test_what_is_said_below_the_failed_checks_is_a_paragraph_of_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    found = json.loads((folder / "evaluation.json").read_text())
    note = "To cost no longer than the attacks, 1 check was left out."
    (folder / "evaluation.json").write_text(json.dumps({**found, "price": {"note": note}}))
    assert f"\n- accuracy falls with eps: It rises from 10.0 % to 20.0 %.\n\n{note}\n" in card(folder)


def test_figures_of_other_weights_are_given_in_words_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    found = json.loads((folder / "evaluation.json").read_text())
    of_other = {**found, "epoch": 0, "attacks": {"autoattack": {"robust_accuracy": 0.5}}}
    (folder / "evaluation.json").write_text(json.dumps(of_other))
    read: Any = ModelCard(card(folder))
    assert read.data.eval_results is None and "This evaluation used the weights after epoch 1" in read.content
    refused(toughen("card", folder, "--format", "robustbench"), "used the weights after epoch 1", "toughen evaluate")


def test_what_was_never_evaluated_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "evaluation.json").unlink()
    found: Any = ModelCard(card(folder))
    assert found.data.eval_results is None and "The model has not been evaluated" in found.content


@pytest.mark.parametrize("form", ["markdown", "robustbench"])
@pytest.mark.parametrize("content", ['{"', "[]", '{"clean_accuracy": 0.9}'])
def test_a_damaged_evaluation_is_not_called_a_missing_one(content: str, form: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "evaluation.json").write_text(content)
    ended = toughen("card", folder, "--format", form, "--out", tmp_path / "card")
    refused(ended, "evaluation.json is damaged: evaluate the run again")
    assert not (tmp_path / "card").exists()


@pytest.mark.parametrize("content", ['{"', "null", "{}", '{"model": "small-cnn", "method": "FBF", "data": "digits"}'])
def test_a_card_of_a_damaged_record_is_refused(content: str, tmp_path: Path) -> None:
    """The card described the model as ````, trained by ```` on ````."""
    folder = write_run(tmp_path / "run")
    (folder / "model.json").write_text(content)
    refused(toughen("card", folder), "model.json is damaged: restore it from a copy, or train again")


def test_a_run_before_its_first_epoch_has_no_card(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: digits\n")
    refused(toughen("card", tmp_path), "has no model.json, so there is no model for a card")


def test_names_out_of_files_stay_text(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "[x](http://bad)", "a|b\n# head", "---\nlicense: mit")
    folder = write_run(tmp_path / "run", classes=classes)
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, "method": "`</code>`\n---", "data": "/home/me/my photos"}))
    found: Any = ModelCard(card(folder))
    assert "license" not in found.data.to_dict()
    assert r"\<script\>alert(1)\</script\>, \[x\](http://bad), a\|b \# head, --- license: mit" in found.content
    assert "`'</code>' ---`" in found.content and "/home/me" not in found.content and "`my photos`" in found.content


def test_a_timm_net_is_loaded_by_timm(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "model.json").read_text())
    record["model"] = {
        "name": "timm:resnet18",
        "settings": {},
        "shape": [3, 32, 32],
        "mean": [0.5, 0.4, 0.3],
        "std": None,
    }
    (folder / "model.json").write_text(json.dumps(record))
    found: Any = ModelCard(card(folder, "me/net"))
    assert found.data.library_name == "timm"
    assert 'timm.create_model("hf-hub:me/net", pretrained=True)' in found.content
    assert "mean = torch.tensor([0.5, 0.4, 0.3]).view(-1, 1, 1)\nstd = torch.tensor([1.0, 1.0, 1.0])" in found.content


def test_only_a_folders_name_is_told() -> None:
    assert public_name("/home/me/photos") == "photos" and public_name("mnist") == "mnist"
    assert public_name("hf://datasets/me/photos") == "hf://datasets/me/photos"
    assert public_name("clients/acme") == public_name("../acme/") == "acme"
    assert public_name("me/photos", from_hub=True) == "me/photos"


@pytest.mark.parametrize(("from_hub", "shown"), [(True, "clients/acme"), (False, "acme")])
def test_a_folder_is_told_from_a_set_on_the_hub(from_hub: bool, shown: str, tmp_path: Path) -> None:
    """A run recorded which of them it was trained on: the card may be made elsewhere."""
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "model.json").read_text()) | {"data": "clients/acme", "from_hub": from_hub}
    (folder / "model.json").write_text(json.dumps(record))
    found: Any = ModelCard(card(folder, "me/net"))
    assert f"on `{shown}`" in found.content and found.data.datasets == (["clients/acme"] if from_hub else None)
    assert ("clients/acme" in found.content) == from_hub


def test_the_command_prints_or_writes_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    printed = toughen("card", folder, "--name", "me/net")
    assert printed.status == 0 and printed.out == card(folder, "me/net")
    assert toughen("card", folder, "--name", "me/net", "--out", tmp_path / "README.md").status == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == printed.out
    refused(toughen("card", folder, "--out", tmp_path / "README.md"), "exists already")
    assert toughen("card", folder, "--out", tmp_path / "new" / "README.md").status == 0
    assert (tmp_path / "new" / "README.md").read_text(encoding="utf-8") == card(folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone",), "there is no run directory"),
        (("run", "--name", "me"), "write user/name"),
        (("run", "--name", "../x/y"), "write user/name"),
    ],
)
def test_bad_words_are_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    write_run(tmp_path / "run")
    refused(toughen("card", tmp_path / words[0], *words[1:]), said)


def test_an_entry_of_robustbench_has_the_fields_of_its_files(tmp_path: Path) -> None:
    """Fields as in RobustBench's model_info/cifar10/Linf/Addepalli2022Efficient_RN18.json."""
    folder = write_run(tmp_path / "run")
    refused(toughen("card", folder, "--format", "robustbench"), "evaluated with fgsm, pgd-20", "--attacks autoattack")
    found = json.loads((folder / "evaluation.json").read_text())
    found["attacks"]["autoattack"] = {**found["attacks"]["pgd-20"], "robust_accuracy": 0.525}
    (folder / "evaluation.json").write_text(json.dumps(found))
    words = (
        "--title",
        "A paper",
        "--authors",
        "A. Author",
        "--venue",
        "None 2026",
        "--link",
        "https://arxiv.org/abs/1",
    )
    done = toughen("card", folder, "--format", "robustbench", *words, "--additional_data", "true")
    assert done.status == 0
    assert json.loads(done.out) == {
        "link": "https://arxiv.org/abs/1",
        "name": "A paper",
        "authors": "A. Author",
        "additional_data": True,
        "number_forward_passes": 1,
        "dataset": "digits",
        "venue": "None 2026",
        "architecture": json.loads((folder / "model.json").read_text())["model"]["name"],
        "eps": "0.3",
        "clean_acc": "90.00",
        "reported": "52.50",
        "autoattack_acc": "52.50",
        "unreliable": True,  # its verdict is doubtful
        "footnote": "Evaluated on 200 test images.",
    }
    refused(toughen("card", folder, "--title", "A paper"), "--format robustbench")
    (folder / "evaluation.json").unlink()
    refused(toughen("card", folder, "--format", "robustbench"), "has not been evaluated")

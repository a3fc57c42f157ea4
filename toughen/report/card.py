"""A run's model card: the metadata that the Hugging Face hub reads, then Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from toughen.report import words
from toughen.report.evaluations import Evaluation
from toughen.report.read import RECORD, RESULT, Run, read_run
from toughen.report.values import clean, items, whole
from toughen.utils.statistics import percent

PLACEHOLDER_NAME = "USER/NAME"  # in the code example where the repository is not known
SHOWN = 30  # the most class names that the card lists


def card(folder: Path, name: str | None = None) -> str:
    """The card of a run.

    Args:
        folder: the run directory.
        name: user/name on the hub; None if it is not known yet.

    Raises:
        ValueError: the folder is not a run directory, it has no weights yet, or its model.json or evaluation.json is
            damaged.
    """
    run = read_run(folder, (name or folder.name or "run").rpartition("/")[2])
    if not (folder / RECORD).is_file():
        raise ValueError(
            f"{folder} has no {RECORD}, so there is no model for a card: name a run of `toughen train`, after its "
            "first epoch"
        )
    if not (run.model and run.method and run.classes):
        raise ValueError(f"{folder / RECORD} is damaged: restore it from a copy, or train again")
    check_evaluation(run)
    head = yaml.safe_dump(metadata(run), sort_keys=False, allow_unicode=True)
    parts = (about(run), figures(run), training(run), loading(run, name or PLACEHOLDER_NAME))
    return f"---\n{head}---\n\n# {plain(run.name)}\n\n" + "\n".join(parts)


def check_evaluation(run: Run) -> None:
    """See that evaluation.json can be read where there is one.

    Raises:
        ValueError: it is damaged, or contradicts itself.
    """
    if run.own is None and (run.folder / RESULT).is_file():
        raise ValueError(f"{run.folder / RESULT} is damaged: evaluate the run again")


def public_name(data: str, *, from_hub: bool = False) -> str:
    """A data set's name for publication: of a local folder only the last part, of a URL no user, password or query.

    Args:
        data: the name as it was given.
        from_hub: whether it is the name of a set on the hub.
    """
    if "://" not in data:
        return data if from_hub else Path(data).name
    kind, _, rest = data.rpartition("::")[2].partition("://")  # of zip://FILES::s3://PLACE the place
    host, _, path = rest.partition("?")[0].partition("#")[0].partition("/")
    if kind in ("file", "local"):
        return Path(host, path).name
    return f"{kind}://{host.rpartition('@')[2]}/{path}".rstrip("/")


def plain(text: str) -> str:
    """A text in one line, with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", " ".join(clean(text).split()))


def code(text: str) -> str:
    """A text as inline code; backticks inside it become apostrophes."""
    return "`" + " ".join(clean(text).replace("`", "'").split()) + "`"


def metadata(run: Run) -> dict[str, Any]:
    """The metadata that the hub reads: <https://huggingface.co/docs/hub/model-cards>."""
    timm = run.model.startswith("timm:")
    fields: dict[str, Any] = {
        "library_name": "timm" if timm else "toughen",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "adversarial-robustness", "toughen"],
        "metrics": ["accuracy"],
    }
    if run.from_hub and re.fullmatch(r"[\w.-]+/[\w.-]+", run.data):
        fields["datasets"] = [run.data]
    if run.own is not None and not run.outdated:  # the hub shows no notes
        fields["model-index"] = [{"name": clean(run.name), "results": [result(run, run.own)]}]
    return fields


def shown_data(run: Run, data: str) -> str:
    """The name, for publication, of the data that a run was trained or evaluated on."""
    return public_name(data, from_hub=run.from_hub and data == run.data)


def result(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as an entry of the hub's model index."""
    data, threat = shown_data(run, evaluation.data) or "unknown", words.threat(evaluation.norm, evaluation.eps)
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data},
        "metrics": [
            {"type": "accuracy", "name": "accuracy on clean images", "value": evaluation.clean},
            {
                "type": "accuracy",
                "name": f"accuracy under attack, {threat}",
                "value": evaluation.robust,
            },
        ],
    }


def about(run: Run) -> str:
    """What the model is, and its input and output."""
    against = f" to be robust to attacks within {words.threat(run.norm, run.eps)}" if run.eps is not None else ""
    names = ", ".join(map(plain, run.classes[:SHOWN])) + (", ..." if len(run.classes) > SHOWN else "")
    return (
        f"An image classifier, {code(run.model)}, trained by {code(run.method)} on {code(shown_data(run, run.data))}"
        f"{against}.\n\nInput: float32 images in [0, 1], `[n, c, h, w]`. Output: logits of {len(run.classes)} classes: "
        f"{names}.\n"
    )


def figures(run: Run) -> str:
    """The clean and the robust accuracy, and whether the robust accuracy can be believed."""
    own = run.own
    if own is None:
        return "## Evaluation\n\nThe model has not been evaluated: run `toughen evaluate`.\n"
    rows = [("none (clean images)", percent(own.clean), "", "")]
    for attack in own.attacks:
        name = f"{'of which ' * attack.part}{code(attack.name)}"
        passes = "" if attack.passes is None else f"{attack.passes:,.0f}"
        seconds = "" if attack.seconds is None else words.duration(attack.seconds)
        rows.append((name, percent(attack.accuracy), passes, seconds))
    rows.append(("all attacks together", f"**{percent(own.robust)}**", "", ""))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    verdict = f"**{own.verdict}**. " if own.verdict else ""
    failed = [f"- {plain(each.name)}: {plain(each.sentence)}" for each in own.checks if each.passed is False]
    notes = [plain(each) for each in (run.outdated, own.warning, *own.notes) if each]
    return (
        f"## Evaluation\n\nOn {words.count(own.images, 'test image')} of {code(shown_data(run, own.data))}, attacked "
        f"within {words.threat(own.norm, own.eps)}:\n\n"
        f"| attack | accuracy | forward passes per image | time |\n|---|---|---|---|\n{table}\n\n"
        f"95 % confidence interval of the robust accuracy, for images like these: {words.span(own)}.\n\n"
        f"Verdict on the robust accuracy: {verdict}{words.meaning(own)} "
        f"({words.checks(own)})\n" + "".join(f"\n{part}\n" for part in ("\n".join(failed), "\n".join(notes)) if part)
    )


def training(run: Run) -> str:
    """How the model was trained, and the cost."""
    rows = {"method": code(run.method), "data": code(shown_data(run, run.data)), "weights": plain(run.weights)}
    if cost := words.cost(run.history):
        rows["cost"] = cost
    if run.history.seconds is not None:
        rows["time"] = f"{words.duration(run.history.seconds)} for {words.count(run.history.done, 'epoch')}"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value)
    return f"## Training\n\n| | |\n|---|---|\n{table}\n"


def loading(run: Run, name: str) -> str:
    """How to load the model with toughen and without."""
    own = ":" in run.model and not run.model.startswith("timm:")
    given = ", model" * own
    net = "model = ...  # a new net of the run's architecture, with the mean and std in the file's metadata\n" * own
    with_toughen = f'import toughen\n\n{net}model = toughen.load("hf://{name}"{given})  # images in [0, 1] to logits\n'
    if run.model.startswith("timm:"):
        mean, std = (f"torch.tensor({list(values)}).view(-1, 1, 1)" for values in statistics(run))
        without = (
            "With timm alone:\n\n```python\nimport timm\nimport torch\n\n"
            f'net = timm.create_model("hf-hub:{name}", pretrained=True).eval()\n'
            f"mean = {mean}\nstd = {std}\nlogits = net((images - mean) / std)  # images in [0, 1]\n```\n"
        )
    else:
        without = (
            "Without toughen: `model.safetensors` contains the net's weights. Its metadata contain mean, std and "
            "settings. `toughen export` writes the net, with its normalisation, as ONNX.\n"
        )
    return f"## Use\n\n```python\n{with_toughen}```\n\n{without}"


def statistics(run: Run) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the net's normalisation layer; 0 and 1 if it has none."""
    shape = items(run.net.get("shape"))
    channels = (whole(shape[0]) if shape else None) or 1
    mean, std = (
        [float(number) for number in items(run.net.get(name)) if type(number) in (int, float)] or [default] * channels
        for name, default in (("mean", 0.0), ("std", 1.0))
    )
    return mean, std

"""Where an evaluation's files are written, and checks that nothing is replaced by mistake."""

from __future__ import annotations

from pathlib import Path

from toughen.core.threat import Threat
from toughen.data.layout import holds_classes
from toughen.evaluation.config import EvaluationConfig, chosen_attacks
from toughen.evaluation.result import RESULT
from toughen.evaluation.target import EvaluationTarget, is_elsewhere
from toughen.runs import RECORD, Record, read_record
from toughen.runs.files import read_json
from toughen.runs.loading import is_exported
from toughen.utils.paths import expanded
from toughen.utils.units import format_radius


def output_folder(spec: str | Path, out: str | Path | None) -> Path:
    """The folder for an evaluation's files.

    Args:
        spec: the model, as in ``evaluate_run``.
        out: the user's choice; None means the run directory, or runs/NAME for other models.

    Raises:
        ValueError: ``out`` is empty, or ``spec`` is a file.
    """
    if out is not None and not str(out):
        raise ValueError("out is empty: name a folder, or leave it out")
    exported = is_exported(spec)
    if Path(spec).is_file() and not exported:
        read_record(Path(spec))  # its error says what to do with a file
    if out is not None:
        return expanded(Path(out))
    name = str(spec).replace(":", "-").replace("/", "-")
    if exported:
        name = Path(spec).stem if Path(spec).is_file() else Path(spec).name
    return Path("runs") / name if is_elsewhere(spec) else Path(spec)


def refuse_foreign(out: Path, run: Path | None) -> None:
    """Check that results are not written to another run's directory or to a data set.

    Args:
        out: where they will be written.
        run: the run directory; None for a model that is no run.

    Raises:
        ValueError: they would be.
    """
    for folder in (out, out.absolute().parent):
        if (folder / RECORD).is_file() and (run is None or not run.exists() or not folder.samefile(run)):
            where = "is" if folder == out else "lies in"
            raise ValueError(
                f"{out} {where} a run's directory, and these figures are not that run's: choose another out"
            )
    if holds_classes(out):
        if run is not None and run.exists() and out.samefile(run):
            raise ValueError(
                f"{out} holds a data set, images in class folders, and no run: name a run directory that "
                f"`toughen train` wrote, or another model with --data {out}"
            )
        raise ValueError(f"{out} holds a data set, images in class folders: choose another out")


def differs_from_training(record: Record, threat: Threat, data: str | None) -> tuple[str, str] | None:
    """How an evaluation differs from a run's training, whose directory is then not the place for its files.

    Args:
        record: the run's record.
        threat: norm and radius of the evaluation.
        data: the data set that was named; None means the run's own.

    Returns:
        What the run was trained with, in words, and a name for a folder; None if it has the same threat and data.
    """
    if record.eps is not None and not record.trained_against(threat.norm, threat.eps):
        own = f"against {record.norm} eps {format_radius(record.eps)}"
        return own, f"{threat.norm}-{format_radius(threat.eps).replace('/', '-')}"
    return None if data in (None, record.data) else (f"on {record.data}", "other-data")


def refuse_another(target: EvaluationTarget, data: str | None) -> None:
    """Check that results in a run's own directory are at the run's own threat and on its own data.

    Args:
        target: what is evaluated.
        data: the data set that was named; None means the run's own.

    Raises:
        ValueError: they are not, and would replace the run's own results.
    """
    if target.folder is None:
        return
    if (difference := differs_from_training(read_record(target.folder), target.threat, data)) is not None:
        own, name = difference
        raise ValueError(
            f"{target.folder} was trained {own}, so this is another evaluation: give --out {target.folder / name} to "
            f"keep both, or --out {target.folder} to replace the run's results"
        )


def refuse_weaker(target: EvaluationTarget, config: EvaluationConfig) -> None:
    """Check that a run's results are not replaced by weaker ones: fewer images, fewer attacks, or no verdict.

    Results of more attacks may have fewer images. Results of a suite need not include the former attacks if there are
    at least as many.

    Raises:
        ValueError: they would be.
    """
    if target.folder is None:
        return
    try:
        before = read_json(target.folder / RESULT)
    except (FileNotFoundError, ValueError):
        return
    known = before.get("attacks") if isinstance(before, dict) else None
    if not isinstance(known, dict) or any(before.get(name) != target.about[name] for name in ("epoch", "weights")):
        return  # the file is damaged, or belongs to other weights
    names = list(chosen_attacks(target, config))
    left_out = [name for name in known if name not in names]
    hint = f"give --out {target.folder / names[0].replace('/', '-')} to keep both, or"
    if left_out and (config.attacks is not None or len(names) < len(known)):
        raise ValueError(
            f"{target.folder} was evaluated under {', '.join(known)}, and this leaves out {', '.join(left_out)}: "
            f"{hint} those attacks too"
        )
    if len(names) > len(known):
        return
    images, count = before.get("images"), len(target.split)
    if isinstance(images, int) and count < images:
        raise ValueError(
            f"{target.folder} was evaluated on {images:,} images, and this takes {count:,}: {hint} as many images"
        )
    if before.get("verdict") and not config.verdict:
        raise ValueError(
            f"{target.folder} was evaluated with a verdict, and this leaves it out: {hint} leave out --verdict false"
        )

"""Where an evaluation's files go, and what must not be written over."""

from __future__ import annotations

from pathlib import Path

from toughen.data.layout import holds_classes
from toughen.evaluation.config import EvaluationConfig, chosen_attacks
from toughen.evaluation.result import RESULT
from toughen.evaluation.target import EvaluationTarget, is_elsewhere
from toughen.runs import RECORD, read_record
from toughen.runs.files import read_json
from toughen.utils.fraction import radius


def output_folder(spec: str | Path, out: str | Path | None) -> Path:
    """Where an evaluation's files go.

    Raises:
        ValueError: ``out`` is empty, or the model is named by a file.
    """
    if out is not None and not str(out):
        raise ValueError("out is empty: name a folder, or leave it out")
    if Path(spec).is_file():
        read_record(Path(spec))  # says what to do with a file
    if out is not None:
        return Path(out)
    return Path("runs") / str(spec).replace(":", "-").replace("/", "-") if is_elsewhere(spec) else Path(spec)


def refuse_foreign(out: Path, run: Path | None) -> None:
    """See that figures go into no other run's folder, where they would pass for that run's, nor among images.

    Args:
        out: where they are to go.
        run: the run's directory, where a run is evaluated.

    Raises:
        ValueError: they would.
    """
    for folder in (out, out.absolute().parent):
        if (folder / RECORD).is_file() and (run is None or not run.exists() or not folder.samefile(run)):
            where = "is" if folder == out else "lies in"
            raise ValueError(
                f"{out} {where} a run's directory, and these figures are not that run's: choose another out"
            )
    if holds_classes(out):
        raise ValueError(f"{out} holds a data set, images in class folders: choose another out")


def refuse_another(target: EvaluationTarget, data: str | None) -> None:
    """See that what goes into a run's own folder was measured at the run's own threat and data.

    Raises:
        ValueError: it was not, and would replace the run's own figures.
    """
    if target.folder is None:
        return
    record, threat = read_record(target.folder), target.threat
    own_threat = record.trained_against(threat.norm, threat.eps)
    if own_threat and data in (None, record.data):
        return
    own = record.data if own_threat or record.eps is None else f"{record.norm} eps {radius(record.eps)}"
    name = f"{threat.norm}-{float(threat.eps):.4g}" if not own_threat else "other-data"
    raise ValueError(
        f"{target.folder} was trained {'on' if own_threat else 'against'} {own}, so this is another evaluation: "
        f"give --out {target.folder / name} to keep both, or "
        f"--out {target.folder} to replace the run's results"
    )


def refuse_weaker(target: EvaluationTarget, config: EvaluationConfig) -> None:
    """See that a run's own figures are not replaced by those of fewer images, without a verdict, or of fewer attacks.

    A suite may follow on a smaller one, or on as short a list; with more attacks the images may be fewer.

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
        return  # damaged, or of other weights
    names = list(chosen_attacks(target, config))
    left_out = [name for name in known if name not in names]
    beside = f"give --out {target.folder / names[0].replace('/', '-')} to keep both, or"
    if left_out and (config.attacks is not None or len(names) < len(known)):
        raise ValueError(
            f"{target.folder} was evaluated under {', '.join(known)}, and this leaves out {', '.join(left_out)}: "
            f"{beside} those attacks too"
        )
    if len(names) > len(known):
        return
    images, count = before.get("images"), len(target.split)
    if isinstance(images, int) and count < images:
        raise ValueError(
            f"{target.folder} was evaluated on {images:,} images, and this takes {count:,}: {beside} as many images"
        )
    if before.get("verdict") and not config.verdict:
        raise ValueError(
            f"{target.folder} was evaluated with a verdict, and this leaves it out: {beside} leave out --verdict false"
        )

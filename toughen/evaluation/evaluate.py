"""The two ways in: any model that PyTorch can call, and what the command line names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from toughen.core.types import Eps, Norm
from toughen.data import Data, Split
from toughen.data.doubts import without
from toughen.data.sets import by_class
from toughen.engine.device import pick_device
from toughen.evaluation.candidate import Candidate, find_candidate, from_function, is_elsewhere
from toughen.evaluation.judge import How, Source, attacks_of, judge
from toughen.evaluation.result import RESULT
from toughen.runs import RECORD, read_record
from toughen.runs.files import check_writable, read_json
from toughen.utils.fraction import radius


def evaluate(
    model: nn.Module | Callable[[Tensor], Any],
    data: str | Data | Split | tuple[Tensor, Tensor],
    *,
    eps: Eps,
    norm: Norm = "linf",
    source: nn.Module | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Evaluate any model that PyTorch can call.

    Args:
        model: images [n, c, h, w] in [0, 1] to logits [n, k], normalisation inside; a module or a function.
        data: a folder or a data set's name, a ``toughen.data.Data``, a ``Split``, or (images, labels): bytes, or floats
            in [0, 1], and class numbers.
        eps, norm: the threat.
        source: a normally trained net for the same images, to see that black-box attacks are the weaker ones.
        out: where to write evaluation.json, examples.parquet and what reports show, and to keep the state; None writes
            nothing.
        console: where to show progress.
        how: the fields of ``How``: suite, attacks, limit, time_budget, seed, precision, block, processes, verdict,
            depth, details.

    Returns:
        What evaluation.json holds.

    Raises:
        Unfinished: a KeyboardInterrupt that came after the attacks, with what is known, which is written, too.
        ValueError: model, data and threat can't be used together.
    """
    settings = How(**how)
    settings.check()
    if out:
        check_writable(Path(out))
        refuse_foreign(Path(out), None)
    candidate = from_function(model, data, eps=eps, norm=norm, limit=settings.images, seed=settings.seed)
    return judge(candidate, settings, device=None, out=Path(out) if out else None, source=source, console=console)


def evaluate_run(
    spec: str | Path,
    *,
    data: str | None = None,
    weights: str | None = None,
    eps: Eps | None = None,
    norm: Norm | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    model: nn.Module | None = None,
    image_size: int | None = None,
    resize: int | None = None,
    source: Source | None = None,
    console: Console | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Evaluate a run, or a model from elsewhere, and write evaluation.json, examples.parquet and what reports show.

    Args:
        spec: a run directory, ``package.module:function`` or ``timm:NAME``.
        data: the data set; None means the one that the run was trained on.
        weights: a safetensors file for a model from elsewhere.
        eps, norm: the threat; None means the one that was trained against.
        device: "auto", "cpu", "cuda" and the like.
        out: where to write; None means the run directory (runs/NAME for a model from elsewhere), where an earlier
            evaluation is kept under another name. At another threat or on other data than the run's it must be given.
        model: the net, for a run of a net of your own.
        image_size, resize: what images are brought to for a model from elsewhere, as ``find_candidate`` takes them.
        source: a normally trained net for the same images, for black-box attacks; or what makes it, called when all
            else has been checked.
        console: where to show progress.
        how: the fields of ``How``: suite, attacks, limit, time_budget, seed, precision, block, processes, verdict,
            depth, details.

    Returns:
        What evaluation.json holds.

    Raises:
        Unfinished: a KeyboardInterrupt that came after the attacks, with what is known, which is written, too.
        ValueError: model, data, threat or attacks can't be used together.
    """
    settings = How(**how)
    settings.check()
    place = pick_device(device)
    folder = output_folder(spec, out)
    check_writable(folder)
    refuse_foreign(folder, None if is_elsewhere(spec) else Path(spec))
    candidate = find_candidate(
        spec, data=data, weights=weights, eps=eps, norm=norm, limit=settings.images, seed=settings.seed, model=model,
        image_size=image_size, resize=resize,
    )  # fmt: skip
    lacking = without(candidate.class_names, by_class(candidate.split.labels, len(candidate.class_names)))
    if console is not None and lacking:
        console.print(f"warning: {lacking}", highlight=False, markup=False, style="bold")
    if out is None:
        refuse_another(candidate, data)
        refuse_weaker(candidate, settings)
    return judge(candidate, settings, device=place, out=folder, source=source, console=console)


def refuse_foreign(out: Path, run: Path | None) -> None:
    """See that figures go into no other run's folder, where they would pass for that run's.

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
                f"{out} {where} a run's directory, for whose own these figures would pass: choose another out"
            )


def refuse_another(candidate: Candidate, data: str | None) -> None:
    """See that what goes into a run's own folder was measured at the run's own threat and data.

    Raises:
        ValueError: it was not, and would stand in place of the run's own figures.
    """
    if candidate.folder is None:
        return
    record, threat = read_record(candidate.folder), candidate.threat
    own_threat = record.trained_against(threat.norm, threat.eps)
    if own_threat and data in (None, record.data):
        return
    own = record.data if own_threat or record.eps is None else f"{record.norm} eps {radius(record.eps)}"
    name = f"{threat.norm}-{float(threat.eps):.4g}" if not own_threat else "other-data"
    raise ValueError(
        f"{candidate.folder} was trained {'on' if own_threat else 'against'} {own}, so this is another evaluation: "
        f"give --out {candidate.folder / name} to have it beside the run's own, or the run itself to put it first"
    )


def refuse_weaker(candidate: Candidate, how: How) -> None:
    """See that a run's own figures are not replaced by those of fewer images, without a verdict, or of fewer attacks.

    A suite may follow on a smaller one, or on as short a list; with more attacks the images may be fewer.

    Raises:
        ValueError: they would be.
    """
    if candidate.folder is None:
        return
    try:
        before = read_json(candidate.folder / RESULT)
    except (FileNotFoundError, ValueError):
        return
    known = before.get("attacks") if isinstance(before, dict) else None
    if not isinstance(known, dict) or any(before.get(name) != candidate.about[name] for name in ("epoch", "weights")):
        return  # damaged, or of other weights
    names = list(attacks_of(candidate, how))
    left_out = [name for name in known if name not in names]
    beside = f"give --out {candidate.folder / names[0].replace('/', '-')} to have it beside the run's own, or"
    if left_out and (how.attacks is not None or len(names) < len(known)):
        raise ValueError(
            f"{candidate.folder} was evaluated under {', '.join(known)}, and this leaves out {', '.join(left_out)}: "
            f"{beside} those attacks too"
        )
    if len(names) > len(known):
        return
    images, count = before.get("images"), len(candidate.split)
    if isinstance(images, int) and count < images:
        raise ValueError(
            f"{candidate.folder} was evaluated on {images:,} images, and this takes {count:,}: {beside} as many images"
        )
    if before.get("verdict") and not how.verdict:
        raise ValueError(
            f"{candidate.folder} was evaluated with a verdict, and this leaves it out: {beside} leave out --verdict "
            "false"
        )


def output_folder(spec: str | Path, out: str | Path | None) -> Path:
    """Where an evaluation's files go.

    Raises:
        ValueError: ``out`` is empty.
    """
    if out is not None and not str(out):
        raise ValueError("out is empty: name a folder, or leave it out")
    if out is not None:
        return Path(out)
    return Path("runs") / str(spec).replace(":", "-").replace("/", "-") if is_elsewhere(spec) else Path(spec)

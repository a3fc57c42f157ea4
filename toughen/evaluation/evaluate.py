"""The two entry points: for any model that PyTorch can call, and for what the command line can name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from toughen import data as data_sets
from toughen.core.types import Eps, Norm
from toughen.data import Data, Split
from toughen.data.layout import require_outside
from toughen.data.sets import by_class
from toughen.data.size_warnings import missing_test_images
from toughen.engine.device import pick_device
from toughen.evaluation.config import settings_of
from toughen.evaluation.function_model import FunctionModel
from toughen.evaluation.images import sample, valid_split
from toughen.evaluation.job import Source, prepare
from toughen.evaluation.output import output_folder, refuse_another, refuse_foreign, refuse_weaker
from toughen.evaluation.pipeline import run_evaluation
from toughen.evaluation.target import EvaluationTarget, find_target, is_elsewhere, usable_threat
from toughen.runs.files import check_takes_tensors
from toughen.utils.paths import expanded


def evaluate(
    model: nn.Module | Callable[[Tensor], Any],
    data: str | Path | Data | Split | tuple[Tensor, Tensor],
    *,
    eps: Eps,
    norm: Norm = "linf",
    surrogate: nn.Module | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
    **config: Any,
) -> dict[str, Any]:
    """Evaluate any model that PyTorch can call.

    Args:
        model: a module or a function from images [n, c, h, w] in [0, 1] to logits [n, k]; it normalises them itself.
        data: a folder or a data set's name, a ``toughen.data.Data``, a ``Split``, or (images, labels): bytes, or floats
            in [0, 1], and class numbers.
        eps, norm: the threat.
        surrogate: a normally trained net for the same images, to check that transfer attacks are weaker.
        out: folder for evaluation.json, examples.parquet, the files for a report, and the state; None writes nothing.
        console: where to show progress.
        config: the fields of ``EvaluationConfig``: suite, attacks, limit, time_budget, seed, precision, batch_size,
            processes, verdict, depth, details.

    Returns:
        The contents of evaluation.json.

    Raises:
        Unfinished: a KeyboardInterrupt after the attacks; the results so far are in it, and are written, too.
        TypeError: ``EvaluationConfig`` has no such field.
        ValueError: model, data and threat can't be used together.
    """
    settings = settings_of(config)
    if out:
        check_takes_tensors(Path(out))
        refuse_foreign(Path(out), None)
    target = from_function(model, data, eps=eps, norm=norm, limit=settings.images, seed=settings.seed)
    if out:
        require_outside(Path(out), expanded(Path(target.data)))
    return run_evaluation(prepare(target, settings, None, Path(out) if out else None, surrogate, console))


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
    surrogate: Source | None = None,
    console: Console | None = None,
    **config: Any,
) -> dict[str, Any]:
    """Evaluate a run or another model, and write evaluation.json, examples.parquet and the files for a report.

    Args:
        spec: a run directory, ``package.module:function``, ``timm:NAME`` or a net of toughen's, such as ``resnet18``.
        data: the data set; None means the one that the run was trained on.
        weights: a .safetensors or .pth file, for a model that is no run.
        eps, norm: the threat; None means the one that was trained against.
        device: "auto", "cpu", "cuda" and the like.
        out: where to write; None means the run directory (runs/NAME for other models), where an earlier evaluation's
            files are renamed. It must be given at another threat or on other data than the run's.
        model: the net, for a run of a net of your own.
        image_size, resize: as in ``find_target``, for a model that is no run.
        surrogate: a normally trained net for the same images, for transfer attacks; or a function that returns it,
            called after all other checks of the arguments.
        console: where to show progress.
        config: the fields of ``EvaluationConfig``: suite, attacks, limit, time_budget, seed, precision, batch_size,
            processes, verdict, depth, details.

    Returns:
        The contents of evaluation.json.

    Raises:
        Unfinished: a KeyboardInterrupt after the attacks; the results so far are in it, and are written, too.
        TypeError: ``EvaluationConfig`` has no such field.
        ValueError: model, data, threat or attacks can't be used together.
    """
    settings = settings_of(config)
    torch_device = pick_device(device)
    folder = output_folder(spec, out)
    check_takes_tensors(folder)
    refuse_foreign(folder, None if is_elsewhere(spec) else Path(spec))
    target = find_target(
        spec, data=data, weights=weights, eps=eps, norm=norm, limit=settings.images, seed=settings.seed, model=model,
        image_size=image_size, resize=resize,
    )  # fmt: skip
    require_outside(folder, expanded(Path(target.data)))
    missing = missing_test_images(target.class_names, by_class(target.split.labels, len(target.class_names)))
    if console is not None and missing:
        console.print(f"warning: {missing}", highlight=False, markup=False, style="bold")
    if out is None:
        refuse_another(target, data)
        refuse_weaker(target, settings)
    return run_evaluation(prepare(target, settings, torch_device, folder, surrogate, console))


def from_function(
    model: nn.Module | Callable[[Tensor], Any],
    data: str | Path | Data | Split | tuple[Tensor, Tensor],
    *,
    eps: Eps,
    norm: Norm,
    limit: int | None,
    seed: int,
) -> EvaluationTarget:
    """Any model that PyTorch can call, on images in any form; arguments as in ``evaluate``.

    Raises:
        ValueError: the model cannot be called, there are no images, they are not in [0, 1], or the labels are not class
            numbers.
    """
    if not callable(model):
        raise ValueError(f"model is {model!r}: give a module or a function, such as toughen.load('runs/mine')")
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "function")
    if isinstance(data, str | Path):
        data = data_sets.load(str(data))
    data_name, class_names = (data.name, data.classes) if isinstance(data, Data) else ("", ())
    images = data.test if isinstance(data, Data) else data
    if isinstance(images, tuple | list):
        if len(images) != 2:
            raise ValueError(f"data is a {type(images).__name__} of {len(images)}: give (images, labels)")
        test = valid_split(*images)
    elif isinstance(images, Split):
        test = valid_split(images.images, images.labels)
    else:
        raise ValueError(
            f"data is {type(images).__name__}: give (images, labels), a Split, a Data, or a data set's name"
        )
    net = model if isinstance(model, nn.Module) else FunctionModel(model).to(test.images.device)
    split, index = sample(test, limit, seed)
    return EvaluationTarget(
        name=name,
        net=net,
        split=split,
        index=index,
        total=len(test),
        threat=usable_threat(norm, eps),
        data=data_name or f"{len(test):,} images",
        class_names=class_names,
    )

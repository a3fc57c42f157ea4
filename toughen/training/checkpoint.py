"""A run's state in one safetensors file, with everything that is no tensor as JSON in its metadata; never a pickle."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toughen import runs
from toughen.core.distributed import world
from toughen.methods.base import Method
from toughen.runs.directory import check_kinds, second_line
from toughen.runs.files import finite, read_tensors, temporary_name, write_tensors
from toughen.training.state import Stateful, check
from toughen.training.training_state import TrainingState
from toughen.utils.type_hints import is_json, matches

NAME, PREVIOUS, DAMAGED = "checkpoint.safetensors", "checkpoint.previous.safetensors", "checkpoint.damaged.safetensors"
HEALTHY = "healthy.safetensors"
KEPT = "kept"  # the folder of the weights that --keep-at names
WARM_UP = ("adversarial_steps", "warmed", "warmed_at", "planned", "planned_at", "planned_progress")  # of eps
MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq")  # of the shape of their weight in every optimizer of torch's


def save(state: TrainingState, name: str = NAME) -> None:
    """Gather the per-process state, and write a checkpoint in the main process; the one before is kept beside it.

    The optimizer's moments are kept by the parameters' order; its rates follow from the step.

    Raises:
        ValueError: it could not be loaded again: the state of a module or callback is not plain data, or a module has
            a buffer or parameter that a new run would not have.
    """
    state.distributed_step.sync_image_buffers()
    totals = world().all_gather(state.totals.plain())
    own = world().all_gather_tensors(_own_state(state.modules))
    world().on_main(_write, state, name, totals, own)


def write_model(state: TrainingState, epoch: int, validation: dict[str, float]) -> None:
    """Write the weights to keep to the run's model file, with their validation accuracies."""
    record = replace(state.record, epoch=epoch, validation=validation)
    world().on_main(runs.write_model, state.folder, record, state.kept_model)


def _write(state: TrainingState, name: str, totals: list[dict[str, Any]], own: list[dict[str, Tensor]]) -> None:
    """Write a checkpoint.

    Args:
        state: the run.
        name: the file's.
        totals: of each process.
        own: of each process the part of its modules' state that is its own; the first one's lies with its modules too.
    """
    if new := sorted(state.names() - state.first_names):
        raise ValueError(
            f"{new[0]} was created during training, so no checkpoint could be loaded: create it in the method's "
            "`prepare`, or in the model's `__init__`"
        )
    tensors = {f"process.{n}.{key}": value for n, kept in enumerate(own) if n for key, value in kept.items()}
    extra: dict[str, Any] = {}
    for part, module in state.modules.items():
        for key, value in module.state_dict().items():
            (tensors if isinstance(value, Tensor) else extra)[f"{part}.{key}"] = value
    for number, moments in state.optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            (tensors if isinstance(value, Tensor) else extra)[f"optimizer.{number}.{key}"] = value
    for key, value in extra.items():
        if not is_json(value):
            raise ValueError(
                f"{key.replace('._extra_state', '')}'s extra state cannot be kept in a checkpoint: let get_extra_state "
                "return numbers, texts, lists and mappings with texts as keys, and keep tensors as buffers"
            )
    callbacks = {key: value for key, callback in state.callbacks.items() if (value := callback.state_dict())}
    for key, value in callbacks.items():
        if not is_json(value):
            raise ValueError(
                f"{key}'s state cannot be kept in a checkpoint: let state_dict return numbers, texts, lists "
                "and mappings with texts as keys"
            )
    about = {"extra": extra, "callbacks": callbacks, "totals": totals, **state.plain()}
    if name == NAME and (state.folder / NAME).exists():
        keep(state.folder, PREVIOUS)  # so that no moment is without one
    write_tensors(state.folder / name, tensors, about)


def keep(folder: Path, name: str, source: str = NAME) -> None:
    """Give a checkpoint, the last one if not told otherwise, a second name."""
    link = temporary_name(folder / name)
    link.unlink(missing_ok=True)
    try:
        os.link(folder / source, link)
    except OSError:  # a file system without hard links
        link.write_bytes((folder / source).read_bytes())
    os.replace(link, folder / name)
    link.unlink(missing_ok=True)  # still there where both names were one file already, after a kill at this point


def kept_file(folder: Path, moment: int | str) -> Path:
    """Where the weights of a moment are kept, a step or an epoch as ``--keep-at`` writes them."""
    name = f"step {moment}" if isinstance(moment, int) else moment
    return folder / KEPT / f"{name.replace(' ', '-')}.safetensors"


def keep_weights(state: TrainingState, moment: int | str) -> None:
    """Keep the live weights of this moment, as ``--keep-at`` asks."""
    path = kept_file(state.folder, moment)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, state.model.state_dict(), {})


def resume(state: TrainingState) -> bool:
    """Load a run's last checkpoint; False where there is no checkpoint yet.

    A last checkpoint that cannot be read is set aside, so that it never takes the place of the one before it. A
    callback of which the checkpoint holds nothing begins anew.

    Raises:
        ValueError: neither the last checkpoint nor the one before it can be read, or they belong to other modules.
    """
    with world().main_first():  # it sets a damaged file aside
        last = _read(state.folder, state.callbacks)
        if last is None:
            return False
        path, tensors, about = last
        extra, totals, _ = about.pop("extra"), about.pop("totals"), about.pop("callbacks")
        own = _own_names(state.modules) if about["processes"] != world().world_size else []
        try:
            restarted = [name for name in own if tensors[name].numel()]
            _put_back(state, {**tensors, **extra}, about["processes"])
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} does not fit this recipe ({second_line(error)}): choose another --out") from None
        state.restore(about, totals, state.device)
        if state.healthy == state.step:
            world().on_main(keep, state.folder, HEALTHY, path.name)  # a kill may have come before
    state.restarted, state.spent_before = restarted, state.spent
    return True


def go_back(state: TrainingState) -> None:
    """Return to the last healthy state of modules, optimizer and warm-up of eps.

    Step, schedule, history and totals stay as they are.

    Raises:
        ValueError: its file is gone or damaged.
    """
    path = state.folder / HEALTHY
    tensors, about = _checked(path, {})
    try:
        _put_back(state, {**tensors, **about["extra"]}, about["processes"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not fit this run ({second_line(error)}): train again with another --out"
        ) from None
    then = copy.copy(state)
    vars(then).update({name: about[name] for name in WARM_UP})
    state.adversarial_steps = then.adversarial_steps
    state.warmed, state.warmed_at = then.eps_scale, then.adversarial_steps
    state.distributed_step.forget_images()


def _own_names(modules: dict[str, nn.Module]) -> list[str]:
    """The names, in the file, of the modules' per-process state."""
    return [
        ".".join(filter(None, (part, name, buffer)))
        for part, module in modules.items()
        for name, method in module.named_modules()
        if isinstance(method, Method)
        for buffer in method.per_process_buffers
        if hasattr(method, buffer)
    ]


def _own_state(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """This process's part of the modules' per-process state."""
    states = {part: module.state_dict() for part, module in modules.items()}
    return {name: states[part][rest] for name in _own_names(modules) for part, rest in [name.split(".", 1)]}


def _put_back(state: TrainingState, values: dict[str, Any], saved_by: int) -> None:
    """Load modules and optimizer; per-process state only if as many processes saved it, else it stays as it is."""
    same = saved_by == world().world_size
    values = values | (_part(values, f"process.{world().rank}") if same else _own_state(state.modules))
    for name, module in state.modules.items():
        check_kinds(module, _part(values, name))
        module.load_state_dict(_part(values, name))
    _load_moments(_part(values, "optimizer"), state.optimizer)


def _read(folder: Path, callbacks: Mapping[str, Stateful]) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The last readable checkpoint: file, tensors and metadata; the callbacks' state is loaded into them."""
    paths = [path for path in (folder / NAME, folder / PREVIOUS) if path.exists()]
    for path in paths:
        try:
            tensors, about = _checked(path, callbacks)
        except ValueError:
            if path == paths[-1]:
                raise
            continue
        if path != paths[0]:
            os.replace(paths[0], folder / DAMAGED)
        return path, tensors, about
    return None


def _checked(path: Path, callbacks: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``save`` wrote, checked.

    Args:
        path: the file.
        callbacks: load their state, and refuse a state that they did not write.

    Raises:
        ValueError: it is damaged.
    """
    tensors, about = read_tensors(path)
    about = {"warmed": 0.0, "warmed_at": 0} | about  # which earlier versions did not write
    try:
        if not matches(about.get("extra"), dict[str, Any]) or not matches(
            about.get("callbacks"), dict[str, dict[str, Any]]
        ):
            raise ValueError("it holds no run's state")
        beside = ("extra", "callbacks", "totals")
        check({name: value for name, value in about.items() if name not in beside}, about.get("totals"))
        if not finite(_part(tensors, "model")):  # no run saves such weights
            raise ValueError("a weight is NaN or infinite")
        for name in about["callbacks"].keys() & callbacks.keys():
            callbacks[name].load_state_dict(about["callbacks"][name])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it from a copy, or train again") from None
    return tensors, about


def _part(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}


def _load_moments(values: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Load the optimizer's state; each moment gets the memory format of its parameter."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, moments in state.items():
        if not 0 <= place < len(parameters):
            raise ValueError(f"the optimizer has no weight {place}")
        for name, value in moments.items():
            if name in MOMENTS and (not isinstance(value, Tensor) or value.shape != parameters[place].shape):
                raise ValueError(f"the optimizer's {name} {place} has another shape than its weight")
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and name != "step" and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)

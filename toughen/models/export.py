"""A classifier as a file that other programs read: ONNX, or PyTorch's exported program."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from toughen.core.modules import unwrap
from toughen.core.types import Images, Logits

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
INPUT, OUTPUT = "images", "logits"
Exported = Callable[[Images], Logits]


def export(model: nn.Module, shape: tuple[int, int, int], path: Path, form: str, about: Mapping[str, str]) -> None:
    """Write a classifier, normalisation inside, for any number of images at once.

    Args:
        model: takes float32 images in [0, 1], returns logits; it is exported in evaluation mode, on the CPU.
        shape: channels, rows and columns of an image.
        path: the file; the caller has seen that it may be written.
        form: "onnx" (input "images", output "logits") or "torch-export" (``torch.export.load``).
        about: kept in the file: names and texts.

    Raises:
        ValueError: a package is missing, or the net has an operation that the format does not have.
        OSError: the file cannot be written.
    """
    if form not in SUFFIXES:
        raise ValueError(f"format {form!r} is unknown: use {', '.join(SUFFIXES)}")
    if form == "onnx":
        _require("onnx", "onnxscript")
    net = model.cpu().eval().requires_grad_(False)
    sample = (torch.zeros(2, *shape),)  # a single image would be taken for a fixed size
    free = ({0: torch.export.Dim("n", min=1)},)
    program: torch.export.ExportedProgram | None = None
    try:
        with _silent(), _plain_attention():
            if _returns_more(net, sample):
                net = _LogitsAlone(net).eval()
            program = _traced(net, sample, free)
            if form == "torch-export":
                _forget_places(program)
                program.example_inputs = None  # they would be a pickle in the file
                file = BytesIO()  # in memory, so that a full disk is not taken for a fault of the net
                torch.export.save(program, file, extra_files={"about.json": json.dumps(dict(about))})
                content = file.getvalue()
            else:
                made = torch.onnx.export(
                    program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, external_data=False, verbose=False
                )
                assert made is not None
                made.model.metadata_props.update(about)
                for node in made.model.graph.all_nodes():
                    node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)  # paths of this machine, and code
                content = made.model_proto.SerializeToString()
    except Exception as error:  # the exporters raise almost anything
        root: BaseException = error
        while type(root).__name__ == "ConversionError" and root.__cause__ is not None:  # the last names the operator
            root = root.__cause__
        reason = next((line.strip() for line in str(root).splitlines() if line.strip()), type(root).__name__)
        other = "safetensors" if program is None or form == "torch-export" else "torch-export"
        reason = reason[:200].rstrip(".")
        raise ValueError(
            f"the net cannot be exported as {form}: {reason}. Change the net, or use --format {other}"
        ) from error
    path.write_bytes(content)


class _LogitsAlone(nn.Module):
    """The logits of a net that returns an object with ``.logits``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Images) -> Logits:
        logits: Tensor = self.net(x).logits  # unwrap's check would fix the size of the batch
        return logits


def _returns_more(net: nn.Module, sample: tuple[Tensor]) -> bool:
    with torch.no_grad():
        return hasattr(net(*sample), "logits")


def _traced(net: nn.Module, sample: tuple[Tensor], free: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """The net's computation: as it runs, or else out of its bytecode.

    Running it fixes the number of images in torch's own attention (``nn.MultiheadAttention``). Reading its bytecode
    does not, but fails for more nets than running does.
    """
    try:
        return torch.export.export(net, sample, dynamic_shapes=free)
    except Exception as first:  # the exporters raise almost anything
        try:
            return torch.export.export(net, sample, dynamic_shapes=free, strict=True)
        except Exception:
            raise first from None


def _forget_places(program: torch.export.ExportedProgram) -> None:
    """Leave out of which lines of which files the operations came: they hold paths of this machine, and code."""
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)


def load_exported(path: Path, form: str) -> Exported:
    """The exported classifier, run as another program would run it.

    Raises:
        ValueError: a package is missing.
    """
    if form == "torch-export":
        module = torch.export.load(path).module()
        return lambda x: module(x)
    _require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])


class Difference(NamedTuple):
    """How far two classifiers are apart on some images.

    Attributes:
        logit: the largest difference of a logit.
        classes: how many images are classified otherwise.
        images: how many were compared.
        relative: the same, divided by a tenth of its image's largest logit where that is over 10.
    """

    logit: float
    classes: int
    images: int
    relative: float


def difference(model: nn.Module, exported: Exported, x: Images, batch_size: int = 50) -> Difference:
    """How far an exported classifier is from the one that it was made of."""
    furthest, relative, other = torch.zeros(()), torch.zeros(()), 0
    with torch.no_grad():
        for part in x.split(batch_size):
            ours, theirs = (unwrap(each(part), len(part)) for each in (model, exported))
            apart, size = (ours - theirs).abs().amax(1).cpu(), (ours.abs().amax(1) / 10).clamp(min=1).cpu()
            furthest = torch.maximum(furthest, apart.max())  # a NaN stays one
            relative = torch.maximum(relative, (apart / size).max())
            other += int((ours.argmax(1) != theirs.argmax(1)).sum())
    return Difference(furthest.item(), other, len(x), relative.item())


def _require(*packages: str) -> None:
    for name in packages:
        try:
            __import__(name)
        except ImportError:
            raise ValueError(f"ONNX needs the package {name}: pip install 'toughen[onnx]'") from None


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused kernel of ``nn.TransformerEncoderLayer``, which no format has."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporters' notes on packages that they do without."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

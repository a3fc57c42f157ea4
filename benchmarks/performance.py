"""Write docs/results/performance.md from the files in benchmarks/results; a table without its file is left out.

python benchmarks/performance.py
python benchmarks/performance.py --results DIR --page FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import official

from toughen.papers.markdown import folded
from toughen.runs.files import read_json, write_text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "performance.md"
HEAD = """# Performance

This page has the time and memory of a training step, of a run and of an evaluation. `python benchmarks/performance.py`
writes it from `benchmarks/results/`. The two sides of each ratio ran alternately in one session. A cell "a [b, c]"
holds the median and, in brackets, the lowest and the highest value over the rounds. AutoAttack against the reference
is in [evaluation.md](evaluation.md).
"""
STEPS = """| column | meaning |
| --- | --- |
| units | time of the step, divided by the time of a plain training step (forward, backward with weight \
gradients, SGD) in float32, of the same net on the same images, in the same round |
| released | the step as the method's public script makes it, in plain float32 (`benchmarks/official.py`); the \
steps of PAP and R-MGM follow the papers, because there is no public code; a method without a row was not compared |
| F | floating-point operations of a step, divided by those of a forward pass of its batch |
| of its passes | time of the step, divided by the time of its forward and backward passes alone, in the same \
precision and memory layout |
| of the limit | operations a second of the step, as a share of those of a large matrix product or convolution in the \
same rounds, whichever is faster |
| peak MB | memory that steps take beyond what is allocated before them |
| x released | how many times as fast as the released step |
| units elsewhere | units of the released scripts themselves, on another machine |

EFGSM, alone and in Reconstruct, uses only the class with the highest other logit (`--method.classes 1`). With all of
ten classes, its default, F is 8 more."""
EVALUATION = """All attacks take steps of eps / 4 from the clean image, in evaluation mode, on the same images of the
same net. The unit is a plain float32 training step of the same net on these images in the same round. F:
floating-point operations, divided by those of a forward pass of these images. toughen does not attack images further
that are already misclassified, and it confirms each adversarial image in float32. "Robust": the share of images that
the net in float32 still classifies correctly."""
BREAKDOWN = """Milliseconds of a step in the round with the median time of five rounds [in the fastest, in the
slowest], and the percentage of each kind of operation, on one thread, by PyTorch's profiler
(`benchmarks/breakdown.py`). "Making images" is the arithmetic on images in the attack. "Between operations" is the
time of Python, and of PyTorch from one operation to the next."""
SCALING = """The rows of a table ran alternately. They differ only in the quantity of the first column. "x first" is the
time divided by that of the first row."""
TRAIN = """Every method has the same net, images, optimizer, schedule and number of epochs. "Robust" is the share of
test images that withstand every attack named below the table. "Seconds to" is the training time after which the
accuracy of held-out images under PGD first reached this value: median [least, most] over all seeds, a dash if a seed
never reached it. The curves and each method's settings are in `train.json`."""

PRECISION = """Pairs of runs with the same seed, images, net and schedule show whether bf16 costs accuracy. One run has
the default of a processor with bf16 multiplication (bf16 autocast, channels-last memory format). The other has float32
and the contiguous memory format."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def spread(found: Sequence[float], digits: int = 2) -> str:
    """Median, lowest and highest value."""
    middle, low, high = (f"{value:.{digits}f}" for value in found)
    return f"{middle} [{low}, {high}]"


def percent(share: float | None, digits: int = 0) -> str:
    return "" if share is None else f"{100 * share:.{digits}f} %"


def units(line: dict[str, Any] | None) -> str:
    return spread([line[name] for name in ("units", "units_lowest", "units_highest")]) if line else ""


def about(*found: dict[str, Any]) -> str:
    """Processor, versions, commit, rounds and precision of the measurements, each value once."""
    parts = []
    for name in ("processor", "torch", "commit", "rounds", "precision"):
        values = dict.fromkeys(str(each[name]) for each in found if name in each)
        label = {"processor": "", "rounds": "rounds: "}.get(name, f"{name} ")
        parts += [label + " and ".join(values)] if values else []
    return ", ".join(parts)


def steps(nets: dict[str, Any]) -> str:
    """What step.py found: a table for each net."""
    return "\n".join(_steps(model, rows) for model, rows in nets.items())


def _steps(model: str, rows: dict[str, Any]) -> str:
    made = [row["about"] for row in rows.values()]
    unit = sorted(1000 * row["times"]["unit"]["seconds"] for row in rows.values())
    ours = {name.split()[1] for row in rows.values() for name in row["times"] if name.startswith("toughen ")}
    parts = [f"## A training step: {model}, batches of {made[0]['batch_size']}\n", _speedups(rows, sorted(ours))]
    parts += [f"{STEPS}\n", _released(rows)]
    parts += [_ours(rows, precision) for precision in sorted(ours)]
    shares = [row["times"][f"toughen {each}"]["data_share"] for row in rows.values() for each in ours]
    parts.append(
        f"The unit took {unit[0]:.0f} to {unit[-1]:.0f} ms. Loading and augmenting a batch took at most "
        f"{percent(max(shares), 1)} of a step. {about(*made)}.\n"
    )
    return "\n".join(parts)


def _speedups(rows: dict[str, Any], precisions: Sequence[str]) -> str:
    """How many times as fast as the released steps toughen's are, over the methods that have one."""
    sentences = []
    for precision in precisions:
        times = [row["times"][f"toughen {precision}"] for row in rows.values()]
        medians = [each["times_as_fast_as_released"][0] for each in times if "times_as_fast_as_released" in each]
        if medians:
            sentences.append(
                f"In {precision} toughen's steps are {min(medians):.2f} to {max(medians):.2f} times as fast as the "
                f"released ones (medians of {len(medians)} methods)."
            )
    return " ".join(sentences) + "\n" if sentences else ""


def _released(rows: dict[str, Any]) -> str:
    """The released scripts' steps."""
    head = ["released", "units", "F", "of the limit", "peak MB", "units elsewhere"]
    lines = []
    for method, row in rows.items():
        if line := row["times"].get("released"):
            cells = [method, units(line), f"{line['work']:.1f}", percent(line.get("share_of_arithmetic"))]
            lines.append([*cells, megabytes(row, "released"), f"{official.PUBLISHED.get(method, '')}"])
    return table(head, lines) if lines else ""


def _ours(rows: dict[str, Any], precision: str) -> str:
    """toughen's steps in one precision."""
    head = [f"toughen, {precision}", "units", "F", "of its passes", "of the limit", "peak MB", "x released"]
    lines = []
    for method, row in rows.items():
        line = row["times"][f"toughen {precision}"]
        faster = line.get("times_as_fast_as_released")
        cells = [method, units(line), f"{line['work']:.1f}", f"{line['over_limit']:.2f}"]
        cells += [percent(line.get("share_of_arithmetic")), megabytes(row, precision)]
        lines.append([*cells, spread(faster) if faster else ""])
    return table(head, lines)


def megabytes(row: dict[str, Any], implementation: str) -> str:
    return f"{row['peak_bytes'][implementation] / 1e6:.0f}"


def breakdown(found: dict[str, Any]) -> str:
    """What breakdown.py found."""
    parts = [f"## Where a step's time goes\n\n{BREAKDOWN}\n"]
    for name, rows in found.items():
        kinds = list(next(iter(rows.values()))["shares"])
        lines = [
            [
                method,
                spread([1000 * row[name] for name in ("seconds", "fastest", "slowest")], 0),
                *(f"{100 * row['shares'][kind]:.1f}" for kind in kinds),
            ]
            for method, row in rows.items()
        ]
        made = [row["about"] for row in rows.values()]
        where = f"{made[0]['batch_size']} images of {made[0]['data']}, {about(*made)}"
        parts.append(f"{name}:\n\n{table(['method', 'ms', *kinds], lines)}\n{where}.\n")
    return "\n".join(parts)


def evaluation(found: dict[str, Any]) -> str:
    """What evaluate.py found."""
    parts = [f"## PGD in an evaluation\n\n{EVALUATION}\n"]
    head = ["implementation", "units", "seconds", "F", "x plain loop", "robust"]
    for name, result in found.items():
        lines = [
            [
                implementation,
                units(line),
                f"{line['seconds']:.3g}",
                f"{line['work']:.0f}" if line["work"] else "",
                spread(line["times_as_fast_as_plain_loop"]),
                percent(line["robust_accuracy"], 1),
            ]
            for implementation, line in result["times"].items()
            if "robust_accuracy" in line
        ]
        made = result["about"]
        where = f"{made['images']} images of {made['data']}, eps {made['eps']:.4g}, {about(made)}"
        packages = ", ".join(f"{package} {made[package]}" for package in ("torchattacks", "foolbox"))
        parts.append(f"{name}:\n\n{table(head, lines)}\n{where}, {packages}.\n")
    return "\n".join(parts)


def scaling(found: dict[str, Any]) -> str:
    """What scaling.py found."""
    parts = [f"## How a step's cost grows\n\n{SCALING}\n"]
    for name, result in found.items():
        head = [result["what"], "ms a step", "x first", "µs an image"]
        lines = []
        for point, line in result["points"].items():
            milliseconds = [1000 * line[each] for each in ("seconds", "fastest", "slowest")]
            each = f"{1e6 * line['seconds_per_image']:.0f}" if "seconds_per_image" in line else ""
            lines.append([point, spread(milliseconds, 1), spread(line["times_first"]), each])
        made = result["about"]
        parts.append(f"{name}:\n\n{table(head, lines)}\n{about(made)}.\n")
    return "\n".join(parts)


def training(found: dict[str, Any]) -> str:
    """What train.py found."""
    made, methods = found["about"], found["methods"]
    if not methods:
        return ""
    runs = [run for row in methods.values() for run in row["seeds"].values()]
    targets = [str(target) for target in made["targets"]]
    head = ["method", "seeds", "seconds", "F a step", "clean", "robust"]
    head += [f"seconds to {percent(float(target))}" for target in targets]
    lines = []
    for method, row in methods.items():
        total, seeds = row["summary"], row["seeds"]
        cells = [method, str(len(seeds)), spread(total["seconds"], 0)]
        cells.append(f"{next(iter(seeds.values()))['passes']:.1f}")
        cells += [spread([100 * value for value in total[name]], 1) for name in ("clean", "robust")]
        reached = [total["seconds_to"].get(target) for target in targets]
        cells += [spread(values, 0) if values else "-" for values in reached]
        lines.append(cells)
    attacks = ", ".join(runs[0]["attacks"])
    length = f"{made['time_budget']} each" if made["time_budget"] else f"{made['epochs']} epochs"
    return (
        f"## Time to robustness: {made['data']}, eps {made['eps']}, {length}\n\n{TRAIN}\n\n{table(head, lines)}\n"
        f"Attacks: {attacks}, on {runs[0]['images']} test images. `{made['base']}`. {about(runs[0]['provenance'])}.\n"
    )


def precision(fast: dict[str, Any], exact: dict[str, Any]) -> str:
    """Two files of train.py, beside each other."""
    head = ["method", "seed", "clean", "clean, float32", "robust", "robust, float32", "difference"]
    lines = []
    for method, row in fast["methods"].items():
        for seed, run in row["seeds"].items():
            other = exact["methods"].get(method, {}).get("seeds", {}).get(seed)
            if other is None:
                continue
            cells = [percent(one[name], 1) for name in ("clean", "robust") for one in (run, other)]
            lines.append([method, seed, *cells, f"{100 * (run['robust'] - other['robust']):+.1f}"])
    if not lines:
        return ""
    made, run = fast["about"], next(iter(next(iter(fast["methods"].values()))["seeds"].values()))
    return (
        f"## Precision: {made['data']}, eps {made['eps']}, {made['epochs']} epochs\n\n{PRECISION}\n\n"
        f"{table(head, lines)}\n"
        f"Attacks: {', '.join(run['attacks'])}, on {run['images']} test images. `{exact['about']['base']}`. "
        f"{about(run['provenance'])}.\n"
    )


def streaming(found: dict[str, Any]) -> str:
    """What streaming.py found."""
    head = ["", *(f"{part} of the epoch" for part in ("1st fifth", "2nd", "3rd", "4th", "5th")), "most"]
    runs = {"whole run": "memory_mb", f"killed at step {found['killed_at_step']}, resumed": "memory_mb_resumed"}
    lines = [
        [what, *(str(value) for value in found[name]["fifths"]), str(found[name]["most"])]
        for what, name in runs.items()
    ]
    same = "the same weights" if found["same_weights_after_the_kill"] else "other weights"
    return (
        f"## A data set larger than the memory it may use\n\nResident memory, in megabytes, of a run and its worker "
        f"process. The run trains on {found['shards']} of JPEG shards with `--memory-limit {found['limit']}`. The "
        f"limit holds for the images only; the table includes PyTorch, net and activations.\n\n{table(head, lines)}\n"
        f"Both runs ended with {same}. {found['steps']} steps, `{found['command']}`. {about(found)}.\n"
    )


def gpu(found: dict[str, Any]) -> str:
    """What gpu.py found."""
    made, pieces = found["about"], found["pieces"]
    parts = [f"## On a GPU: {made['processor']}\n"]
    first = pieces.get("first steps", {})
    if first.get("done"):
        parts.append(table(["", f"{first['recipe']}, first {first['steps']} steps"], _first_steps(first)))
    if compiled := pieces.get("compiled steps", {}):
        parts.append(table(["compiled", "ms a step", "first steps, s"], _compiled_steps(compiled)))
    run = pieces.get("training", {})
    if run.get("epochs_done"):
        parts.append(table(["", f"the whole run, {run['epochs_done']} of {run['epochs']} epochs"], _run(run)))
        parts.append(f"How its number of epochs was chosen: {run['why']}.\n")
    attacked = pieces.get("autoattack", {})
    if attacked.get("done"):
        lines = [
            [name, percent(line["robust_accuracy"], 2), f"{line['seconds']:.1f}", percent(line["share_of_arithmetic"])]
            for name, line in attacked["attacks"].items()
        ]
        lines.append(["all attacks together", percent(attacked["robust_accuracy"], 2), "", ""])
        clean = percent(attacked["clean_accuracy"], 2)
        parts.append(f"The weights of this run on {attacked['images']} test images. Clean accuracy is {clean}.\n")
        parts.append(table(["attack", "robust", "seconds", "of the limit"], lines))
    parts.append(f"torch {made['torch']}, commit {made['commit']}.\n")
    parts += [f"Note on {name}: {note}.\n" for name, note in made.get("notes", {}).items()]
    for text in (
        steps(nets) if (nets := pieces.get("steps", {}).get("nets")) else "",
        training(pieces["methods"]) if pieces.get("methods", {}).get("done") else "",
    ):
        if text:
            parts.append(text.replace("\n## ", "\n### ").replace("## ", "### ", 1))
    return "\n".join(parts)


def _first_steps(found: dict[str, Any]) -> list[list[str]]:
    step = found["step"]
    peak = found["peak_bytes"]
    milliseconds = [1000 * step[name] for name in ("seconds", "fastest", "slowest")]
    return [
        ["ms a step", spread(milliseconds, 1)],
        ["seconds an epoch", f"{found['seconds_per_epoch']:.1f}"],
        ["images a second", f"{found['images_per_second']:.0f}"],
        ["F a step", f"{found['passes_per_image']:.1f}"],
        ["TFLOP/s", f"{found['operations_per_second'] / 1e12:.3g}"],
        *([name, f"{rate / 1e12:.3g}"] for name, rate in found["best_operations_per_second"].items()),
        ["share of the faster of the two", percent(found["share_of_arithmetic"])],
        ["peak memory in tensors, MB", "" if peak is None else f"{peak / 1e6:.0f}"],
        ["precision", found["precision"]],
    ]


def _compiled_steps(found: dict[str, Any]) -> list[list[str]]:
    lines = []
    for how, line in found.items():
        if isinstance(line, dict) and "step" in line:
            milliseconds = [1000 * line["step"][name] for name in ("seconds", "fastest", "slowest")]
            lines.append([how, spread(milliseconds, 1), f"{line['first_steps_seconds']:.0f}"])
        elif isinstance(line, dict):
            lines.append([how, "failed", ""])
    return lines


def _run(found: dict[str, Any]) -> list[list[str]]:
    def of(name: str, times: float = 1.0, digits: int = 2) -> str:
        return spread([times * found[name][each] for each in ("median", "least", "most")], digits)

    last = found["curve"][-1]
    return [
        ["seconds of training", f"{found['seconds']:.0f}"],
        ["seconds an epoch", of("seconds_per_epoch")],
        ["ms a step", of("seconds_per_step", 1000)],
        ["images a second", of("images_per_second", 1, 0)],
        ["share of the arithmetic limit, %", of("share_of_arithmetic", 100, 1)],
        ["held-out images, last epoch", f"clean {percent(last['clean'], 1)}, PGD {percent(last['pgd'], 1)}"],
    ]


TABLES = {
    "step": steps,
    "breakdown": breakdown,
    "evaluate": evaluation,
    "scaling": scaling,
    "train": training,
    "streaming": streaming,
    "gpu": gpu,
}


def page(results: Path) -> str:
    """The whole page."""
    parts = [HEAD]
    for name, write in TABLES.items():
        if (path := results / f"{name}.json").exists():
            parts.append(write(read_json(path)))
    pair = [results / f"precision-{name}.json" for name in ("bf16", "fp32")]
    if all(path.exists() for path in pair):
        parts.append(precision(*(read_json(path) for path in pair)))
    return folded("\n".join(part for part in parts if part))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    write_text(arguments.page, page(arguments.results))


if __name__ == "__main__":
    main()

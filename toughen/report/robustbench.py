"""A run's entry for RobustBench's leaderboard: a file for its folder ``model_info`` (github.com/RobustBench)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toughen.report.card import check_evaluation, shown_data
from toughen.report.read import read_run
from toughen.report.values import clean
from toughen.utils.units import format_radius

ATTACK = "autoattack"  # the leaderboard's attack, in its standard version
TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}  # the leaderboard's numbers of test images


def entry(
    folder: Path, *, title: str = "", authors: str = "", venue: str = "", link: str = "", additional_data: bool = False
) -> dict[str, Any]:
    """The entry of a run that was evaluated with AutoAttack.

    As in the leaderboard's files, accuracies are texts: percent with two decimals.

    Args:
        folder: the run directory.
        title, authors, venue, link: the paper's.
        additional_data: whether it was trained on more than the data set's own training images.

    Raises:
        ValueError: the folder is not a run directory, or its weights were not evaluated with AutoAttack.
    """
    run = read_run(folder, folder.name)
    own = run.own
    check_evaluation(run)
    if own is None:
        raise ValueError(f"{folder} has not been evaluated: run `toughen evaluate {folder} --attacks {ATTACK}`")
    if run.outdated:
        raise ValueError(run.outdated)
    accuracies = {attack.name: attack.accuracy for attack in own.attacks if not attack.part}
    if ATTACK not in accuracies:
        raise ValueError(
            f"{folder} was evaluated with {', '.join(accuracies)}, but RobustBench needs AutoAttack: run "
            f"`toughen evaluate {folder} --attacks {ATTACK}`"
        )
    data, accuracy = shown_data(run, own.data), f"{100 * accuracies[ATTACK]:.2f}"
    fields = {
        "link": link,
        "name": title or clean(run.name),
        "authors": authors,
        "additional_data": additional_data,
        "number_forward_passes": 1,
        "dataset": data,
        "venue": venue,
        "architecture": clean(run.model),
        "eps": format_radius(own.eps),
        "clean_acc": f"{100 * own.clean:.2f}",
        "reported": accuracy,
        "autoattack_acc": accuracy,
        "unreliable": own.verdict in ("doubtful", "masked"),
    }
    if own.images != TEST_IMAGES.get(data):
        fields["footnote"] = f"Evaluated on {own.images:,} test images."
    return fields

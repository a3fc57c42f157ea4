"""`toughen push`: uploads a run to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toughen import runs
from toughen.cli.export import TENSORS_TAKE, about
from toughen.cli.shared import PROGRAM, Help, own_model
from toughen.config.parsing import Parser, tidy
from toughen.config.settings import find_own_classes
from toughen.data.hub import unreachable
from toughen.models.normalize import parts_of
from toughen.report.card import card, public_name
from toughen.report.read import RESULT
from toughen.runs.directory import ELSEWHERE
from toughen.runs.files import read_fields, write_json, write_text
from toughen.runs.repository import WEIGHTS, check_branch, check_name, reason
from toughen.runs.single_file import with_statistics, write_single
from toughen.utils import units

HELP = Help(
    usage=f"{PROGRAM} push RUN USER/NAME [--yes] [settings]",
    about="Upload a run to the Hugging Face hub: weights, card, evaluation; without --yes, only show what.",
    examples=(
        f"{PROGRAM} push runs/mine me/robust-net",
        f"{PROGRAM} push runs/mine me/robust-net --revision second",
        f"{PROGRAM} push runs/mine me/robust-net --private --yes",
    ),
    shown={"Run": "run model", "Repository": "name revision private yes"},
)


def run(arguments: Sequence[str]) -> int:
    find_own_classes(arguments)
    given = push_parser().read(tidy(arguments))
    name, run_folder = check_name(given.name), Path(given.run)
    if given.revision is not None:
        check_branch(given.revision)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(run_folder, folder, name, given.model)
        if not given.yes:
            tell(folder, name, given.revision)
            return 0
        upload(folder, name, given.revision, given.private)
    print(f"uploaded to {name}; load it with: toughen.load({f'hf://{name}'!r})")
    return 0


def prepare(run_folder: Path, folder: Path, name: str, own: str | None) -> None:
    """Write the files of the repository, without paths of this machine, and without what a URL of data keeps secret."""
    record = runs.read_record(run_folder)
    model = runs.load(run_folder, own_model(str(run_folder), own))
    record = public_record(record)
    write_single(folder / WEIGHTS, record, model, {**about(record), "input": TENSORS_TAKE})
    write_text(folder / "README.md", card(run_folder, name))
    if record.model["name"].startswith("timm:"):
        write_json(folder / "config.json", timm_config(with_statistics(record, parts_of(model)[0])))
    if result := read_fields(run_folder / RESULT):
        data = str(result.get("data", ""))
        shown = public_name(data, from_hub=record.from_hub and data == record.data)
        write_json(folder / RESULT, {**result, "data": shown, "model": name})


def public_record(record: runs.Record) -> runs.Record:
    """The record without this machine's paths: of the data, and of where timm found a net's first weights."""
    net = record.model
    if net["name"].startswith("timm:"):  # a net of one's own gets its settings as they are
        settings = {key: value for key, value in net["settings"].items() if key not in ELSEWHERE}
        net = {**net, "settings": settings}
    return replace(record, data=public_name(record.data, from_hub=record.from_hub), model=net)


def timm_config(record: runs.Record) -> dict[str, Any]:
    """The config.json from which timm creates the net of a repository."""
    architecture = record.model["name"].removeprefix("timm:")
    channels, rows, columns = record.shape
    mean, std = record.model["mean"] or [0.0] * channels, record.model["std"] or [1.0] * channels
    classes = len(record.classes)
    return {
        "architecture": architecture.partition(".")[0],
        "num_classes": classes,
        "model_args": {"in_chans": channels, **record.model["settings"]},
        "label_names": record.classes,
        "pretrained_cfg": {
            "num_classes": classes, "input_size": [channels, rows, columns], "fixed_input_size": False,
            "mean": mean, "std": std, "crop_pct": 1.0,
        },
    }  # fmt: skip


def tell(folder: Path, name: str, revision: str | None) -> None:
    """Print what would be uploaded."""
    print(f"dry run: these files would be uploaded to {name}{f' ({revision})' if revision else ''}")
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:20s} {units.format_size(path.stat().st_size)}")
    for line in (folder / "README.md").read_text(encoding="utf-8").splitlines():
        print(f"  | {line}" if line else "  |")
    print("Nothing was uploaded: add --yes to upload it.")


class Public(ValueError):
    """A repository that was to be private is public."""


def upload(folder: Path, name: str, revision: str | None, private: bool) -> None:
    """Create the repository if it does not exist, and upload all files in one commit.

    An evaluation that is there already is of other weights: it is replaced, or removed where the run has none.

    Raises:
        ValueError: the user is not logged in, the hub cannot be reached, it refuses the upload, or the repository is
            public and was to be private.
    """
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise ValueError(
            "you are not logged in to the hub: run `hf auth login`, or set HF_TOKEN to a token with write access"
        )
    if trouble := unreachable(meanwhile=None):
        raise ValueError(f"the hub cannot be reached ({trouble}): nothing was uploaded, try again later")
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        if private and not hub.model_info(name).private:
            raise Public(f"{name} is public already, and nothing was uploaded: choose another name, or drop --private")
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        message = f"{name.rpartition('/')[2]}, trained by toughen"
        hub.upload_folder(
            repo_id=name, folder_path=folder, revision=revision, commit_message=message, delete_patterns=RESULT
        )
    except Public:
        raise
    except Exception as error:  # the client also raises the errors of its HTTP library
        status = getattr(getattr(error, "response", None), "status_code", None)  # of the hub's answer, if it gave one
        if status is None or status >= 500:
            raise ValueError(f"the upload to {name} failed ({reason(error)}): try the same command again") from None
        raise ValueError(
            f"the hub refused {name} ({reason(error)}): check the name, and that your token has write access to it"
        ) from None


def push_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} push", about=HELP)
    parser.add_argument("run", type=str, metavar="RUN", help="a run directory")
    parser.add_argument("name", type=str, metavar="USER/NAME", help="user/name of the repository")
    parser.add_argument("--yes", action="store_true", help="upload; without it nothing is uploaded")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", type=str | None, help="a branch to upload to (default: main)")
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    return parser

"""What a new user does wrong, and what a command says of it: one message, status 2, nothing lost."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import digits, files, refused, small, toughen
from PIL import Image

from toughen import runs
from toughen.engine.batch_size import block_size

FOLDERS = [  # folders that hold an image each, files, and what the message must say; DIR is the set's folder
    ("training/a training/b test/a test/b", "", "no train split: rename DIR/training to DIR/train"),
    ("Train/a Train/b Val/a Val/b", "", "no train split: rename DIR/Train to DIR/train"),
    ("train/a train/b dev/a dev/b", "", "DIR/dev has folders of the same classes as", "rename it to DIR/test"),
    ("photos/train/a photos/train/b", "", "DIR has its images in a subfolder: give DIR/photos instead"),
    ("train/a/2021 train/b", "", "DIR/train/a/2021 has images in a subfolder of a class", "move them into DIR/train/a"),
    ("a/2021 b", "", "DIR/a/2021 has images in a subfolder of a class", "move them into DIR/a"),
    (".", "", "DIR has 1 image and no class folders", "make a folder for each class"),
    ("train/a", "", "1 class, a: a classifier needs two or more"),
    ("", "notes.txt", "DIR has no class folders: expected ROOT/train/CLASS"),
    ("", "", "DIR is an empty folder: expected ROOT/train/CLASS"),
    ("train/a train/b", "examples.parquet", "DIR/examples.parquet is next to folders of images", "move it away"),
    ("", "config.yaml provenance.json examples.parquet", "DIR is a run directory, not a data set"),
]


@pytest.mark.parametrize(("folders", "names", "said"), [(folders, names, said) for folders, names, *said in FOLDERS])
def test_folders_that_lie_otherwise(folders: str, names: str, said: list[str], tmp_path: Path) -> None:
    data = tmp_path / "set"
    data.mkdir()
    for folder in folders.split():
        (data / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(data / folder / "0.png")
    for name in names.split():
        (data / name).write_text("text")
    for command in ("train", "plan"):
        ended = toughen(command, "--data", data, "--eps", "8/255", "--out", tmp_path / "run")
        refused(ended, *(text.replace("DIR", str(data)) for text in said))
    assert not (tmp_path / "run").exists()


TRAIN = [  # words of a command line, and what the message must say
    ("train FOLDER --eps 0.1", "FOLDER is a folder, not a recipe", "--data FOLDER", "--init"),
    ("plan FOLDER --eps 0.1", "FOLDER is a folder, not a recipe", "--data FOLDER"),
    (
        "train demo --epochs 3 --time-budget 1m",
        "--epochs 3 and the time budget of 1m both set the length",
        "--time-budget null",
    ),
    ("plan demo --json", "`toughen plan` prints no JSON: leave --json out"),
    ("plan demo --quiet", "`toughen plan` does nothing but print: leave --quiet out"),
    ("plan demo --time_budget=1m --epochs=3", "--epochs 3 and the time budget of 1m both set the length"),
    ("train timed.yaml --epochs 3", "--epochs 3 and the time budget of 90s both set the length"),
    ("train --data FOLDER --eps 0.1 --method.bta 2", "NuAT has no setting --method.bta: it takes eps, norm, lam"),
    ("train --method.help", "--method.help needs a name: AWP, "),
    ("train --method AWP --method.inner.help", "--method.inner.help needs a name: AWP, "),
    ("train --method.help Awp", "--method.help Awp is unknown: did you mean AWP?"),
    ("train --method AWP --method.inner.help TRADE", "--method.inner.help TRADE is unknown: did you mean TRADES?"),
    (
        "train --method TRADES --method.crafter EFGSMM --eps 0.1",
        "--method.crafter EFGSMM is unknown: did you mean EFGSM?",
    ),
    (
        "train --method Delayed --method.after FBF --method.before TRADES --method.before.bta 1 --eps 0.1",
        "TRADES has no setting --method.before.bta: did you mean beta?",
    ),
    (
        "train --method Delayed --method.after FBF --method.before TRADES --method.before.steps x --eps 0.1",
        "--method.before.steps must be a whole number, not x",
    ),
    ("train --optimizer.help sgdd", "--optimizer.help sgdd is unknown: did you mean SGD?"),
    ("train --method.help json.JSONDecoder", "--method.help json.JSONDecoder is unknown: use AWP, "),
    ("train timed.yaml --config timed.yaml", "a second recipe is given with --config beside timed.yaml: give one"),
    ("train --config timed.yaml --config timed.yaml", "a second recipe is given with --config"),
    ("train quiet.yaml", "recipe quiet.yaml: quiet is not a setting of a run: give --quiet to the command"),
    ("train json.yaml", "recipe json.yaml: json is not a setting of a run: give --json to the command"),
    ("train demo --optimizer.lr -1", "optimizer.lr is -1", "not below 0"),
    ("train demo --optimizer.weight_decay -1", "optimizer.weight_decay is -1", "not below 0"),
    ("train demo --optimizer Adam --optimizer.beta2 1.5", "optimizer.beta2 is 1.5", "below 1"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in TRAIN], ids=[each[0] for each in TRAIN])
def test_training(words: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("timed.yaml").write_text("method: FBF\neps: 0.1\nepochs: 5\ntime_budget: 90s\n")
    Path("quiet.yaml").write_text("method: FBF\neps: 0.1\nquiet: true\n")
    Path("json.yaml").write_text("method: FBF\neps: 0.1\njson: true\n")
    folder = str(digits())
    ended = toughen(*words.replace("FOLDER", folder).split(), "--out", tmp_path / "run")
    refused(ended, *(text.replace("FOLDER", folder) for text in said))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "--out is empty: name a folder, or leave it out"),
        ("flat/runs/mine", "flat/runs/mine lies in the data set flat, where runs would be taken for a class"),
        ("flat/notes.txt/run", "notes.txt is a file: choose another --out"),
    ],
)
def test_folders_for_a_run_that_are_refused(
    out: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits() / "train", "flat")
    Path("flat", "notes.txt").write_text("text")
    before = files(Path("flat"))
    words = [word if str(word) != str(digits()) else "flat" for word in small()]
    refused(toughen(*words, "--out", out), said)
    assert files(Path("flat")) == before and sorted(map(str, tmp_path.iterdir())) == [str(tmp_path / "flat")]


def test_folders_for_a_run_that_are_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hidden folder of a data set is no class; and ~ in --out is the home folder, as in --data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(digits() / "train", "flat")
    words = [word if str(word) != str(digits()) else "flat" for word in small("--epochs", 1)]
    assert toughen(*words, "--out", "flat/.runs/mine").status == 0
    assert toughen(*words, "--out", "~/mine").status == 0
    evaluate = ("evaluate", "flat/.runs/mine", "--eps", 0.2, "--limit", 5, "--attacks", "fgsm", "--out")
    evaluated = toughen(*evaluate, "~/evaluated")
    assert evaluated.status == 0, evaluated
    refused(toughen(*evaluate, "flat/figures"), "flat/figures lies in the data set flat")
    assert not Path("flat", "figures").exists()
    assert not Path("~").exists() and Path("home", "mine", "model.safetensors").is_file()
    assert Path("home", "evaluated", "evaluation.json").is_file()


def test_what_a_run_says_of_its_beginning(tmp_path: Path) -> None:
    words = [*small("--batch-size", 5000, "--epochs", 1), "--out", tmp_path / "run"]
    begun = toughen(*words, "--resume")
    said = " ".join(begun.err.split())
    assert begun.status == 0 and f"{tmp_path}/run has no checkpoint to resume from: a new run starts" in said
    assert "batch_size 5,000 exceeds the number of images: each step uses all 70" in said
    again = toughen(*words, "--resume")
    assert again.status == 0 and "has no checkpoint" not in again.err
    slash = toughen(*words, "--resume", "--data", f"{digits()}/")  # as a shell completes it
    assert slash.status == 0 and "is finished already" in slash.err
    refused(toughen(*words, "--epochs", 3, "--resume"), "started with other settings (epochs: 1, now 3)")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run, one that ended in its first epoch, and what is no run."""
    folder = tmp_path_factory.mktemp("place")
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", folder / "run")).status == 0
    (folder / "begun").mkdir()
    shutil.copy(folder / "run" / "config.yaml", folder / "begun")
    torch.save({"weights": torch.zeros(3)}, folder / "w.pth")
    (folder / "notes.txt").write_text("text")
    (folder / "photo.jpg").write_text("text")
    (folder / "empty").mkdir()
    shutil.copytree(next((digits() / "test").iterdir()), folder / "digits")
    shutil.copytree(folder / "run", folder / "moved")
    record = replace(runs.read_record(folder / "run"), data="../gone")
    runs.write_model(folder / "moved", record, runs.load(folder / "run"))
    for name in ("cifar10", "mnist"):
        (folder / "sets" / name).mkdir(parents=True)
        (folder / "sets" / name / "train-0.parquet").write_bytes(b"")
    return folder


COMMANDS = [  # words of a command line, and what the message must say
    ("trian run", "command 'trian' is unknown: did you mean train?"),
    ("frobnicate", "command 'frobnicate' is unknown: `toughen --help` lists all"),
    ("evaluate notes.txt", "notes.txt is a file, not a run directory: name the folder that `toughen train` wrote"),
    ("evaluate notes.txt --out there", "notes.txt is a file, not a run directory"),
    ("evaluate w.pth", "w.pth is a file, not a run directory", "package.module:function --weights w.pth"),
    ("evaluate run/model.safetensors", "run/model.safetensors is a file of a run: name its folder, run"),
    ("diagnose run/model.safetensors", "name its folder, run"),
    ("predict w.pth photo.jpg", "w.pth is a file, not a run directory", "--weights w.pth"),
    ("evaluate begun", "begun has no model.json: its first epoch has not ended", "--resume"),
    ("evaluate --attacks fgsm run", "RUN is missing: give it before all options"),  # run is taken for an attack
    ("evaluate empty", "empty has no model.json: it is not a run directory", "toughen train"),
    ("evaluate DATA", "DATA holds a data set, images in class folders, and no run: name a run directory"),
    ("evaluate run --data DATA --attacks fgsm --out DATA", "DATA holds a data set", "choose another out"),
    ("predict run empty", "empty is a folder: name the image files in it, such as empty/*.jpg"),
    ("predict run digits", "digits is a folder: name the image files in it, such as digits/*.png"),
    ("evaluate my.net --eps 0.1", "there is no run directory my.net: did you mean the function my:net?"),
    ("evaluate my.net --weights w.pth", "did you mean the function my:net?"),
    ("evaluate moved --attacks fgsm", "moved was trained on ../gone, which is not found from", "give --data"),
    ("train --data . --dry-run", "there is no option --dry-run: `toughen train --help all` lists all"),
    ("plan --data sets --eps 0.1", "sets/cifar10 holds parquet files and no images: did you mean --data sets/cifar10?"),
    ("predict run photo.jpg", "photo.jpg cannot be decoded (unknown image format)"),
    ("report empty", "empty is not a run directory"),
    ("report notes.txt", "there is no run directory notes.txt", "but a file: name the folder that `toughen train`"),
    ("card run/config.yaml", "run/config.yaml is a file of a run: name its folder, run"),
    ("compare run/model.json", "run/model.json is a file of a run: name its folder, run"),
    ("compare", "RUN is missing"),
    ("predict run photo.jpg --attack none --eps 8", "--attack none has no threat: leave --eps and --norm out"),
    ("card run --out=", "--out is empty: name a file"),
    ("compare run", "run has not been evaluated: run `toughen evaluate run` first"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_what_is_no_run(words: str, said: list[str], trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    data = str(digits())
    before = files(trained), files(digits())
    refused(toughen(*words.replace("DATA", data).split()), *(text.replace("DATA", data) for text in said))
    assert (files(trained), files(digits())) == before


def test_more_images_per_pass_than_there_are() -> None:
    """A block is filled up to its size, so that a huge one would take memory for images that nobody has."""
    assert [block_size(torch.device("cpu"), 50, given) for given in (1, 50, 10**9)] == [1, 50, 50]
    assert block_size(torch.device("cpu"), 50) == 8


def test_figures_say_of_how_many_images_they_are(trained: Path, tmp_path: Path) -> None:
    for name, more in (("run", ()), ("few", ("--limit", 20))):
        shutil.copytree(trained / "run", tmp_path / name)
        words = ("evaluate", tmp_path / name, "--attacks", "fgsm", "--verdict", "false", "--details", "false", *more)
        assert toughen(*words).status == 0
    assert "accuracies on 40 test images\n" in toughen("compare", tmp_path / "run").out
    both = toughen("compare", tmp_path / "run", tmp_path / "few").out
    assert "accuracies on different numbers of test images: 40 of run, 20 of few" in both


def test_the_next_commands_of_a_plan_and_of_a_diagnosis(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    words = [str(word) for word in small("--method", "FBF", "--eps", 0.2, "--epochs", 1, "--out", out)]
    for folder in (out, tmp_path / "my run-2"):
        planned = toughen("plan", *words[1:])
        said = re.fullmatch(r"train it: toughen (.+)", planned.out.splitlines()[-1])
        assert said, planned
        assert toughen(*shlex.split(said[1])).status == 0
        assert (folder / "model.safetensors").is_file()
    planned = toughen("plan", *words[1:], "--resume")  # which goes on where it has ended, in the same folder
    assert planned.out.splitlines()[-1] == f"train it: {shlex.join(['toughen', *words, '--resume'])}"
    assert "this is the whole run's" in " ".join(planned.out.split())  # as some of it is trained already
    ended = toughen("diagnose", out, "--which", "eps", "--limit", 10)
    said = re.fullmatch(r"view it: toughen (.+)", ended.out.splitlines()[-1])
    assert said and toughen(*shlex.split(said[1])).status == 0 and (out / "report.html").is_file()


def test_what_is_said_before_the_figures_of_a_run_that_has_not_ended(trained: Path, tmp_path: Path) -> None:
    for name, epochs in (("whole", 2), ("stopped", 5)):
        run = shutil.copytree(trained / "run", tmp_path / name)
        config = (run / "config.yaml").read_text()
        assert "\nepochs: 2\n" in config
        (run / "config.yaml").write_text(config.replace("\nepochs: 2\n", f"\nepochs: {epochs}\n"))
        ended = toughen("evaluate", run, "--attacks", "fgsm", "--verdict", "false", "--limit", 20)
        said = " ".join(ended.err.split())
        assert ended.status == 0 and ("2 of 5 epochs are done: training is still" in said) is (name == "stopped")
        diagnosed = toughen("diagnose", run, "--which", "logit-distance", "--limit", 10)
        told = "2 of 5 epochs are done: training is still" in " ".join(diagnosed.err.split())
        assert diagnosed.status == 0 and told is (name == "stopped"), diagnosed
        assert re.search(r"some diagnostics on a few images, for the report; at most about (\d+[hms])+\b", said)

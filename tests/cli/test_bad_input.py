"""Bad input ends with one short message that says what is wrong and what to do, status 2, and nothing overwritten."""

from __future__ import annotations

import errno
import html
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import Ended, digits, files, refused, small, state_of, toughen
from datasets import ClassLabel, Dataset, Features
from datasets import Image as Picture
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn

from toughen import evaluate, runs
from toughen.data import load
from toughen.methods.fast import FBF
from toughen.runs.files import read_tensors, write_tensors
from toughen.training import checkpoint
from toughen.training.divergence import Diverged
from toughen.training.training_state import TrainingState

OWN = '''
from torch import nn
from toughen.methods.base import Method
from toughen.methods.fast import FBF
from toughen.methods.standard import Standard
from toughen.core.types import Eps, Norm


def net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))


def seven(num_classes):
    return net(7)


def broken(num_classes):
    made = net(num_classes)
    nn.init.constant_(made[1].bias, float("nan"))
    return made


def infinite(num_classes):
    made = net(num_classes)
    made.append(Scaled(float("inf")))
    return made


def dark(num_classes):
    return nn.Sequential(Dark(), net(num_classes))


def single(num_classes):
    return net(1)


def untrainable(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d((1, num_classes)), nn.Flatten())


class Faulty(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(784, num_classes)

    def forward(self, x):
        return {}["missing"]


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Dark(nn.Module):
    """Undefined for dark images, which random ones are not."""

    def forward(self, x):
        return x / (x.mean((1, 2, 3), keepdim=True) > 0.1)


def probabilities(num_classes):
    return nn.Sequential(net(num_classes), nn.Softmax(1))


class Mine(Standard):
    """Cross-entropy, taken a number of times.

    Args:
        strength: how often.
    """

    def __init__(self, *, strength: float | int = 1.0) -> None:
        super().__init__()
        self.strength = strength


class Unlike(FBF):
    """FBF, and what no attack takes."""

    adaptive = {"nope": 3}


class Late(FBF):
    """FBF that makes its memory on first use."""

    def craft(self, model, x, y, batch=None):
        if not hasattr(self, "kept"):
            self.register_buffer("kept", x.new_zeros(3))
        return super().craft(model, x, y, batch)


class Numbered(FBF):
    """FBF whose state JSON would change."""

    def get_extra_state(self):
        return {1: 2}

    def set_extra_state(self, state):
        assert state == {1: 2}


class Failing(FBF):
    """FBF that cannot be told what it is asked for until it trains."""

    def craft(self, model, x, y, batch=None):
        raise ValueError("this needs other settings")


class Uneven(FBF):
    """FBF that adds images of two sizes."""

    def craft(self, model, x, y, batch=None):
        return x + x[..., 1:]


class Odd(FBF):
    """FBF with a slip."""

    def craft(self, model, x, y, batch=None):
        return [][len(x)]


class Detached(FBF):
    """FBF whose loss has no gradient."""

    def loss(self, model, x, y, crafted):
        return super().loss(model.requires_grad_(False), x, y, crafted)


class Wrapper(Method):
    """Another method.

    Args:
        inside: that method.
    """

    def __init__(self, *, inside: Method) -> None:
        super().__init__()
        self.inside = inside
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module `own_parts`, on the path."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "own_parts.py").write_text(OWN)
    (folder / "own_torn.py").write_text("def net(:\n")
    (folder / "own_failing.py").write_text("import json\n1 / 0\n")
    (folder / "own_leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run; tests change copies of it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", folder)).status == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


SETTINGS = [  # words of a command line, and what the message must say
    ("--method FBF --eps 8", "did you mean 8/255?"),
    ("--method NuAT --method.start_size 0.3 --eps 8", "did you mean 8/255?"),
    ("--method FBF --eps 0", "eps is 0", "above 0"),
    ("--method FBF --eps -0.1", "not below 0"),
    ("--method FBF --eps -8/255", "eps -8/255 must be a finite number, not below 0: give a radius such as 8/255"),
    ("--method FBF --eps nan", "finite"),
    ("--method FBF --eps eight", "--eps", "'eight' is not a number", "8/255"),
    ("--method FBF --eps 8/0", "--eps", "8/255"),
    ("--method FBF --eps 100 --norm l2", "eps 100 exceeds 28"),
    ("--method FBF --eps 0.3 --norm l3", "--norm must be linf or l2, not l3"),
    ("--method FBF", "FBF needs a radius", "--eps 8/255"),
    ("--method FBF --method.eps 0.1 --eps 0.2", "--method.eps 0.1 contradicts --eps 0.2", "one of them"),
    ("--method FBF --eps 0.2 --eps-factor 0", "eps_factor is 0", "above 0"),
    ("--method FBF --eps 0.2 --eps-factor -1.1", "eps_factor is -1.1", "above 0"),
    ("--method FBF --eps 0.2 --eps-factor nan", "--eps-factor is nan", "give a finite number"),
    ("--method Standard --eps-factor 1.1", "eps_factor is 1.1", "no eps", "give eps, too"),
    ("--method FBF --method.eps 0.1 --eps-factor 1.1", "eps_factor is 1.1", "no eps", "give eps, too"),
    ("--method FBF --method.eps 0.2 --eps 0.2 --eps-factor 1.1", "0.2 contradicts --eps 0.2 times --eps-factor 1.1"),
    ("--method FBF --eps 0.95 --eps-factor 1.1", "eps 1.045 is above 1"),
    ("--method FBF --method.norm l2 --eps 0.2 --norm linf", "--method.norm l2 contradicts --norm linf"),
    ("--method Standard --eps 0.3", "Standard takes no eps", "--method"),
    ("--eps 0.3", "Standard takes no eps", "--method"),
    ("--method NuAT --eps 0.3 --method.lamm 4", "NuAT has no setting --method.lamm", "did you mean lam?"),
    ("--method.lam 4", "Standard has no setting --method.lam"),
    ("--method NuAT --eps 0.3 --method.lam much", "--method.lam must be a number", "much"),
    ("--epoch 3", "no option --epoch", "did you mean --epochs?"),
    ("--epochs three", "--epochs must be a whole number, not three"),
    ("--epochs 1.5", "--epochs must be a whole number"),
    ("--epochs 0", "epochs is 0", "at least 1"),
    ("--epochs", "--epochs needs a value"),
    ("--batch_size -1", "batch_size is -1", "at least 1"),
    ("--crop None", "--crop must be resized or a whole number or null, not None"),
    ("--padding mirror", "--padding must be zero or reflect, not mirror"),
    ("--padding reflect --crop 28", "below the image's 28 pixels", "padding zero"),
    ("--crop 29", "crop 29 exceeds the image's 28 pixels", "lower --crop"),
    ("--optimizer.lr null", "--optimizer.lr may not be null"),
    ("--optimizer.momentum ~", "--optimizer.momentum may not be null"),
    ("--schedule Cyclic --schedule.peak null", "--schedule.peak may not be null"),
    ("--normalize maybe", "--normalize must be true or false, not maybe"),
    ("--averaging 1.5", "averaging is 1.5", "below 1"),
    ("--validation 80", "below the 80 training images"),
    ("--resume=3", "--resume takes no value"),
    ("surplus", "'surplus' is not expected here", "--help"),
    ("--method NuATT --eps 0.1", "--method NuATT is unknown", "did you mean NuAT?"),
    ("--method nuat --eps 0.1", "did you mean NuAT?"),
    ("--method R-MGM --eps 0.1", "did you mean RMGM?"),
    ("--method EAT --eps 0.1", "did you mean Ensemble?"),  # as its paper calls it
    ("--method FGSM-RS --eps 0.1", "did you mean FBF?"),
    ("--method Robust", "--method Robust is unknown", "Standard", "TRADES"),
    ("--method Method", "--method Method", "name one"),
    ("--method [1,2]", "--method must be the name of a class", "TRADES"),
    ("--method os.system", "--method os.system", "TRADES"),
    ("--method no_such.Thing", "no_such.Thing cannot be imported", "PYTHONPATH"),
    ("--model no-net", "'no-net' is unknown", "small-cnn"),
    ("--model no_such:net", "cannot be imported", "PYTHONPATH"),
    ("--model_settings.depth 3", "no setting 'depth'"),
    ("--model_settings.num_classes 12", "model_settings has num_classes", "comes from the images: leave it out"),
    ("--model_settings.name x", "model_settings has name"),
    ("--schedule Cyclik", "--schedule Cyclik is unknown", "Cyclic"),
    ("--schedule.pek 0.2", "Cyclic has no setting --schedule.pek", "did you mean peak?"),
    ("--schedule Cosine --schedule.warmup 3", "warmup", "0..1"),
    ("--optimizer Sgdd", "--optimizer Sgdd is unknown", "SGD"),
    ("--optimizer.lr fast", "--optimizer.lr must be a number", "fast"),
    ("--optimizer.momentum 5", "momentum is 5", "below 1"),
    ("--method GradAlign --method.lam 1e400 --eps 0.1", "--method.lam is inf", "finite"),
    ("--method NFGSM --method.start_size inf --eps 0.1", "start-size", "finite"),
    ("--method Free --method.step_size inf --eps 0.1", "step-size", "finite"),
    ("--device cuda:99", "'cuda:99'", "auto or cpu"),
    ("--device gpu", "'gpu'", "auto or cpu"),
    ("--data nowhere/at/all", "'nowhere/at/all'", "mnist-5k"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in SETTINGS], ids=[s[0] for s in SETTINGS])
def test_settings(words: str, said: list[str], tmp_path: Path) -> None:
    refused(toughen(*small(*words.split(), "--out", tmp_path / "run")), *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--eps", "!!bool x"), "--eps has a value that is not of the type"),
        (("--model_settings={a: &a [*a]}",), "--model-settings has a value within itself"),
        (("--model_settings", "{depth: 1, depth: 2}"), "--model-settings sets 'depth' twice"),
    ],
)
def test_yaml_of_the_command_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    refused(toughen(*small("--method", "FBF", *words, "--out", tmp_path / "run")), said)


@pytest.mark.parametrize("moment", ["epoch 01", "epoch \u0661", "epoch", "step 3"])
def test_moments(moment: str, tmp_path: Path) -> None:
    ended = toughen(*small("--keep_at", f"[{moment}]", "--out", tmp_path / "run"))
    refused(ended, f"keep_at holds {moment!r}", 'an epoch such as "epoch 3"')


def test_a_users_own_parts(own: None, tmp_path: Path) -> None:
    for words, *said in (
        ("--model own_parts:seven", "7 outputs", "10 classes", "num_classes=10"),
        ("--model own_parts:broken", "NaN", "load another"),
        ("--model own_parts:probabilities", "probabilities", "softmax"),
        ("--model own_parts:nothing", "has no 'nothing'"),
        ("--model own_parts:untrainable", "model own_parts:untrainable has no parameters", "train another net"),
        (
            "--model own_parts:Faulty",
            "cannot take images of shape [1, 28, 28]: KeyError: 'missing' (",
            "own_parts.py, line",
        ),
        ("--model own_parts:net --model_settings.depth 3", "depth"),
        ("--method own_parts.Mine --method.strenght 2", "Mine has no setting --method.strenght", "strength?"),
        ("--method own_parts.Minee", "own_parts.Minee cannot be found: own_parts has no Minee: did you mean Mine?"),
        ("--method own_parts.py", "--method own_parts.py names a file: write own_parts.CLASS"),
        ("--method own_parts:Mine", "--method own_parts:Mine is not a class", "own_parts.Mine"),
        ("--method own_torn.Mine", "cannot be imported", "own_torn.py, line 1: SyntaxError"),
        ("--method own_failing.Mine", "cannot be imported", "own_failing.py, line 2: ZeroDivisionError"),
        ("--method own_leaving.Mine", "cannot be imported", "own_leaving.py, line 1: SystemExit: 3"),
        ("--model own_torn:net", "cannot be imported", "own_torn.py, line 1: SyntaxError"),
        ("--model own_failing:net", "cannot be imported", "own_failing.py, line 2: ZeroDivisionError"),
        ("--method own_parts.Unlike --eps 0.1", "Unlike.adaptive", "toughen.attacks.Adaptive", "'nope'"),
        ("--method own_parts.Wrapper", "Wrapper needs --method.inside"),
        ("--method own_parts.Wrapper --method.inside TRADE --eps 0.1", "--method.inside TRADE is unknown", "TRADES?"),
        ("--method own_parts.Wrapper --method.inside TRADES --method.inside.bta 1 --eps 0.1", "inside.bta", "beta?"),
        ("--method own_parts.Wrapper --method.inside FBF --method.inside.eps 0.1 --eps 0.2", "--method.inside.eps 0.1"),
        ("--method own_parts.Wrapper --method.inside FBF", "FBF needs a radius"),
        ("--method own_parts.Wrapper --method.inside Standard --eps 0.1", "takes no eps"),
    ):
        refused(toughen(*small(*words.split(), "--out", tmp_path / "run")), *said)
    assert not (tmp_path / "run").exists()


def test_what_a_method_keeps_must_come_back(own: None, tmp_path: Path) -> None:
    for words, *said in (
        ("--method own_parts.Late", "method.kept was created during training", "`prepare`"),
        ("--method own_parts.Numbered", "method's extra state cannot be kept", "texts as keys"),
    ):
        ended = toughen(*small(*words.split(), "--eps", 0.1, "--watch", "off", "--out", tmp_path / "run"))
        last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
        refused(last, *said)
        shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize("watch", ["rescue", "off"])
def test_a_run_that_is_refused_in_its_first_step_leaves_nothing(watch: str, own: None, tmp_path: Path) -> None:
    words = ["--eps", 0.1, "--watch", watch, "--out", tmp_path / "run"]
    ended = toughen(*small("--method", "own_parts.Failing", *words))
    refused(Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :]), "needs other settings")
    assert not list((tmp_path / "run").iterdir())
    assert toughen(*small("--method", "FBF", *words)).status == 0  # the corrected command


@pytest.mark.parametrize(
    ("name", "line", "said", "status"),
    [
        ("Uneven", "return x + x[..., 1:]", "must match the size of tensor b", 1),  # torch's own words
        ("Failing", 'raise ValueError("this needs other settings")', "this needs other settings", 2),
        ("Odd", "return [][len(x)]", "IndexError: list index out of range", 1),
    ],
)
def test_an_error_in_a_users_own_method_names_its_place(
    name: str, line: str, said: str, status: int, own: None, tmp_path: Path
) -> None:
    ended = toughen(*small("--method", f"own_parts.{name}", "--eps", 0.1, "--out", tmp_path / "run"))
    number = next(n for n, text in enumerate(OWN.splitlines(), 1) if text.strip() == line)
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, said, f"own_parts.py, line {number})", status=status)


def test_a_method_whose_loss_has_no_gradient_is_named(own: None, tmp_path: Path) -> None:
    ended = toughen(*small("--method", "own_parts.Detached", "--eps", 0.1, "--out", tmp_path / "run"))
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, "Detached.loss must return a toughen.core.types.Step whose loss is a scalar with a gradient")


def test_a_step_that_memory_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starving(*arguments: object) -> None:
        torch.empty(2**50)

    with monkeypatch.context() as patched:
        patched.setattr(FBF, "craft", starving)
        ended = toughen(*small("--method", "FBF", "--eps", 0.1, "--out", tmp_path / "run"))
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, "out of memory in a step on 16 images", "use a smaller --batch-size", status=1)
    assert not list((tmp_path / "run").iterdir())


RECIPES = [  # what a file holds, and what the message must say
    (b"method: [NuAT\n", "not valid YAML", "line"),
    (b"- method: NuAT\n- eps: 0.1\n", "holds no settings", "method: NuAT"),
    (b"NuAT\n", "holds no settings"),
    (b"", "holds no settings"),
    (b"\x89PNG\xff", "not text"),
    (b"epocs: 3\n", "there is no setting 'epocs'", "did you mean epochs?"),
    (b"help: true\n", "help is not a setting of a run: give --help to the command"),
    (b"helpp: true\n", "there is no setting 'helpp': `toughen train --help all` lists all"),
    (b"epochs: many\n", "epochs must be a whole number, not many"),
    (b"method: NuATT\n", "NuATT is unknown", "did you mean NuAT?"),
    (b"method:\n  class_path: NuAT\n  init_args:\n    lamm: 4\n", "NuAT has no setting method.lamm", "lam?"),
    (b"method:\n  class_path: NuAT\n  lam: 4\n", "init_args"),
    (b"method: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    (b"method: FBF\neps: 0.1\nmethod: NuAT\n", "sets 'method' twice (line 3)", "keep one"),
    (b"method: FBF\neps: !!bool x\n", "not of the type its tag (!!) says"),
    (b'method: FBF\neps: !!int ""\n', "not of the type its tag (!!) says"),
    (b"method: FBF\neps: !!float x\n", "not of the type its tag (!!) says"),
    (b"method: FBF\neps: !!timestamp x\n", "not of the type its tag (!!) says"),
    (b"method:\n  class_path: NuAT\n  init_args:\n    lam: 1\n    lam: 2\n", "sets 'lam' twice (line 5)"),
    (b"method: &a [*a]\n", "a value within itself (line 1)"),
    (
        b"a: &a [x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 9)) for n in range(6)),
        "more than 10000 values",
    ),
    (b"a: " + b"[" * 5000, "nested too deeply"),
]


@pytest.mark.parametrize(("content", "said"), [(content, said) for content, *said in RECIPES])
def test_recipes(content: bytes, said: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    ended = toughen("train", tmp_path / "mine.yaml", "--out", tmp_path / "run")
    ended = Ended(ended.status, ended.out, ended.err.replace("beside class_path", ""))
    refused(ended, "mine.yaml", *said)
    assert not (tmp_path / "run").exists()


def test_missing_recipes(tmp_path: Path) -> None:
    refused(toughen("train", "nuat-mnst"), "'nuat-mnst' is unknown", "nuat-mnist", "YAML file")
    refused(toughen("train", tmp_path / "mine.yaml"), "no recipe file", "mine.yaml", "toughen list recipes")
    refused(toughen("train"), "name a recipe", "nuat-mnist")


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits(), tmp_path / "data"))


def test_broken_data(tmp_path: Path) -> None:
    def attempt(*more: object) -> Ended:
        return toughen(*small("--data", tmp_path / "data", "--out", tmp_path / "run", *more))

    data = copied(tmp_path)
    image = next((data / "train/3").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    refused(attempt(), str(image.relative_to(tmp_path)))
    shutil.rmtree(data)
    (copied(tmp_path) / "train" / "nothing").mkdir()
    refused(attempt(), "nothing")
    shutil.rmtree(data)
    Image.new("L", (9, 9)).save(next((copied(tmp_path) / "train/3").iterdir()))
    refused(attempt("--image_size", "keep"), "image-size")
    shutil.rmtree(data)
    data.mkdir()
    refused(attempt(), str(data))
    assert not (tmp_path / "run").exists()


def test_a_label_outside_the_range(tmp_path: Path) -> None:
    picture = {"bytes": next((digits() / "train/3").iterdir()).read_bytes(), "path": None}
    features = Features({"image": Picture(), "label": ClassLabel(names=["no", "yes"])})
    made = Dataset.from_dict({"image": [picture] * 4, "label": [0, 1, 0, 1]}, features=features)
    table = made.data.table
    table = table.set_column(1, "label", pa.array([0, 1, 0, 2]))
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data/train-0.parquet")
    refused(toughen(*small("--data", tmp_path / "data", "--out", tmp_path / "run")), "label 2", "train-0.parquet")


def test_existing_directories(run: Path, tmp_path: Path) -> None:
    words = small("--method", "FBF", "--eps", 0.2)
    before = files(run)
    refused(toughen(*words, "--out", run), "holds a run already", "--resume", "another --out")
    assert files(run) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    for resume in ([], ["--resume"]):
        refused(toughen(*words, "--out", tmp_path / "mine", *resume), "not a run's", "another --out")
        refused(toughen(*words, "--out", tmp_path / "mine/thesis.txt", *resume), "is a file", "another --out")
        refused(toughen(*words, "--out", tmp_path / "mine/thesis.txt/run", *resume), "thesis.txt")
    assert files(tmp_path / "mine") == {"thesis.txt": b"mine"}


def test_an_evaluation_goes_into_no_other_run_s_folder(run: Path, tmp_path: Path) -> None:
    """There its figures would pass for that run's own."""
    other = Path(shutil.copytree(run, tmp_path / "other"))
    before = files(other)
    words = ("evaluate", run, "--attacks", "fgsm", "--verdict", "false", "--details", "false", "--out")
    refused(toughen(*words, other), "other is a run's directory", "choose another out")
    refused(toughen(*words, other / "inside"), "lies in a run's directory")
    net, data = runs.load(run), load(str(digits()))
    with pytest.raises(ValueError, match="is a run's directory"):
        evaluate(net, data, eps=0.2, attacks=["fgsm"], out=other)
    assert files(other) == before
    assert toughen(*words, run / "beside").status == 0 and (run / "beside/evaluation.json").is_file()


def test_an_attack_is_named_once(run: Path) -> None:
    for twice in (("fgsm", "FGSM"), ("pgd-3", " pgd-3x1")):
        refused(toughen("evaluate", run, "--attacks", *twice), f"attack {twice[1].strip()} is named twice")


def test_images_that_are_kept_apart_as_test_images_are_counted(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--data", digits() / "test", "--attacks", "fgsm", "--verdict", "false")
    ended = toughen(*words, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "has no test images: 4 of its images, a stratified tenth, are used instead" in " ".join(ended.err.split())


def test_a_damaged_config_is_not_overwritten(run: Path) -> None:
    for content in (b"method: [", b"- 3\n", b"text", b"method: &a [*a]\n", b"eps: !!bool x\n", b"# \xff\n"):
        (run / "config.yaml").write_bytes(content)
        before = files(run)
        refused(toughen(*small("--method", "FBF", "--eps", 0.2, "--out", run), "--resume"), "config.yaml is damaged")
        assert files(run) == before


def deny(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> None:
    """Let every write below a folder fail; tests may run as root, whom no permission stops."""
    write_bytes, write_text = Path.write_bytes, Path.write_text

    def guarded(real: Any) -> Any:
        def write(self: Path, *arguments: Any, **settings: Any) -> Any:
            if folder in self.absolute().parents or self == folder:
                raise OSError(number, os.strerror(number), str(self))
            return real(self, *arguments, **settings)

        return write

    monkeypatch.setattr(Path, "write_bytes", guarded(write_bytes))
    monkeypatch.setattr(Path, "write_text", guarded(write_text))
    monkeypatch.setattr(Path, "mkdir", guarded(Path.mkdir))


def test_a_run_directory_whose_name_is_not_utf8(tmp_path: Path) -> None:
    """It was trained to the end, and then the weights could not be written."""
    out = tmp_path / os.fsdecode(b"caf\xe9")
    refused(toughen(*small("--method", "FBF", "--eps", 0.2), "--out", out), "is not UTF-8", "choose another --out")
    assert not out.exists()


def test_a_read_only_directory(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small("--method", "FBF", "--eps", 0.2)
    with monkeypatch.context() as patched:
        deny(patched, tmp_path / "locked", errno.EACCES)
        refused(toughen(*words, "--out", tmp_path / "locked/run"), "cannot write", "Permission denied", "--out")
    with monkeypatch.context() as patched:  # what a user who is not root meets, before any work is done
        patched.setattr(os, "access", lambda *arguments: False)
        refused(toughen(*words, "--out", tmp_path / "new"), "cannot write", "--out")
        refused(toughen("evaluate", run, "--out", tmp_path / "new"), "cannot write", "--out")
    assert not (tmp_path / "new").exists() and not (tmp_path / "locked").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small("--method", "FBF", "--eps", 0.2, "--checkpoint_seconds", 0, "--out", tmp_path / "run")
    save, saved = checkpoint.save, []

    def filling(state: TrainingState, *name: str) -> None:
        if state.step == 3:
            saved.append(files(state.folder))
            with monkeypatch.context() as patched:
                deny(patched, state.folder, errno.ENOSPC)
                save(state, *name)
        save(state, *name)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", filling)
        ended = toughen(*words)
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, "No space left", "--resume", status=1)
    assert files(tmp_path / "run")[checkpoint.NAME] == saved[0][checkpoint.NAME]
    assert read_tensors(tmp_path / "run" / checkpoint.NAME)[1]["step"] == 2
    assert toughen(*words, "--resume").status == 0


def test_a_disk_that_is_full_when_tensorboard_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 4, "--out", tmp_path / "run")
    printed: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading, "excepthook", printed.append)
        patched.setattr(RecordWriter, "write", full)  # called in a thread of its own, whose traceback nobody wants
        ended = toughen(*words)
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, "cannot write to", "No space left", "--resume", status=1)
    assert printed == []
    assert toughen(*words, "--resume").status == 0


@pytest.mark.parametrize("method", ["FBF", "NuAT"])
def test_a_loss_that_turns_nan(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    words = small("--method", method, "--eps", 0.2, "--epochs", 3, "--checkpoint_seconds", 0, "--out", run)
    ended = toughen(*words, "--optimizer.lr", 1e30)
    assert not state_of(run) or all(bool(t.isfinite().all()) for t in state_of(run).values() if t.is_floating_point())
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, "training failed", "Lower --optimizer.lr", "another --out", "last healthy checkpoint", status=1)
    failed = json.loads((run / "diverged.json").read_text())
    assert f"training failed: {failed['reason']}. Lower" in " ".join(ended.err.split())
    said = toughen("report", run, "--out", tmp_path / "report.html")
    assert said.status == 0
    page = html.unescape((tmp_path / "report.html").read_text())
    assert f"Training failed after {failed['step']} steps: {failed['reason']}. The report shows" in page


def test_a_run_that_goes_on_did_not_diverge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the machine need not come again."""
    run = tmp_path / "run"
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 2, "--checkpoint_seconds", 0, "--out", run)

    def fail(state: TrainingState, loss: float | None = None) -> None:
        raise Diverged("the loss became nan")

    with monkeypatch.context() as patched:
        patched.setattr("toughen.training.callbacks.stopping.check_finite", fail)
        assert toughen(*words).status == 1
    assert (run / "diverged.json").exists()
    assert toughen(*words, "--resume").status == 0 and not (run / "diverged.json").exists()


def test_failing_before_a_checkpoint_promises_none(tmp_path: Path) -> None:
    words = small("--method", "FBF", "--eps", 0.2, "--optimizer.lr", 1e30, "--out", tmp_path / "run")
    ended = toughen(*words)
    last = Ended(ended.status, ended.out, ended.err[ended.err.index("toughen: ") :])
    refused(last, "training failed", "Lower --optimizer.lr", status=1)
    assert "healthy" not in ended.err.splitlines()[-1] and not (tmp_path / "run" / checkpoint.NAME).exists()


EVALUATE = [
    ("--limit 0", "limit is 0", "at least 1"),
    ("--limit few", "--limit must be a whole number"),
    ("--eps 8", "did you mean 8/255?"),
    ("--eps 0", "eps 0", "above 0"),
    ("--eps -0.1", "not below 0"),
    ("--eps -8/255", "eps -8/255 must be a finite number, not below 0: give a radius such as 8/255"),
    ("--eps nan", "finite"),
    ("--eps 29 --norm l2", "eps 29 exceeds 28"),
    ("--norm l2", "linf eps 0.2", "--eps"),
    ("--norm l3", "--norm must be linf or l2"),
    ("--suite fast", "--suite must be quick or standard or papers"),
    ("--precision fp8", "--precision must be auto or bf16 or fp32 or fp64"),
    ("--batch_size 0", "batch_size is 0", "at least 1"),
    ("--seed 99999999999999999999", "seed 99999999999999999999 is out of range", "64 bits"),
    ("--batch_size few", "--batch-size must be a whole number"),
    ("--processes 0", "processes is 0", "at least 1"),
    ("--verdict maybe", "--verdict must be true or false"),
    ("--surrogate nowhere", "no run directory nowhere"),
    ("--weights w.safetensors", "is a run", "--weights"),
    ("--attacks nonsense", "'nonsense' is unknown", "pgd-20"),
    ("--attacks [fgsm,pgd-20]", "write fgsm pgd-20, with spaces between"),
    ("--attacks fgsm-3", "no steps"),
    ("--attacks pgd-0", "at least 1"),
    ("--attacks pgd-10@0", "'pgd-10@0'", "a step of 0 changes nothing", "above 0"),
    ("--attacks pgd-10@2", "a step of 2 leads from black to white; did you mean 2/255?"),
    ("--attacks pgd-10@300/255", "a step of 300/255 leads from black to white; use one below 1, such as 2/255"),
    ("--attacks pgd-10@-0.1", "a step of -0.1 changes nothing"),
    ("--attack fgsm", "no option --attack", "--attacks"),
    ("--data nowhere", "'nowhere'"),
    ("--device cuda:99", "'cuda:99'"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in EVALUATE], ids=[e[0] for e in EVALUATE])
def test_evaluate(words: str, said: list[str], trained: Path, tmp_path: Path) -> None:
    refused(toughen("evaluate", trained, *words.split(), "--out", tmp_path / "out"), *said)
    assert not (tmp_path / "out").exists()


NOT_ASKED = [
    ("own_parts:seven", "7 outputs", "10 classes"),
    ("own_parts:broken", "NaN", "load another"),
    ("own_parts:infinite", "infinite"),
    ("own_parts:dark", "of 40 images are NaN or infinite", "fix the model"),
    ("own_parts:single", "1 outputs", "10 classes"),
    ("own_parts:nothing", "has no 'nothing'"),
]


def test_a_model_that_cannot_be_judged(own: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--data", digits(), "--eps", 0.1, "--attacks", "fgsm", "--verdict", "false", "--out", out)
    assert toughen("evaluate", "own_parts:net", *words).status == 0
    before = files(out)
    assert before.keys() == {"evaluation.json", "examples.parquet", "diagnostics.json", "gallery.parquet"}
    for spec, *said in NOT_ASKED:
        refused(toughen("evaluate", spec, *words), *said)
        attack = ("--data", digits(), "--eps", 0.1, "--attack", "fgsm", "--out", tmp_path / "out/adv.parquet")
        refused(toughen("attack", spec, *attack), *said)
        assert files(out) == before, spec
    assert toughen("evaluate", "own_parts:probabilities", *words).status == 0  # the verdict says what it thinks of it


def test_a_data_set_without_images(trained: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(digits() / "train", empty / "train")
    words = ("--data", empty, "--attacks", "fgsm", "--out", tmp_path / "out")
    for label in range(10):
        (empty / "test" / str(label)).mkdir(parents=True)
    refused(toughen("evaluate", trained, *words), "empty")
    assert not (tmp_path / "out").exists()


DIAGNOSE = [
    ("--which confusions", "'confusions' is unknown", "confusion"),
    ("--which transfer", "two or more"),
    ("--which confusion --limit 0", "limit is 0", "at least 1"),
    ("--which confusion --eps 0", "eps 0"),
    ("--which confusion --eps 8", "did you mean 8/255?"),
    ("--which confusion --precision fp8", "--precision must be bf16 or fp32 or fp64"),
    ("--which confusion --data nowhere", "'nowhere'"),
    ("--which confusion --batch_size 7", "no option --batch-size"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in DIAGNOSE], ids=[e[0] for e in DIAGNOSE])
def test_diagnose(words: str, said: list[str], trained: Path) -> None:
    refused(toughen("diagnose", trained, *words.split()), *said)
    assert not (trained / "diagnostics.json").exists()


def test_no_run(tmp_path: Path) -> None:
    refused(toughen("evaluate", tmp_path / "none"), "no run directory", "toughen train")
    refused(toughen("evaluate", tmp_path), "no model.json", "not a run directory")
    (tmp_path / "runs/nuat").mkdir(parents=True)
    for command in ("evaluate", "report", "compare"):
        said = f"there is no run directory {tmp_path}/runs/nut: did you mean {tmp_path}/runs/nuat?"
        refused(toughen(command, tmp_path / "runs/nut"), said)
    refused(toughen("evaluate"), "RUN is missing")
    said = f"{tmp_path} is not a run directory: name one that `toughen train` or `toughen evaluate` wrote"
    refused(toughen("compare", tmp_path), said)
    refused(toughen("compare", tmp_path / "nowhere"), "there is no run directory", "nowhere")
    refused(toughen("reproduce", "--list", "--out", tmp_path / "nowhere"), "there is no folder", "nowhere")


def test_damaged_runs(run: Path) -> None:
    record = json.loads((run / runs.RECORD).read_text())
    for content in (
        "{",
        "[]",
        "3",
        "{}",
        json.dumps({**record, "more": 1}),
        json.dumps({**record, "shape": "wide"}),
        json.dumps({**record, "classes": 10}),
        json.dumps({**record, "eps": "large"}),
        json.dumps({**record, "model": 5}),
    ):
        (run / runs.RECORD).write_text(content)
        refused(toughen("evaluate", run, "--attacks", "fgsm"), "model.json is damaged")
    (run / runs.RECORD).write_text(json.dumps(record))
    weights = (run / runs.WEIGHTS).read_bytes()
    (run / runs.WEIGHTS).write_bytes(weights[:1000])
    refused(toughen("evaluate", run, "--attacks", "fgsm"), "model.safetensors is damaged")
    (run / runs.WEIGHTS).write_bytes(weights)
    tensors, about = read_tensors(run / runs.WEIGHTS)
    write_tensors(run / runs.WEIGHTS, {**tensors, "net.0.bias": torch.full((16,), torch.nan)}, about)
    refused(toughen("evaluate", run, "--attacks", "fgsm"), "holds NaN", "net.0.bias")
    write_tensors(run / runs.WEIGHTS, {name: t for name, t in tensors.items() if name != "net.0.bias"}, about)
    refused(toughen("evaluate", run, "--attacks", "fgsm"), "does not fit the net", "net.0.bias")
    (run / runs.WEIGHTS).write_bytes(weights)
    (run / runs.SEEN).write_text("no tensors")
    refused(toughen("evaluate", run, "--attacks", "fgsm"), "training-images.safetensors is damaged")
    (run / runs.SEEN).unlink()
    assert toughen("evaluate", run, "--attacks", "fgsm", "--verdict", "false").status == 0
    for content in ("{", "[]", "{}"):
        (run / "evaluation.json").write_text(content)
        refused(toughen("compare", run), "evaluation.json is damaged")


def test_damaged_metrics(run: Path) -> None:
    assert toughen("evaluate", run, "--attacks", "fgsm", "--verdict", "false").status == 0
    for content in ("{\n", "[]\n", '{"epoch": 1}\n', ""):
        (run / "metrics.jsonl").write_text(content)
        refused(toughen("compare", run), "metrics.jsonl is damaged")


def test_weights_and_record_that_do_not_belong_together(run: Path) -> None:
    record = json.loads((run / runs.RECORD).read_text())
    (run / runs.RECORD).write_text(json.dumps({**record, "epoch": record["epoch"] + 1}))
    refused(toughen("evaluate", run), "do not belong together", "--resume")


def test_other_data(trained: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    for split in ("train", "test"):
        for label in range(10):
            (wide / split / str(label)).mkdir(parents=True)
            Image.new("RGB", (28, 28), (label, 0, 0)).save(wide / split / str(label) / "0.png")
    refused(toughen("evaluate", trained, "--data", wide), "shape [3, 28, 28]", "[1, 28, 28]", "--data")
    few = copied(tmp_path)
    shutil.rmtree(few / "train/9")
    shutil.rmtree(few / "test/9")
    refused(toughen("evaluate", trained, "--data", few), "9 classes", "10", "--data")
    seen = tmp_path / "seen"
    shutil.copytree(digits() / "train", seen / "test")
    shutil.copytree(digits() / "test", seen / "train")
    refused(toughen("evaluate", trained, "--data", seen), "was trained on 100 % of these images", "--data")
    assert not (trained / "evaluation.json").exists()


def test_a_record_imports_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef net(num_classes): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    record = json.loads((run / runs.RECORD).read_text())
    for name in ("os:system", "trap:net", "timm:hf-hub:them/net"):
        (run / runs.RECORD).write_text(json.dumps({**record, "model": {**record["model"], "name": name}}))
        refused(toughen("evaluate", run), name, "--model")
        with pytest.raises(ValueError, match="--model"):
            runs.load(run)
    config = (run / "config.yaml").read_text().replace("toughen.methods.FBF", "trap.net")
    (run / "config.yaml").write_text(config)
    (run / runs.RECORD).write_text(json.dumps(record))
    assert toughen("evaluate", run, "--attacks", "fgsm", "--verdict", "false").status == 0
    refused(toughen(*small("--method", "FBF", "--eps", 0.2, "--out", run), "--resume"), "(method: trap.net")
    assert not (tmp_path / "sprung").exists() and "trap" not in sys.modules


def test_a_net_of_ones_own_needs_its_name(own: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = small("--model", "own_parts:net", "--method", "FBF", "--eps", 0.2, "--out", run)
    assert toughen(*words).status == 0
    refused(toughen("evaluate", run), "own_parts:net", "--model")
    assert toughen("evaluate", run, "--model", "own_parts:net", "--attacks", "fgsm", "--verdict", "false").status == 0
    refused(toughen("evaluate", run, "--model", "own_parts:seven"), "does not fit the net")
    assert isinstance(runs.load(run, runs.create_own(runs.read_record(run), "own_parts:net")), nn.Module)


def test_commands() -> None:
    refused(toughen("trian"), "'trian' is unknown", "did you mean train")
    refused(toughen("fly"), "'fly' is unknown", "--help")
    refused(toughen("list"), "WHAT is missing")
    refused(toughen("list", "methds"), "methds", "methods")
    assert toughen().status == 2


def test_a_recipe_s_part_without_a_class(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("optimizer: {lr: 0.02}\n")
    ended = toughen(*small("--config", tmp_path / "recipe.yaml", "--out", tmp_path / "run"))
    assert ended.status == 2 and "optimizer has settings and no class: name one of Adam, AdamW, " in ended.err

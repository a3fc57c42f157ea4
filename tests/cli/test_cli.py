"""The command line: what it accepts, what it prints, and that what it writes can be run again."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import digits, files, process, processor_seconds, small, toughen

from toughen import runs, training
from toughen.config import settings
from toughen.config.train import parse_train
from toughen.methods.fast import FBF
from toughen.methods.nuat import NuAT
from toughen.methods.trades import TRADES
from toughen.training import SGD, AdamW, Cosine, CyclicStep, Piecewise, Recipe
from toughen.training.recipe_yaml import recipe_yaml
from toughen.utils.units import Fraction

OWN = '''
from toughen.methods.base import Method
from toughen.methods.trades import TRADES


class Later(Method):
    """Changes from one method to another half-way.

    Args:
        before: the first one.
        after: the other.
        switch_epoch: when.
    """

    def __init__(self, *, before: Method, after: Method, switch_epoch: int = 1) -> None:
        super().__init__()
        self.before, self.after, self.switch_epoch = before, after, switch_epoch

    @property
    def now(self):
        return self.before if self.progress < 0.5 else self.after

    def craft(self, model, x, y, batch=None):
        return self.now.craft(model, x, y, batch)

    def loss(self, model, x, y, crafted):
        return self.now.loss(model, x, y, crafted)


class Mine(TRADES):
    """TRADES under another name."""
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's module `my_methods`, which is the current one."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "my_methods.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    return folder


def recipe(words: str) -> Recipe:
    return parse_train(words.split())[0]


def config(words: str) -> dict[str, object]:
    """What config.yaml will hold."""
    found = yaml.safe_load(recipe_yaml(parse_train(words.split())[0]))
    assert isinstance(found, dict)
    return found


def test_without_a_recipe() -> None:
    """What is not given is chosen for the data; tests/config/test_defaults.py has what."""
    made = recipe("--method TRADES --method.beta 4 --model resnet18 --data mnist-5k --eps 8/255")
    assert isinstance(made.method, TRADES) and made.method.beta == 4 and made.method.eps == 8 / 255
    assert (made.model, made.model_settings, made.data, str(made.eps)) == ("resnet18", {}, "mnist-5k", "8/255")
    assert recipe("--method Standard --epochs 2").epochs == 2


def test_a_recipe_and_settings_over_it() -> None:
    made = recipe("nuat-mnist --data elsewhere --epochs 3 --out runs/x --eps 0.1")
    own = recipe("nuat-mnist")
    assert (made.data, made.epochs, float(made.eps or 0)) == ("elsewhere", 3, 0.1)
    assert isinstance(made.method, NuAT) and made.method.eps == 0.1
    assert made.optimizer == own.optimizer and made.model == own.model and own.epochs != 3
    assert parse_train("nuat-mnist --out runs/x --resume".split())[1:] == ("runs/x", True)
    assert parse_train(["nuat-mnist"])[1:] == ("runs/nuat-mnist", False)
    assert parse_train(["--config", "nuat-mnist", "--epochs", "3"])[0].epochs == 3
    assert parse_train(["--epochs", "3", "--config=nuat-mnist"])[0].model == own.model


def as_number(value: object) -> object:
    """YAML 1.1 reads 5e-4 as a text, and every YAML 100/110."""
    if isinstance(value, list):
        return tuple(as_number(each) for each in value)
    return float(Fraction(value)) if isinstance(value, str) else value


@pytest.mark.parametrize("name", settings.recipes())
@pytest.mark.parametrize("part", ["schedule", "optimizer"])
def test_a_recipe_is_its_own_file_and_its_classes_defaults(name: str, part: str) -> None:
    """No default of another class may slip in, as jsonargparse has it."""
    node = yaml.safe_load(settings.recipes()[name].read_text()).get(part, settings.PARTS[part])
    node = {"class_path": node} if isinstance(node, str) else node
    kind: Any = getattr(training, node["class_path"])
    given = {key: as_number(value) for key, value in node.get("init_args", {}).items()}
    assert getattr(recipe(name), part) == kind(**given)


MINE = """
eps: 0.3
model_settings: {dropout: 0.1}
model: small-cnn
method:
  class_path: NuAT
  init_args: {lam: 2.0, start_size: 0.1, eps: 0.3}
optimizer:
  class_path: SGD
  init_args: {lr: 0.05, weight_decay: 0.1}
schedule:
  class_path: Cyclic
  init_args: {peak: 0.3, low_momentum: 0.7}
"""


def test_another_class_starts_from_its_own_defaults(tmp_path: Path) -> None:
    assert recipe("--optimizer AdamW --eps 0.1").optimizer == AdamW()
    assert recipe("--schedule CyclicStep --eps 0.1").schedule == CyclicStep()
    (tmp_path / "mine.yaml").write_text(MINE)
    mine = str(tmp_path / "mine.yaml")
    assert recipe(mine).optimizer == SGD(lr=0.05, weight_decay=0.1)
    assert recipe(f"{mine} --optimizer AdamW --optimizer.beta1 0.8").optimizer == AdamW(beta1=0.8)
    assert recipe(f"{mine} --optimizer.lr 0.01").optimizer == SGD(lr=0.01, weight_decay=0.1)
    assert recipe(f"{mine} --schedule CyclicStep").schedule == CyclicStep()
    assert recipe(f"{mine} --schedule Cosine").schedule == Cosine()
    other = recipe(f"{mine} --method FBF").method
    assert isinstance(other, FBF) and other.attack.step_size == 1.25 * 0.3
    same = recipe(f"{mine} --method NuAT --method.lam 3 --eps 0.2").method
    assert isinstance(same, NuAT) and (same.lam, same.start_size, same.eps) == (3, 0.1, 0.2)
    assert recipe(f"{mine} --model m-lenet").model_settings == {}
    assert recipe(f"{mine} --model small-cnn").model_settings == {"dropout": 0.1}


def test_hyphens_and_order_do_not_matter() -> None:
    one = "--batch_size 32 --method FBF --method.step_size 4/255 --schedule Piecewise --schedule.milestones [0.3,0.6]"
    other = "--schedule.milestones=[0.3,0.6] --method.step-size 4/255 --batch-size 32 --schedule Piecewise --method FBF"
    assert config(f"{one} --eps 8/255") == config(f"--eps=8/255 {other}")
    made = recipe(f"{one} --eps 8/255")
    assert made.batch_size == 32 and made.schedule == Piecewise(milestones=(0.3, 0.6))
    assert toughen("list", "methods").out


def test_fractions_keep_their_form(tmp_path: Path) -> None:
    words = "--method NuAT --eps 8/255 --method.start_size 4/255"
    for found in (config(words), printed(words)):
        assert found["eps"] == "8/255" and "start_size: 4/255" in yaml.safe_dump(found)
    (tmp_path / "mine.yaml").write_text("method:\n  class_path: FBF\n  init_args:\n    step_size: 10/255\neps: 8/255\n")
    made = recipe(str(tmp_path / "mine.yaml"))
    assert isinstance(made.method, FBF) and made.method.attack.step_size == 10 / 255 and made.eps == Fraction("8/255")
    assert config("--method FBF --eps 0.3")["eps"] == 0.3


def printed(words: str) -> dict[str, object]:
    """What --print_config prints."""
    ended = toughen("train", *words.split(), "--print_config")
    assert ended.status == 0, ended.err
    found = yaml.safe_load(ended.out)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    "words",
    [
        "nuat-cifar10",
        "nuat-mnist --method TRADES --method.beta 3 --optimizer AdamW",
        "--method NuAT --eps 8/255 --method.start_size 4/255 --schedule CyclicStep --crop 3",
        "--method Standard --averaging 0.99",
    ],
)
def test_print_config_can_be_run_again(words: str, tmp_path: Path) -> None:
    ended = toughen("train", *words.split(), "--print-config")
    assert ended.status == 0 and {field.name for field in fields(Recipe)} <= yaml.safe_load(ended.out).keys()
    (tmp_path / "again.yaml").write_text(ended.out)
    assert config(str(tmp_path / "again.yaml")) == config(words)


def test_config_reproduces_the_run(tmp_path: Path) -> None:
    words = small("--method", "NuAT", "--eps", "51/255", "--averaging", 0.5, "--schedule", "Cosine", "--crop", 2)
    assert toughen(*words, "--out", tmp_path / "one").status == 0
    again = toughen("train", tmp_path / "one/config.yaml", "--out", tmp_path / "two")
    assert again.status == 0, again.err
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    for name in ("config.yaml", runs.RECORD, runs.WEIGHTS):
        assert one[name] == two[name]
    other = parse_train([str(tmp_path / "one/config.yaml"), "--eps", "0.1"])[0].method
    assert isinstance(other, NuAT) and other.eps == 0.1


def leaf_eps(found: object) -> list[object]:
    """The eps of every part of a config, outer before inner."""
    if not isinstance(found, dict):
        return []
    return [value for key, value in found.items() if key == "eps"] + [e for v in found.values() for e in leaf_eps(v)]


def test_eps_reaches_every_leaf(own: Path) -> None:
    words = "--method my_methods.Later --method.before Standard --method.after TRADES --eps 0.2 --norm l2"
    found = config(words)
    assert leaf_eps(found["method"]) == [0.2] and "norm: l2" in yaml.safe_dump(found["method"])
    after = recipe(words).method.get_submodule("after")
    assert isinstance(after, TRADES) and after.attack.eps == 0.2 and after.attack.norm == "l2"
    assert leaf_eps(config("--method TRADES --eps 0.2")["method"]) == [0.2]
    both = "--method my_methods.Later --method.before FBF --method.after TRADES --method.after.eps 0.1"
    assert leaf_eps(config(f"{both} --method.before.eps 8/255")["method"]) == ["8/255", 0.1]
    assert leaf_eps(config("--method FBF --method.eps 0.1 --eps 0.1")["method"]) == [0.1]


def test_a_wrapper_trains_at_the_run_s_eps(own: Path) -> None:
    words = "--method my_methods.Later --method.before Standard --method.after TRADES --method.after.steps 2 --eps 0.2"
    ended = toughen(*small(*words.split(), "--out", "run"))
    assert ended.status == 0, ended.err
    assert leaf_eps(yaml.safe_load(Path("run/config.yaml").read_text())["method"]) == [0.2]
    assert runs.read_record(Path("run")).eps == 0.2


def test_a_recipe_s_wrapper_changes_its_inner_method(own: Path) -> None:
    Path("mine.yaml").write_text(
        "eps: 0.2\nmethod:\n  class_path: my_methods.Later\n  init_args:\n    before: Standard\n"
        "    after:\n      class_path: TRADES\n      init_args:\n        steps: 7\n"
    )
    assert "steps: 7" in yaml.safe_dump(config("mine.yaml"))
    assert "steps: 10" in yaml.safe_dump(config("mine.yaml --method.after PGDAT"))
    assert "beta: 2.0" in yaml.safe_dump(config("mine.yaml --method.after.beta 2"))


@pytest.mark.slow
def test_an_own_class_of_a_recipe_s_class_s_name_is_another_one(own: Path) -> None:
    Path("variant.py").write_text(
        "from toughen import methods\nclass NuAT(methods.NuAT):\n    def __init__(self, *, eps: float | None = None, "
        "lam: float = 1.0) -> None:\n        super().__init__(eps=eps, lam=lam)\n"
    )

    def printed(*words: str) -> subprocess.CompletedProcess[str]:  # elsewhere: here the class would stay known
        command = [sys.executable, "-m", "toughen", "train", *words, "--print_config"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    words = ("NuAT", "toughen.methods.NuAT", "variant.NuAT")
    found = [yaml.safe_load(printed("nuat-mnist", "--method", each).stdout) for each in words]
    assert [each["method"]["init_args"]["lam"] for each in found] == [4.0, 4.0, 1.0]
    command = [sys.executable, "-m", "toughen", *map(str, small("--method", "variant.NuAT", "--eps", "8/255", "--out"))]
    trained = subprocess.run([*command, "run"], capture_output=True, text=True, timeout=120, check=False)
    assert trained.returncode == 0, trained  # its eps is a plain float, and it knows no norm
    assert yaml.safe_load(Path("run/config.yaml").read_text())["method"]["init_args"]["eps"] == pytest.approx(8 / 255)
    other = subprocess.run([*command, "l2", "--norm", "l2"], capture_output=True, text=True, timeout=120, check=False)
    assert other.returncode == 2 and "takes no norm" in other.stderr and not Path("l2").exists()


def test_the_current_folder_is_searched_last_and_only_when_asked(own: Path) -> None:
    recipe("--method TRADES --eps 0.2")
    assert str(own) not in sys.path
    assert type(recipe("--method my_methods.Mine --eps 0.2").method).__name__ == "Mine"
    assert sys.path[-1] == str(own) and sys.path[0] != str(own)


def test_a_recipe_may_name_own_classes_too(own: Path) -> None:
    Path("mine.yaml").write_text("eps: 0.2\nmethod: my_methods.Mine\n")
    assert type(recipe("mine.yaml").method).__name__ == "Mine"


@pytest.mark.parametrize(
    ("command", "share"), [("train", 1.4), ("evaluate", 0.5), pytest.param("list", 0.5, marks=pytest.mark.slow)]
)
def test_help_answers_quickly(command: str, share: float) -> None:
    """Against a bare import of torch, which only train's help needs, and else in seconds; the least of three each."""
    turns = [
        (processor_seconds("-c", "import torch"), processor_seconds("-m", "toughen", command, "--help"))
        for _ in range(3)
    ]
    assert all(told.startswith(f"usage: toughen {command}") for _, (_, told) in turns)
    spent = min(spent for _, (spent, _) in turns)
    assert command == "train" or spent < 3  # torch alone takes as long on a slow machine
    assert spent < share * min(spent for (spent, _), _ in turns)


def test_a_command_leaves_garbage_collection_as_it_is() -> None:
    """What is kept from it is not cleared at exit either, and what torch 2.15 binds with nanobind complains of that."""
    script = (
        "import atexit, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count(), gc.isenabled()))\n"
        "sys.argv = ['toughen', 'list', 'methods']\n"
        "from toughen.cli.main import main\n"
        "main()"
    )
    done = process("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 True"


def test_help_imports_nothing_heavy() -> None:
    heavy = "datasets pandas pyarrow tensorboard matplotlib torch.utils.tensorboard torch._dynamo scipy".split()
    script = (
        "import sys\nfrom toughen.cli.main import main\n"
        "try:\n    main(['train', '--help'])\n"
        f"except SystemExit:\n    print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["nonsense"], ["report", "--help"], ["compare", "no-run"]]
)
def test_what_needs_no_torch_does_not_wait_for_it(words: list[str]) -> None:
    script = (
        "import sys\nfrom toughen.cli.main import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_help_explains_every_setting() -> None:
    told = toughen("train", "--help", "all").out
    for field in fields(Recipe):
        assert f"--{field.name.replace('_', '-')} " in told
    flat = re.sub(r"\s+", " ", told)
    for words in (
        "image units, such as 8/255",
        "(default: 128)",
        "default: Standard",
        "FBF",
        "passes over",
        "pixels",
        "seconds",
    ):
        assert words in flat
    for noise in ("<class", "Union[", "Literal[", "None", "toughen.methods."):
        assert noise not in flat
    assert all(each.isprintable() or each == "\n" for each in told) and "--print-config[=flags]" in told
    inner = toughen("train", "--method.help", "NuAT").out
    assert "--method.lam" in inner and "weight of the nuclear norm" in inner and "Literal" not in inner


def test_usage_and_version() -> None:
    assert max(len(line) for line in toughen("--help").out.splitlines()) <= 80
    assert toughen("--help").status == 0 and "evaluate" in toughen("--help").out
    version = toughen("--version")
    assert version.status == 0 and re.fullmatch(r"toughen \d+\.\d+\.\d+\n", version.out)


@pytest.mark.parametrize("what", ["methods", "attacks", "models", "data", "recipes"])
def test_list(what: str) -> None:
    ended = toughen("list", what)
    wanted = {"methods": "NuAT", "attacks": "pgd", "models": "wrn-34-10", "data": "mnist-5k", "recipes": "nuat-cifar10"}
    assert ended.status == 0 and wanted[what] in ended.out


def test_nets_from_elsewhere_are_listed_with_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = toughen("list", "models").out
    words = " ".join(ended.split())
    assert "timm:NAME" in words and "--model timm:resnet18" in words and "pip install 'toughen[timm]'" in words
    assert "package.module:function" in words and max(map(len, ended.splitlines())) <= 80


def test_a_reader_who_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m toughen list models | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


def test_train_evaluate_compare(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = toughen(*small("--method", "FBF", "--eps", 0.2, "--out", run))
    assert ended.status == 0 and f"toughen evaluate {run}" in ended.out
    assert "epoch 2/2" in ended.err and "pgd" in ended.err and "\x1b" not in ended.err
    ended = toughen("evaluate", run, "--attacks", "fgsm", "pgd-3x2@0.1", "--limit", 20, "--verdict", "false")
    assert ended.status == 0 and "20 test images" in ended.out and "pgd-3x2@0.1" in ended.out and "95 %" in ended.out
    ended = toughen("compare", run)
    assert ended.status == 0 and "robust" in ended.out
    net = runs.load(run)
    assert not any(module.training for module in net.modules())
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    assert str(digits()) in (run / "config.yaml").read_text()

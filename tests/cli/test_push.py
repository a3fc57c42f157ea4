"""`toughen push` and ``toughen.load("hf://...")`` against an imitation of the hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import digits, process, refused, small, toughen
from hub_server import COMMIT, Hub, model_hub
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm_nets import needs_timm

from toughen import runs
from toughen.cli.push import prepare, public_record, timm_config
from toughen.core.types import Images, Labels
from toughen.runs.repository import check_name

LOAD = """
import sys, torch, toughen
from safetensors.torch import load_file, save_file
source, images, answer, *revision = sys.argv[1:]
try:
    model = toughen.load(source, revision=revision[0] if revision else None)
except ValueError as error:
    sys.exit(str(error))
with torch.no_grad():
    save_file({"logits": model(load_file(images)["x"]), **model.state_dict()}, answer)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "robust"
    assert toughen(*small("--method", "FGSMAT", "--eps", 0.1, "--watch", "off", "--out", folder)).status == 0
    words = ("--attacks", "fgsm", "--verdict", "false", "--details", "false", "--precision", "fp32")
    assert toughen("evaluate", folder, *words).status == 0
    return folder


def client(endpoint: str, home: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the hub's address and token are read when its client is imported."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    where = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", "HF_HOME": str(home), **more}
    return subprocess.run([sys.executable, *map(str, words)], env=unset | where, capture_output=True, text=True)


def one_line(ended: Mapping[str, object] | subprocess.CompletedProcess[str], *said: str) -> None:
    assert isinstance(ended, subprocess.CompletedProcess)
    lines = ended.stderr.strip().splitlines()
    assert ended.returncode != 0 and len(lines) == 1 and len(lines[0]) < 500, ended.stderr
    assert [each for each in said if each not in lines[0]] == [], ended.stderr


def test_a_dry_run_says_what_would_go(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toughen.cli.push.upload", lambda *given: pytest.fail("it was uploaded"))
    ended = toughen("push", run, "me/robust")
    assert ended.status == 0 and "Nothing was uploaded: add --yes" in ended.out
    for name in ("README.md", "model.safetensors", "pipeline_tag: image-classification"):
        assert name in ended.out
    assert str(digits().parent) not in ended.out


def load(hub: Hub, home: Path, x: Images, source: str, *revision: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    save_file({"x": x}, home / "x.safetensors")
    return client(hub.endpoint, home, "-c", LOAD, source, home / "x.safetensors", home / "answer", *revision)


def answer(ended: subprocess.CompletedProcess[str], home: Path) -> dict[str, torch.Tensor]:
    """The weights and logits that `load` wrote, in a process of its own: tests before may have set up this one."""
    assert ended.returncode == 0, ended.stderr
    return load_file(home / "answer")


@pytest.mark.slow
def test_what_is_pushed_is_loaded_alike(run: Path, tmp_path: Path, mnist: tuple[Images, Labels]) -> None:
    words = ("-m", "toughen", "push", run, "me/robust", "--yes", "--private")
    with model_hub("me/robust", token="secret") as hub:
        ended = client(hub.endpoint, tmp_path / "home", *words, HF_TOKEN="secret")
        assert ended.returncode == 0, ended.stderr
        assert hub.private and hub.uploaded.keys() == {"README.md", "model.safetensors", "evaluation.json"}
        pushed = answer(load(hub, tmp_path / "own", mnist[0], str(run)), tmp_path / "own")
        for number, revision in enumerate(((), ("main",), (COMMIT,))):
            home = tmp_path / f"home-{number}"
            loaded = answer(load(hub, home, mnist[0], "hf://me/robust", *revision), home)
            assert loaded.keys() == pushed.keys()
            assert [name for name, each in pushed.items() if not torch.equal(loaded[name], each)] == []
        judge = ("-m", "toughen", "evaluate", "hf://me/robust", "--data", digits(), "--attacks", "fgsm", "--limit", 20)
        ended = client(hub.endpoint, tmp_path / "home-0", *judge, "--verdict", "false", "--out", tmp_path / "found")
        assert ended.returncode == 0, ended.stderr
        assert json.loads((tmp_path / "found" / "evaluation.json").read_text())["images"] == 20
        one_line(load(hub, tmp_path / "h", mnist[0], "hf://me/robust@v2"), "has no revision 'v2'")
        one_line(load(hub, tmp_path / "h", mnist[0], "hf://me/other"), "the hub has no model me/other")
        del hub.uploaded["model.safetensors"]
        hub.uploaded["pytorch_model.bin"] = b"\x80\x04"
        one_line(load(hub, tmp_path / "h", mnist[0], "hf://me/robust"), "has no model.safetensors", "may hold code")
    found: Any = ModelCard(hub.uploaded["README.md"].decode())
    assert found.data.library_name == "toughen" and 'toughen.load("hf://me/robust")' in found.content
    said = b"".join(hub.uploaded.values())
    assert str(digits()).encode() not in said and str(run).encode() not in said  # of this machine's folders
    one_line(load(hub, tmp_path / "gone", mnist[0], "hf://me/robust"), "the hub cannot be reached")
    ended = load(hub, tmp_path / "home-0", mnist[0], "hf://me/robust")  # out of the cache
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_without_a_token_or_the_right_to_write_it_is_said(run: Path, tmp_path: Path) -> None:
    words = ("-m", "toughen", "push", run, "me/robust", "--yes")
    with model_hub("me/robust", token="secret") as hub:
        one_line(client(hub.endpoint, tmp_path, *words), "hf auth login", "HF_TOKEN")
        wrong = client(hub.endpoint, tmp_path, *words, HF_TOKEN="wrong")
        one_line(wrong, "the hub refused me/robust", "your token has write access")
        assert hub.uploaded == {} and wrong.returncode == 2
    one_line(client(hub.endpoint, tmp_path, *words, HF_TOKEN="secret"), "the hub cannot be reached")


@pytest.mark.slow
def test_what_is_to_be_private_is_not_uploaded_to_a_public_repository(run: Path, tmp_path: Path) -> None:
    words = ("-m", "toughen", "push", run, "me/robust", "--yes", "--private")
    with model_hub("me/robust", token="secret") as hub:
        hub.private = False  # it is there, and public: the hub then ignores what it is asked for
        ended = client(hub.endpoint, tmp_path, *words, HF_TOKEN="secret")
        one_line(ended, "me/robust is public already", "nothing was uploaded")
        assert ended.returncode == 2 and hub.uploaded == {}
        hub.private = True
        assert client(hub.endpoint, tmp_path, *words, HF_TOKEN="secret").returncode == 0
        assert "model.safetensors" in hub.uploaded


@pytest.mark.slow
def test_an_evaluation_of_other_weights_does_not_stay(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    (other / "evaluation.json").unlink()
    with model_hub("me/robust", token="secret") as hub:
        hub.uploaded |= {"evaluation.json": b"{}", "notes.txt": b"mine"}
        ended = client(hub.endpoint, tmp_path, "-m", "toughen", "push", other, "me/robust", "--yes", HF_TOKEN="secret")
        assert ended.returncode == 0, ended.stderr
        assert hub.uploaded.keys() == {"README.md", "model.safetensors", "notes.txt"}
        assert b"has not been evaluated" in hub.uploaded["README.md"]


@pytest.mark.parametrize(
    ("data", "public"),
    [
        ("/home/ann/photos", "photos"),
        ("file:///home/ann/photos", "photos"),
        ("file:///home/ann/photos/", "photos"),
        ("zip://*.parquet::file:///home/ann/photos.zip", "photos.zip"),
        ("https://ann:secret@example.org/set/part?key=secret#secret", "https://example.org/set/part"),
        ("s3://secret@bucket", "s3://bucket"),
        ("hf://datasets/owner/name@main", "hf://datasets/owner/name@main"),
    ],
)
def test_no_path_and_no_password_of_the_data_is_uploaded(data: str, public: str, run: Path, tmp_path: Path) -> None:
    folder, place = shutil.copytree(run, tmp_path / "run"), tmp_path / "place"
    place.mkdir()
    runs.write_model(folder, replace(runs.read_record(run), data=data, from_hub="://" in data), runs.load(run))
    found = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps({**found, "data": data}))
    prepare(folder, place, "me/net", None)
    uploaded = {path.name: path.read_bytes() for path in place.iterdir()}
    assert [name for name, content in uploaded.items() if b"home/ann" in content or b"secret" in content] == []
    assert json.loads(uploaded["evaluation.json"])["data"] == public and f"`{public}`".encode() in uploaded["README.md"]
    with safe_open(place / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["about"])["data"] == public


def test_where_timm_found_its_first_weights_is_not_uploaded(run: Path) -> None:
    settings = {"checkpoint_path": "/home/ann/w.pth", "cache_dir": "/home/ann", "pretrained": True, "drop_rate": 0.1}
    net = {**runs.read_record(run).model, "name": "timm:resnet18", "settings": settings}
    record = public_record(replace(runs.read_record(run), model=net))
    assert record.model["settings"] == {"drop_rate": 0.1}
    assert timm_config(record)["model_args"] == {"in_chans": 1, "drop_rate": 0.1}


@needs_timm
def test_timm_alone_loads_its_net(tmp_path: Path, mnist: tuple[Images, Labels]) -> None:
    folder, place = tmp_path / "run", tmp_path / "place"
    net = ("--model", "timm:mobilenetv3_small_050")
    assert toughen(*small(*net, "--epochs", 1, "--out", folder)).status == 0
    place.mkdir()
    prepare(folder, place, "me/net", None)
    config = json.loads((place / "config.json").read_text())
    script = f"""
import timm, torch, sys
from safetensors.torch import load_file, save_file
net = timm.create_model("local-dir:{place}", pretrained=True).eval()
x = load_file("{tmp_path / "x"}")["x"]
mean, std = (torch.tensor(values).view(-1, 1, 1) for values in {[config["pretrained_cfg"][k] for k in ("mean", "std")]})
with torch.no_grad():
    save_file({{"logits": net((x - mean) / std)}}, "{tmp_path / "answer"}")
assert "toughen" not in sys.modules
"""
    save_file({"x": mnist[0]}, tmp_path / "x")
    ended = process("-c", script)
    assert ended.returncode == 0, ended.stderr
    with torch.no_grad():
        assert torch.allclose(load_file(tmp_path / "answer")["logits"], runs.load(folder)(mnist[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "the hub refused me/robust"),
        (503, "the upload to me/robust failed (busy): try the same command again"),
        (None, "the upload to me/robust failed (busy): try the same command again"),
    ],
)
def test_only_the_hub_itself_refuses(status: int | None, said: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network failed during the upload, name and token were blamed."""

    def fail(*given: object, **settings: object) -> None:
        error = OSError("busy")
        error.response = None if status is None else SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    monkeypatch.setattr("toughen.cli.push.unreachable", lambda meanwhile: "")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    refused(toughen("push", run, "me/robust", "--yes"), said)


def test_bad_words_are_refused(run: Path, tmp_path: Path) -> None:
    refused(toughen("push", run, "robust"), "write user/name")
    refused(toughen("push", tmp_path / "none", "me/robust"), "there is no run directory")
    for name in ("me", "me/x/y", "me/../x", "me/-x", "me/x.", "me/a--b", "ме/x"):
        with pytest.raises(ValueError, match="write user/name"):
            check_name(name)
    assert check_name("me/robust-net_1.0") == "me/robust-net_1.0"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "-x",
        "a..b",
        "a/",
        "/a",
        "x.lock",
        "a~1",
        "a:b",
        "@",
        "a//b",
        ".a",
        "a/.b",
        "main",
        "v1.0",
        "me/try-2",
    ],
)
def test_a_branch_is_what_git_takes_for_one(name: str, run: Path) -> None:
    taken = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True).returncode == 0
    ended = toughen("push", run, "me/robust", f"--revision={name}")
    assert (ended.status == 0) is taken
    if not taken:
        refused(ended, f"{name!r} is not a branch")


def test_a_revision_of_a_local_run_is_refused(run: Path) -> None:
    import toughen as package

    with pytest.raises(ValueError, match="has no revisions"):
        package.load(run, revision="main")
    with pytest.raises(ValueError, match="leave one out"):
        package.load("hf://me/net@a", revision="b")

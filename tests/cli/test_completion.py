"""Tab completion: what bash and fish make of the script that `toughen completion` prints, and zsh's script."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from commands import refused, toughen

from toughen import methods
from toughen.cli.main import COMMANDS
from toughen.cli.shared import parser_of
from toughen.config import settings
from toughen.config.screens import flags
from toughen.evaluation.suite import names as attack_names
from toughen.models import registry

# what bash does on the tab key: the line's words, then the function that was registered for the program
TAB = """
registered=$(complete -p toughen)
function=${registered#*-F }; function=${function%% *}
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
"$function" toughen "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@cache
def script(shell: str) -> str:
    ended = toughen("completion", shell)
    assert (ended.status, ended.err) == (0, ""), ended
    return ended.out


def offered(line: str, folder: Path) -> list[str]:
    """What bash offers for the last word of a line."""
    words = " ".join(shlex.quote(word) for word in line.split(" "))
    told = f"{script('bash')}\nCOMP_WORDS=({words})\n{TAB}"
    command = ["bash", "--norc", "--noprofile", "-c", told]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout.split()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with another and a file."""
    pytest.importorskip("shtab")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.yaml").touch()
    return tmp_path


def test_a_script_is_made_without_making_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 22 would be made once for every option: half a minute for a script that a shell may ask for daily."""
    pytest.importorskip("shtab")
    monkeypatch.setattr(registry, "_make_own", lambda *given: pytest.fail("a net was made"))
    ended = toughen("completion", "bash")
    assert ended.status == 0 and all(name in ended.out for name in registry.NETS)


def test_commands(place: Path) -> None:
    assert offered("toughen ", place) == [*COMMANDS]
    assert offered("toughen eva", place) == ["evaluate"]


@pytest.mark.parametrize("command", COMMANDS)
def test_all_options_of_each_command(command: str, place: Path) -> None:
    wanted = [word for action in parser_of(command)._actions for word in flags(action) if word.startswith("--")]
    hidden = {"--help", "--print-shtab"}
    before = "x " * (command not in ("train", "plan"))
    found = offered(f"toughen {command} {before}--", place) if set(wanted) - hidden else []
    assert set(wanted) - set(found) <= hidden and not any("_" in word for word in found)


@pytest.mark.parametrize("line", ["train nuat-mnist", "train", "plan"])
def test_methods_and_their_settings(line: str, place: Path) -> None:
    assert sorted(offered(f"toughen {line} --method ", place)) == sorted(methods.REGISTRY)
    assert offered(f"toughen {line} --method NuAT --method.start-s", place) == ["--method.start-size"]
    assert offered(f"toughen {line} --optimizer.weight", place) == ["--optimizer.weight-decay"]


def test_recipes_and_files(place: Path) -> None:
    assert {*offered("toughen train ", place)} >= {*settings.recipes(), "photo.yaml"}
    assert offered("toughen plan pho", place) == ["photo.yaml", "photos"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("train demo --batch", "--batch-size"),
        ("train demo --norm ", "linf l2"),
        ("train demo --data pho", "photos"),
        ("train --data mnist-", "mnist-5k"),
        ("train demo --method.help Gr", "GradAlign"),
        ("evaluate pho", "photos"),
        ("evaluate photos --suite ", "quick standard papers"),
        ("evaluate photos --time", "--time-budget"),
        ("diagnose photos --which con", "confusion"),
        ("list ", "methods attacks models data recipes callbacks checks"),
        ("reproduce nuat-table1", "nuat-table1a nuat-table1b"),
        ("reproduce nuat-table1a pap-table7 al", "all"),
        ("export photos --format ", "onnx torch-export safetensors"),
        ("completion ", "bash zsh fish"),
    ],
)
def test_values(line: str, found: str, place: Path) -> None:
    assert offered(f"toughen {line}", place) == found.split()


def test_several_attacks(place: Path) -> None:
    found = sorted(name for name in attack_names() if name.startswith("pgd"))
    assert sorted(offered("toughen evaluate photos --attacks pgd", place)) == found
    assert sorted(offered("toughen evaluate photos --attacks fgsm pgd", place)) == found


def test_the_script_for_zsh(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    text = script("zsh")
    assert text.startswith("#compdef toughen\n")
    assert all(f'"{command}:' in text or f"{command})" in text for command in COMMANDS)
    if zsh := shutil.which("zsh"):
        (tmp_path / "_toughen").write_text(text)
        assert subprocess.run([zsh, "-n", tmp_path / "_toughen"], check=False, capture_output=True).returncode == 0


def test_zsh_goes_on_after_the_first_of_several_words(tmp_path: Path) -> None:
    """shtab's own form for it excludes all other words instead."""
    pytest.importorskip("shtab")
    text = script("zsh")
    assert '"*:image files:_files"' in text and '"*:a table or figure' in text and '"(*)' not in text


def by_fish(line: str, folder: Path) -> list[str]:
    """What fish offers for the last word of a line."""
    (folder / ".script.fish").write_text(script("fish"))
    command = ["fish", "--no-config", "-c", 'source .script.fish; complete -C "$argv[1]"', line]
    own = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done
    return [each.partition("\t")[0] for each in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish(place: Path) -> None:
    assert by_fish("toughen eva", place) == ["evaluate"]
    assert by_fish("toughen evaluate pho", place) == ["photos/"]
    assert by_fish("toughen train --data pho", place) == ["photos/"]
    assert by_fish("toughen train pho", place) == ["photo.yaml", "photos/"]
    assert by_fish("toughen train --data mnist-", place) == ["mnist-5k"]
    assert by_fish("toughen train --batch-s", place) == ["--batch-size"]
    assert by_fish("toughen train --method Nu", place) == ["NuAT", "NuAT2"]
    assert by_fish("toughen export photos --format on", place) == ["onnx"]
    assert by_fish("toughen reproduce nuat-table1a al", place) == ["all"]
    assert by_fish("toughen completion fi", place) == ["fish"]


def entered(line: str, folder: Path) -> list[str]:
    """The words that a program gets where the tab key is pressed after this line, then enter."""
    (folder / ".script").write_text(script("bash"))
    (folder / ".begin").write_text("source .script; toughen() { printf '%s\\0' \"$@\" > .words; }")
    command = ["bash", "--noprofile", "--rcfile", str(folder / ".begin"), "-i"]
    own = {**os.environ, "HISTFILE": "/dev/null", "INPUTRC": "/dev/null", "TERM": "dumb"}
    ours, terminal = os.openpty()
    shell = subprocess.Popen(
        command, cwd=folder, env=own, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    os.write(ours, f"{line}\t\nexit\n".encode())
    with contextlib.suppress(OSError):  # the shell has ended
        while select.select([ours], [], [], 30)[0]:  # otherwise it waits for the end of a quotation
            os.read(ours, 10_000)
    shell.kill()
    shell.wait()
    os.close(ours)
    return (folder / ".words").read_text().split("\0")[:-1]


@pytest.mark.parametrize(
    ("begun", "name"),
    [
        ("train z", "z;touch made"),
        ("plan q", "q'x.yaml"),
        ("train --data my", "my photos/"),
        ("train --data pho", "photos/"),
    ],
)
def test_bash_inserts_a_name_as_one_word(begun: str, name: str, place: Path) -> None:
    """As any other it is quoted, so that no part of a file's name is run as a command."""
    (place / name).mkdir(exist_ok=True) if name.endswith("/") else (place / name).touch()
    assert entered(f"toughen {begun}", place) == [*begun.split()[:-1], name]
    assert not (place / "made").exists()


def test_without_shtab_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    refused(toughen("completion", "bash"), "need shtab", "pip install 'toughen[completion]'")


def test_shells_that_are_known() -> None:
    refused(toughen("completion", "tcsh"), "SHELL must be bash or zsh or fish, not tcsh")
    refused(toughen("completion"), "SHELL is missing")

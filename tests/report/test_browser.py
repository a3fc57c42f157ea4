"""Reports in a real browser: nothing complains, nothing leaves, nothing overflows, and all can be used and read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, check_whole, find_browser
from commands import digits, small, toughen
from run_files import epoch, evaluation, write_run

from toughen.report import write_report

HOSTILE = (
    "<script>document.title='taken'<",
    "Ärger & Öl",
    "\"'>{{7*7}}<img src=x onerror=throw(1)>",
    "straße",
    "ein " * 20,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


def trained(folder: Path, images: Path, *, epochs: int) -> Path:
    """A run of a second on real digits, evaluated."""
    words = ("--method", "FBF", "--eps", 0.1, "--optimizer", "Adam", "--optimizer.lr", 0.004, "--epochs", epochs)
    assert toughen(*small(*words), "--data", images, "--out", folder).status == 0
    ended = toughen("evaluate", folder, "--attacks", "fgsm", "pgd-5")
    assert ended.status == 0, ended.err
    return folder


def renamed(root: Path) -> Path:
    """Digits 0 to 4 in folders with hostile names."""
    for split in ("train", "test"):
        for label, name in enumerate(HOSTILE):
            shutil.copytree(digits() / split / str(label), root / split / name.strip().replace("/", "∕"))
    return root


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports that are opened: of the kinds of runs that differ most."""
    root = tmp_path_factory.mktemp("reports")
    one = trained(root / "one", digits(), epochs=1)
    hostile = trained(root / "<script>document.title='run'<", renamed(root / "images"), epochs=2)
    unfinished = write_run(root / "unfinished", epochs=1)
    (unfinished / "evaluation.json").unlink()
    (unfinished / "metrics.jsonl").write_text('{"epoch": 0, "lo')
    ten = [copied(one, root / f"ten/run-{number}", number) for number in range(10)]
    two = [one, write_run(root / "written")]
    outdated = evaluation(epoch=0, attacks={"fgsm": {"robust_accuracy": 0.8}, "pgd-5": {"robust_accuracy": 0.5}})
    (two[1] / "evaluation.json").write_text(json.dumps(outdated))
    kinds = {"one epoch": [one], "hostile": [hostile], "unfinished": [unfinished], "two": two, "ten": ten}
    return {name: write_report(runs, root / f"{name}.html") for name, runs in kinds.items()}


def copied(run: Path, folder: Path, number: int) -> Path:
    """The same run with other accuracies."""
    shutil.copytree(run, folder)
    found = json.loads((folder / "evaluation.json").read_text())
    robust = number / 50
    attacks = {name: each | {"robust_accuracy": robust} for name, each in found["attacks"].items()}
    found |= {"clean_accuracy": 0.9, "robust_accuracy": robust, "attacks": attacks}
    (folder / "evaluation.json").write_text(json.dumps(found))
    return folder


KINDS = ("one epoch", "hostile", "unfinished", "two", "ten")


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_complains_leaves_or_overflows(
    kind: str, width: int, browser: Browser, reports: dict[str, Path]
) -> None:
    page = browser.open(reports[kind], width)
    check_whole(page, reports[kind], width)
    page.ask("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert page.ask("document.scrollingElement.scrollWidth") <= width  # tables scroll in themselves
    page.close()


def test_what_overflows_is_noticed(browser: Browser, reports: dict[str, Path], tmp_path: Path) -> None:
    """The checks themselves: a wide element, a request and an error are seen."""
    text = reports["unfinished"].read_text(encoding="utf-8")
    bad = text.replace("</main>", '<div style="width: 500px">wide</div></main>')
    (tmp_path / "wide.html").write_text(bad, encoding="utf-8")
    page = browser.open(tmp_path / "wide.html", 360)
    assert page.ask("document.scrollingElement.scrollWidth") > 360
    page.close()
    bad = text.replace("</main>", '<img src="http://localhost:9/x.png" alt="x"><script>throw 1</script></main>')
    (tmp_path / "script.html").write_text(bad, encoding="utf-8")
    page = browser.open(tmp_path / "script.html")
    assert len(page.complaints()) >= 2  # the policy stops both, and says so
    page.close()


def test_a_missing_browser_is_said_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt install chromium"):
        find_browser()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt install chromium"):
        find_browser()


def test_hostile_names_are_text(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["hostile"])
    assert page.ask("document.title") == "<script>document.title='run'< – toughen report"
    text = page.ask("document.querySelector('main').textContent")
    assert all(" ".join(name.split()) in " ".join(text.split()) for name in HOSTILE)
    assert page.ask("document.querySelectorAll('script').length") == 3
    page.close()


def test_dark_and_light_differ_and_can_be_read(browser: Browser, reports: dict[str, Path]) -> None:
    """Contrast of text against its background, as WCAG counts it: 4.5 at least for all that is drawn on the page."""
    backs = []
    for dark in (False, True):
        page = browser.open(reports["one epoch"], dark=dark)
        backs.append(page.ask("getComputedStyle(document.body).backgroundColor"))
        found = page.ask(CONTRASTS)
        assert len(found) > 20 and min(each[0] for each in found) >= 4.5, sorted(found)[:3]
        page.close()
    assert backs == ["rgb(246, 247, 249)", "rgb(18, 21, 26)"]


CONTRASTS = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((each) => Number(each) / 255)
      .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    return own.startsWith("rgba(0, 0, 0, 0") ? back(node.parentElement) : own;
  };
  return [...document.querySelectorAll("main *, header *, footer *")]
    .filter((node) => !node.closest("svg"))
    .filter((node) => [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim()))
    .map((node) => {
      const [a, b] = [light(getComputedStyle(node).color), light(back(node))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), node.className, node.textContent.slice(0, 20)];
    });
})()"""


def test_the_theme_can_be_chosen(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["one epoch"])
    for theme, colour in (("light", "rgb(246, 247, 249)"), ("dark", "rgb(18, 21, 26)")):
        page.ask("document.getElementById('theme').click()")
        assert page.ask("document.getElementById('theme').textContent") == f"Theme: {theme}"
        assert page.ask("getComputedStyle(document.body).backgroundColor") == colour
    page.close()


def test_tables_are_sorted_with_the_keyboard(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["ten"])
    column = "[...document.querySelectorAll('#runs tbody tr')].map((row) => row.querySelector('th').textContent)"
    names = [f"run-{number}" for number in range(10)]
    assert page.ask(column) == names
    heading = "[...document.querySelectorAll('#runs thead button')].find((each) => each.textContent === 'robust')"
    page.ask(f"{heading}.focus()")
    page.press("Enter")
    assert page.ask(column) == names[::-1] and page.ask(f"{heading}.closest('th').ariaSort") == "descending"
    page.press("Enter")
    assert page.ask(column) == names and page.ask(f"{heading}.closest('th').ariaSort") == "ascending"
    page.close()


def test_everything_is_reached_by_tab(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["two"])
    seen = []
    for _ in range(60):
        page.press("Tab")
        seen.append(
            page.ask("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
        )
    assert seen[:2] == ["skip", "theme"]
    assert {"runs", "choose", "pick", "SUMMARY", "scroll", "quiet copy", "cost"} - {"runs"} <= set(seen), seen
    page.close()


def test_runs_are_chosen(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["ten"])
    shown = "[...document.querySelectorAll('section.run')].filter((each) => !each.hidden).map((each) => each.id)"
    assert page.ask(shown) == ["run-10"]  # the most robust one
    page.ask("document.querySelector('a[href=\"#run-4\"]').click()")
    page.complaints()  # a moment for the address to change
    assert page.ask(shown) == ["run-4"] and page.ask("document.getElementById('choose').value") == "run-4"
    lines = (
        "echarts.getInstanceByDom(document.querySelector('.plot.lines')).getOption().series.map((each) => each.name)"
    )
    assert page.ask(lines) == [f"run-{number}" for number in range(8)]
    page.ask("document.querySelector('input.pick').click()")
    assert page.ask(lines) == [f"run-{number}" for number in range(1, 8)]
    page.ask(
        "const list = document.getElementById('choose'); list.value = 'run-2'; list.dispatchEvent(new Event('change'))"
    )
    assert page.ask(shown) == ["run-2"]
    for link, then in (('a[href="#run-4"]', "run-4"), ("a.skip", "run-4"), ('a[href="#run-2"]', "run-2")):
        page.ask(f"document.querySelector('{link}').click()")
        page.complaints()
        assert page.ask(shown) == [then], link
    page.close()


def test_runs_are_found_by_name_or_method(browser: Browser, tmp_path: Path) -> None:
    """Not by a figure: all of these are right on 90.0 % of the images."""
    runs = [write_run(tmp_path / f"run-{number:02d}", pictures=False) for number in range(13)]
    page = browser.open(write_report(runs, tmp_path / "report.html"))
    left = "[...document.querySelectorAll('#runs tbody tr')].filter((row) => !row.hidden).length"
    for words, found in (("90", 0), ("run-0", 10), ("FBF", 13), ("", 13)):
        page.ask(
            f"(() => {{ const field = document.getElementById('filter'); field.value = '{words}'; "
            "field.dispatchEvent(new Event('input')); })()"
        )
        assert page.ask(left) == found, words
    page.close()


def test_an_event_s_mark_leads_to_what_is_said_of_it(browser: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    said = [f"what the watch says at some length of epoch {number}" for number in (1, 2, 3)]
    lines = [epoch(n, events=[{"event": "warning", "text": text}]) for n, text in enumerate(said)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = browser.open(write_report([run], tmp_path / "report.html"))
    assert page.ask("[...document.querySelectorAll('ol.events li')].map((each) => each.textContent)") == [
        f"Epoch {number}. {text}" for number, text in enumerate(said, 1)
    ]
    plots = "[...document.querySelectorAll('.plot.lines')].at(-1)"
    drawn = page.ask(f"[...{plots}.querySelectorAll('svg text')].map((each) => each.textContent)")
    assert [each for each in drawn if each.startswith("(")] == ["(1)", "(2)", "(3)"]
    page.close()


def test_the_run_s_eps_is_marked_where_it_lies_on_the_axis(browser: Browser, tmp_path: Path) -> None:
    """Not at 0.02, to which 4/255 would be rounded."""
    run, eps = write_run(tmp_path / "run"), 4 / 255
    found = json.loads((run / "diagnostics.json").read_text())
    found["eps"] |= {"eps": [0.0, eps, 2 * eps, 4 * eps], "accuracy": [0.9, 0.5, 0.3, 0.1]}
    found["eps"]["about"]["threat"]["eps"] = eps
    (run / "diagnostics.json").write_text(json.dumps(found))
    measured = json.loads((run / "evaluation.json").read_text())
    measured["threat"]["eps"] = eps
    (run / "evaluation.json").write_text(json.dumps(measured))
    page = browser.open(write_report([run], tmp_path / "report.html"))
    plot = "document.querySelector('.plot.lines')"
    drawn, axis = page.ask(
        f"(() => {{ const plot = {plot}, mark = plot.querySelector('path[stroke-dasharray]').getBoundingClientRect(); "
        "return [mark.x + mark.width / 2 - plot.getBoundingClientRect().x, "
        f"echarts.getInstanceByDom(plot).convertToPixel({{ xAxisIndex: 0 }}, {eps})]; }})()"
    )
    assert abs(drawn - axis) <= 1
    page.close()


def test_numbers_on_a_matrix_can_be_read(browser: Browser, tmp_path: Path) -> None:
    """Contrast on every shade from none to all of a class, as WCAG counts it: 4.5 at least."""
    run, size = write_run(tmp_path / "run", classes=[str(n) for n in range(11)]), 11
    found = json.loads((run / "diagnostics.json").read_text())
    matrix = [
        [10 * i if i == j else 100 - 10 * i if j == (i + 1) % size else 0 for j in range(size)] for i in range(size)
    ]
    found["confusion"]["clean"]["matrix"] = found["confusion"]["attacked"]["matrix"] = matrix
    (run / "diagnostics.json").write_text(json.dumps(found))
    report = write_report([run], tmp_path / "report.html")
    cells = (
        "[...document.querySelectorAll('.plot.heat')].map((each) => echarts.getInstanceByDom(each).getOption())"
        ".flatMap((option) => option.series[0].data).filter((cell) => cell.label.show)"
        ".map((cell) => [cell.itemStyle.color, cell.label.color])"
    )
    for dark in (False, True):
        page = browser.open(report, dark=dark)
        drawn = page.ask(cells)
        assert len({back for back, _ in drawn}) >= 10
        assert min(contrast(back, text) for back, text in drawn) >= 4.5
        page.close()


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' relative luminances, as WCAG 2 has it."""

    def light(colour: str) -> float:
        if colour.startswith("#"):
            colour = " ".join(str(int(2 * digit, 16)) for digit in colour[1:])
        parts = [int(each) / 255 for each in re.findall(r"\d+", colour)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_table_is_copied_as_columns(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["two"])
    page.ask("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.ask("document.querySelector('button[data-table=runs]').click()")
    lines = [line.split("\t") for line in page.ask("window.copied").splitlines()]
    assert lines[0][:5] == ["run", "clean", "robust", "95 % interval", "verdict on the number"] and {
        len(line) for line in lines
    } == {9}
    assert lines[2][0] == "written" and lines[2][2] == "50.0 %"
    page.close()


def test_values_are_shown_where_one_points(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open(reports["one epoch"])
    chart = "echarts.getInstanceByDom(document.querySelector('.plot.lines'))"
    page.ask(f"{chart}.dispatchAction({{type: 'showTip', seriesIndex: 0, dataIndex: 0}})")
    page.complaints()
    drawn = page.ask("document.querySelector('.plot.lines svg').textContent")
    accuracy: Any = json.loads(page.ask("document.getElementById('figures').textContent"))
    first = next(each["data"] for each in accuracy.values() if each["kind"] == "lines")["lines"][0]["points"][0][1]
    assert f"{100 * first:.1f} %" in drawn
    page.close()


def test_it_is_printed_light_and_whole(browser: Browser, reports: dict[str, Path], tmp_path: Path) -> None:
    page = browser.open(reports["one epoch"], dark=True)
    page.pdf(tmp_path / "report.pdf")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 2
    page.send("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.ask("window.dispatchEvent(new Event('beforeprint'))")
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.ask("document.querySelector('details.printed').open") and page.complaints() == []
    page.ask("window.dispatchEvent(new Event('afterprint'))")
    assert not page.ask("document.querySelector('details.printed').open")
    page.close()


def test_without_scripts_the_numbers_are_there(reports: dict[str, Path]) -> None:
    """What scripts add is hidden without them, and nothing else is."""
    text = reports["two"].read_text(encoding="utf-8")
    sections = text.split("<section")[1:]
    assert len(sections) == 3 and not any("hidden" in each.split(">", 1)[0] for each in sections)
    assert "Numbers" in text

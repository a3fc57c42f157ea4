// Draws the figures, and makes tables sortable and copyable. The page joins figures.js and this file to one script.

// ---- Drawing: visible figures are drawn, and drawn again when the theme, the width or the selected runs change.

const charts = new Map();

function picked(name) {
  const boxes = all("input.pick");
  const box = boxes.find((each) => each.value === name);
  return !box || box.checked;
}

function chosenData(figure) {
  const several = figure.overlay;
  return several ? { ...figure.data, lines: figure.data.lines.filter((line) => picked(line.name)) } : figure.data;
}

function draw(place) {
  const figure = FIGURES[place.id];
  if (!figure || place.clientWidth === 0) {
    return;
  }
  if (figure.kind === "bars") {
    place.style.height = `${Math.max(19.5, 4 + 1.6 * figure.data.names.length)}rem`;
  }
  const chart = charts.get(place.id) ?? echarts.init(place, null, { renderer: "svg" });
  charts.set(place.id, chart);
  chart.resize();
  chart.setOption({ animation: false, ...KINDS[figure.kind](chosenData(figure), place.clientWidth, place.id) }, true);
  chart.getZr().flush();
}

const drawAll = () => all(".plot").forEach(draw);

let waiting = 0;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 80);
});

// ---- The theme: the system's, or the one chosen for this page.

const THEMES = [["", "Theme: system"], ["light", "Theme: light"], ["dark", "Theme: dark"]];

function setTheme(name) {
  if (name) {
    ROOT.dataset.theme = name;
  } else {
    delete ROOT.dataset.theme;
  }
  drawAll();
}

const themeButton = document.getElementById("theme");
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  const now = THEMES.findIndex(([name]) => name === (ROOT.dataset.theme ?? ""));
  const [name, label] = THEMES[(now + 1) % THEMES.length];
  themeButton.textContent = label;
  setTheme(name);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

let before = "";
let opened = [];
window.addEventListener("beforeprint", () => {
  before = ROOT.dataset.theme ?? "";
  opened = all("details.printed:not([open])");
  opened.forEach((each) => (each.open = true));
  setTheme("light");
});
window.addEventListener("afterprint", () => {
  opened.forEach((each) => (each.open = false));
  setTheme(before);
});
matchMedia("print").addEventListener("change", drawAll);

// ---- Tables: a click on a heading sorts, and copying gives tab-separated columns for a spreadsheet.

function sortBy(table, column, heading) {
  const up = heading.getAttribute("aria-sort") === "descending";
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return [row, number === undefined ? null : Number(number), cell.textContent.trim()];
  });
  const order = up ? 1 : -1;
  rows.sort(([, a, left], [, b, right]) => {
    if (a === null || b === null) {
      return a === b ? order * left.localeCompare(right, "en", { numeric: true }) : a === null ? 1 : -1;
    }
    return order * (a - b);
  });
  body.append(...rows.map(([row]) => row));
  all("th[aria-sort]", table).forEach((each) => each.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
}

function makeSortable(table) {
  if (table.tBodies[0].rows.length < 2) {
    return;
  }
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const label = heading.querySelector("span");
    if (!label) {
      return;
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label.textContent;
    label.replaceWith(button);
    button.addEventListener("click", () => sortBy(table, column, heading));
  });
}

function alignHeadings(table) {
  const first = table.tBodies[0].rows[0];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const numbers = [...table.tBodies[0].rows].some((row) => row.cells[column]?.classList.contains("number"));
    heading.classList.toggle("number", Boolean(first) && numbers);
  });
}

function asText(table) {
  const line = (row) => [...row.cells].filter((cell) => !cell.querySelector("input") && cell.textContent !== "in curves")
    .map((cell) => cell.textContent.trim().replace(/\s+/g, " ")).join("\t");
  return [...table.rows].filter((row) => !row.hidden).map(line).join("\n");
}

async function copy(button) {
  const { table, text: id } = button.dataset;
  const content = table ? asText(document.getElementById(table)) : document.getElementById(id).textContent;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(content);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(document.getElementById(table ?? id)); // to be copied with the keyboard
    button.textContent = "Selected: copy it with Ctrl-C";
  }
  setTimeout(() => (button.textContent = label), 2500);
}

// ---- Choosing runs.

function show(anchor) {
  const sections = all("section.run");
  const known = sections.some((section) => section.id === anchor) ? anchor : document.getElementById("main").dataset.first;
  sections.forEach((section) => (section.hidden = section.id !== known));
  const choose = document.getElementById("choose");
  if (choose) {
    choose.value = known;
  }
  drawAll();
  return document.getElementById(known);
}

function choose(anchor) {
  history.replaceState(null, "", `#${anchor}`); // so that a link to the previous run changes the address and works
  show(anchor);
}

function followAddress() {
  const anchor = location.hash.slice(1);
  if (anchor && document.getElementById(anchor)?.matches("section.run")) {
    const section = show(anchor);
    section.scrollIntoView();
    section.querySelector("h2").focus({ preventScroll: true });
  }
}

function filterRuns(input) {
  const wanted = input.value.trim().toLowerCase();
  const rows = [...document.getElementById("runs").tBodies[0].rows];
  const names = [...document.getElementById("runs").tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const searched = [names.indexOf("run"), names.indexOf("method")]; // not the numbers: "80" should match names only
  rows.forEach((row) => {
    row.hidden = !searched.some((column) => row.cells[column].textContent.toLowerCase().includes(wanted));
  });
  const left = rows.filter((row) => !row.hidden).length;
  document.getElementById("filtered").textContent = wanted ? `${left} of ${rows.length} runs` : "";
}

all("[data-scripted]").forEach((each) => (each.hidden = false));
all("table.sortable").forEach((table) => {
  makeSortable(table);
  alignHeadings(table);
});
all("button.copy").forEach((button) => button.addEventListener("click", () => copy(button)));
all("select.cost").forEach((select) => select.addEventListener("change", () => draw(document.getElementById(select.dataset.figure))));
all("input.pick").forEach((box) => box.addEventListener("change", drawAll));
document.getElementById("filter")?.addEventListener("input", (event) => filterRuns(event.target));
document.getElementById("choose")?.addEventListener("change", (event) => choose(event.target.value));
window.addEventListener("hashchange", followAddress);
show("");
followAddress();

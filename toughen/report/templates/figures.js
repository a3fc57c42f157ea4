// Turns the data of each kind of figure into ECharts options. Texts are shown as text, never as HTML.
"use strict";

const FIGURES = JSON.parse(document.getElementById("figures").textContent);
const ROLES = { clean: "--clean", fgsm: "--fgsm", pgd: "--pgd", train: "--train", loss: "--loss" };
const PALETTE = ["--pgd", "--clean", "--fgsm", "--loss", "--c5", "--c6", "--c7", "--train"];
const DASHES = ["solid", "dashed", "dotted"];
const ROOT = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// ---- Colours: the page's colours in the current theme.

const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function channels(name) {
  return colour(name).match(/[\d.]+/g).slice(0, 3).map(Number);
}

function between(low, high, share) {
  const mixed = low.map((value, i) => Math.round(value + (high[i] - value) * share));
  return `rgb(${mixed.join(",")})`;
}

function luminance(rgb) { // relative, as in WCAG 2
  const [red, green, blue] = rgb.map((value) => value / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const DARK = 0.179; // on a background of lower luminance, white text has more contrast than black text

// ---- Numbers.

const percent = (value) => (value === null || value === undefined || value === "-" ? "–" : `${(100 * value).toFixed(1)} %`);
const plain = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value ?? "–"));

// ---- What all figures share.

function text(extra = {}) {
  return { color: colour("--soft"), fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12, ...extra };
}

function tooltip(extra) {
  return {
    renderMode: "richText", // not HTML, so that a name cannot inject markup
    confine: true,
    backgroundColor: colour("--card"),
    borderColor: colour("--line"),
    textStyle: text({ color: colour("--ink"), fontSize: 13 }),
    ...extra,
  };
}

function axis(extra) {
  return {
    nameLocation: "middle",
    nameGap: 28,
    nameTextStyle: text(),
    axisLabel: text({ hideOverlap: true }),
    axisLine: { lineStyle: { color: colour("--line") } },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: colour("--line"), opacity: 0.6 } },
    ...extra,
  };
}

const FEW_NAMES = 10; // a legend with more names has pages; with fewer, all names are shown, in rows

function legend(names) {
  const shown = names.length > 1;
  return { show: shown, type: names.length > FEW_NAMES ? "scroll" : "plain", top: 0, left: 0, right: 0, itemWidth: 18,
    data: names, textStyle: text({ width: 150, overflow: "truncate" }), pageTextStyle: text(),
    pageIconColor: colour("--soft"), pageIconInactiveColor: colour("--line") };
}

function legendHeight(names, width) {
  if (names.length < 2) {
    return 16;
  }
  let rows = 1, filled = 0;
  for (const name of names.length > FEW_NAMES ? [] : names) {
    const needed = Math.min(150, 7 * name.length) + 40;
    rows += filled > 0 && filled + needed > width ? 1 : 0;
    filled = filled + needed > width ? needed : filled + needed;
  }
  return 18 + 20 * rows;
}

const grid = (extra) => ({ left: 48, right: 20, top: 40, bottom: 44, ...extra });

// ---- One function for each kind of figure: data in, ECharts' options out.

function lines({ x, y, lines: given, marks }, width) {
  const format = y.percent ? percent : plain;
  const places = [...new Set(given.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const even = x.log || places.length < 2; // on a logarithmic axis, points have equal distances
  const place = (at) => (even ? places.indexOf(at) : at);
  const series = given.map((line, i) => ({
    type: "line",
    name: line.label,
    data: line.points.map(([at, value]) => [place(at), value]),
    showSymbol: line.points.length <= 24,
    symbolSize: 6,
    color: colour(ROLES[line.role] ?? PALETTE[i % PALETTE.length]),
    lineStyle: { width: 2, type: line.dashed ? "dashed" : DASHES[Math.floor(i / PALETTE.length) % DASHES.length] },
  }));
  if (marks.length && series.length) {
    const [first, last] = [place(places[0]), place(places.at(-1))];
    const far = (mark) => place(mark.x) - first > 0.75 * (last - first); // a centred text would leave the figure
    series[0].markLine = markLine(marks.map((mark) => ({ ...mark, x: place(mark.x), far: far(mark) })));
  }
  const label = y.percent ? (value) => `${Math.round(100 * value)} %` : plain;
  const bounds = even ? { type: "category", data: places.map(plain), boundaryGap: places.length < 2 } : { type: "value", min: "dataMin", max: "dataMax" };
  return {
    legend: legend(given.map((line) => line.label)),
    grid: grid({ top: legendHeight(given.map((line) => line.label), width) + (marks.length ? 16 : 0) }),
    tooltip: tooltip({ trigger: "axis", valueFormatter: format }),
    xAxis: axis({ ...bounds, name: x.label, minInterval: x.whole ? 1 : undefined, splitLine: { show: false } }),
    yAxis: axis({ type: "value", min: y.percent ? 0 : undefined, max: y.percent ? 1 : undefined, scale: !y.percent,
      axisLabel: text({ formatter: label }) }),
    series,
  };
}

function markLine(marks) {
  const short = (mark, i) => (mark.text.length <= 24 ? mark.text : `(${i + 1})`); // its number in the list of events above
  return {
    symbol: "none",
    precision: 12, // by default ECharts rounds a mark's place to two digits: 4/255 to 0.02
    animation: false,
    silent: true,
    lineStyle: { color: colour("--soft"), type: "dashed", width: 1 },
    data: marks.map((mark, i) => ({ xAxis: mark.x, label: { formatter: () => short(mark, i), ...text(), position: "end",
      rotate: 0, align: mark.far ? "right" : "center" } })),
  };
}

function bars({ names, bars: given }) {
  return {
    legend: legend(given.map((bar) => bar.name)),
    grid: grid({ left: 12, top: 36, bottom: 12, outerBoundsMode: "same", outerBoundsContain: "axisLabel" }),
    tooltip: tooltip({ trigger: "axis", axisPointer: { type: "shadow" }, valueFormatter: percent }),
    xAxis: axis({ type: "value", min: 0, max: 1, axisLabel: text({ hideOverlap: true, formatter: (value) => `${Math.round(100 * value)} %` }) }),
    yAxis: axis({ type: "category", data: names, inverse: true, splitLine: { show: false },
      axisLabel: text({ color: colour("--ink"), width: 110, overflow: "truncate", interval: 0 }) }),
    series: given.map((bar) => ({ type: "bar", name: bar.name, data: bar.values, barGap: "10%", barCategoryGap: "30%",
      color: colour(ROLES[bar.role]), itemStyle: { borderRadius: [0, 2, 2, 0] } })),
  };
}

function heat({ x, y, cells, counts }) {
  const low = channels("--low"), high = channels("--high");
  const shades = cells.map((cell) => cell[3]);
  const least = counts ? 0 : Math.min(...shades), most = counts ? 1 : Math.max(...shades);
  const labelled = counts && x.names.length <= 12;
  const data = cells.map(([column, row, value, shade]) => {
    const share = most > least ? (shade - least) / (most - least) : 0;
    const back = between(low, high, share);
    const dark = luminance(back.match(/\d+/g).map(Number)) < DARK;
    return { value: [column, row, value], itemStyle: { color: back },
      label: { show: labelled && value > 0, color: dark ? "#fff" : "#000" } };
  });
  const label = ({ value: [column, row, value] }) => counts
    ? `${y.names[row]} predicted as ${x.names[column]}: ${value}`
    : `${x.label} ${x.names[column]}, ${y.label} ${y.names[row]}\nloss ${plain(value)}`;
  const half = (axisNames) => Math.max(1, (axisNames.length - 1) / 2); // both ends and the middle of a scale
  const every = (axisNames) => (counts ? (axisNames.length > 16 ? "auto" : 0) : (at) => at % half(axisNames) === 0);
  const long = counts && x.names.length * Math.max(...x.names.map((name) => name.length)) > 40; // the names would overlap
  const names = (axisNames, rotate) => ({ type: "category", data: axisNames, splitLine: { show: false },
    axisLabel: text({ hideOverlap: counts, rotate, width: 96, overflow: "truncate", interval: every(axisNames) }) });
  const scale = { type: "continuous", min: least, max: most, orient: "horizontal", left: "center", bottom: 0, seriesIndex: 9,
    itemWidth: 10, itemHeight: 120, inRange: { color: [colour("--low"), colour("--high")] }, textStyle: text(),
    text: [`loss ${plain(most)}`, plain(least)] };
  return {
    ...(counts ? {} : { visualMap: scale }),
    grid: { left: 12, right: 12, top: 8, bottom: counts ? 12 : 40, outerBoundsMode: "same", outerBoundsContain: "all" },
    tooltip: tooltip({ formatter: label }),
    xAxis: axis({ ...names(x.names, long ? 40 : 0), nameGap: long ? 64 : 28, name: x.label }),
    yAxis: axis({ ...names(y.names, 0), name: y.label, inverse: counts, nameGap: 44 }),
    series: [{ type: "heatmap", data, label: { fontSize: 11, formatter: ({ value }) => String(value[2]) },
      itemStyle: { borderColor: colour("--card"), borderWidth: counts ? 1 : 0 } }],
  };
}

function points({ points: given, costs, y, bars }, width, id) {
  const chosen = document.querySelector(`select.cost[data-figure="${id}"]`)?.value ?? "seconds";
  const shown = given.filter((point) => typeof point[chosen] === "number");
  const kinds = [...new Set(given.map((point) => point.kind))];
  const values = shown.map((point) => point[chosen]).filter((value) => value > 0);
  const wide = values.length === shown.length && Math.max(...values) > 20 * Math.min(...values);
  const rank = new Map([...shown].sort((a, b) => a[chosen] - b[chosen]).map((point, i) => [point, i]));
  const few = given.length <= 16, most = Math.max(...values);
  const series = kinds.map((kind, i) => ({
    type: "scatter",
    name: kind,
    color: colour(PALETTE[i % PALETTE.length]),
    symbolSize: few ? 10 : 8,
    itemStyle: { opacity: few ? 1 : 0.7 },
    data: shown.filter((point) => point.kind === kind).map((point) => ({ name: point.name, mark: point.mark,
      label: { position: point[chosen] > most / 2 ? "left" : "right" }, // inside the figure, next to its bar
      symbol: point.mark ? "emptyCircle" : "circle", value: [point[chosen], point.y, point.low, point.high] })),
    label: { show: few, formatter: ({ name }) => name, ...text({ color: colour("--ink") }) },
    labelLayout: ({ dataIndex }) => ({ hideOverlap: true, // labels of neighbouring points alternate above and below
      dy: rank.get(shown.filter((point) => point.kind === kind)[dataIndex]) % 2 ? 14 : -14 }),
  }));
  if (bars) {
    series.push(intervals(shown, chosen));
  }
  const label = ({ name, value, data }) => `${name}${data.mark ? `, ${data.mark}` : ""}\n${y} ${percent(value[1])} (${percent(value[2])} to ${percent(value[3])})\n${costs[chosen]} ${plain(value[0])}`;
  return {
    legend: legend(kinds),
    grid: grid({ top: legendHeight(kinds, width) + 8 }),
    tooltip: tooltip({ formatter: label }),
    xAxis: axis({ type: wide ? "log" : "value", name: costs[chosen], axisLabel: text({ hideOverlap: true, formatter: plain }),
      min: wide ? 10 ** Math.floor(Math.log10(Math.min(...values))) : 0 }),
    yAxis: axis({ type: "value", min: 0, max: 1, axisLabel: text({ formatter: (value) => `${Math.round(100 * value)} %` }) }),
    series,
  };
}

function intervals(shown, chosen) {
  return {
    type: "custom",
    silent: true,
    tooltip: { show: false },
    z: 1,
    data: shown.map((point) => [point[chosen], point.low, point.high]),
    renderItem: (_, api) => {
      const [x, low] = api.coord([api.value(0), api.value(1)]);
      const [, high] = api.coord([api.value(0), api.value(2)]);
      return { type: "line", shape: { x1: x, y1: low, x2: x, y2: high }, style: { stroke: colour("--soft"), lineWidth: 1.5 } };
    },
  };
}

const KINDS = { lines, bars, heat, points };

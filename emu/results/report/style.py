"""The page's looks, and the few lines of script that show values under the pointer. The page reads without the script."""

# Colours after Okabe and Ito (2008): told apart by colour-blind readers. Each has a lighter twin for dark mode.
CSS = """
:root { color-scheme: light dark;
  --page: #f5f6f8; --card: #fff; --text: #1b2027; --muted: #5c6672; --rule: #dfe3e8; --grid: #e8ebef; --soft: #eef1f5;
  --blue: #0072b2; --orange: #d55e00; --green: #00936b; --purple: #9c4f96; --yellow: #c08a00; --grey: #7d8793;
  --good: #0a7a4b; --good-soft: #e3f4ec; --warn: #8f5b00; --warn-soft: #fdf1d8; --bad: #b3261e; --bad-soft: #fce8e6; }
@media (prefers-color-scheme: dark) { :root {
  --page: #101418; --card: #181d23; --text: #e4e8ed; --muted: #9aa5b1; --rule: #2c343d; --grid: #272e36; --soft: #20262d;
  --blue: #56b4e9; --orange: #f28e4b; --green: #3cc79a; --purple: #d58fcd; --yellow: #e8c14a; --grey: #8a94a0;
  --good: #5fd7a2; --good-soft: #12301f; --warn: #f0bd59; --warn-soft: #35280d; --bad: #ff8f85; --bad-soft: #3b1613; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, "Liberation Sans", sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1360px; margin: 0 auto; padding: 28px 24px 40px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 2px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; letter-spacing: -.005em; }
h3 { font-size: 14px; margin: 0; }
p { margin: 0; }
.subtitle, .note, .empty, footer { color: var(--muted); }
.subtitle { overflow-wrap: anywhere; }
.note { font-size: 12.5px; line-height: 1.45; }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }

.verdict { margin: 20px 0; padding: 18px 22px; border-radius: 10px; border-left: 8px solid var(--tone);
  background: var(--tint); }
.good { --tone: var(--good); --tint: var(--good-soft); }
.warn { --tone: var(--warn); --tint: var(--warn-soft); }
.bad { --tone: var(--bad); --tint: var(--bad-soft); }
.verdict h2 { margin: 0; font-size: 22px; letter-spacing: .02em; color: var(--tone); display: inline-block; }
.verdict ul { margin: 8px 0 0; padding-left: 20px; }
.verdict li { overflow-wrap: anywhere; }
.verdict p { margin-top: 4px; }
b.good, b.bad { color: var(--tone); }
.badge { display: inline-block; margin-left: 10px; padding: 2px 10px; border-radius: 99px; font-size: 12.5px; font-weight: 600;
  letter-spacing: .04em; vertical-align: 4px; color: var(--tone); border: 1.5px solid var(--tone); background: var(--tint); }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin-top: 16px; }
a { color: var(--blue); }
.tile, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 12.5px; line-height: 1.45; display: block; }
.columns { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 8fr); gap: 16px; margin-top: 16px; }
.columns.first { grid-template-columns: minmax(0, 8fr) minmax(0, 6fr); margin-top: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 16px; }
.card { padding: 14px 16px; margin: 0; min-width: 0; }
.card > .note { margin-top: 1px; }
.wide { margin-top: 16px; }
@media (max-width: 900px) { .columns, .columns.first { grid-template-columns: minmax(0, 1fr); } main { padding: 18px 14px; } }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 8px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
thead th { color: var(--muted); font-weight: 500; font-size: 12.5px; }
tbody th { font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
.text { text-align: left; }
td.text, th.text { white-space: normal; overflow-wrap: break-word; min-width: 80px; }
th small, td small { display: block; font-weight: 400; color: var(--muted); font-size: 12px; }
summary { cursor: pointer; color: var(--muted); font-size: 13px; padding: 8px 8px 2px; }
.bar { display: inline-block; width: 84px; height: 8px; margin-right: 8px; border-radius: 4px; background: var(--soft);
  overflow: hidden; }
.bar i { display: block; height: 100%; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 5px 16px; margin: 8px 0 0; font-size: 13.5px; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
.stacks { align-items: center; gap: 8px 16px; }
.stacks small { display: block; font-size: 12px; }
.stacks dd { display: flex; align-items: center; gap: 10px; font-variant-numeric: tabular-nums; }
.stack { display: flex; height: 26px; }
.stack i { background: var(--ink); opacity: .82; color: var(--card); font-style: normal; font-size: 12px; line-height: 26px;
  text-align: center; overflow: hidden; }
.stacks + .legend { margin: 10px 0 12px; }

.blue { --ink: var(--blue); } .orange { --ink: var(--orange); } .green { --ink: var(--green); }
.purple { --ink: var(--purple); } .yellow { --ink: var(--yellow); }
.red { --ink: var(--bad); }
.grey { --ink: var(--grey); } .muted { --ink: var(--muted); }
.bar i { background: var(--ink); }
figure { position: relative; }
.plot { display: block; width: 100%; height: auto; margin-top: 8px; overflow: visible; }
.plot text { fill: var(--muted); font-size: 11px; font-variant-numeric: tabular-nums; }
.plot .end { text-anchor: end; } .plot .middle { text-anchor: middle; }
.grid { stroke: var(--grid); fill: none; shape-rendering: crispEdges; }
.line { stroke: var(--ink); stroke-width: 1.8; fill: none; stroke-linejoin: round; }
.area { fill: var(--ink); fill-opacity: .82; }
.area.pale { fill-opacity: .25; }
.vertical { stroke: var(--ink); stroke-dasharray: 2 3; }
.cursor { stroke: var(--text); stroke-opacity: .45; }
.marker { fill: var(--ink); stroke: var(--card); stroke-width: 1.2; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 3px 16px; margin: 6px 0 0; padding: 0; font-size: 12.5px; }
.legend li { display: flex; align-items: center; gap: 6px; }
.legend i { width: 16px; flex: none; border-top: 3px solid var(--ink); }
.legend i.dashes { border-top: 2px dashed var(--ink); }
.legend i.square { width: 11px; height: 11px; border: 0; border-radius: 2px; background: var(--ink); opacity: .82; }
.legend i.pale, .stack i.pale { opacity: .45; }
.symbol { width: 13px; height: 13px; flex: none; }
.tip { position: absolute; pointer-events: none; padding: 5px 9px; border-radius: 6px; border: 1px solid var(--rule);
  z-index: 1; background: var(--card); box-shadow: 0 2px 10px rgb(0 0 0 / .18);
  font-size: 12px; line-height: 1.45; white-space: nowrap; }
footer { margin-top: 32px; padding-top: 14px; border-top: 1px solid var(--rule); font-size: 12.5px; }
footer p + p { margin-top: 4px; }
@page { size: A4; margin: 9mm; }
@media print { :root { color-scheme: light; } body { background: #fff; font-size: 10px; line-height: 1.35; }
  main { max-width: none; padding: 0; } .card, .tile, .verdict { break-inside: avoid; } * { print-color-adjust: exact; }
  h1 { font-size: 17px; } h2 { font-size: 13px; margin: 10px 0 5px; break-after: avoid; } h3 { font-size: 11px; }
  .charts { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 6px; }
  .tiles { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 6px; }
  .tile { padding: 5px 8px; } .tile b { font-size: 14px; }
  .columns, .columns.first { grid-template-columns: minmax(0, 1fr); gap: 6px; margin-top: 6px; } .card { padding: 6px 8px; }
  .verdict { margin: 8px 0; padding: 8px 12px; } .verdict h2 { font-size: 15px; } .wide { margin-top: 6px; }
  table, dl, code, .legend, .note, .tile span, th small, td small, thead th { font-size: 8.5px; } th, td { padding: 2px 4px; }
  dl { gap: 2px 10px; } .scroll { overflow: visible; } footer { margin-top: 8px; padding-top: 6px; font-size: 8.5px; } }
"""

# A path holds pixels; the axes in data-plot ([first pixel, last pixel, low, high, 1: log, 2: TailScale]) take
# them back to values.
SCRIPT = """
const value = ([a, b, low, high, log], px) => {
  const t = (px - a) / (b - a);
  if (log === 2) return t < .6 ? 150 * t : 100 - 10 ** (1 - (t - .6) * 5);
  return log ? low * (high / low) ** t : low + t * (high - low);
};
const short = (v) => Number(v.toPrecision(3)).toLocaleString("en", {maximumFractionDigits: 6});
for (const svg of document.querySelectorAll(".plot")) {
  const {x, y, unit} = JSON.parse(svg.dataset.plot), card = svg.parentElement;
  const series = [...svg.querySelectorAll("[data-name]")].map((path) => {
    const n = path.getAttribute("d").match(/[\\d.]+/g)?.map(Number) ?? [], area = path.classList.contains("area");
    const points = n.flatMap((px, i) => i % 2 ? [] : [[px, n[i + 1]]]), half = points.length / 2;
    const base = area ? points.slice(half).reverse() : null;
    return {name: path.dataset.name, base, points: area ? points.slice(0, half) : points};
  });
  const cursor = document.createElementNS(svg.namespaceURI, "path"), tip = document.createElement("div");
  cursor.setAttribute("class", "cursor");
  tip.className = "tip";
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), px = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    if (px < x[0] || px > x[1] || !series.length) { cursor.remove(); tip.remove(); return; }
    const there = series.filter(({points}) => points.length && px > points[0][0] - 4 && px < points.at(-1)[0] + 4);
    const lines = [`${unit[0]}: ${short(value(x, px))}`, ...there.map(({name, points, base}) => {
      const i = points.reduce((best, p, k) => Math.abs(p[0] - px) < Math.abs(points[best][0] - px) ? k : best, 0);
      return `${name}: ${short(value(y, points[i][1]) - (base ? value(y, base[i][1]) : 0))}`;
    })];
    cursor.setAttribute("d", `M${px} ${y[1]}V${y[0]}`);
    tip.replaceChildren(...lines.map((line) => Object.assign(document.createElement("div"), {textContent: line})));
    svg.append(cursor);
    card.append(tip);
    const left = event.clientX - card.getBoundingClientRect().left;
    tip.style.top = `${box.top - card.getBoundingClientRect().top + 30}px`;
    tip.style.left = left < card.clientWidth / 2 ? `${left + 14}px` : `${left - tip.offsetWidth - 14}px`;
  });
  svg.addEventListener("pointerleave", () => { cursor.remove(); tip.remove(); });
}
"""

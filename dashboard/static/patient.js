// Shows a stay's reasons and curves: one small chart per parameter, with a common time axis.

import uPlot from "/static/vendor/uplot/uPlot.esm.js";

const POINTS_KEPT = 20_000;
const HOUR = 3600;
const RISK = null; // a key that differs from every parameter's name

const box = document.getElementById("curves");
const table = document.getElementById("readings");
const points = new Map(); // seq -> [time, parameter or null, value, probability]
// Each axis: [parameter, label, unit, digits, low, high, hours for which a value is current, source
// of the limits].
let axes = [];
let riskAxis = ["Risk", "%", 100, 1]; // [label, unit, factor, top as a probability]
let alarmMarks = []; // [time, kind of the alarm's event], oldest first
let alarmAt = null; // the probability that raises an alarm
let charts = [];
let edition = null; // another edition: a reading was withdrawn, and all points are sent again
let shownHours = null; // null: the whole stay
let range = null; // the range chosen with the mouse: [from, to]

const utc = (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC");
const two = (number) => String(number).padStart(2, "0");
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

function moment(time) {
  const at = new Date(time * 1000);
  const day = `${DAYS[at.getUTCDay()]} ${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
  return `${day}, ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
}

function text(value, digits) {
  return (digits === null ? String(Number(value.toPrecision(4))) : value.toFixed(digits)).replace("-", "\u2212");
}

// The series of a chart: times and values, with null where the line is interrupted.
function series(parameter, holds) {
  const at = new Map();
  for (const seq of [...points.keys()].sort((a, b) => a - b)) {
    const [time, name, value, probability] = points.get(seq);
    if (parameter === RISK) {
      if (probability !== null) at.set(time, probability * riskAxis[2]);
    } else if (name === parameter) at.set(time, value);
  }
  const times = [];
  const values = [];
  let last = null;
  for (const [time, value] of [...at].sort((a, b) => a[0] - b[0])) {
    if (last !== null && time - last > holds * HOUR) {
      times.push(last + 1);
      values.push(null);
    }
    times.push(time);
    values.push(value);
    last = time;
  }
  return [times, values];
}

function extent() {
  let from = Infinity;
  let to = -Infinity;
  for (const [time] of points.values()) {
    from = Math.min(from, time);
    to = Math.max(to, time);
  }
  return [from, to > from ? to : from + HOUR];
}

function visible() {
  if (range) return range;
  const [from, to] = extent();
  const margin = (to - from) * 0.01;
  return [shownHours === null ? from - margin : to - shownHours * HOUR, to + margin];
}

const em = () => parseFloat(getComputedStyle(document.documentElement).fontSize);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A dashed line at each threshold, with its value and source.
function limits(u, low, high, source) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour("--alarm");
  const height = 0.7 * em() * devicePixelRatio;
  ctx.font = `${height}px "Atkinson Hyperlegible Next", sans-serif`;
  // uPlot does not reset the text alignment after drawing its axis numbers.
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  const thin = 0.08 * em() * devicePixelRatio;
  ctx.setLineDash([4 * thin, 4 * thin]);
  ctx.lineWidth = thin;
  for (const limit of [low, high]) {
    if (limit === null || limit < u.scales.y.min || limit > u.scales.y.max) continue;
    const y = u.valToPos(limit, "y", true);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.globalAlpha = 0.7;
    ctx.stroke();
    ctx.globalAlpha = 1;
    const above = y - 1.2 * height;
    const words = `${source} ${limit === low ? "≤" : "≥"} ${Number(limit.toPrecision(3))}`;
    const at = [bbox.left + 0.3 * height, above > bbox.top ? above : y + 0.2 * height];
    // A halo keeps the words readable where they cross the curve.
    ctx.setLineDash([]);
    ctx.strokeStyle = colour("--surface");
    ctx.lineWidth = 0.25 * height;
    ctx.lineJoin = "round";
    ctx.strokeText(words, ...at);
    ctx.strokeStyle = colour("--alarm");
    ctx.lineWidth = thin;
    ctx.setLineDash([4 * thin, 4 * thin]);
    ctx.fillText(words, ...at);
  }
  ctx.restore();
}

// Marks on the risk curve: a band while an alarm is active, a triangle where it was raised, a
// dashed line where it was acknowledged.
function drawAlarms(u) {
  const { ctx, bbox } = u;
  const x = (time) => u.valToPos(time, "x", true);
  const size = 0.45 * em() * devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = ctx.strokeStyle = colour("--alarm");
  ctx.globalAlpha = 0.13;
  for (const [from, to] of bands(u.scales.x.max)) ctx.fillRect(x(from), bbox.top, x(to) - x(from), bbox.height);
  ctx.globalAlpha = 1;
  for (const [time, kind] of alarmMarks) {
    const at = x(time);
    ctx.beginPath();
    if (kind === "raise" || kind === "again") {
      ctx.moveTo(at - size, bbox.top);
      ctx.lineTo(at + size, bbox.top);
      ctx.lineTo(at, bbox.top + 1.6 * size);
      ctx.fill();
    } else if (kind === "acknowledge") {
      ctx.setLineDash([size / 2, size / 2]);
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
    }
  }
  ctx.restore();
}

// The [from, to] of each alarm; an active alarm extends to the end of the axis.
function bands(end) {
  const found = [];
  for (const [time, kind] of alarmMarks) {
    if (kind === "raise") found.push([time, Math.max(time, end)]);
    else if (kind === "clear" && found.length) found.at(-1)[1] = time;
  }
  return found;
}

function alarmWords() {
  const rings = alarmMarks.filter(([, kind]) => kind === "raise").map(([time]) => moment(time));
  return rings.length ? `. Alarms: ${rings.join("; ")}` : "";
}

let syncing = false;

// All charts show the same part of the stay.
function follow(u) {
  if (syncing) return;
  const { min, max } = u.scales.x;
  const [from, to] = visible();
  if (Math.abs(min - from) < 1 && Math.abs(max - to) < 1) return;
  range = [min, max];
  press(undefined);
  showRange();
}

// Removes the charts, after the last reading was withdrawn.
function clear() {
  for (const { plot } of charts) plot.destroy();
  charts = [];
  box?.replaceChildren();
}

function showRange() {
  const [min, max] = visible();
  syncing = true;
  for (const { plot } of charts) plot.setScale("x", { min, max });
  syncing = false;
}

function build() {
  for (const { plot } of charts) plot.destroy();
  box.replaceChildren();
  const size = em();
  const font = `${0.8 * size}px "Atkinson Hyperlegible Next", sans-serif`;
  const [noun, riskUnit, , top] = riskAxis;
  const rings = alarmAt === null ? null : alarmAt * riskAxis[2];
  charts = [[RISK, noun, riskUnit, riskUnit === "%" ? 1 : 0, null, rings, 2, ""], ...axes].map(
    ([parameter, label, unit, digits, low, high, holds, threshold], index) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const name = document.createElement("b");
      const readout = document.createElement("span");
      name.textContent = unit ? `${label}, ${unit}` : label;
      const marks = [low === null ? "" : `≤ ${low}`, high === null ? "" : `≥ ${high}`].filter(Boolean);
      const note = document.createElement("span");
      if (parameter === RISK) {
        const end = `axis to ${Number((top * riskAxis[2]).toPrecision(3))} ${unit}, or to the highest value`;
        note.textContent = rings === null ? end : `${end}; alarm at ${Number(rings.toPrecision(3))} ${unit}; ▼ raised, shaded while active, dashed when acknowledged`;
      }
      else if (marks.length) note.textContent = `marked ${marks.join(" or ")} (${threshold})`;
      caption.append(name, " ", note, " ", readout);
      const place = document.createElement("div");
      place.setAttribute("role", "img");
      figure.append(caption, place);
      box.append(figure);
      const stroke = colour(parameter === RISK ? "--risk" : "--vital");
      const axis = { stroke: colour("--muted"), font, grid: { stroke: colour("--rule"), width: 1 }, ticks: { stroke: colour("--rule"), width: 1 } };
      const plot = new uPlot(
        {
          width: box.clientWidth,
          height: (parameter === RISK ? 11 : 9) * size,
          tzDate: utc,
          legend: { show: false },
          cursor: { sync: { key: "stay", scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 0.6 * size } },
          scales: { x: { time: true }, y: { range: (u, min, max) => span(parameter, min, max, digits) } },
          series: [{}, { stroke, width: 0.12 * size, fill: parameter === RISK ? `${stroke}22` : undefined, points: { size: 0.32 * size, fill: stroke }, spanGaps: false }],
          axes: [
            { ...axis, size: 2.2 * size, space: 7 * size, values: timeTicks },
            { ...axis, size: 3.4 * size, space: 2 * size, ...(digits === null ? {} : { incrs: steps(digits) }) },
          ],
          hooks: {
            setScale: [(u, key) => key === "x" && follow(u)],
            setCursor: [(u) => (readout.textContent = pointed(u, digits))],
            draw: [(u) => limits(u, low, high, parameter === RISK ? "alarm" : threshold || "marked"), ...(parameter === RISK ? [drawAlarms] : [])],
          },
        },
        series(parameter, holds),
        place,
      );
      return { parameter, label, unit, digits, holds, plot, place, index };
    },
  );
  showRange();
  describe();
}

// The distances between an axis's numbers, which have no more decimals than the values.
function steps(digits) {
  return [0, 1, 2, 3, 4, 5].flatMap((power) => [1, 2, 5].map((first) => first * 10 ** (power - digits)));
}

// The risk axis is fixed by the model, and grows only for a higher value.
function span(parameter, min, max, digits) {
  if (parameter === RISK) return [0, Math.max(riskAxis[2] * riskAxis[3], (max ?? 0) * 1.05)];
  if (min === null) return [0, 1];
  // The numbers of the axis need no more decimals than the values have.
  const step = digits === null ? 1e-6 : 10 ** -digits;
  const room = Math.max((max - min) * 0.15, Math.abs(max) * 0.02, step);
  return [min - room, max + room];
}

// Days in English and 24-hour times, independent of the browser's language.
function timeTicks(_plot, splits, _axis, _space, increment) {
  return splits.map((time, index) => {
    const at = new Date(time * 1000);
    const day = `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
    if (increment >= 24 * HOUR || at.getUTCHours() + at.getUTCMinutes() === 0) return day;
    const hour = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
    return index === 0 ? `${day}, ${hour}` : hour;
  });
}

function pointed(u, digits) {
  const index = u.cursor.idx;
  const value = index === null || index === undefined ? null : u.data[1][index];
  return value === null || value === undefined ? "" : `${text(value, digits)} at ${moment(u.data[0][index])}`;
}

// The curve described in words, for screen readers.
function describe() {
  for (const { parameter, label, unit, digits, plot, place } of charts) {
    const values = plot.data[1].filter((value) => value !== null);
    const words = values.length
      ? `${label}: ${values.length} values from ${text(Math.min(...values), digits)} to ${text(Math.max(...values), digits)} ${unit}, the last ${text(values.at(-1), digits)}`
      : `${label}: no values`;
    place.setAttribute("aria-label", parameter === RISK ? words + alarmWords() : words);
  }
}

function redraw() {
  for (const { parameter, holds, plot } of charts) plot.setData(series(parameter, holds), false);
  showRange();
  describe();
}

function tabulate() {
  const rows = new Map();
  for (const [time, parameter, value, probability] of points.values()) {
    const row = rows.get(time) ?? rows.set(time, new Map()).get(time);
    if (parameter !== RISK) row.set(parameter, value);
    if (probability !== null) row.set(RISK, probability * riskAxis[2]);
  }
  const columns = [[RISK, riskAxis[0], riskAxis[1], riskAxis[1] === "%" ? 1 : 0], ...axes];
  const head = table.createTHead();
  head.replaceChildren();
  const titles = head.insertRow();
  for (const title of ["Time", ...columns.map(([, label, unit]) => (unit ? `${label}, ${unit}` : label))]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = title;
    titles.append(cell);
  }
  const tbody = table.tBodies[0] ?? table.createTBody();
  tbody.replaceChildren();
  for (const time of [...rows.keys()].sort((a, b) => b - a).slice(0, 48)) {
    const row = tbody.insertRow();
    row.insertCell().textContent = moment(time);
    for (const [parameter, , , digits] of columns) {
      const value = rows.get(time).get(parameter);
      const cell = row.insertCell();
      cell.className = "number";
      cell.textContent = value === undefined ? "" : text(value, digits);
    }
  }
}

function showReasons(reasons) {
  const items = reasons.map(([words, kind]) => {
    const item = document.createElement("li");
    item.dataset.kind = kind;
    item.textContent = words;
    return item;
  });
  document.getElementById("reasons")?.replaceChildren(...items);
}

const details = table?.closest("details");
details?.addEventListener("toggle", () => details.open && tabulate());

document.addEventListener("live", ({ detail }) => {
  const news = detail.set ?? {};
  const parameters = news.patient?.parameters;
  if (parameters) axes = parameters;
  if (news.patient?.["risk.axis"]) riskAxis = news.patient["risk.axis"];
  const marks = news.patient?.["alarm.marks"];
  if (marks) alarmMarks = marks;
  const rule = news.patient && "alarm.at" in news.patient && news.patient["alarm.at"] !== alarmAt;
  if (rule) alarmAt = news.patient["alarm.at"];
  if (news.patient?.why) showReasons(news.patient.why);
  const { edition: latest, ...more } = news.points ?? {};
  if (latest !== undefined && latest !== edition) {
    edition = latest;
    points.clear();
  }
  for (const [seq, point] of Object.entries(more)) points.set(Number(seq), point);
  if (points.size > POINTS_KEPT) {
    const oldest = [...points.keys()].sort((a, b) => a - b).slice(0, points.size - POINTS_KEPT);
    for (const seq of oldest) points.delete(seq);
  }
  if (!points.size) clear();
  else if (parameters || rule || !charts.length) build();
  else if (news.points || marks) redraw();
  if (details?.open) tabulate();
});

// Buttons, as an alternative to dragging.
const buttons = [...document.querySelectorAll(".zoom [data-hours]")];

function press(pressed) {
  for (const button of buttons) button.setAttribute("aria-pressed", button === pressed);
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    shownHours = button.dataset.hours ? Number(button.dataset.hours) : null;
    range = null;
    press(button);
    showRange();
  });
}

for (const button of document.querySelectorAll(".zoom [data-pan]")) {
  button.addEventListener("click", () => {
    const [from, to] = visible();
    const [first, last] = extent();
    const step = ((to - from) / 2) * Number(button.dataset.pan);
    const by = Math.max(first - from, Math.min(last - to, step));
    if (shownHours === null && !range) return;
    range = [from + by, to + by];
    press(undefined);
    showRange();
  });
}

box?.addEventListener("dblclick", () => buttons[0].click());

let resizing;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => points.size && build(), 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => points.size && build());

// Keeps a page up to date: changed texts and attributes, new entries of lists, and their order.
// The scripts of single pages listen to the event "live".

const body = document.body;
const LOST_AFTER = 12_000; // ms without an event; the server sends a heartbeat every 4 s

// element key -> field -> [function that shows a value]
const shown = new Map();

function register(root) {
  for (const node of [root, ...root.querySelectorAll("[data-text], [data-attr]")]) {
    if (!node.dataset || !(node.dataset.text || node.dataset.attr)) continue;
    const key = node.closest("[data-key]").dataset.key;
    if (node.dataset.text) add(key, node.dataset.text, (value) => (node.textContent = value));
    for (const pair of (node.dataset.attr ?? "").split(" ").filter(Boolean)) {
      const [attribute, field] = pair.split("=");
      add(key, field, (value) => node.setAttribute(attribute, value));
    }
  }
}

function add(key, field, show) {
  if (!shown.has(key)) shown.set(key, new Map());
  const fields = shown.get(key);
  fields.set(field, [...(fields.get(field) ?? []), show]);
}

function setFields(changes) {
  for (const [key, values] of Object.entries(changes)) {
    const fields = shown.get(key);
    if (!fields) continue;
    for (const [field, value] of Object.entries(values)) {
      for (const show of fields.get(field) ?? []) show(value);
    }
  }
}

const lists = new Map([...document.querySelectorAll("[data-list]")].map((l) => [l.dataset.list, l]));
const entries = new Map();
for (const list of lists.values()) {
  for (const entry of list.children) entries.set(entry.dataset.key, entry);
}

function insert(html) {
  for (const [key, text] of Object.entries(html)) {
    const template = document.createElement("template");
    template.innerHTML = text;
    const entry = template.content.firstElementChild;
    const list = lists.get(key.split(":")[0]);
    if (!list) continue;
    shown.delete(key);
    if (entries.has(key)) entries.get(key).replaceWith(entry);
    else list.append(entry);
    entries.set(key, entry);
    register(entry);
    if (list === ward) {
      showPin(entry);
      sift(entry);
    }
  }
}

function removeOthers(order) {
  const wanted = new Set(order);
  for (const [key, entry] of entries) {
    if (wanted.has(key)) continue;
    entry.remove();
    entries.delete(key);
    shown.delete(key);
  }
}

// The order of a list does not change while the pointer or the focus is in the list. Nor does it
// change for HELD_AFTER ms after a touch or a scroll.
const HELD_AFTER = 10_000;
const held = new Map();
const heldText = document.getElementById("held");
let touched = -Infinity;
let releasing;

function isHeld(list) {
  return (
    performance.now() - touched < HELD_AFTER ||
    list.matches(":focus-within") ||
    (matchMedia("(hover: hover)").matches && list.matches(":hover"))
  );
}

function touch() {
  touched = performance.now();
  clearTimeout(releasing);
  releasing = setTimeout(letGo, HELD_AFTER + 50);
}

for (const type of ["touchstart", "touchmove", "wheel", "scroll"]) {
  addEventListener(type, touch, { passive: true });
}

function showHeld() {
  if (heldText) heldText.textContent = held.size ? "The order does not change while you read." : "";
}

function arrange(list, wanted) {
  const keys = list.classList.contains("ward") ? pinnedFirst(wanted) : wanted;
  let at = list.firstElementChild;
  for (const key of keys) {
    const entry = entries.get(key);
    if (!entry) continue;
    // If the next entry belongs here, this entry has moved down: append it, so that the others need
    // not move.
    if (entry !== at && entry === at?.nextElementSibling) {
      list.append(at);
      at = entry;
    }
    if (entry === at) at = at.nextElementSibling;
    else list.insertBefore(entry, at);
  }
}

function setOrder(order) {
  removeOthers(order);
  for (const [name, list] of lists) {
    const keys = order.filter((key) => key.startsWith(`${name}:`));
    if (list === ward) wardOrder = keys;
    if (isHeld(list)) held.set(list, keys);
    else {
      held.delete(list);
      arrange(list, keys);
    }
  }
  showHeld();
}

function letGo() {
  for (const [list, keys] of held) {
    if (isHeld(list)) continue;
    held.delete(list);
    arrange(list, keys);
  }
  showHeld();
}

for (const list of lists.values()) {
  for (const type of ["pointerleave", "focusout"]) list.addEventListener(type, () => setTimeout(letGo));
}

// Pins and the filter are local to this browser.

const PINS = "icu-pins";
const pins = new Set(readPins());

function readPins() {
  try {
    const stored = JSON.parse(localStorage.getItem(PINS) ?? "[]");
    return Array.isArray(stored) ? stored.map(String) : [];
  } catch {
    return []; // storage is disabled or contains something else
  }
}

function pinnedFirst(keys) {
  return [...keys.filter((key) => pins.has(key)), ...keys.filter((key) => !pins.has(key))];
}

const ward = lists.get("ward");
const filter = document.getElementById("filter");
let wardOrder = ward ? [...ward.children].map((entry) => entry.dataset.key) : [];

function showPin(entry) {
  const pinned = pins.has(entry.dataset.key);
  entry.classList.toggle("pinned", pinned);
  entry.querySelector(".pin")?.setAttribute("aria-pressed", pinned);
}

function sift(entry) {
  const wanted = filter?.value.trim().toLowerCase() ?? "";
  const text = `${entry.querySelector("h2").textContent} ${entry.querySelector(".place").textContent}`;
  entry.hidden = wanted !== "" && !text.toLowerCase().includes(wanted);
}

filter?.addEventListener("input", () => {
  for (const entry of ward.children) sift(entry);
});

ward?.addEventListener("click", (event) => {
  const entry = event.target.closest(".bed");
  const pin = event.target.closest(".pin");
  if (!pin) return;
  const { key } = entry.dataset;
  if (!pins.delete(key)) pins.add(key);
  try {
    localStorage.setItem(PINS, JSON.stringify([...pins].slice(-200)));
  } catch {
    // Without storage, the pins last only as long as the page is open.
  }
  showPin(entry);
  arrange(ward, wardOrder);
});

function apply(update) {
  const layout = update.set?.page?.layout;
  if (layout !== undefined && layout !== body.dataset.layout) {
    location.reload(); // the stream, the model or the columns have changed
    return;
  }
  if (update.html) insert(update.html);
  if (update.set) setFields(update.set);
  if (update.order) setOrder(update.order);
  document.dispatchEvent(new CustomEvent("live", { detail: update }));
}

// Limits the load of the browser to about 5 %: after an update the page pauses in proportion to the
// time taken, up to REST_MAX, and then shows the accumulated updates together. Painting, which
// cannot be measured, is assumed to take as long as all measured work.

const REST_FACTOR = 39;
const REST_MAX = 2_000;
let since = body.dataset.since; // the last event that is shown
let waiting = []; // [event id, update]
let resting;

// The age of the shown data. A heartbeat contains two times of the dashboard's clock: now, and when
// the data was read. The smallest difference seen is how far the browser's clock is ahead of the
// dashboard's, because a heartbeat may arrive late but not early. This estimate may rise slowly,
// because clocks drift.
const LATE = 5; // seconds
const DRIFT = 0.001;
const asof = document.getElementById("asof");
let ahead = Infinity;
let beatenAt = 0;
let freshAt = null; // when the shown data was read, in seconds of this page's clock
let beat = null; // when the data that is not shown yet was read

const seconds = () => performance.now() / 1000;

function showAge() {
  if (asof === null || freshAt === null) return;
  const exact = Math.max(0, seconds() - freshAt);
  const age = Math.ceil(exact); // rounded up, because the text stays for a second
  const minutes = age < 60 ? "" : `${Math.floor(age / 60)} min `;
  asof.textContent = `as of ${minutes}${age % 60} s ago`;
  body.toggleAttribute("data-late", Math.round(exact) > LATE);
}

function fresh({ now, read }) {
  const here = seconds();
  ahead = Math.min(ahead + DRIFT * (here - beatenAt), here - now);
  beatenAt = here;
  const at = read + ahead;
  if (waiting.length) beat = at;
  else freshAt = at;
  showAge();
}

setInterval(() => {
  checkClock();
  showAge();
}, 1000);

function show(id, update) {
  waiting.push([id, update]);
  if (!resting) showWaiting();
}

function showWaiting() {
  resting = undefined;
  if (!waiting.length) return;
  const start = performance.now();
  while (waiting.length) {
    const [id, update] = waiting.shift(); // removed even if it cannot be applied
    since = id;
    apply(update);
  }
  if (beat !== null) [freshAt, beat] = [beat, null];
  showAge();
  body.getBoundingClientRect(); // forces the layout, so that the measured time includes it
  const rest = Math.min(REST_FACTOR * (performance.now() - start), REST_MAX);
  resting = setTimeout(showWaiting, rest);
}

// The connection.

let source;
let next; // the timer that `unless` sets

function say(state, text) {
  if (body.dataset.link === state) return;
  body.dataset.link = state;
  document.getElementById("link").textContent = text;
}

function unless(heardWithin, then) {
  clearTimeout(next);
  next = setTimeout(then, heardWithin);
}

// performance.now() may stop while the computer sleeps. If Date.now() jumps relative to it, the
// computer has slept or its clock was set; in both cases the age is measured again on a new
// connection.
const JUMP = 2_000;
let clocks = Date.now() - performance.now();

function checkClock() {
  const difference = Date.now() - performance.now();
  const jumped = Math.abs(difference - clocks) > JUMP;
  clocks = difference;
  if (jumped && source && source.readyState !== EventSource.CLOSED) again();
  return jumped;
}

function heard() {
  if (checkClock()) return false;
  unless(LOST_AFTER, again);
  say("open", "");
  return true;
}

function lost() {
  say("lost", "This page has lost its connection to the dashboard. These values are not current.");
}

// A connection may die without an error event.
function again() {
  lost();
  source.close();
  open();
}

function open() {
  unless(LOST_AFTER, again);
  waiting = []; // the server sends these events again, because they are later than `since`
  source = new EventSource(`/events?${body.dataset.live}&since=${since}`);
  source.onopen = () => (ahead = Infinity);
  source.onmessage = (event) => {
    if (heard()) show(event.lastEventId, JSON.parse(event.data));
  };
  source.addEventListener("beat", (event) => {
    if (heard()) fresh(JSON.parse(event.data));
  });
  // The session has ended: a reload shows the log-in page.
  source.addEventListener("ended", () => location.reload());
  source.onerror = () => {
    lost();
    // After an error status, unlike after a lost connection, the browser does not reconnect by
    // itself.
    if (source.readyState === EventSource.CLOSED) unless(5_000, open);
  };
}

function close() {
  source?.close();
  waiting = [];
  clearTimeout(next);
}

// Measures the masthead, and the part above the status lamp, for the style sheet.
const masthead = document.querySelector(".masthead");

function measure() {
  const { style } = document.documentElement;
  style.setProperty("--masthead", `${masthead.offsetHeight}px`);
  style.setProperty("--lead", `${document.querySelector(".standing")?.offsetTop ?? 0}px`);
}

new ResizeObserver(measure).observe(masthead);

if (ward) {
  for (const entry of ward.children) showPin(entry);
  if (pins.size) arrange(ward, wardOrder);
}

// A browser opens at most six connections to a server, so a hidden page closes its own.
function connect() {
  if (document.hidden) close();
  else if (body.dataset.link !== "paused") open();
  showAge();
}

if (body.dataset.live) {
  register(body);
  connect();
  document.addEventListener("visibilitychange", connect);
  const pause = document.getElementById("pause");
  pause?.addEventListener("click", () => {
    const pausing = pause.getAttribute("aria-pressed") === "false";
    pause.setAttribute("aria-pressed", pausing);
    if (pausing) {
      close();
      say("paused", "Paused: these values are not updated and not current.");
    } else {
      open();
    }
  });
}

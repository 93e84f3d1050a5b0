// Keeps a page up to date: texts and attributes that the server says have changed, new entries
// of lists, and their order. What a page has on its own (curves) listens to the event "live".

const body = document.body;
const LOST_AFTER = 12_000; // the server gives a sign of life every 4 s

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

// A list does not move under the hand: its order waits until pointer and focus have left it.
const held = new Map();

function isHeld(list) {
  return list.matches(":focus-within") || (matchMedia("(hover: hover)").matches && list.matches(":hover"));
}

function arrange(list, keys) {
  let at = list.firstElementChild;
  for (const key of keys) {
    const entry = entries.get(key);
    if (!entry) continue;
    // One that sank to a later place: out of the way, so that the others need not move.
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
    if (isHeld(list)) held.set(list, keys);
    else {
      held.delete(list);
      arrange(list, keys);
    }
  }
}

function letGo() {
  for (const [list, keys] of held) {
    if (isHeld(list)) continue;
    held.delete(list);
    arrange(list, keys);
  }
}

for (const list of lists.values()) {
  for (const type of ["pointerleave", "focusout"]) list.addEventListener(type, () => setTimeout(letGo));
}

function apply(update) {
  const layout = update.set?.page?.layout;
  if (layout !== undefined && layout !== body.dataset.layout) {
    location.reload(); // another stream, or other columns
    return;
  }
  if (update.html) insert(update.html);
  if (update.set) setFields(update.set);
  if (update.order) setOrder(update.order);
  document.dispatchEvent(new CustomEvent("live", { detail: update }));
}

// A page takes a twentieth of its browser's time: after an update it rests for as long as that
// asks for, up to REST_MAX, and then shows together what has come meanwhile. Painting, which a
// page cannot measure, is taken to cost as much again as the rest.

const REST_FACTOR = 39;
const REST_MAX = 3_000;
let since = body.dataset.since; // the last event that is shown
let waiting = []; // [event id, update]
let resting;

function show(id, update) {
  waiting.push([id, update]);
  if (!resting) showWaiting();
}

function showWaiting() {
  resting = undefined;
  if (!waiting.length) return;
  const start = performance.now();
  while (waiting.length) {
    const [id, update] = waiting.shift(); // gone even if it cannot be applied
    since = id;
    apply(update);
  }
  body.getBoundingClientRect(); // the layout is part of the cost
  const rest = Math.min(REST_FACTOR * (performance.now() - start), REST_MAX);
  resting = setTimeout(showWaiting, rest);
}

// The connection.

let source;
let next; // what is done when nothing is heard in time

function say(state, text) {
  if (body.dataset.link === state) return;
  body.dataset.link = state;
  document.getElementById("link").textContent = text;
}

function unless(heardWithin, then) {
  clearTimeout(next);
  next = setTimeout(then, heardWithin);
}

function heard() {
  unless(LOST_AFTER, again);
  say("open", "");
}

function lost() {
  say("lost", "This page has lost its connection to the dashboard. What stands here is not current.");
}

// A connection may be dead without either end being told.
function again() {
  lost();
  source.close();
  open();
}

function open() {
  unless(LOST_AFTER, again);
  waiting = []; // comes again, after `since`
  source = new EventSource(`/events?${body.dataset.live}&since=${since}`);
  source.onmessage = (event) => {
    heard();
    show(event.lastEventId, JSON.parse(event.data));
  };
  source.addEventListener("beat", heard);
  source.onerror = () => {
    lost();
    // Refused, and not only broken off: the browser does not try again by itself.
    if (source.readyState === EventSource.CLOSED) unless(5_000, open);
  };
}

function close() {
  source.close();
  waiting = [];
  clearTimeout(next);
}

if (body.dataset.live) {
  register(body);
  open();
  const pause = document.getElementById("pause");
  pause?.addEventListener("click", () => {
    const pausing = pause.getAttribute("aria-pressed") === "false";
    pause.setAttribute("aria-pressed", pausing);
    if (pausing) {
      close();
      say("paused", "Paused: what stands here does not change, and is not current.");
    } else {
      open();
    }
  });
}

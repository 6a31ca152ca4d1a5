"use strict";

// Whatever servers say goes into the page as text: the document's policy refuses markup.

const SIGNS = {
  master: "◆", replica: "◇", unavailable: "✕",
  superseded: "⊘", rival: "⊘", foreign: "⊘", unknown: "?",
};
const BAD = new Set(["CheckFailed", "ConnectionsTerminated", "AcquireTimedOut", "EventsDropped", "ManagerClosed"]);
const MOST_EVENTS = 200;
const SILENCE = 5000;  // Milliseconds after which a stream is taken for lost: a state comes each second.
const RETRY = 3000;  // Milliseconds until another try, where the browser makes none by itself.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

let source = null;
let heardAt = 0;  // When the last message came, on the browser's own clock.
let lostAt = null;
let retrying = null;

let instance = null;
let state = null;
let done = [];  // [moment, acquires so far], of the last second and the one before it.
let roles = {};  // By address: [moment, role] from when on it has had it.
let waits = [];  // [moment, longest, count, failed], one for each state.
let changedAt = null;  // When the master changed, as far as is known.
let rows = new Map();  // By address.
let minutes = 3;

// The stream

function connect() {
  clearTimeout(retrying);
  retrying = null;
  if (source !== null) source.close();
  source = new EventSource(location.pathname.replace(/\/*$/, "/events"));
  heardAt = performance.now();
  on("snapshot", (told) => {
    begin(told);
    take(told);
  });
  on("state", take);
  on("event", (told) => {
    follow(told);
    list(told);
    draw();
  });
  on("renew", connect);
  source.onerror = () => {
    lost();
    // After an answer that is no stream, a browser does not try again.
    if (source.readyState === EventSource.CLOSED) retryLater();
  };
}

function on(name, act) {
  const own = source;
  own.addEventListener(name, (message) => {
    if (own !== source) return;
    heardAt = performance.now();
    lostAt = null;
    if (document.body.dataset.link !== "live") say("live", "live");
    act(JSON.parse(message.data));
  });
}

function lost() {
  if (lostAt === null) lostAt = new Date();
  say("lost", `disconnected since ${clock(lostAt)}, trying again`);
}

function retryLater() {
  if (retrying === null) retrying = setTimeout(connect, RETRY);
}

function say(kind, text) {
  document.body.dataset.link = kind;
  byId("link").textContent = text;
}

setInterval(() => {
  // A connection that is cut without a word.
  if (retrying === null && performance.now() - heardAt > SILENCE) {
    lost();
    connect();
  }
}, 1000);

// What is told

function begin(told) {
  document.title = `${told.title}: status`;
  byId("title").textContent = told.title;
  if (told.instance !== instance) {
    instance = told.instance;
    waits = [];
    done = [];
  }
  roles = told.roles;
  changedAt = null;
  byId("events").replaceChildren();
  for (const each of told.events) {
    follow(each, true);
    list(each);
  }
  byId("quiet").hidden = told.events.length > 0;
}

function follow(event, isPast = false) {
  if (event.kind === "MasterChanged") changedAt = event.at;
  if (event.role !== undefined && !isPast) (roles[event.address] ??= []).push([event.at, event.role]);
}

function take(told) {
  state = told;
  done.push([told.at, sum(told.stats.hosts, "acquires")]);
  while (done.length > 2 && done[1][0] <= told.at - 1) done.shift();
  const { longest, count, failed } = told.waits;
  waits.push([told.at, longest, count, failed]);
  while (waits[0][0] < told.at - 600) waits.shift();
  show();
  draw();
}

function list(event) {
  const line = document.createElement("li");
  const time = document.createElement("time");
  const at = new Date(event.at * 1000);
  time.dateTime = at.toISOString();
  time.textContent = clock(at, true);
  const text = document.createElement("span");
  text.textContent = event.text;
  line.dataset.kind = event.kind;
  line.dataset.weight = event.master ? "high" : event.master === null || BAD.has(event.kind) ? "bad" : "";
  line.append(time, text);
  const events = byId("events");
  events.prepend(line);
  while (events.children.length > MOST_EVENTS) events.lastChild.remove();
  byId("quiet").hidden = true;
}

// What is shown

function show() {
  const { topology, stats } = state;
  const master = topology.master;
  const isKnown = topology.settled;
  byId("lead").dataset.master = master !== null ? "there" : isKnown ? "none" : "unknown";
  put("master", master ?? (isKnown ? "none" : "not known yet"));
  const since = master !== null ? roles[master]?.at(-1)[0] : changedAt;
  put("since", since == null ? "" : `since ${clock(new Date(since * 1000))}, for ${duration(Math.max(0, state.at - since))}`);

  put("waiting", stats.waiting);
  byId("waiting").classList.toggle("warn", stats.waiting > 0);
  const minute = waits.filter(([at]) => at > state.at - 60);
  const count = sum(minute, 2) + sum(minute, 3);
  const longest = Math.max(0, ...minute.map((each) => each[1]));
  figure("waited", count, count ? `longest ${duration(longest)}` : "");
  const isLimited = topology.hosts.every((host, index) => !host.serving || stats.hosts[index].size !== null);
  figure("in-use", sum(stats.hosts, "in_use"), isLimited ? `of ${sum(stats.hosts, "size")}` : "no limit");
  const passed = state.at - done[0][0];
  put("rate", passed > 0 ? Math.round((done.at(-1)[1] - done[0][1]) / passed) : "–");
  put("timed-out", stats.timed_out);
  put("failovers", stats.failovers);

  const addresses = topology.hosts.map((host) => host.address);
  if (addresses.join(" ") !== [...rows.keys()].join(" ")) build(addresses);
  topology.hosts.forEach((host, index) => {
    const { cells, why } = rows.get(host.address);
    const numbers = stats.hosts[index];
    cells.role.dataset.role = host.role;
    cells.role.dataset.sign = SIGNS[host.role] ?? "?";
    text(cells.role, host.overdue ? `${host.role}, overdue` : host.role);
    text(why, reason(host));
    why.parentNode.hidden = why.textContent === "";
    text(cells.used, used(numbers, host.serving));
    const fraction = numbers.size ? Math.min(1, numbers.in_use / numbers.size) : 0;
    cells.meter.className = numbers.size === null ? "meter none" : fraction === 1 ? "meter full" : "meter";
    cells.fill.style.width = `${100 * fraction}%`;
    text(cells.lag, host.role !== "replica" ? "–" : host.lag === null ? "not known" : duration(host.lag));
    cells.lag.title = host.role === "replica" ? host.lag_reason ?? "" : "";
    text(cells.response, host.response_time === null ? "–" : duration(host.response_time));
  });
}

function reason(host) {
  const words = [];
  if (host.yields_to !== null) words.push(`yields to ${host.yields_to}`);
  if (host.reason !== null) words.push(host.reason);
  else if (!host.serving && (host.role === "master" || host.role === "replica")) words.push("its pool is not open");
  return words.join("; ");
}

function used(numbers, isServing) {
  if (!isServing && numbers.in_use === 0) return "no pool";
  const of = numbers.size === null ? "" : ` of ${numbers.size}`;
  return `${numbers.in_use}${of}${numbers.waiting ? `, ${numbers.waiting} waiting` : ""}`;
}

function build(addresses) {
  rows = new Map();
  const lines = [];
  for (const address of addresses) {
    const line = row();
    const name = cell(line, "th", "rowheader");
    name.scope = "row";
    name.textContent = address;
    const role = cell(line, "td", "cell", "role");
    const strip = graphic(cell(line, "td", "cell", "wide"), "strip");
    const use = cell(line, "td", "cell");
    use.dataset.label = "In use";
    const used = use.appendChild(document.createElement("span"));
    const meter = use.appendChild(document.createElement("span"));
    meter.setAttribute("aria-hidden", "true");
    const fill = meter.appendChild(document.createElement("i"));
    const lag = cell(line, "td", "cell");
    lag.dataset.label = "Lag, at most";
    const response = cell(line, "td", "cell");
    response.dataset.label = "Response";
    const below = row("why");
    const why = cell(below, "td", "cell", "reason");
    why.colSpan = 6;
    lines.push(line, below);
    rows.set(address, { cells: { role, used, meter, fill, lag, response }, strip, why });
  }
  byId("hosts").replaceChildren(...lines);
}

function row(kind = "") {
  const line = document.createElement("tr");
  line.setAttribute("role", "row");
  line.className = kind;
  return line;
}

function cell(line, tag, role, kind = "") {
  const made = line.appendChild(document.createElement(tag));
  made.setAttribute("role", role);
  made.className = kind;
  return made;
}

// The strips

function graphic(place, kind) {
  const made = place.appendChild(document.createElementNS(SVG, "svg"));
  made.setAttribute("class", kind);
  made.setAttribute("role", "img");
  return made;
}

function draw() {
  if (state === null) return;
  const end = Math.max(state.at, ...Object.values(roles).map((each) => each.at(-1)[0]));
  const start = end - 60 * minutes;
  for (const [address, { strip }] of rows) drawRoles(strip, roles[address] ?? [], start, end);
  drawWaits(start, end);
}

function drawRoles(strip, changes, start, end) {
  const scale = strip.clientWidth / (end - start);
  const parts = [];
  const words = [];
  changes.forEach(([at, role], index) => {
    const until = changes[index + 1]?.[0] ?? end;
    if (until <= start) return;
    const from = Math.max(at, start);
    words.push(`${role} for ${duration(until - from)}`);
    const x = (from - start) * scale;
    // What lasts for a moment is seen all the same.
    const width = Math.max(2, (until - from) * scale);
    const [kind, y, height] =
      role === "master" ? ["master", 2, 22]
      : role === "replica" ? ["replica", 13, 11]
      : role === "unavailable" ? ["unavailable", 2, 22]
      : role === "unknown" ? ["unknown", 21, 3]
      : ["sidelined", 2, 22];
    parts.push(rect(kind, x, y, width, height));
  });
  strip.replaceChildren(rect("base", 0, 25, strip.clientWidth, 1), ...parts);
  strip.setAttribute("aria-label", `Last ${minutes} minutes: ${words.slice(-6).join(", then ")}`);
}

function drawWaits(start, end) {
  const place = byId("waits");
  const bars = place.firstElementChild ?? graphic(place, "bars");
  const shown = waits.filter(([at, longest]) => at > start && longest > 0);
  const top = Math.max(0.1, ...shown.map((each) => each[1]));
  const scale = bars.clientWidth / (end - start);
  const width = Math.max(2, scale - 1);
  const parts = shown.map(([at, longest, , failed]) => {
    const height = Math.max(1, 32 * longest / top);
    return rect(failed ? "failed" : "wait", Math.max(0, (at - start) * scale - width), 33 - height, width, height);
  });
  bars.replaceChildren(rect("base", 0, 33, bars.clientWidth, 1), ...parts);
  const count = sum(shown, 2), failed = sum(shown, 3);
  const told = !shown.length ? "none since this page was opened"
    : `${count}${failed ? `, and ${failed} failed` : ""}; longest ${duration(Math.max(...shown.map((each) => each[1])))}`;
  const waiting = state.stats.waiting;
  put("longest", waiting ? `${waiting} waiting now${shown.length ? `; before that ${told}` : ""}` : told);
  bars.setAttribute("aria-label", `Acquires that waited, last ${minutes} minutes: ${told}`);
}

function rect(kind, x, y, width, height) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("class", kind);
  for (const [name, value] of Object.entries({ x, y, width, height })) made.setAttribute(name, value.toFixed(2));
  return made;
}

// Words

function put(id, value) {
  text(byId(id), String(value));
}

// What stays as it is must not be told anew by screen readers.
function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

function figure(id, value, more) {
  const element = byId(id);
  const small = document.createElement("small");
  small.textContent = more;
  element.replaceChildren(String(value), small);
}

function sum(items, key) {
  return items.reduce((total, item) => total + (item[key] ?? 0), 0);
}

function duration(seconds) {
  if (seconds < 0.001) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function clock(date, isExact = false) {
  const two = (number) => String(number).padStart(2, "0");
  const whole = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return isExact ? `${whole}.${String(date.getMilliseconds()).padStart(3, "0")}` : whole;
}

for (const choice of document.querySelectorAll("[name=minutes]")) {
  choice.addEventListener("change", () => {
    minutes = Number(choice.value);
    put("axis-start", `${minutes} min ago`);
    draw();
  });
}
addEventListener("resize", draw);
connect();

// The page's client: connects, and shows what the official Socket.IO client goes through.
"use strict";

const server = document.documentElement.dataset;
const direct = server.direct === "true";
// Opened on 8080 directly, the page goes to the port of the instance that rendered it; a proxy finds the instance by itself.
const target = direct ? `${location.protocol}//${location.hostname}:${server.port}` : location.origin;
const asked = new URLSearchParams(location.search).get("transport");
const transports = asked === "polling" || asked === "websocket" ? [asked] : ["polling", "websocket"];

const ROUND_TRIP_EVERY = 2000;
const ROUND_TRIPS_SHOWN = 40;
const LOG_ENTRIES = 200;
const MESSAGES = 200;
const PEOPLE = 60;

const $ = (id) => document.getElementById(id);
const part = (name) => document.querySelector(`[data-testid="${name}"]`);

/* What is shown */

function state(name) {
  document.body.dataset.state = name;
  part("state").textContent = name;
  $("verb").textContent = { connected: "Connected to", connecting: "Connecting to", reconnecting: "Reconnecting to" }[name];
}

function append(list, item, most) {
  // Whoever scrolled up to read stays there.
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(item);
  while (list.childElementCount > most) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

let last = { text: "", times: 0, shown: null };

function log(text, kind) {
  if (text === last.text) {
    last.times += 1;
    last.shown.textContent = `${text} (${last.times} times)`;
    return;
  }
  const item = element("li", undefined, kind);
  const now = new Date();
  const clock = now.toTimeString();
  const time = element("time");
  time.dateTime = now.toISOString();
  // The hour stands apart because a phone has no room for it.
  time.append(element("span", clock.slice(0, 3)), `${clock.slice(3, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`);
  last = { text, times: 1, shown: element("p", text) };
  item.append(time, last.shown);
  append(part("log"), item, LOG_ENTRIES);
}

function step(name, to, text) {
  const item = $(`step-${name}`);
  item.dataset.step = to;
  item.lastElementChild.textContent = text;
}

const milliseconds = (time) => `${time < 9.95 ? time.toFixed(1) : Math.round(time)}\u00a0ms`;

/* The connection */

let started = performance.now();
let connects = 0;
let instance = null;
const since = () => milliseconds(performance.now() - started);

function begin() {
  started = performance.now();
  part("transport").textContent = "…";
  if (transports[0] === "polling") {
    step("polling", "active", "shaking hands");
    step("probe", "waiting", "");
    step("websocket", "waiting", "");
  } else {
    step("polling", "skipped", "not asked for");
    step("probe", "skipped", "not needed");
    step("websocket", "active", "shaking hands");
  }
}

/** The session is open: shows over what, whose it is, and then how it moves. */
function follow(engine) {
  const name = engine.transport.name;
  // The sid is a credential: only its prefix, the owner, is shown.
  const owner = /^\d{1,5}(?=-)/.exec(engine.id)?.[0] ?? "?";
  part("transport").textContent = name;
  part("owner").textContent = owner;
  step(name, "done", `open after ${since()}`);
  log(`session open over ${name}, owned by node ${owner}`);
  if (name !== "polling") return;

  if (transports.length === 1) {
    step("probe", "skipped", "not asked for");
    step("websocket", "skipped", "not asked for");
    return;
  }
  step("probe", "active", "sent");
  log("probing websocket");
  engine.once("upgrading", () => {
    step("probe", "done", `answered after ${since()}`);
    step("websocket", "active", "moving");
    log("probe answered, polling pauses");
  });
  engine.once("upgrade", (transport) => {
    part("transport").textContent = transport.name;
    step("websocket", "done", `upgraded after ${since()}`);
    log(`upgraded to ${transport.name} after ${since()}`, "good");
    measure();
  });
  engine.once("upgradeError", (error) => {
    if (engine.readyState !== "open") return;
    step("probe", "failed", "not answered");
    step("websocket", "waiting", "");
    log(`no upgrade, polling goes on: ${error.message}`, "bad");
  });
}

function connect() {
  const socket = io(target, { transports, autoConnect: false });
  const manager = socket.io;
  let retry = 0;
  let retries = 0;

  manager.on("open", () => follow(manager.engine));
  manager.on("reconnect_attempt", (attempt) => {
    begin();
    log(attempt === 1 ? "connecting again" : `connecting again, attempt ${attempt}`);
  });

  socket.on("connect", () => {
    connects += 1;
    retries = 0;
    state("connected");
    part("reconnects").textContent = connects - 1;
    log(`namespace / joined as ${socket.id}`);
    pending = null;
    measure();
    join();
  });

  socket.on("disconnect", (reason) => {
    state("reconnecting");
    part("transport").textContent = "none";
    part("rtt").textContent = "…";
    log(`disconnected: ${reason}`, "bad");
    if (!socket.active) again();
  });

  socket.on("connect_error", (error) => {
    if (connects > 0) state("reconnecting");
    log(`no connection: ${error.message}`, "bad");
    for (const item of document.querySelectorAll("[data-step=active]")) step(item.id.slice("step-".length), "failed", "no answer");
    if (!socket.active) again();
  });

  // After a refusal, or when the server says goodbye, the client does not come back by itself.
  function again() {
    clearTimeout(retry);
    const wait = Math.min(1000 * 2 ** retries, 30000) * (0.5 + Math.random());
    retries += 1;
    retry = setTimeout(() => {
      begin();
      log("connecting again, on our own");
      socket.connect();
    }, wait);
  }

  begin();
  log(`connecting to ${target}`);
  socket.connect();
  return socket;
}

function greeted(text) {
  const told = /^connected to worker: (\d+)$/.exec(text)?.[1];
  if (told === undefined) return;
  part("instance").textContent = told;
  if (instance === null) log(text);
  else if (told === instance) log(`back on instance ${told}`, "good");
  else log(`moved from instance ${instance} to ${told}`);
  instance = told;
}

/* Round trips: `b:message` is answered by `s:message` with the namespace and the port */

let pending = null;
const trips = [];

function measure() {
  if (!socket.connected || document.hidden) return;
  if (pending !== null && performance.now() - pending < 10000) return;
  pending = performance.now();
  socket.emit("b:message", "page");
}

function answered(text) {
  const port = /: (\d+)$/.exec(text)?.[1];
  if (port) part("port").textContent = port;
  if (pending === null) return;
  trips.push(performance.now() - pending);
  pending = null;
  if (trips.length > ROUND_TRIPS_SHOWN) trips.shift();
  part("rtt").textContent = milliseconds(trips[trips.length - 1]);
  draw();
}

function draw() {
  const top = Math.max(...trips) * 1.1;
  const steps = Math.max(trips.length - 1, 11);
  const point = (trip, at) => `${(at * 120) / steps},${27 - (trip / top) * 26}`;
  const line = trips.length > 1 ? trips : [];
  $("spark").firstElementChild.setAttribute("points", line.map(point).join(" "));
}

/* Chat */

const people = new Map();
// Members whom the server counted and did not name.
let unnamed = 0;
const form = $("say");

function recall() {
  try {
    const name = localStorage.getItem("stickyport.name");
    if (name) return name;
  } catch { /* Storage may be forbidden; then the name lasts as long as the page. */ }
  return `Guest ${100 + Math.floor(Math.random() * 900)}`;
}

function remember(name) {
  try {
    localStorage.setItem("stickyport.name", name);
  } catch { /* As above. */ }
}

async function join() {
  const name = form.elements.name.value;
  try {
    const room = await socket.timeout(10000).emitWithAck("chat:join", { name });
    if (room.error) return hint(room.error);
    people.clear();
    people.set(socket.id, room.name);
    for (const person of room.people) people.set(person.id, person.name);
    unnamed = Math.max(0, room.total - people.size);
    hint("");
    form.elements.name.value = room.name;
    gather();
  } catch {
    if (socket.connected) hint("The room does not answer.");
  }
}

async function say() {
  const text = form.elements.text.value.trim();
  if (!text) return;
  if (!socket.connected) return hint("Not connected; your message is kept.");
  try {
    const answer = await socket.timeout(10000).emitWithAck("chat:message", { text });
    if (answer.error) return hint(answer.error);
    hint("");
    // What was typed meanwhile stays.
    if (form.elements.text.value.trim() === text) form.elements.text.value = "";
  } catch {
    hint("Not delivered; your message is kept.");
  }
}

function gather() {
  const mine = socket.id;
  const names = [...people].sort(([a, x], [b, y]) => (b === mine) - (a === mine) || x.localeCompare(y));
  const shown = names.slice(0, PEOPLE).map(([id, name]) => element("li", name, id === mine ? "me" : ""));
  const total = people.size + unnamed;
  if (total > shown.length) shown.push(element("li", `and ${total - shown.length} more`));
  part("room-list").replaceChildren(...shown);
  part("room-count").textContent = total;
}

function note(text) {
  append(part("chat-log"), element("li", text, "note"), MESSAGES);
}

function hint(text) {
  $("hint").textContent = text;
}

function chat() {
  form.elements.name.value = recall();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (document.activeElement === form.elements.name) form.elements.text.focus();
    else say();
  });
  form.elements.name.addEventListener("change", () => {
    const name = form.elements.name.value.trim();
    if (!name) return;
    remember(name);
    if (socket.connected) join();
  });

  socket.on("chat:joined", ({ id, name, was }) => {
    if (was === null) note(`${name} came`);
    else if (was !== name) note(`${was} is now ${name}`);
    if (was !== null && !people.has(id)) unnamed = Math.max(0, unnamed - 1);
    people.set(id, name);
    gather();
  });
  socket.on("chat:left", ({ id, name }) => {
    if (!people.delete(id)) unnamed = Math.max(0, unnamed - 1);
    note(`${name} left`);
    gather();
  });
  socket.on("chat:message", ({ id, name, text }) => {
    const item = element("li", undefined, id === socket.id ? "me" : "");
    item.append(element("b", name), element("p", text));
    append(part("chat-log"), item, MESSAGES);
  });
}

/* Start */

let socket;

function start() {
  for (const link of document.querySelectorAll("[data-transport]")) {
    if (link.dataset.transport === (transports.length === 1 ? transports[0] : "")) link.setAttribute("aria-current", "page");
  }
  $("route").textContent = direct ? `The socket goes straight to port ${server.port}.` : "The socket goes through the proxy that this page came through.";
  if (direct) part("port").textContent = server.port;
  if (typeof io === "undefined") return log("the client script did not load; please reload the page", "bad");

  socket = connect();
  chat();
  socket.on("data", greeted);
  socket.on("s:message", answered);
  $("drop").addEventListener("click", () => {
    log("dropping the connection");
    socket.io.engine?.close();
  });
  setInterval(measure, ROUND_TRIP_EVERY);
  document.addEventListener("visibilitychange", measure);
}

start();

// The same scripts against our Socket.IO server and the reference's: every event and what every client sees is the same, but for what is listed here.

import { createServer } from "node:net";
import { once } from "node:events";
import { request } from "node:http";
import { test } from "node:test";
import assert from "node:assert/strict";
import { brotliDecompressSync, gunzipSync, inflateSync } from "node:zlib";
import { io } from "socket.io-client";
import { connect as connectVersion2 } from "socket.io-client-2";
import { WebSocket as Ws } from "ws";
import { Child, compare, programs, rename } from "./lib/differential.mjs";
import { event, until, within } from "./lib/waiting.mjs";

const COMMANDS = programs("harness", "sio-harness-node.cjs");

/** Where we differ on purpose: in which script, why, and what exactly. */
const DEVIATIONS = [
  {
    script: "what only a cluster's adapter does in the reference",
    why: "one node alone knows its rooms, and that there is nobody else to ask; the reference's adapter has no such functions",
    differences: [
      { at: "events.9.err", ours: null, reference: { message: "io.of(...).adapter.allRooms is not a function" } },
      { at: "events.9.value", ours: ["<socket 1>", "<socket 2>", "<socket 3>", "r1", "r2"], reference: "(nothing)" },
      { at: "events.10.err", ours: null, reference: { message: "io.of(...).adapter.allRooms is not a function" } },
      { at: "events.10.value", ours: ["<socket 4>", "r1"], reference: "(nothing)" },
    ],
  },
  {
    script: "an event that is named as errors are",
    why: "what a client says is none of the server's errors, whatever its name",
    differences: [{ at: "events.2", ours: "(nothing)", reference: { t: "error", nsp: "/", sid: "<socket 1>", message: "mine" } }],
  },
  {
    script: "who is refused leaves no namespace behind",
    why: "whoever is told of namespaces that come is told of those that go, whoever was the last in them",
    differences: [{ at: "events.2", ours: { t: "nsp_removed", name: "/tenant-1" }, reference: "(nothing)" }],
  },
  {
    script: "not allowed: nothing",
    why: "the reference stumbles over an empty message and tells of its own mistake",
    differences: [{ at: "events.1.message", ours: "unknown packet type NaN", reference: "Cannot read properties of undefined (reading 'base64')" }],
  },
  ...Object.entries({ "recovery, usual": [3, 10], "recovery, with middlewares": [3, 11], "recovery, with a length": [3, 10], "no recovery of what is not known": [3] }).map(([script, places]) => ({
    script,
    why: "who listens is told what the application said, not what recovery adds",
    differences: places.map((place) => ({ at: `events.${place}.args.1`, ours: "(nothing)", reference: "<offset>" })),
  })),
];

const scripts = new Set();
const covered = { events: new Set(), commands: new Set(), operations: new Set(), flags: new Set() };

/** A script: what it is about, the server's options, and what happens. */
function script(name, opts, play) {
  const run = async (command) => {
    const server = await Server.start(command, opts);
    let status;
    let notes;
    try {
      await play(server);
      // What clients see of the end is not the script's.
      notes = structuredClone(server.notes);
    } finally {
      status = server.program.isRunning ? await server.stop() : await server.program.exited;
      // What a client sees last, it sees by itself; a poll may be late to notice.
      await until("its clients are gone", () => server.clients.every((client) => (client instanceof Ws ? client.readyState === Ws.CLOSED : !client.connected)));
      server.clients.forEach((client) => client.close());
    }
    const named = (field) => [...new Set(server.events.flatMap((event) => event[field] ?? []))];
    const names = [
      [`:${server.port}`, ":<port>"],
      ...named("sid").map((sid, index) => [sid, `<socket ${index + 1}>`]),
      ...named("pid").map((pid, index) => [pid, `<session ${index + 1}>`]),
      ...[...server.offsets].sort((a, b) => b.length - a.length).map((offset) => [offset, "<offset>"]),
    ];
    const events = server.events.filter(({ t, n }) => t !== "listening" && !server.isBarrier(n)).map(told);
    const result = rename({ events, notes, status }, names);
    // Rooms are told in no order.
    result.events.forEach(({ value }) => Array.isArray(value) && value.every((name) => typeof name === "string") && value.sort());
    result.events.forEach(({ t }) => covered.events.add(t));
    return result;
  };
  scripts.add(name);
  compare(name, COMMANDS, run, DEVIATIONS.filter((deviation) => deviation.script === name).flatMap(({ differences }) => differences));
}

/** An event without what is another on every run; questions are numbered as they come, which no answer depends on. */
function told({ n, ...event }) {
  const told = typeof n === "number" && event.t !== "ack" && event.t !== "result" ? event : { n, ...event };
  if (told.n === undefined) delete told.n;
  if (told.handshake) told.handshake = shaken(told.handshake);
  if (Array.isArray(told.value)) told.value = told.value.map((value) => (value?.handshake ? { ...value, handshake: shaken(value.handshake) } : value));
  if (told.headers) told.headers = plain(told.headers);
  return told;
}

function shaken({ headers, query: { t: _, ...query }, url, time, issued, ...handshake }) {
  assert.equal(new Date(time).getTime(), Math.floor(issued / 1000) * 1000);
  return { ...handshake, headers: plain(headers), query, url: url.replace(/&t=[^&]*/, "") };
}

function plain({ "sec-websocket-key": _, ...headers }) {
  return headers;
}

/** A server behind the pipe, and its clients. */
class Server extends Child {
  /** What each client saw, in its order. */
  notes = {};
  clients = [];
  barriers = 0;
  /** What follows each event where connections are recovered. */
  offsets = new Set();

  static async start(command, opts) {
    const server = new Server(command, { port: 0, opts });
    server.port = (await server.event("listening")).port;
    server.hasOffsets = opts.connectionStateRecovery !== undefined;
    return server;
  }

  say(command) {
    covered.commands.add(command.c);
    if (command.m) covered.operations.add(command.m);
    for (const flag of command.c === "parent" ? [] : Object.keys(command.flags ?? {})) covered.flags.add(`${command.c}.${flag}`);
    super.say(command);
  }

  url(namespace = "") {
    return `http://127.0.0.1:${this.port}${namespace}`;
  }

  /** A client that notes what it sees under its name. */
  async client(name, namespace = "/", options = {}) {
    await this.obeyed();
    const seen = (this.notes[name] = []);
    const client = io(this.url(namespace), { transports: ["websocket"], forceNew: true, reconnection: false, ...options });
    client.on("connect", () => seen.push("connect"));
    client.on("connect_error", ({ message, data }) => seen.push(["connect_error", message, data ?? null]));
    client.on("disconnect", (reason) => seen.push(["disconnect", reason]));
    client.onAny((...args) => {
      const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
      seen.push(shown(args));
      if (args[0] === "question") ack?.("answer", ...args.slice(1));
    });
    this.clients.push(client);
    return client;
  }

  /** A client that is in the namespace. */
  async joined(name, namespace = "/", options = {}) {
    const client = await this.client(name, namespace, options);
    const { sid } = await this.event("connection", { nsp: namespace });
    if (!client.connected) await event(client, "connect");
    return { client, nsp: namespace, sid };
  }

  /** Another namespace on a client's connection. */
  async alsoJoined(name, { client }, namespace, auth) {
    const seen = (this.notes[name] = []);
    const other = client.io.socket(namespace, { auth });
    other.on("connect", () => seen.push("connect"));
    other.on("disconnect", (reason) => seen.push(["disconnect", reason]));
    other.onAny((...args) => seen.push(shown(args)));
    this.clients.push(other);
    const { sid } = await this.event("connection", { nsp: namespace });
    if (!other.connected) await event(other, "connect");
    return { client: other, nsp: namespace, sid };
  }

  /** A WebSocket that shows its frames. */
  async framed(name, query = "EIO=4") {
    await this.obeyed();
    const seen = (this.notes[name] = []);
    const ws = new Ws(`ws://127.0.0.1:${this.port}/socket.io/?${query}&transport=websocket`, { perMessageDeflate: false });
    ws.on("message", (data) => this.hasOffsets && this.offsets.add(/,"([^"]+)"\]$/.exec(data)?.[1] ?? "<none>"));
    ws.on("message", (data, isBinary) => seen.push(isBinary ? { base64: data.toString("base64") } : data.toString().replace(/"(sid|pid)":"[^"]*"/g, '"$1":"…"')));
    ws.on("close", (code) => seen.push(["closed", code]));
    this.clients.push(ws);
    await event(ws, "open");
    return ws;
  }

  /** Waits until all commands so far were carried out. */
  async obeyed() {
    const n = `barrier ${this.barriers++}`;
    this.say({ c: "op", n, nsp: "/", m: "serverCount" });
    await this.event("result", { n });
  }

  isBarrier(n) {
    return typeof n === "string" && n.startsWith("barrier");
  }

  /** Does something with many sockets and waits for its result. */
  async op(n, command) {
    this.say({ c: "op", n, ...command });
    return this.event("result", { n });
  }

  async ask(n, command) {
    this.say({ c: "emit", n, ack: true, ...command });
    return this.event("ack", { n });
  }

  /** Waits for a question and answers it. */
  async answer(question, answer, fields = {}) {
    const { n } = await this.event(question, fields);
    this.say({ c: "answer", n, ...answer });
  }

  async get(path, headers = {}) {
    const ask = request({ host: "127.0.0.1", port: this.port, agent: false, path, headers });
    ask.end();
    const [answer] = await within(`answer to GET ${path}`, once(ask, "response"));
    const chunks = [];
    for await (const chunk of answer) chunks.push(chunk);
    return { status: answer.statusCode, headers: answer.headers, body: Buffer.concat(chunks) };
  }
}

function shown(value) {
  if (Buffer.isBuffer(value)) return { base64: value.toString("base64") };
  if (Array.isArray(value)) return value.map(shown);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, value]) => [key, shown(value)]));
  return value;
}

const bin = (...bytes) => ({ $bin: Buffer.from(bytes).toString("base64") });
const EVERYTHING = [null, true, false, 0, -1.5, 1e21, "", "ä☃💩\u2028\"\\\n\u0000", [], {}, [[[]]], { a: { b: [1, { c: "d" }] }, "": 1, ключ: "значение" }];

// --- connecting ---

for (const transport of ["polling", "websocket"]) {
  script(`a client over ${transport}`, {}, async (server) => {
    const a = await server.joined("a", "/", { transports: [transport], auth: { token: "ä", nested: [1] }, query: { key: "a b", "&": "=" }, extraHeaders: { "x-custom": "1" } });
    await server.op(1, { nsp: "/", m: "fetchSockets" });
    a.client.disconnect();
    await server.event("disconnect");
  });
}

script("a client that upgrades", {}, async (server) => {
  const a = await server.joined("a", "/", { transports: ["polling", "websocket"] });
  await server.event("upgrade");
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["after"] });
  await event(a.client, "after");
});

script("several namespaces on one connection", {}, async (server) => {
  for (const nsp of ["/a", "/b", "/a", "c", "/b?x=1"]) server.say({ c: "nsp", nsp });
  const main = await server.joined("main");
  const a = await server.alsoJoined("a", main, "/a", { to: "a" });
  const b = await server.alsoJoined("b", main, "/b");
  await server.alsoJoined("c", main, "/c");
  a.client.disconnect();
  await server.event("disconnect", { sid: a.sid });
  server.say({ c: "emit", nsp: "/b", sid: b.sid, args: ["still there"] });
  await event(b.client, "still there");
  main.client.io.engine.close();
  await server.event("disconnect", { sid: b.sid });
  await server.event("disconnect", { nsp: "/c" });
  await gone(main, b);
});

script("a namespace that is not there", {}, async (server) => {
  const client = await server.client("a", "/nowhere");
  await event(client, "connect_error");
  const main = await server.joined("main");
  const nowhere = main.client.io.socket("/nowhere");
  server.clients.push(nowhere);
  await event(nowhere, "connect_error");
  server.say({ c: "emit", nsp: "/", sid: main.sid, args: ["still there"] });
  await event(main.client, "still there");
});

script("a namespace that a command names is made", {}, async (server) => {
  server.say({ c: "op", nsp: "/by-op", m: "emit", args: ["x"] });
  server.say({ c: "mw", nsp: "by-mw" });
  server.say({ c: "emit", nsp: "/by-emit", sid: "nobody", args: ["x"] });
  await server.obeyed();
});

// --- events ---

script("events of any shape, both ways", {}, async (server) => {
  const a = await server.joined("a");
  a.client.emit("everything", ...EVERYTHING);
  a.client.emit("nothing");
  a.client.emit("bytes", Buffer.from([1, 2, 3]), { deep: [Buffer.alloc(0), Buffer.from("x")] }, 7);
  await server.event("event", { sid: a.sid });
  await server.event("event", { sid: a.sid });
  await server.event("event", { sid: a.sid });
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["everything", ...EVERYTHING] });
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["nothing"] });
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["bytes", bin(1, 2, 3), { deep: [bin(), bin(120)] }, 7] });
  await event(a.client, "bytes");
});

script("acknowledgements of the server", {}, async (server) => {
  const a = await server.joined("a");
  for (const args of [[], [1], [1, "two", { three: [3] }], [bin(9, 8), null]]) {
    const heard = new Promise((resolve) => a.client.emit("ask", args.length, (...args) => resolve(server.notes.a.push(["acknowledged", ...shown(args)]))));
    const { n } = await server.event("event");
    server.say({ c: "answer", n, args });
    server.say({ c: "answer", n, args: ["once more"] });
    await within("acknowledgement", heard);
  }
  a.client.emit("bytes", Buffer.from("x"), () => {});
  const { n } = await server.event("event");
  a.client.disconnect();
  await server.event("disconnect");
  server.say({ c: "answer", n, args: ["too late"] });
});

script("acknowledgements of the client", {}, async (server) => {
  const a = await server.joined("a");
  await server.ask(1, { nsp: "/", sid: a.sid, args: ["question"] });
  await server.ask(2, { nsp: "/", sid: a.sid, args: ["question", 1, [2], null] });
  await server.ask("three", { nsp: "/", sid: a.sid, args: ["question", bin(1), { b: bin(2) }] });
  await server.ask(4, { nsp: "/", sid: a.sid, args: ["question", 4], flags: { timeout: 10_000 } });
  await server.ask(5, { nsp: "/", sid: a.sid, args: ["no question"], flags: { timeout: 20 } });
  await server.ask(6, { nsp: "/", sid: a.sid, args: ["no question"], flags: { timeout: 0 } });
  await server.ask(7, { nsp: "/", sid: a.sid, args: ["question", 7], flags: { compress: false } });
  // Nobody is there to answer.
  server.say({ c: "emit", nsp: "/", sid: "nobody", args: ["question"], ack: true, n: 8 });
  server.say({ c: "emit", nsp: "/", sid: "nobody", args: ["question"], ack: true, n: 9, flags: { timeout: 1 } });
  await server.obeyed();
});

script("flags of an event to one socket", {}, async (server) => {
  const a = await server.joined("a");
  for (const flags of [{}, { compress: true }, { compress: false }, { timeout: 5 }, { volatile: false }]) {
    server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["flags", flags], flags });
    await event(a.client, "flags");
  }
  await quiet();
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["volatile"], flags: { volatile: true } });
  await event(a.client, "volatile");
});

script("a volatile event to a client that does not listen is lost", { transports: ["polling"] }, async (server) => {
  // Its GET is answered by the first event, and it does not come for more.
  const { sid } = JSON.parse((await server.get("/socket.io/?EIO=4&transport=polling")).body.toString().slice(1));
  await post(server, sid, "40");
  const a = await server.event("connection");
  await server.get(`/socket.io/?EIO=4&transport=polling&sid=${sid}`);
  for (const [args, flags] of [[["lost"], { volatile: true }], [["kept"], {}], [["lost too"], { volatile: true }]]) server.say({ c: "emit", nsp: "/", sid: a.sid, args, flags });
  await server.op(1, { nsp: "/", m: "emit", args: ["lost as well"], flags: { volatile: true, timeout: 10 }, ack: true });
  server.notes.a = (await server.get(`/socket.io/?EIO=4&transport=polling&sid=${sid}`)).body.toString();
});

script("an event to a socket that has gone", {}, async (server) => {
  const a = await server.joined("a");
  const b = await server.joined("b");
  a.client.disconnect();
  await server.event("disconnect");
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["too late"] });
  // Its own room is empty, but somebody else may be in one of that name.
  server.say({ c: "join", nsp: "/", sid: b.sid, rooms: [a.sid] });
  server.say({ c: "emit", nsp: "/", sid: a.sid, args: ["for the room of that name"] });
  await event(b.client, "for the room of that name");
});

script("names of events that other libraries give a meaning", {}, async (server) => {
  const a = await server.joined("a");
  for (const name of ["message", "ping", "toString", "__proto__", "reconnect"]) {
    a.client.emit(name, name);
    await server.event("event", { sid: a.sid });
    server.say({ c: "emit", nsp: "/", sid: a.sid, args: [name, name] });
    await event(a.client, name);
  }
  await server.ask(1, { nsp: "/", sid: a.sid, args: ["question"] });
});

// --- many sockets ---

/** Three in `/`, one elsewhere. */
async function three(server) {
  server.say({ c: "nsp", nsp: "/other" });
  const sockets = { a: await server.joined("a"), b: await server.joined("b"), c: await server.joined("c"), d: await server.joined("d", "/other") };
  server.say({ c: "join", nsp: "/", sid: sockets.a.sid, rooms: ["r1"] });
  server.say({ c: "join", nsp: "/", sid: sockets.b.sid, rooms: ["r1", "r2"] });
  server.say({ c: "join", nsp: "/other", sid: sockets.d.sid, rooms: ["r1"] });
  await server.obeyed();
  return sockets;
}

/** Waits until every client has heard all that was sent to it. */
async function heard(server, sockets) {
  for (const { client, nsp, sid } of Object.values(sockets)) {
    if (!client.connected) continue;
    server.say({ c: "emit", nsp, sid, args: ["last"] });
    await event(client, "last");
  }
}

script("an event to many", {}, async (server) => {
  const { a, ...others } = await three(server);
  let n = 0;
  for (const command of [
    {}, { rooms: [] }, { rooms: ["r1"] }, { rooms: ["r1", "r2"] }, { except: ["r1"] }, { rooms: ["r1"], except: ["r2"] }, { rooms: ["nobody"] }, { sid: a.sid },
    { sid: a.sid, rooms: ["r1"] }, { sid: a.sid, except: ["r2"] }, { rooms: [a.sid] }, { except: [a.sid] }, { rooms: ["r1"], nsp: "/other" }, { nsp: "/other" }, { nsp: "other" },
  ]) {
    server.say({ c: "op", nsp: "/", m: "emit", args: ["event", n++, command.rooms ?? null, bin(n)], ...command });
    await heard(server, { a, ...others });
  }
});

script("flags of an event to many", {}, async (server) => {
  const sockets = await three(server);
  for (const flags of [{ local: true }, { compress: false }, { compress: true }, { local: true, compress: false, timeout: 5 }, { volatile: true }]) {
    await quiet();
    server.say({ c: "op", nsp: "/", m: "emit", args: ["event", flags], flags });
    await heard(server, sockets);
  }
});

script("acknowledgements of many", {}, async (server) => {
  const { a, b, c, d } = await three(server);
  const op = { nsp: "/", m: "emit", ack: true, flags: { timeout: 10_000 } };
  await server.op(1, { ...op, args: ["question", 1] });
  await server.op(2, { ...op, args: ["question", bin(1)], rooms: ["r1"] });
  await server.op(3, { ...op, args: ["question"], rooms: ["nobody"] });
  await server.op(4, { ...op, args: ["question"], sid: a.sid, except: ["r2"] });
  await server.op(5, { ...op, args: ["no question"], flags: { timeout: 20 } });
  c.client.removeAllListeners();
  await server.op(6, { ...op, args: ["question"], flags: { timeout: 200, compress: false } });
  await server.op(7, { ...op, args: ["question"], sid: "nobody" });
  await server.op(8, { ...op, args: ["question"], nsp: "/other" });
  assert.ok(b && d);
});

script("the other verbs for many", {}, async (server) => {
  const { a, b, c, d } = await three(server);
  server.say({ c: "data", nsp: "/", sid: b.sid, data: { user: "ü", list: [1] } });
  await server.op(1, { nsp: "/", m: "fetchSockets" });
  await server.op(2, { nsp: "/", m: "fetchSockets", rooms: ["r2"] });
  await server.op(3, { nsp: "/", m: "fetchSockets", except: ["r2"], flags: { local: true } });
  await server.op(4, { nsp: "/", m: "fetchSockets", sid: a.sid });
  await server.op(5, { nsp: "/other", m: "fetchSockets", rooms: ["nobody"] });
  await server.op(6, { nsp: "/", m: "fetchSockets", sid: "nobody" });
  await server.op(7, { nsp: "/", m: "serverCount" });
  const op = { c: "op", nsp: "/" };
  server.say({ ...op, m: "socketsJoin", args: ["one"], rooms: ["r1"] });
  server.say({ ...op, m: "socketsJoin", args: [["two", "three", "two"]] });
  server.say({ ...op, m: "socketsJoin", args: ["four"], sid: a.sid, flags: { local: true } });
  await server.op(8, { nsp: "/", m: "fetchSockets" });
  server.say({ ...op, m: "socketsLeave", args: ["two"], rooms: ["one"] });
  server.say({ ...op, m: "socketsLeave", args: [["three", "nobody"]], except: ["r2"] });
  await server.op(9, { nsp: "/", m: "fetchSockets" });
  server.say({ ...op, m: "disconnectSockets", args: [], rooms: ["r2"] });
  await server.event("disconnect", { sid: b.sid });
  server.say({ ...op, m: "disconnectSockets", args: [true], sid: a.sid });
  await server.event("disconnect", { sid: c.sid });
  server.say({ ...op, m: "disconnectSockets", args: [false], nsp: "/other" });
  await server.event("disconnect", { sid: d.sid });
  await gone(b, c, d);
  await server.op(10, { nsp: "/", m: "fetchSockets" });
});

script("an event that is named as errors are", {}, async (server) => {
  const a = await server.joined("a");
  a.client.emit("error", { message: "mine" });
  await server.event("event");
});

script("what only a cluster's adapter does in the reference", {}, async (server) => {
  const { a } = await three(server);
  server.say({ c: "op", n: 1, nsp: "/", m: "allRooms" });
  server.say({ c: "op", n: 2, nsp: "/other", m: "allRooms" });
  server.say({ c: "op", n: 3, nsp: "/", m: "serverSideEmit", args: ["hello", 1] });
  server.say({ c: "op", n: 4, nsp: "/", m: "serverSideEmit", args: ["hello", 1], ack: true });
  await server.event("result", { n: 1 });
  await server.event("result", { n: 2 });
  await server.ask(1, { nsp: "/", sid: a.sid, args: ["question"] });
});

// --- rooms and data ---

script("rooms come and go", {}, async (server) => {
  const { nsp, sid, client } = await server.joined("a");
  for (const command of [
    { c: "join", rooms: ["a"] }, { c: "join", rooms: "b" }, { c: "join", rooms: ["c", "a", "d", "c"] }, { c: "join", rooms: [] }, { c: "leave", rooms: ["a"] },
    { c: "leave", rooms: ["nowhere", "b"] }, { c: "join", rooms: ["ä ☃", ""] }, { c: "leaveAll" }, { c: "leaveAll" }, { c: "join", rooms: ["again"] },
  ]) server.say({ nsp, sid, ...command });
  // It has left the room of its own id.
  server.say({ c: "op", nsp, m: "emit", args: ["lost"], rooms: [sid] });
  server.say({ c: "op", nsp, m: "emit", args: ["heard"], rooms: ["again", "nobody"] });
  await event(client, "heard");
  client.disconnect();
  await server.event("disconnect");
  for (const command of [{ c: "join", rooms: ["a"] }, { c: "leave", rooms: ["a"] }, { c: "leaveAll" }, { c: "data", data: 1 }, { c: "disconnect" }, { c: "connClose" }, { c: "smw" }]) server.say({ nsp, sid, ...command });
  await server.obeyed();
});

script("data is what was set", {}, async (server) => {
  const { nsp, sid } = await server.joined("a");
  for (const data of [{ a: [1, null] }, 5, "text", null, { bytes: bin(1, 2) }]) {
    server.say({ c: "data", nsp, sid, data });
    await server.op(1, { nsp, m: "fetchSockets" });
  }
});

// --- coming and going ---

script("the server sends clients away", {}, async (server) => {
  server.say({ c: "nsp", nsp: "/a" });
  const main = await server.joined("main");
  const a = await server.alsoJoined("a", main, "/a");
  server.say({ c: "disconnect", nsp: "/a", sid: a.sid });
  await server.event("disconnect", { sid: a.sid });
  await gone(a);
  const again = await server.alsoJoined("again", main, "/a");
  server.say({ c: "disconnect", nsp: "/", sid: main.sid, close: true });
  await server.event("disconnect", { sid: again.sid });
  const b = await server.joined("b");
  server.say({ c: "connClose", nsp: "/", sid: b.sid });
  await server.event("disconnect", { sid: b.sid });
  await gone(main, again, b);
});

script("clients go in their own ways", {}, async (server) => {
  const leaves = await server.joined("leaves");
  leaves.client.disconnect();
  await server.event("disconnect", { sid: leaves.sid });
  const closes = await server.joined("closes");
  closes.client.io.engine.close();
  await server.event("disconnect", { sid: closes.sid });
  await gone(closes);
  const polls = await server.joined("polls", "/", { transports: ["polling"] });
  polls.client.io.engine.close();
  await server.event("disconnect", { sid: polls.sid });
  await gone(polls);
  const breaks = await server.framed("breaks");
  breaks.send("40");
  const { sid } = await server.event("connection");
  breaks.terminate();
  await server.event("disconnect", { sid });
});

script("a client that does not answer", { pingInterval: 50, pingTimeout: 50 }, async (server) => {
  const silent = await server.framed("silent");
  silent.send("40");
  await server.event("disconnect");
  await until("closed", () => server.notes.silent.at(-1)[0] === "closed");
});

script("a client that comes into no namespace", { connectTimeout: 50 }, async (server) => {
  await server.framed("late");
  await until("closed", () => server.notes.late.at(-1)?.[0] === "closed");
});

script("the engine closes", {}, async (server) => {
  const a = await server.joined("a");
  const b = await server.joined("b");
  server.say({ c: "engineClose" });
  await server.event("disconnect", { sid: a.sid });
  await server.event("disconnect", { sid: b.sid });
  await gone(a, b);
  await server.joined("c", "/", { transports: ["polling"] });
});

script("the server closes, and its port is free", {}, async (server) => {
  server.say({ c: "nsp", nsp: "/a" });
  const main = await server.joined("main");
  await server.alsoJoined("a", main, "/a");
  const polls = await server.joined("polls", "/", { transports: ["polling"] });
  await quiet();
  server.say({ c: "close" });
  await gone(main, polls);
  const next = createServer().listen(server.port);
  await within("the port", once(next, "listening"));
  next.close();
  await server.event("disconnect", { sid: polls.sid });
});

script("its input ends", {}, async (server) => {
  const a = await server.joined("a");
  server.program.child.stdin.end();
  await server.ended();
  await gone(a);
});

// --- middlewares ---

script("a middleware decides", {}, async (server) => {
  server.say({ c: "mw", nsp: "/" });
  server.say({ c: "mw", nsp: "/" });
  const good = await server.client("good", "/", { auth: { who: "me" } });
  await server.answer("mw", { data: { user: 1, bytes: bin(1) } });
  await server.answer("mw", { err: null, data: { user: 2 } });
  await server.event("connection");
  for (const [name, err] of Object.entries({ plain: { message: "no" }, data: { message: "no", data: { code: 1, list: [null] } }, nothing: {} })) {
    const bad = await server.client(name);
    await server.answer("mw", { err });
    await event(bad, "connect_error");
  }
  const second = await server.client("second");
  await server.answer("mw", { err: null });
  await server.answer("mw", { err: { message: "not by me" } });
  await event(second, "connect_error");
  assert.ok(good);
});

script("a middleware of another namespace is not asked", {}, async (server) => {
  server.say({ c: "mw", nsp: "/guarded" });
  await server.joined("free");
  const guarded = await server.client("guarded", "/guarded");
  await server.answer("mw", {});
  await event(guarded, "connect");
});

script("a client goes while a middleware decides", {}, async (server) => {
  server.say({ c: "mw", nsp: "/" });
  const ws = await server.framed("goes");
  ws.send("40");
  const { n } = await server.event("mw");
  ws.terminate();
  // Nothing is told of it.
  await quiet();
  server.say({ c: "answer", n });
  await server.obeyed();
  await server.op(1, { nsp: "/", m: "fetchSockets" });
});

script("the connection is closed while a middleware decides", {}, async (server) => {
  server.say({ c: "mw", nsp: "/" });
  const ws = await server.framed("held");
  ws.send("40");
  const { n, nsp, sid } = await server.event("mw");
  server.say({ c: "connClose", nsp, sid });
  await event(ws, "close");
  server.say({ c: "answer", n });
  await server.obeyed();
});

script("a middleware of a socket", {}, async (server) => {
  const { client, nsp, sid } = await server.joined("a");
  client.emit("before", 1);
  await server.event("event");
  server.say({ c: "smw", nsp, sid });
  server.say({ c: "smw", nsp, sid });
  await server.obeyed();
  client.emit("passes", 1, Buffer.from("x"), () => {});
  await server.answer("smw", { err: null });
  await server.answer("smw", {});
  client.emit("stopped by the first");
  await server.answer("smw", { err: { message: "stop" } });
  await server.event("error", { message: "stop" });
  client.emit("stopped by the second");
  await server.answer("smw", {});
  await server.answer("smw", { err: { message: "stop!" } });
  await server.event("error", { message: "stop!" });
});

// --- dynamic namespaces ---

for (const cleanupEmptyChildNamespaces of [false, true]) {
  script(`namespaces by pattern, ${cleanupEmptyChildNamespaces ? "dropped when empty" : "kept"}`, { cleanupEmptyChildNamespaces }, async (server) => {
    server.say({ c: "parent", id: "p", regex: "^\\/tenant-\\d+$" });
    server.say({ c: "parent", id: 2, regex: "^\\/UPPER$", flags: "i" });
    const one = await server.joined("one", "/tenant-1");
    const two = await server.joined("two", "/tenant-1");
    await server.joined("upper", "/upper");
    await event(await server.client("none", "/tenant-x"), "connect_error");
    one.client.disconnect();
    await server.event("disconnect", { sid: one.sid });
    two.client.disconnect();
    await server.event("disconnect", { sid: two.sid });
    const three = await server.joined("three", "/tenant-1");
    server.say({ c: "op", nsp: "/tenant-1", m: "emit", args: ["last"] });
    await event(three.client, "last");
  });
}

script("middlewares of a parent", {}, async (server) => {
  server.say({ c: "parent", id: "p", regex: "^/tenant-" });
  server.say({ c: "nsp", nsp: "/tenant-before" });
  server.say({ c: "mw", parent: "p" });
  await server.obeyed();
  await server.joined("before", "/tenant-before");
  const after = await server.client("after", "/tenant-after");
  await server.answer("mw", {});
  await event(after, "connect");
  server.say({ c: "mw", nsp: "/tenant-after" });
  server.say({ c: "mw", parent: "p" });
  await server.obeyed();
  const again = await server.client("again", "/tenant-after");
  await server.answer("mw", {});
  await server.answer("mw", { err: { message: "no" } });
  await event(again, "connect_error");
});

script("who is refused leaves no namespace behind", { cleanupEmptyChildNamespaces: true }, async (server) => {
  server.say({ c: "parent", id: "p", regex: "^/tenant-" });
  server.say({ c: "mw", parent: "p" });
  const client = await server.client("a", "/tenant-1");
  await server.answer("mw", { err: { message: "no" } });
  await event(client, "connect_error");
});

script("namespaces by function", {}, async (server) => {
  server.say({ c: "parent", id: "first" });
  server.say({ c: "parent", id: "second" });
  const yes = await server.client("yes", "/yes", { auth: { token: 1 } });
  await server.answer("parentCheck", { ok: false }, { id: "first" });
  await server.answer("parentCheck", { ok: true }, { id: "second" });
  await event(yes, "connect");
  const no = await server.client("no", "/no");
  await server.answer("parentCheck", { err: "broken", ok: true }, { id: "first" });
  await server.answer("parentCheck", {}, { id: "second" });
  await event(no, "connect_error");
  // One that exists is not asked for.
  await server.joined("again", "/yes");
});

// --- what is no Socket.IO ---

for (const [name, ...frames] of [
  ["an unknown type", "40", "4abc"], ["nothing", "40", "4"], ["no payload that is JSON", "40", '42["a"'], ["an event without a name", "40", "42[]"],
  ["a payload that is no list", "40", '42{"a":1}'], ["a reserved event", "40", '42["connect"]'], ["a binary event without a number", "40", "45woooot"],
  ["a binary event without anything", "40", "45"], ["a binary event of no attachments", "40", '450-["a"]'], ["a binary event of too many", "40", '4511-["a"]'],
  ["text where an attachment is due", "40", '451-["a",{"_placeholder":true,"num":0}]', '42["b"]'], ["an attachment that nobody waits for", "40", Buffer.from("x")],
  ["a placeholder of an attachment that does not come", "40", '451-["a",{"_placeholder":true,"num":1}]', Buffer.from("x")], ["a second CONNECT", "40", "40"],
  ["an event before CONNECT", '42["a"]'], ["an event elsewhere", "40", '42/elsewhere,["a"]'], ["a DISCONNECT elsewhere", "40", "41/elsewhere,"],
  ["a CONNECT_ERROR", "40", '44["handle me"]'], ["a CONNECT with a list", "40[]"], ["a CONNECT with a text", '40"x"'], ["a DISCONNECT with a payload", "40", '41{"a":1}'],
  ["an acknowledgement with an object", "40", '430{"a":1}'],
]) {
  script(`not allowed: ${name}`, {}, async (server) => {
    const ws = await server.framed("a");
    for (const frame of frames) {
      ws.send(frame);
      if (frame === "40" && !server.events.some(({ t }) => t === "connection")) await server.event("connection");
    }
    await event(ws, "close");
    await server.obeyed();
  });
}

script("allowed though odd", {}, async (server) => {
  server.say({ c: "nsp", nsp: "/a" });
  const ws = await server.framed("a");
  for (const frame of ["40", "40/a"]) {
    ws.send(frame);
    await server.event("connection");
  }
  for (const frame of ['42["a",1]', '42/a,["b"]', '4212["c"]', '430["nobody asked"]', '43999["nobody asked"]', '451-["d",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]', Buffer.from("x"), '42["e",{"_placeholder":true,"num":0}]']) ws.send(frame);
  const { n } = await server.event("event", { ack: true });
  server.say({ c: "answer", n, args: [7] });
  for (let count = 0; count < 4; count++) await server.event("event");
  await until("acknowledged", () => server.notes.a.includes("4312[7]"));
  ws.send("41/a,");
  await server.event("disconnect", { nsp: "/a" });
  ws.send("41");
  await server.event("disconnect", { nsp: "/" });
});

// --- requests ---

script("allowRequest", { allowRequest: { $fn: true } }, async (server) => {
  const asked = async (answer) => {
    const client = await server.client(JSON.stringify(answer));
    await server.answer("allowRequest", answer);
    return client;
  };
  await event(await asked({ ok: true }), "connect");
  await event(await asked({ err: null, ok: false }), "connect_error");
  await event(await asked({ err: "because", ok: false }), "connect_error");
});

script("requests that are refused", {}, async (server) => {
  for (const query of ["", "transport=nothing", "transport=polling&sid=nobody", "EIO=4&transport=polling&sid=nobody", "EIO=3&transport=polling"]) {
    const { status, body } = await server.get(`/socket.io/?${query}`);
    (server.notes.requests ??= []).push([status, body.toString()]);
    await server.event("connection_error");
  }
});

script("another path and a small message", { path: "/elsewhere", maxHttpBufferSize: 100 }, async (server) => {
  const a = await server.joined("a", "/", { path: "/elsewhere/" });
  a.client.emit("fits", "x".repeat(50));
  await server.event("event");
  a.client.emit("does not", "x".repeat(100));
  await server.event("disconnect");
  await gone(a);
});

for (const serveClient of [true, false]) {
  script(`the client script, ${serveClient ? "served" : "not served"}`, { serveClient, cors: { origin: "https://page.example" } }, async (server) => {
    const names = ["js", "js.map", "min.js", "min.js.map", "msgpack.min.js", "msgpack.min.js.map", "esm.min.js", "esm.min.js.map"].map((end) => `socket.io.${end}`);
    for (const name of serveClient ? names : ["socket.io.js"]) {
      for (const encoding of ["identity", "gzip", "deflate", "br", "gzip;q=0.5, br", "*"]) {
        const answer = await server.get(`/socket.io/${name}?x=1`, { "accept-encoding": encoding, origin: "https://page.example" });
        const read = { gzip: gunzipSync, deflate: inflateSync, br: brotliDecompressSync }[answer.headers["content-encoding"]] ?? ((body) => body);
        const picked = ["content-type", "content-encoding", "etag", "cache-control", "access-control-allow-origin"].map((name) => answer.headers[name] ?? null);
        (server.notes[name] ??= []).push([encoding, answer.status, ...picked, read(answer.body).toString()]);
      }
    }
    const known = await server.get("/socket.io/socket.io.js", { "if-none-match": '"4.8.4"' });
    server.notes.known = [known.status, known.body.length > 0];
  });
}

// --- connection state recovery ---

/** A client that is in `/` and whose line breaks. */
async function broken(server, { offset }) {
  const first = await server.framed("first");
  first.send("40");
  const { nsp, sid, pid } = await server.event("connection");
  server.say({ c: "join", nsp, sid, rooms: ["r1", "r2"] });
  server.say({ c: "data", nsp, sid, data: { user: 1 } });
  let last;
  if (offset) {
    first.on("message", (data) => (last = data.toString()));
    server.say({ c: "op", nsp, m: "emit", args: ["first"] });
    await until("an event", () => last?.includes("first"));
  }
  first.close();
  await server.event("disconnect");
  return { nsp, sid, pid, offset: last && JSON.parse(last.slice(2)).at(-1) };
}

/** Comes back, and waits until it is in. */
async function back(server, name, auth) {
  const ws = await server.framed(name);
  ws.send(`40${JSON.stringify(auth)}`);
  return ws;
}

/** What happens to a socket that is not there, one event of each kind. */
async function missed(server, { nsp, sid }) {
  for (const command of [
    { m: "emit", args: ["to all", 1] }, { m: "emit", args: ["to its room", bin(1)], rooms: ["r2"] }, { m: "emit", args: ["to others"], rooms: ["r3"] },
    { m: "emit", args: ["not to its room"], except: ["r1"] }, { m: "emit", args: ["volatile"], flags: { volatile: true } },
    { m: "emit", args: ["to its id"], rooms: [sid] },
  ]) server.say({ c: "op", nsp, ...command });
  server.say({ c: "emit", nsp, sid, args: ["to the socket that has gone"] });
  await server.obeyed();
}

for (const [name, connectionStateRecovery] of Object.entries({ usual: {}, "with middlewares": { skipMiddlewares: false }, "with a length": { maxDisconnectionDuration: 60_000 } })) {
  script(`recovery, ${name}`, { connectionStateRecovery }, async (server) => {
    const client = await broken(server, { offset: true });
    await missed(server, client);
    server.say({ c: "mw", nsp: "/" });
    const ws = await back(server, "back", { pid: client.pid, offset: client.offset });
    if (connectionStateRecovery.skipMiddlewares === false) await server.answer("mw", { data: { user: 2 } });
    await server.event("connection");
    server.say({ c: "emit", nsp: "/", sid: client.sid, args: ["welcome back"] });
    await until("welcomed", () => server.notes.back.some((frame) => `${frame}`.includes("welcome back")));
  });
}

script("no recovery of what is not known", { connectionStateRecovery: {} }, async (server) => {
  const client = await broken(server, { offset: true });
  for (const [name, auth] of Object.entries({ pid: { pid: "nobody's", offset: client.offset }, offset: { pid: client.pid, offset: "nowhere" }, number: { pid: 5, offset: client.offset } })) {
    const ws = await back(server, name, auth);
    await server.event("connection");
    ws.close();
    await event(ws, "close");
    await server.event("disconnect");
  }
});

script("no recovery of who was sent away, or left", { connectionStateRecovery: {} }, async (server) => {
  for (const leave of [(ws) => ws.send("41"), (ws, { nsp, sid }) => server.say({ c: "disconnect", nsp, sid })]) {
    const ws = await server.framed("leaves");
    ws.send("40");
    const left = await server.event("connection");
    leave(ws, left);
    await server.event("disconnect");
    await back(server, "back", { pid: left.pid, offset: "" });
    await server.event("connection");
    await until("an answer", () => server.notes.back.at(-1)?.startsWith?.("40"));
  }
});

// --- clients of Socket.IO 2 ---

script("clients of Socket.IO 2", { allowEIO3: true }, async (server) => {
  server.say({ c: "nsp", nsp: "/a" });
  server.say({ c: "mw", nsp: "/a" });
  await server.obeyed();
  const seen = (server.notes.a = []);
  const client = connectVersion2(server.url(), { transports: ["websocket"], forceNew: true, reconnection: false });
  server.clients.push(client);
  client.on("hello", (...args) => seen.push(shown(args)));
  const { sid } = await server.event("connection");
  server.say({ c: "emit", nsp: "/", sid, args: ["hello", 1, bin(1)] });
  await event(client, "hello");
  client.emit("back", Buffer.from("x"));
  await server.event("event");
  const a = client.io.socket("/a", { query: "token=1&b=%20" });
  await server.answer("mw", { err: { message: "no" } });
  seen.push(["error", ...(await event(a, "error"))]);
  a.open();
  await server.answer("mw", { err: { message: "no", data: { code: 1 } } });
  seen.push(["error", ...(await event(a, "error"))]);
  a.open();
  await server.answer("mw", {});
  await event(a, "connect");
  const nowhere = client.io.socket("/nowhere");
  seen.push(["error", ...(await event(nowhere, "error"))]);
  client.io.engine.close();
  await server.event("disconnect", { nsp: "/" });
});

test("every command, event, operation and flag of the protocol is in a script", () => {
  // `sse` comes with the other nodes of a cluster.
  const events = ["connection", "disconnecting", "disconnect", "rooms", "upgrade", "error", "outgoing", "new_namespace", "nsp_removed", "connection_error", "event", "ack", "result", "mw", "parentCheck", "smw", "allowRequest"];
  const commands = ["nsp", "parent", "mw", "emit", "op", "join", "leave", "leaveAll", "disconnect", "connClose", "data", "smw", "answer", "close", "engineClose", "stop"];
  const operations = ["emit", "fetchSockets", "socketsJoin", "socketsLeave", "disconnectSockets", "serverSideEmit", "allRooms", "serverCount"];
  const flags = ["emit.volatile", "emit.compress", "emit.timeout", "op.local", "op.volatile", "op.compress", "op.timeout"];
  for (const [kind, names] of Object.entries({ events, commands, operations, flags })) {
    assert.deepEqual([...covered[kind]].sort(), [...names].sort(), kind);
  }
});

test("every deviation belongs to a script", () => {
  for (const { script: name } of DEVIATIONS) assert.ok(scripts.has(name), name);
});

/** Waits until these clients know that they are out. */
function gone(...sockets) {
  return until("the clients know that they are out", () => sockets.every(({ client }) => !client.connected));
}

/** Longer than anything takes to leave: what is volatile is lost beside it. */
function quiet() {
  return new Promise((resolve) => setTimeout(resolve, 30));
}

async function post(server, sid, body) {
  const ask = request({ host: "127.0.0.1", port: server.port, agent: false, method: "POST", path: `/socket.io/?EIO=4&transport=polling&sid=${sid}` });
  ask.end(body);
  const [answer] = await within("answer to POST", once(ask, "response"));
  answer.resume();
  await once(answer, "end");
}

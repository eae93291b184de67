// The same scripts against our Engine.IO server and the reference's: every event and every answer is the same, but for what is listed here.

import assert from "node:assert/strict";
import { request } from "node:http";
import { connect } from "node:net";
import { test } from "node:test";
import { gunzipSync, inflateSync } from "node:zlib";
import { WebSocket as Ws } from "ws";
import { Socket as EngineSocket } from "engine.io-client";
import { Child, compare, programs, rename } from "./lib/differential.mjs";
import { event, within } from "./lib/waiting.mjs";

const COMMANDS = programs("engine_harness", "eio-harness-node.cjs");

/** Where we differ on purpose: in which script, why, and what exactly. */
const DEVIATIONS = [
  {
    script: "handshake: one transport, polling",
    why: "Node takes an upgrade that nobody listens for as a plain request; we refuse every upgrade alike",
    differences: [
      { at: "wire.5.WebSocket.body", ours: "Transport unknown", reference: '{"code":0,"message":"Transport unknown"}' },
      { at: "wire.5.WebSocket.headers.content-type", ours: "text/html", reference: "application/json" },
    ],
  },
  {
    script: "cors: one origin, and a stranger",
    why: "we name an origin only to its own pages, as the package itself does where there are several",
    differences: ["preflight", "GET"].map((at, index) => ({ at: `wire.${index}.${at}.headers.access-control-allow-origin`, ours: "(nothing)", reference: "http://page.example" })),
  },
  {
    script: "cors: a preflight that is passed on",
    why: "preflightContinue leaves the answer to the next handler, and there is none: it comes out as a refused handshake",
    differences: [
      { at: "events.0", ours: "(nothing)", reference: { t: "connection_error", code: 2, message: "Bad handshake method", context: { method: "OPTIONS" } } },
      { at: "wire.0.preflight.body", ours: "", reference: '{"code":2,"message":"Bad handshake method"}' },
      { at: "wire.0.preflight.headers.content-type", ours: "(nothing)", reference: "application/json" },
      { at: "wire.0.preflight.status", ours: 204, reference: 400 },
    ],
  },
  {
    script: "compression: a packet that forbids it beside one that does not",
    why: "who forbids it has a secret to keep, which one packet that does not mind must not give away",
    differences: [{ at: "wire.1.GET.headers.content-encoding", ours: "(nothing)", reference: "gzip" }],
  },
  {
    script: "compression of frames",
    why: "there is no permessage-deflate",
    differences: [{ at: "wire.0.WebSocket.headers.sec-websocket-extensions", ours: "(nothing)", reference: "permessage-deflate" }],
  },
  {
    script: "generateId: an error for a WebSocket",
    why: "the reference has said 101 by then, and writes HTTP into the WebSocket",
    differences: [{ at: "wire.0.handshake", ours: 400, reference: 101 }],
  },
  {
    script: "an upgrade over a transport that does not upgrade",
    why: "the reference says 101 and closes; a refusal tells the client, and the application, what was wrong",
    differences: [
      { at: "events.0", ours: { t: "connection_error", code: 3, message: "Bad request", context: { name: "TRANSPORT_HANDSHAKE_ERROR" } }, reference: "(nothing)" },
      { at: "wire.0.WebSocket.body", ours: "Bad request", reference: "(nothing)" },
      { at: "wire.0.WebSocket.headers.content-type", ours: "text/html", reference: "(nothing)" },
      { at: "wire.0.WebSocket.status", ours: 400, reference: 101 },
    ],
  },
  {
    script: "a WebSocket handshake without its key",
    why: "the application is told of every refusal",
    differences: [
      { at: "events.0", ours: { t: "connection_error", code: 3, message: "Bad request", context: { name: "WEBSOCKET_HANDSHAKE_ERROR" } }, reference: "(nothing)" },
      { at: "wire.0.answer.body", ours: "Bad request", reference: "Missing or invalid Sec-WebSocket-Key header" },
    ],
  },
  {
    script: "parameters that are there twice",
    why: "the first wins, because nginx routes by the first, and two sids that differ are refused",
    differences: [
      { at: "events.0.code", ours: 0, reference: 2 },
      { at: "events.0.context.method", ours: "(nothing)", reference: "POST" },
      { at: "events.0.context.transport", ours: "nothing", reference: "(nothing)" },
      { at: "events.0.message", ours: "Transport unknown", reference: "Bad handshake method" },
      { at: "events.1.code", ours: 3, reference: 1 },
      { at: "events.1.context.name", ours: "TWO_SIDS", reference: "(nothing)" },
      { at: "events.1.context.sid", ours: "(nothing)", reference: "two" },
      { at: "events.1.message", ours: "Bad request", reference: "Session ID unknown" },
      { at: "wire.0.POST EIO=4&transport=nothing&transport=polling.body", ours: '{"code":0,"message":"Transport unknown"}', reference: '{"code":2,"message":"Bad handshake method"}' },
      { at: "wire.1.GET EIO=4&transport=polling&sid=one&sid=two.body", ours: '{"code":3,"message":"Bad request"}', reference: '{"code":1,"message":"Session ID unknown"}' },
    ],
  },
  {
    script: "a WebSocket after all were closed",
    why: "closing all sessions is no reason to refuse new ones over one of the transports",
    differences: [
      {
        at: "events.2",
        ours: {
          t: "connection", sid: "<sid 2>", transport: "websocket", protocol: 4, remoteAddress: "::ffff:127.0.0.1", query: { EIO: "4", transport: "websocket" },
          headers: { connection: "Upgrade", host: "127.0.0.1:<port>", "sec-websocket-version": "13", upgrade: "websocket" },
        },
        reference: "(nothing)",
      },
      { at: "wire.1.WebSocket.body", ours: "(nothing)", reference: "Service Unavailable" },
      { at: "wire.1.WebSocket.headers.content-type", ours: "(nothing)", reference: "text/html" },
      { at: "wire.1.WebSocket.status", ours: 101, reference: 503 },
    ],
  },
  {
    script: "a close packet over WebSocket",
    why: "the reference overhears it on this transport alone",
    differences: [
      { at: "events.1.reason", ours: "transport close", reference: "(nothing)" },
      { at: "events.1.t", ours: "close", reference: "message" },
      { at: "events.1.text", ours: "(nothing)", reference: "heard?" },
      { at: "events.2", ours: "(nothing)", reference: { t: "close", sid: "<sid 1>", reason: "transport close" } },
    ],
  },
  {
    script: "protocol 3: a ping with data",
    why: "the protocol's text has the pong carry the data of its ping",
    differences: [{ at: "wire.2.GET EIO=3&transport=polling&sid=<sid 1>.body", ours: "6:3probe", reference: "1:3" }],
  },
  {
    script: "an upgrade to something else ends after a while",
    why: "HTTP has a word for it",
    differences: [{ at: "wire.0.answer", ours: "HTTP/1.1 404 Not Found", reference: "" }],
  },
];

/** Headers that mean something; the rest is HTTP's own or another on every run. */
const HEADERS = /^(access-control-.*|cache-control|content-encoding|content-type|sec-websocket-(accept|extensions)|set-cookie|x-xss-protection)$/;

/** A server behind the pipe, and clients that write what they are told. */
class Server extends Child {
  /** What came over the wire, in the order of the script. */
  wire = [];

  static async start(command, options) {
    const server = new Server(command, options);
    server.port = (await server.event("listening")).port;
    server.path = `${options.path ?? "/engine.io"}/`;
    return server;
  }

  say(command) {
    covered.commands.add(command.c);
    super.say(command);
  }

  /** Notes what was seen, and gives it back. */
  note(what, value) {
    this.wire.push({ [what]: value });
    return value;
  }

  request(method, query, { body, headers = {}, path = this.path, sent } = {}) {
    return new Promise((resolve, reject) => {
      const ask = request({ host: "127.0.0.1", port: this.port, agent: false, method, path: query === undefined ? path : `${path}?${query}`, headers });
      ask.on("error", reject);
      ask.on("response", (answer) => read(answer).then(resolve, reject));
      ask.on("finish", () => sent?.(ask));
      ask.end(body);
    });
  }

  async get(query, options) {
    return this.note(`GET ${query}`, await within(`answer to GET ${query}`, this.request("GET", query, options)));
  }

  async post(query, body, options) {
    return this.note(`POST ${query}`, await within(`answer to POST ${query}`, this.request("POST", query, { body, ...options })));
  }

  /** A session on polling; its query. */
  async poller(version = 4) {
    const query = `EIO=${version}&transport=polling`;
    await this.get(query);
    const { sid } = await this.event("connection");
    return { sid, query: `${query}&sid=${sid}` };
  }

  /** A GET that waits: a message that was sent after it has been heard. */
  async park({ query, sid }) {
    let ask;
    let answer;
    await new Promise((resolve) => {
      answer = this.request("GET", query, { sent: (request) => resolve((ask = request)) });
      // Whoever wants it waits for it later.
      answer.catch(() => {});
    });
    await this.request("POST", query, { body: query.includes("EIO=3") ? "7:4parked" : "4parked" });
    await this.event("message", { sid, text: "parked" });
    return { ask, answer: async () => this.note("parked GET", await within("answer to a parked GET", answer)) };
  }

  /** Waits until all commands so far were carried out: the last of them is to send on a session that no script sees. */
  async obeyed() {
    this.witness ??= (async () => {
      const socket = new Ws(`ws://127.0.0.1:${this.port}${this.path}?${WEBSOCKET}&witness=1`, { perMessageDeflate: false });
      await event(socket, "open");
      return this.events.find(({ query }) => query?.witness) ?? this.event("connection");
    })();
    const { sid } = await this.witness;
    this.say({ c: "send", sid, text: "", cb: "obeyed" });
    await this.event("sent", { cb: "obeyed" });
  }

  /** A WebSocket whose handshake succeeded. */
  async websocket(query, options = {}) {
    const socket = new Socket(this, query, options);
    await socket.opened();
    return socket;
  }

  /** A session on WebSocket. */
  async framed(version = 4) {
    const socket = await this.websocket(`EIO=${version}&transport=websocket`);
    await socket.frame();
    const { sid } = await this.event("connection");
    return { sid, socket };
  }
}

async function read(answer) {
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  const unpack = { gzip: gunzipSync, deflate: inflateSync }[answer.headers["content-encoding"]] ?? ((body) => body);
  const body = unpack(Buffer.concat(chunks));
  const isBinary = answer.headers["content-type"] === "application/octet-stream";
  return { status: answer.statusCode, headers: significant(answer.headers), body: isBinary ? { base64: body.toString("base64") } : body.toString() };
}

function significant(headers) {
  const picked = Object.fromEntries(Object.entries(headers).filter(([name]) => HEADERS.test(name)));
  if (headers.vary) picked.vary = headers.vary.toLowerCase().split(/, */).sort();
  return picked;
}

/** A WebSocket that shows its frames. */
class Socket {
  constructor(server, query, options) {
    this.server = server;
    this.frames = [];
    this.waiting = [];
    this.ws = new Ws(`ws://127.0.0.1:${server.port}${server.path}?${query}`, { perMessageDeflate: false, ...options });
    this.handshake = new Promise((resolve, reject) => {
      this.ws.on("upgrade", (answer) => resolve({ status: answer.statusCode, headers: significant(answer.headers) }));
      this.ws.on("unexpected-response", (_, answer) => read(answer).then(resolve, reject));
      this.ws.on("error", reject);
    });
    this.ws.on("message", (data, isBinary) => this.add(isBinary ? { base64: data.toString("base64") } : data.toString()));
    this.ws.on("close", (code) => this.add({ closed: code }));
  }

  add(frame) {
    const waiting = this.waiting.shift();
    if (waiting) waiting(frame);
    else this.frames.push(frame);
  }

  async opened() {
    const handshake = this.server.note("WebSocket", await within("WebSocket handshake", this.handshake));
    // Two keys give two answers.
    delete handshake.headers["sec-websocket-accept"];
    return this;
  }

  /** The next frame, or how it was closed. */
  async frame() {
    const next = this.frames.length ? this.frames.shift() : new Promise((resolve) => this.waiting.push(resolve));
    return this.server.note("frame", await within("a frame", Promise.resolve(next)));
  }

  send(data) {
    this.ws.send(data);
  }
}

const scripts = new Set();
const covered = { options: new Set(), events: new Set(), commands: new Set() };

/** A script: what it is about, the server's options, and what happens. */
function script(name, options, play) {
  const run = async (command) => {
    const server = await Server.start(command, options);
    await play(server);
    const witness = await server.witness;
    const status = server.program.isRunning ? await server.stop() : await server.program.exited;
    // In the order in which they came; a custom id is the same in both.
    const sids = [...new Set(server.events.filter((event) => event.t === "connection").map((event) => event.sid))];
    server.events.forEach(({ t }) => covered.events.add(t));
    const isHidden = ({ sid, cb }) => cb === "obeyed" || (sid !== undefined && sid === witness?.sid);
    const names = [[`:${server.port}`, ":<port>"], ...sids.map((sid, index) => [sid, `<sid ${index + 1}>`])];
    const events = server.events.filter((event) => event.t !== "listening" && !isHidden(event)).map(({ headers, ...event }) => (headers ? { ...event, headers: told(headers) } : event));
    return rename({ events, wire: server.wire, status }, names);
  };
  scripts.add(name);
  Object.keys(options).forEach((option) => covered.options.add(option));
  compare(name, COMMANDS, run, DEVIATIONS.filter((deviation) => deviation.script === name).flatMap(({ differences }) => differences));
}

/** A request's headers without what the client makes up for every connection. */
function told({ "sec-websocket-key": _, ...headers }) {
  return headers;
}

// --- handshakes and options ---

const POLLING = "EIO=4&transport=polling";
const WEBSOCKET = "EIO=4&transport=websocket";
const ORIGIN = { origin: "http://page.example" };

for (const [name, options] of Object.entries({
  "the defaults": {},
  "times and sizes": { pingInterval: 1234, pingTimeout: 567, maxHttpBufferSize: 89 },
  "one transport, polling": { transports: ["polling"] },
  "one transport, websocket": { transports: ["websocket"] },
  "no upgrades": { allowUpgrades: false },
  "an initial packet": { initialPacket: "first!" },
  "another path": { path: "/elsewhere" },
  "no slash at the end": { addTrailingSlash: false },
  "protocol 3 allowed": { allowEIO3: true },
  "no compression of frames": { perMessageDeflate: false },
})) {
  script(`handshake: ${name}`, options, async (server) => {
    for (const query of [POLLING, "EIO=3&transport=polling", "transport=polling&b64=1", "EIO=4&transport=polling&a=b%20c&d", "EIO=4&transport=nothing"]) await server.get(query);
    const socket = new Socket(server, WEBSOCKET, {});
    await socket.opened();
    if (!options.transports || options.transports.includes("websocket")) {
      await socket.frame();
      if (options.initialPacket) await socket.frame();
    }
    await server.get(POLLING, { path: "/engine.io" });
    await server.get(POLLING, { path: "/engine.io/below/it" });
  });
}

for (const cookie of [
  true, false, { name: "woot" }, { path: "/custom" }, { path: false }, { path: "" }, { httpOnly: true }, { httpOnly: false }, { httpOnly: "no" },
  { sameSite: true }, { sameSite: false }, { sameSite: "strict" }, { sameSite: "none", secure: true },
  { maxAge: 3600.7, domain: "example.org", partitioned: true, priority: "high" },
]) {
  script(`cookie: ${JSON.stringify(cookie)}`, { cookie }, async (server) => {
    const { query } = await server.poller();
    await server.post(query, "4hi");
    await server.framed();
  });
}

for (const cors of [
  false, true, {}, { origin: "*" }, { origin: false }, { origin: true }, { origin: true, credentials: true }, { origin: ["http://page.example", "http://b.example"] },
  { methods: "GET,POST" }, { methods: ["PUT"], headers: ["x-a", "x-b"] }, { allowedHeaders: "x-c, x-d" },
  { exposedHeaders: ["x-e", "x-f"], maxAge: 123, optionsSuccessStatus: 200 },
]) {
  script(`cors: ${JSON.stringify(cors)}`, { cors }, async (server) => {
    const asks = { "access-control-request-method": "POST", "access-control-request-headers": "x-asked" };
    for (const origin of [ORIGIN, { origin: "http://stranger.example" }, {}]) {
      server.note("preflight", await server.request("OPTIONS", `${POLLING}&sid=elsewhere`, { headers: { ...origin, ...asks } }));
      await server.get(POLLING, { headers: origin });
      await server.get("EIO=4", { headers: origin });
    }
    const { query } = await server.poller();
    await server.post(query, "4hi", { headers: ORIGIN });
    const socket = await server.websocket(WEBSOCKET, { headers: ORIGIN });
    await socket.frame();
  });
}

script("cors: one origin", { cors: { origin: "http://page.example", credentials: true } }, async (server) => {
  server.note("preflight", await server.request("OPTIONS", POLLING, { headers: ORIGIN }));
  await server.get(POLLING, { headers: ORIGIN });
});

script("cors: one origin, and a stranger", { cors: { origin: "http://page.example" } }, async (server) => {
  for (const [name, method] of [["preflight", "OPTIONS"], ["GET", "GET"]]) server.note(name, await server.request(method, POLLING, { headers: { origin: "http://stranger.example" } }));
});

script("cors: a preflight that is passed on", { cors: { preflightContinue: true } }, async (server) => {
  server.note("preflight", await server.request("OPTIONS", POLLING, { headers: ORIGIN }));
});

for (const httpCompression of [undefined, true, false, { threshold: 10 }, { threshold: 0 }]) {
  script(`compression: ${JSON.stringify(httpCompression)}`, { httpCompression }, async (server) => {
    const session = await server.poller();
    const { sid, query } = session;
    for (const [length, opts, accepted] of [[5, {}, "gzip"], [100, {}, "gzip, deflate"], [2000, {}, "gzip, deflate"], [2000, {}, "deflate"], [2000, {}, "br"], [2000, {}, undefined], [2000, { compress: false }, "gzip"]]) {
      const parked = server.request("GET", query, { headers: accepted ? { "accept-encoding": accepted } : {} });
      server.say({ c: "send", sid, text: "x".repeat(length), opts });
      server.note("sent", await parked);
    }
  });
}

script("compression: a packet that forbids it beside one that does not", {}, async (server) => {
  const { sid, query } = await server.poller();
  server.say({ c: "send", sid, text: "x".repeat(2000), opts: { compress: false } });
  server.say({ c: "send", sid, text: "y" });
  await server.obeyed();
  server.note("GET", await server.request("GET", query, { headers: { "accept-encoding": "gzip" } }));
});

script("compression of frames", { perMessageDeflate: true }, async (server) => {
  await server.websocket(WEBSOCKET, { perMessageDeflate: true });
});

// --- what is refused ---

script("requests that are refused are told with their reasons", { allowEIO3: true }, async (server) => {
  const { sid, query } = await server.poller();
  const old = await server.poller(3);
  for (const query of ["", "transport=tobi", "transport=constructor", "transport=__proto__", "transport=webtransport", "EIO=4&transport=polling&sid=test", WEBSOCKET]) await server.get(query);
  await server.get(`${WEBSOCKET}&sid=${sid}`);
  await server.get(`EIO=3&transport=polling&sid=${sid}`);
  await server.get(`EIO=4&transport=polling&sid=${old.sid}`);
  await server.post(POLLING, "4hi");
  for (const method of ["OPTIONS", "PUT", "DELETE"]) {
    server.note(method, await server.request(method, POLLING));
    if (method !== "OPTIONS") server.note(method, await server.request(method, query));
  }
  server.note("501", await server.request("GET", undefined, { path: "/" }));
  for (const query of ["EIO=4&transport=__proto__", "EIO=4&transport=websocket&sid=test"]) await new Socket(server, query, {}).opened();
});

script("an upgrade over a transport that does not upgrade", {}, async (server) => {
  const socket = new Socket(server, POLLING, {});
  await socket.opened();
});

script("a WebSocket handshake without its key", {}, async (server) => {
  const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" };
  server.note("answer", await server.request("GET", WEBSOCKET, { headers }));
});

script("parameters that are there twice", {}, async (server) => {
  await server.post("EIO=4&transport=nothing&transport=polling", "4hi");
  await server.get(`${POLLING}&sid=one&sid=two`);
});

script("protocol 3 is refused where it is not allowed", {}, async (server) => {
  await server.get("EIO=3&transport=polling");
  await server.get("transport=polling");
});

script("an Origin that no header may hold", {}, async (server) => {
  const socket = connect(server.port, "127.0.0.1");
  socket.write(Buffer.from(`GET ${server.path}?${POLLING} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: http://a\x7fb\r\n\r\n`, "latin1"));
  server.note("answer", (await whole(socket)).split("\r\n\r\n").at(-1));
});

for (const [name, answer] of Object.entries({ yes: { err: null, ok: true }, "no, with words": { err: "Thou shall not pass", ok: false }, "no, without words": { err: null, ok: false } })) {
  script(`allowRequest: ${name}`, { allowRequest: { $fn: true } }, async (server) => {
    const polling = server.get(`${POLLING}&a=b`, { headers: { "x-mine": "1" } });
    server.say({ c: "answer", n: (await server.event("allowRequest")).n, ...answer });
    await polling;
    const socket = new Socket(server, WEBSOCKET, {});
    server.say({ c: "answer", n: (await server.event("allowRequest")).n, ...answer });
    await socket.opened();
    if (answer.ok) await socket.frame();
  });
}

for (const [name, answer] of Object.entries({ "an id": { sid: "mine" }, "an error": { error: "nope" } })) {
  script(`generateId: ${name}`, { generateId: { $fn: true }, cookie: true }, async (server) => {
    const polling = server.get(POLLING);
    server.say({ c: "answer", n: (await server.event("generateId")).n, ...answer });
    await polling;
    if (answer.sid) await server.post(`${POLLING}&sid=${answer.sid}`, "4hi");
  });
}

script("generateId: an error for a WebSocket", { generateId: { $fn: true } }, async (server) => {
  const socket = new Socket(server, WEBSOCKET, {});
  socket.ws.on("error", () => {});
  server.say({ c: "answer", n: (await server.event("generateId")).n, error: "nope" });
  server.note("handshake", (await within("a handshake", socket.handshake)).status);
  await server.event("connection_error");
});

// --- messages ---

script("messages over polling, both ways", {}, async (server) => {
  const session = await server.poller();
  const { sid, query } = session;
  await server.post(query, "4one\x1ebAQID\x1e4\x1e4äöü ☃ 💩\x1eb");
  for (const [fields, opts] of [[{ text: "one" }, {}], [{ bin: "AQID" }, {}], [{ text: "" }, {}], [{ text: "äöü ☃ 💩" }, { compress: false }], [{ bin: "" }, {}]]) server.say({ c: "send", sid, ...fields, opts });
  await server.obeyed();
  await server.get(query);
  const parked = await server.park(session);
  server.say({ c: "send", sid, text: "parked" });
  await parked.answer();
  server.say({ c: "send", sid: "nobody", text: "lost" });
});

script("messages over WebSocket, both ways", {}, async (server) => {
  const { sid, socket } = await server.framed();
  for (const data of ["4one", Buffer.from([1, 2, 3]), "4", "4äöü ☃ 💩", Buffer.alloc(0), `4${"long".repeat(20_000)}`]) socket.send(data);
  for (const fields of [{ text: "one" }, { bin: "AQID" }, { text: "" }, { text: "äöü ☃ 💩" }, { bin: "" }, { text: "long".repeat(20_000) }]) server.say({ c: "send", sid, ...fields });
  for (let count = 0; count < 6; count++) {
    await socket.frame();
    await server.event("message");
  }
});

script("what has left is told", {}, async (server) => {
  const session = await server.poller();
  const { sid, query } = session;
  server.say({ c: "send", sid, text: "a", cb: 1 });
  server.say({ c: "send", sid, text: "b" });
  server.say({ c: "send", sid, text: "c", cb: 2 });
  await server.obeyed();
  await server.post(query, "4not yet");
  await server.get(query);
  await server.event("sent", { cb: 2 });
  const parked = await server.park(session);
  server.say({ c: "send", sid, text: "d", cb: 3 });
  await server.event("sent", { cb: 3 });
  await parked.answer();
  server.say({ c: "send", sid, text: "never", cb: 4 });
  server.say({ c: "close", sid, discard: true });
  await server.event("close");
  server.say({ c: "send", sid, text: "too late", cb: 5 });
});

script("what has left over WebSocket is told", {}, async (server) => {
  const { sid, socket } = await server.framed();
  for (const cb of [1, 2, 3]) server.say({ c: "send", sid, text: `${cb}`, cb });
  for (let count = 0; count < 3; count++) {
    await socket.frame();
    await server.event("sent");
  }
});

// --- how sessions end ---

script("the server closes a client that polls", {}, async (server) => {
  const session = await server.poller();
  const parked = await server.park(session);
  server.say({ c: "close", sid: session.sid });
  await parked.answer();
  await server.event("close");
  await server.get(session.query);
});

script("the server closes a client between two polls", {}, async (server) => {
  const { sid, query } = await server.poller();
  server.say({ c: "close", sid });
  await server.obeyed();
  await server.post(query, "4not heard");
  await server.get(query);
  await server.event("close");
  await server.get(query);
});

script("the server closes a client that has something to fetch", {}, async (server) => {
  const { sid, query } = await server.poller();
  server.say({ c: "send", sid, text: "x" });
  server.say({ c: "close", sid });
  server.say({ c: "send", sid, text: "y", cb: 1 });
  await server.obeyed();
  await server.post(query, "4not heard");
  await server.get(query);
  await server.get(query);
  await server.event("close");
  await server.get(query);
});

script("the server discards clients", {}, async (server) => {
  const between = await server.poller();
  server.say({ c: "send", sid: between.sid, text: "dropped" });
  server.say({ c: "close", sid: between.sid, discard: true });
  await server.event("close");
  await server.get(between.query);
  const session = await server.poller();
  const parked = await server.park(session);
  server.say({ c: "close", sid: session.sid, discard: true });
  await server.event("close");
  await parked.answer();
  const { sid, socket } = await server.framed();
  server.say({ c: "close", sid, discard: true });
  await server.event("close");
  await socket.frame();
});

script("the server discards a client that it is closing", {}, async (server) => {
  const { sid, query } = await server.poller();
  server.say({ c: "send", sid, text: "dropped" });
  server.say({ c: "close", sid });
  server.say({ c: "close", sid, discard: true });
  await server.event("close");
  await server.get(query);
});

script("the server closes a WebSocket, after what was sent", {}, async (server) => {
  const { sid, socket } = await server.framed();
  for (const text of ["a", "b", "c"]) server.say({ c: "send", sid, text });
  server.say({ c: "close", sid });
  for (let count = 0; count < 4; count++) await socket.frame();
  await server.event("close");
});

script("the server closes all of them", {}, async (server) => {
  const between = await server.poller();
  const session = await server.poller();
  const parked = await server.park(session);
  const { socket } = await server.framed();
  server.say({ c: "closeAll" });
  for (let count = 0; count < 3; count++) await server.event("close");
  await parked.answer();
  await socket.frame();
  await server.get(between.query);
  // Who polls may come back.
  await server.poller();
});

script("a WebSocket after all were closed", {}, async (server) => {
  const { sid } = await server.poller();
  server.say({ c: "closeAll" });
  await server.event("close", { sid });
  await new Socket(server, WEBSOCKET, {}).opened();
});

script("a client between two polls that has gone before it is closed", { pingInterval: 50, pingTimeout: 50 }, async (server) => {
  const { sid } = await server.poller();
  server.say({ c: "close", sid });
  await server.event("close");
});

script("a client closes by a packet", {}, async (server) => {
  const session = await server.poller();
  const parked = await server.park(session);
  await server.post(session.query, "4last\x1e1\x1e4not heard");
  await parked.answer();
  await server.event("close");
  await server.get(session.query);
});

script("a client closes its WebSocket", {}, async (server) => {
  const { socket } = await server.framed();
  socket.send("4last");
  socket.ws.close();
  await socket.frame();
  await server.event("close");
  const other = await server.framed();
  other.socket.ws.terminate();
  await server.event("close");
});

script("a client lets go of its poll", {}, async (server) => {
  const session = await server.poller();
  const parked = await server.park(session);
  parked.answer().catch(() => {});
  parked.ask.destroy();
  await server.event("close");
  await server.get(session.query);
});

script("a client lets go of its POST", {}, async (server) => {
  const { query } = await server.poller();
  const ask = request({ host: "127.0.0.1", port: server.port, agent: false, method: "POST", path: `${server.path}?${query}`, headers: { "content-length": 100 } });
  ask.on("error", () => {});
  await new Promise((resolve) => ask.write("4half", resolve));
  // Heard after the half.
  await server.get("EIO=4&transport=nothing");
  ask.destroy();
  await server.event("close");
});

// --- what breaks the protocol ---

for (const [name, body] of Object.entries({ "no packet": "abc", "an empty one": "", "a bad one behind a good one": "4good\x1eabc\x1e4lost", "a ping": "2", "more than a ping": "2\x1e4lost" })) {
  script(`a POST with ${name}`, {}, async (server) => {
    const session = await server.poller();
    const parked = await server.park(session);
    await server.post(session.query, body);
    await server.event("close");
    await parked.answer();
    await server.get(session.query);
  });
}

script("packets that mean nothing here", {}, async (server) => {
  const { query } = await server.poller();
  await server.post(query, "0\x1e3\x1e3x\x1e5\x1e6\x1e4still here");
  const { socket } = await server.framed();
  for (const packet of ["0", "3", "5", "6", "4still here"]) socket.send(packet);
  await server.event("message");
  await server.event("message");
});

for (const [name, frame] of Object.entries({ "no packet": "abc", "an empty one": "", "a ping": "2" })) {
  script(`a frame with ${name}`, {}, async (server) => {
    const { socket } = await server.framed();
    socket.send(frame);
    await server.event("close");
    await socket.frame();
  });
}

script("a close packet over WebSocket", {}, async (server) => {
  const { socket } = await server.framed();
  socket.send("1");
  socket.send("4heard?");
  socket.ws.close();
  await server.event("close");
});

script("two polls at once", {}, async (server) => {
  const session = await server.poller();
  const parked = await server.park(session);
  await server.get(session.query);
  await parked.answer();
  await server.event("close");
});

script("two POSTs at once", {}, async (server) => {
  const { query } = await server.poller();
  const ask = request({ host: "127.0.0.1", port: server.port, agent: false, method: "POST", path: `${server.path}?${query}`, headers: { "content-length": 100 } });
  ask.on("error", () => {});
  await new Promise((resolve) => ask.write("4half", resolve));
  await server.get("EIO=4&transport=nothing");
  await server.post(query, "4second");
  await server.event("close");
  ask.destroy();
});

script("a POST that is said to be binary", {}, async (server) => {
  const { query } = await server.poller();
  await server.post(query, "4x", { headers: { "content-type": "application/octet-stream" } });
  await server.event("close");
});

script("a POST in chunks, and one that is too large", { maxHttpBufferSize: 10 }, async (server) => {
  const { query } = await server.poller();
  await server.post(query, "4123456789", { headers: { "transfer-encoding": "chunked" } });
  await server.post(query, "41234567890");
  await server.post(query, "4still here");
});

script("a frame that is too large", { maxHttpBufferSize: 10 }, async (server) => {
  const { socket } = await server.framed();
  socket.send("4123456789");
  socket.send("41234567890");
  await server.event("close");
  await socket.frame();
});

// --- heartbeat ---

script("a heartbeat over WebSocket, and then none", { pingInterval: 60, pingTimeout: 200 }, async (server) => {
  const { socket } = await server.framed();
  for (let count = 0; count < 2; count++) {
    await socket.frame();
    socket.send("3");
    await server.event("heartbeat");
  }
  await socket.frame();
  await server.event("close");
  await socket.frame();
});

script("a heartbeat over polling, and then none", { pingInterval: 60, pingTimeout: 200 }, async (server) => {
  const { query } = await server.poller();
  await server.get(query);
  await server.post(query, "3");
  await server.event("heartbeat");
  await server.get(query);
  await server.event("close");
  await server.get(query);
});

// --- upgrades ---

script("an upgrade", {}, async (server) => {
  const session = await server.poller();
  const { sid, query } = session;
  const parked = await server.park(session);
  const socket = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
  socket.send("2probe");
  await socket.frame();
  await server.event("upgrading");
  await parked.answer();
  server.say({ c: "send", sid, text: "polled", cb: 1 });
  await server.obeyed();
  await server.post(query, "4posted");
  await server.get(query);
  await server.event("sent");
  server.say({ c: "send", sid, text: "framed", cb: 2 });
  await server.obeyed();
  await server.post(query, "4posted again");
  socket.send("5");
  await server.event("upgrade");
  await socket.frame();
  await server.event("sent");
  socket.send("4over it");
  await server.event("message", { text: "over it" });
  await server.get(query);
  await server.post(query, "4x");
  server.say({ c: "close", sid });
  await socket.frame();
  await server.event("close");
});

script("an upgrade while a poll waits", {}, async (server) => {
  const session = await server.poller();
  const parked = await server.park(session);
  const socket = await server.websocket(`${WEBSOCKET}&sid=${session.sid}`);
  socket.send("2probe");
  socket.send("5");
  await socket.frame();
  await server.event("upgrade");
  await parked.answer();
  socket.ws.close();
  await server.event("close");
});

script("an upgrade that is not completed", { upgradeTimeout: 100 }, async (server) => {
  const { sid, query } = await server.poller();
  const socket = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
  socket.send("2probe");
  await socket.frame();
  await socket.frame();
  await server.post(query, "4still here");
  const silent = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
  await silent.frame();
  await server.post(query, "4still here");
});

for (const packet of ["4x", "2", "1", "6", "abc"]) {
  script(`a candidate that says ${packet}`, {}, async (server) => {
    const { sid, query } = await server.poller();
    const socket = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
    socket.send(packet);
    await socket.frame();
    await server.post(query, "4still here");
  });
}

script("two candidates, and one that comes too late", {}, async (server) => {
  const { sid } = await server.poller();
  const first = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
  first.send("2probe");
  await first.frame();
  await (await server.websocket(`${WEBSOCKET}&sid=${sid}`)).frame();
  first.send("5");
  await server.event("upgrade");
  await (await server.websocket(`${WEBSOCKET}&sid=${sid}`)).frame();
  first.send("4still here");
  await server.event("message");
});

script("a candidate that goes away, and the next one", {}, async (server) => {
  const { sid, query } = await server.poller();
  const first = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
  first.send("2probe");
  await first.frame();
  first.ws.close();
  await first.frame();
  await server.post(query, "4still here");
  const second = await server.websocket(`${WEBSOCKET}&sid=${sid}`);
  second.send("2probe");
  await second.frame();
  second.send("5");
  await server.event("upgrade");
});

script("the server closes a session that is being upgraded", {}, async (server) => {
  const session = await server.poller();
  const parked = await server.park(session);
  const socket = await server.websocket(`${WEBSOCKET}&sid=${session.sid}`);
  socket.send("2probe");
  await socket.frame();
  await server.event("upgrading");
  await parked.answer();
  server.say({ c: "close", sid: session.sid });
  await server.obeyed();
  await server.get(session.query);
  await server.event("close");
  await socket.frame();
});

script("the official client upgrades and exchanges messages", {}, async (server) => {
  const client = new EngineSocket(`http://127.0.0.1:${server.port}`, { transports: ["polling", "websocket"], timestampRequests: false });
  await event(client, "upgrade");
  const { sid } = await server.event("connection");
  await server.event("upgrade");
  client.send("ä");
  await server.event("message");
  client.send(new Uint8Array([1, 2]));
  await server.event("message");
  const [echo] = await Promise.all([event(client, "message"), server.say({ c: "send", sid, text: "ö" })]);
  server.note("message", echo);
  client.close();
  await server.event("close");
});

// --- protocol 3 ---

script("protocol 3 over polling", { allowEIO3: true, initialPacket: "first" }, async (server) => {
  const session = await server.poller(3);
  const { sid, query } = session;
  await server.post(query, "4:4one10:b4AQIDBAU=");
  await server.post(query, "2:4ä6:4x☃y💩");
  for (const fields of [{ text: "one" }, { text: "ä☃💩" }]) server.say({ c: "send", sid, ...fields });
  await server.obeyed();
  await server.post(query, "1:2");
  await server.event("heartbeat");
  await server.get(query);
  server.say({ c: "send", sid, bin: "AQID" });
  server.say({ c: "send", sid, text: "mixed" });
  await server.obeyed();
  await server.get(query);
  await server.post(query, Buffer.from([0, 5, 255, 0x34, 0xc3, 0xa4, 0x78, 0x79]), { headers: { "content-type": "application/octet-stream" } });
  await server.post(query, Buffer.from([1, 4, 255, 4, 1, 2, 3]), { headers: { "content-type": "application/octet-stream" } });
  await server.post(query, "1:1");
  await server.event("close");
});

script("protocol 3: a ping with data", { allowEIO3: true }, async (server) => {
  const { query } = await server.poller(3);
  await server.post(query, "6:2probe");
  await server.get(query);
});

script("protocol 3 without binary data", { allowEIO3: true }, async (server) => {
  await server.get("transport=polling&b64=1");
  const { sid } = await server.event("connection");
  server.say({ c: "send", sid, bin: "AQID" });
  await server.obeyed();
  await server.post(`transport=polling&b64=1&sid=${sid}`, "3:4hi");
  await server.get(`transport=polling&b64=1&sid=${sid}`);
});

script("protocol 3 in scripts of a page", { allowEIO3: true }, async (server) => {
  await server.get("transport=polling&j=0");
  const { sid } = await server.event("connection");
  const query = `transport=polling&j=0&sid=${sid}`;
  server.say({ c: "send", sid, text: "\u2028\"'" });
  await server.obeyed();
  await server.post(query, "d=3:4hi", { headers: { "content-type": "application/x-www-form-urlencoded" } });
  await server.get(query);
});

script("protocol 3 over WebSocket", { allowEIO3: true, pingInterval: 100, pingTimeout: 50 }, async (server) => {
  const { sid, socket } = await server.framed(3);
  socket.send("4one");
  socket.send(Buffer.from([4, 1, 2]));
  socket.send("2");
  await socket.frame();
  server.say({ c: "send", sid, bin: "AQID" });
  await socket.frame();
  server.say({ c: "send", sid, text: "x" });
  await socket.frame();
  await server.event("close");
  await socket.frame();
});

script("protocol 3 upgrades", { allowEIO3: true }, async (server) => {
  const session = await server.poller(3);
  const parked = await server.park(session);
  const socket = await server.websocket(`EIO=3&transport=websocket&sid=${session.sid}`);
  socket.send("2probe");
  await socket.frame();
  await parked.answer();
  socket.send("5");
  await server.event("upgrade");
  socket.send("4over it");
  await server.event("message", { text: "over it" });
});

script("a pong in protocol 3", { allowEIO3: true }, async (server) => {
  const { query } = await server.poller(3);
  await server.post(query, "1:3");
  await server.event("close");
});

// --- the program ---

for (const [name, options] of Object.entries({ "after a while": { destroyUpgradeTimeout: 50 }, never: { destroyUpgrade: false } })) {
  script(`an upgrade to something else ends ${name}`, options, async (server) => {
    const socket = connect(server.port, "127.0.0.1");
    socket.write("GET /elsewhere HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: IRC/6.9\r\n\r\n");
    if (options.destroyUpgrade !== false) return server.note("answer", (await whole(socket)).split("\r\n")[0]);
    socket.on("end", () => server.note("end", true));
    await server.get("EIO=4&transport=nothing");
    socket.destroy();
  });
}

script("it ends with its standard input", {}, async (server) => {
  await server.poller();
  server.program.child.stdin.end();
  await server.ended();
});

test("every option, event and command of the protocol is in a script", () => {
  const options = ["pingInterval", "pingTimeout", "upgradeTimeout", "maxHttpBufferSize", "transports", "allowUpgrades", "httpCompression", "perMessageDeflate", "cookie", "cors", "allowEIO3", "initialPacket", "path", "addTrailingSlash", "destroyUpgrade", "allowRequest", "generateId"];
  const events = ["listening", "connection", "message", "close", "upgrading", "upgrade", "heartbeat", "connection_error", "sent", "allowRequest", "generateId"];
  const commands = ["send", "close", "closeAll", "answer", "stop"];
  for (const [kind, names] of Object.entries({ options, events, commands })) {
    for (const name of names) assert.ok(covered[kind].has(name), `${kind}: ${name}`);
  }
});

test("every deviation is one of a script's", () => {
  for (const { script } of DEVIATIONS) assert.ok(scripts.has(script), script);
});

async function whole(socket) {
  const chunks = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks).toString("latin1");
}

// The live clients: official ones, half of them polling-only and half upgrading, and bare WebSockets. All say numbered messages in a chat room all the time.
//
// A program driven by JSON lines. It prints `{"event":…}` whenever a client comes or goes, and answers `{"id","ask",…}` with `{"id","answer"}`; it ends
// with its input.
//
//     start {url, clients, pace}    opens them all
//     facts                         what there is to know of each client since the last mark
//     mark                          begins a new count
//     exchange {count}              answers when each connected client has had that many more acknowledgements
//     replace {every}               every so manieth client goes, and a new one comes in its place
//
// What "lost" means: an acknowledged message that did not come back to its sender before the acknowledgement did, or that did not reach a member of the same
// room who was there before it was said and who heard a later message of the same sender. "Cut" is one that a member never heard because it was disconnected
// between the acknowledgement and the delivery.

import http from "node:http";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(new URL("../clients/", import.meta.url));
const { io } = require("socket.io-client");
const WebSocket = require("ws");

const NETWORKS = 101;
// Of every eight clients three only poll, three upgrade and two are bare WebSockets; 101 is a prime, so each network has all kinds.
const KINDS = ["polling", "upgrading", "websocket", "polling", "upgrading", "polling", "upgrading", "websocket"];
// The pace of those whose next messages the lab waits for.
const HASTE = 2_000;
// As the official client's defaults.
const FIRST_DELAY = 1_000;
const LONGEST_DELAY = 5_000;
const CONNECT_TIMEOUT = 20_000;

/** One client, and everything that happened to it. What carries its packets is its `line`. */
class Client {
  constructor(number, kind, network) {
    Object.assign(this, { number, kind, network, node: null, since: null, serial: 0, message: 0, heard: new Map(), said: [] });
    this.address = `10.78.${network}.${1 + (Math.floor(number / NETWORKS) % 250)}`;
    this.namespace = number % 16 < 8 ? "/" : "/ws";
    this.mark();
    this.open();
  }

  open() {
    this.line = this.kind === "websocket" ? new BareLine(this) : new OfficialLine(this);
  }

  /** Goes, and comes back as if it were somebody else. */
  replace() {
    this.isLeaving = true;
    this.close();
  }

  mark() {
    Object.assign(this, { connects: 0, disconnects: [], errors: [], acknowledged: 0, repeated: 0, lost: [], cut: [], twice: [], refusals: [] });
  }

  connected(sid) {
    this.connects += 1;
    // The node and the boot: the process that this client is on.
    this.process = sid.slice(0, sid.indexOf("-") + 3);
    this.node = Number(sid.slice(0, sid.indexOf("-")));
    this.since = now();
    this.line.emit("chat:join", { name: `client ${this.number}` }, (answer) => {
      if (answer.error) this.refusals.push(answer.error);
      room(this).add(this);
      this.joined = true;
      say({ event: "connected", client: this.number, node: this.node });
      this.speak();
    });
  }

  disconnected(reason) {
    clearTimeout(this.next);
    this.disconnects.push({ reason, at: now() });
    if (this.joined) {
      const mates = room(this);
      mates.delete(this);
      for (const mate of mates) {
        for (const message of mate.said) if (message.waiting.delete(this) && message.isAcknowledged) this.cut.push(message.text);
      }
    }
    this.joined = false;
    this.process = undefined;
    this.said = [];
    say({ event: "disconnected", client: this.number, reason });
    if (this.isLeaving) this.open();
    this.isLeaving = false;
  }

  /** Says the next message, or again the one that was not acknowledged before the connection was lost. */
  speak() {
    this.next = undefined;
    const isAgain = this.attempted === this.message;
    if (isAgain) this.repeated += 1;
    this.attempted = this.message;
    const text = `${this.number}:${++this.serial}:${this.message}`;
    const message = { text, serial: this.serial, waiting: new Set(room(this)), isAcknowledged: false };
    const on = this.process;
    this.said.push(message);
    this.line.emit("chat:message", { text }, (answer) => {
      if (this.process !== on) return;
      if (answer.error) this.refusals.push(answer.error);
      if (message.waiting.delete(this)) this.lost.push(`${text} to its sender`);
      message.isAcknowledged = true;
      this.message += 1;
      this.acknowledged += 1;
      progress(this);
      this.pause();
    });
  }

  /** Until the next message: shorter while somebody waits for it. */
  pause() {
    clearTimeout(this.next);
    const isWaitedFor = [...exchanges].some(({ wanting }) => wanting.has(this));
    this.next = setTimeout(() => this.speak(), (isWaitedFor ? HASTE : pace) * (0.5 + Math.random()));
  }

  hear({ text }) {
    const [number, serial] = text.split(":").map(Number);
    const sender = clients[number];
    if (sender === undefined) return;
    if (serial <= (this.heard.get(number) ?? 0)) this.twice.push(text);
    this.heard.set(number, serial);
    sender.said = sender.said.filter((message) => {
      if (message.serial <= serial && message.waiting.delete(this) && message.serial < serial && message.isAcknowledged) this.lost.push(`${message.text} to ${this.number}`);
      return message.waiting.size > 0;
    });
  }

  close() {
    clearTimeout(this.next);
    this.line.close();
  }

  facts() {
    const { number, kind, network, node, since, joined, connects, disconnects, errors, acknowledged, repeated, lost, cut, twice, refusals } = this;
    return { number, kind, network, node, since, connected: Boolean(joined), connects, disconnects, errors, acknowledged, repeated, lost, cut, twice, refusals, transport: this.line.transport ?? null };
  }
}

/** The official client, with its own way of coming back. */
class OfficialLine {
  constructor(client) {
    const transports = client.kind === "polling" ? ["polling"] : ["polling", "websocket"];
    // A connection for each request, the official client's default in Node. With kept ones a reload of nginx would stall it: its XMLHttpRequest tries
    // again when a kept connection has just been closed, as browsers do, but never ends the second request.
    const agent = new http.Agent({ localAddress: client.address });
    this.socket = io(url + client.namespace, { transports, agent, forceNew: true });
    this.socket.on("connect", () => client.connected(this.socket.io.engine.id));
    this.socket.on("disconnect", (reason) => client.disconnected(reason));
    this.socket.on("connect_error", (error) => client.errors.push(`${error.message} ${error.description ?? ""}`));
    this.socket.on("chat:message", (message) => client.hear(message));
  }

  emit(name, data, acknowledged) {
    this.socket.emit(name, data, acknowledged);
  }

  get transport() {
    return this.socket.io.engine?.transport?.name;
  }

  close() {
    this.socket.disconnect();
  }
}

/** A WebSocket that speaks Engine.IO and Socket.IO by hand, packet by packet, and comes back after a while. */
class BareLine {
  transport = "websocket";
  attempts = 0;

  constructor(client) {
    this.client = client;
    this.nsp = client.namespace === "/" ? "" : `${client.namespace},`;
    this.open();
  }

  open() {
    const { client, nsp } = this;
    const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?EIO=4&transport=websocket`, { localAddress: client.address, perMessageDeflate: false, handshakeTimeout: CONNECT_TIMEOUT });
    this.socket = socket;
    this.acknowledgements = new Map();
    let reason = "transport close";
    let handshake;
    const alive = () => {
      clearTimeout(this.silence);
      this.silence = setTimeout(() => {
        reason = "ping timeout";
        socket.terminate();
      }, handshake.pingInterval + handshake.pingTimeout);
    };
    socket.on("message", (data) => {
      const packet = data.toString();
      if (packet.startsWith("0")) {
        handshake = JSON.parse(packet.slice(1));
        alive();
        socket.send(`40${nsp}`);
      } else if (packet === "2") {
        alive();
        socket.send("3");
      } else if (packet.startsWith(`40${nsp}`)) {
        this.isOpen = true;
        this.attempts = 0;
        client.connected(handshake.sid);
      } else if (packet.startsWith(`42${nsp}[`)) {
        const [name, body] = JSON.parse(packet.slice(2 + nsp.length));
        if (name === "chat:message") client.hear(body);
      } else if (packet.startsWith(`43${nsp}`)) {
        const [, id, answer] = /^(\d+)(.*)$/s.exec(packet.slice(2 + nsp.length));
        const acknowledged = this.acknowledgements.get(Number(id));
        this.acknowledgements.delete(Number(id));
        acknowledged(...JSON.parse(answer));
      } else {
        client.errors.push(`unexpected packet ${packet.slice(0, 40)}`);
      }
    });
    socket.on("error", (error) => this.isOpen || client.errors.push(error.message));
    socket.on("close", () => {
      clearTimeout(this.silence);
      if (this.isOpen) client.disconnected(reason);
      this.isOpen = false;
      if (this.isClosed) return;
      const delay = Math.min(FIRST_DELAY * 2 ** this.attempts++, LONGEST_DELAY);
      this.again = setTimeout(() => this.open(), delay * (0.5 + Math.random()));
    });
  }

  emit(name, data, acknowledged) {
    const id = (this.lastId = (this.lastId ?? 0) + 1);
    this.acknowledgements.set(id, acknowledged);
    this.socket.send(`42${this.nsp}${id}${JSON.stringify([name, data])}`);
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.again);
    this.socket.close();
  }
}

let url;
let pace;
let clients = [];
const rooms = new Map();
const exchanges = new Set();

/** Those who hear what this client says: the same process, the same namespace. */
function room(client) {
  const name = client.process + client.namespace;
  if (!rooms.has(name)) rooms.set(name, new Set());
  return rooms.get(name);
}

const asks = {
  start(wish) {
    ({ url, pace } = wish);
    clients = Array.from({ length: wish.clients }, (_, number) => new Client(number, KINDS[number % KINDS.length], number % NETWORKS));
  },
  facts: () => clients.map((client) => client.facts()),
  mark() {
    for (const client of clients) client.mark();
  },
  exchange({ count }) {
    return new Promise((resolve) => {
      const wanting = new Map(clients.filter((client) => client.joined).map((client) => [client, count]));
      exchanges.add({ wanting, resolve });
      for (const client of wanting.keys()) if (client.next) client.pause();
    });
  },
  replace({ every }) {
    for (const client of clients.filter(({ number }) => number % every === 0)) client.replace();
  },
};

function progress(client) {
  for (const exchange of exchanges) {
    const left = exchange.wanting.get(client);
    if (left === undefined) continue;
    if (left > 1) exchange.wanting.set(client, left - 1);
    else exchange.wanting.delete(client);
    if (exchange.wanting.size > 0) continue;
    exchanges.delete(exchange);
    exchange.resolve();
  }
}

function now() {
  return Date.now() / 1000;
}

function say(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ask, ...wish } = JSON.parse(line);
  Promise.resolve(asks[ask](wish)).then(
    (answer) => say({ id, answer }),
    (error) => say({ id, error: `${error.stack ?? error}` }),
  );
}
process.exit();

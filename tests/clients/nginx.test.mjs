// Two hundred official clients from 64 networks on four instances behind the shipped nginx: each stays where it belongs.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { io } from "socket.io-client";
import { Nginx } from "./lib/nginx.mjs";
import { Instance, freePorts, scratch } from "./lib/servers.mjs";
import { until } from "./lib/waiting.mjs";

const LONG = Boolean(process.env.STICKYPORT_LONG);
const CLIENTS = LONG ? 1_000 : 200;
const NETWORKS = 64;
// A message and its answer from each client about this often, so that something is always under way.
const PACE = 150;

const folder = scratch();
const basePort = await freePorts(6);
const web = basePort + 5;
const ports = [0, 1, 2, 3, 4].map((number) => basePort + number);
// Instance 3 inherits its listener, as under systemd; the others bind for themselves.
const instances = ports.map((_, number) => new Instance(folder, number, { basePort, web, held: number === 3 }));
const nginx = new Nginx(folder, { ports, live: 4, web });
let clients = [];

after(async () => {
  for (const client of clients) client.close();
  await nginx.stop();
  await Promise.all(instances.map((instance) => instance.end()));
});
for (const instance of instances.slice(0, 4)) await instance.start();
await nginx.start();

test(`${CLIENTS} clients are spread over all four instances, a network at a time`, async () => {
  clients = Array.from({ length: CLIENTS }, (_, n) => new Client(n));
  await settled(clients);
  const instanceOf = new Map();
  for (const client of clients) {
    assert.equal(instanceOf.get(client.network) ?? client.instance, client.instance, `10.${client.network}/24 is split`);
    instanceOf.set(client.network, client.instance);
  }
  assert.ok(instanceOf.size >= 50);
  assert.deepEqual([...new Set(instanceOf.values())].sort(), [0, 1, 2, 3]);
});

test("every request of a session reaches one instance, without an error", async () => {
  await answered(clients, 5);
  const polling = clients.filter((client) => client.transport === "polling");
  assert.equal(polling.length, CLIENTS / 2);
  assert.equal(polling.length + clients.filter((client) => client.transport === "websocket").length, CLIENTS);
  assertUndisturbed(clients);
  // Three quarters of the clients begin with polling, and only these name their session.
  assertEveryRequestAtHome({ polling: (CLIENTS * 3) / 4 });
  assert.deepEqual(new Set(nginx.requests().map(({ upstream }) => upstream)), new Set(ports.slice(0, 4).map((port) => `127.0.0.1:${port}`)));
});

test("an instance that is restarted in place gets each of its clients back, once", async () => {
  for (let round = 0; round < (LONG ? 10 : 1); round++) {
    const [own, others] = split(clients, 3);
    assert.ok(own.length > 0);
    assert.equal(await instances[3].stop(), "stopped 0");
    await instances[3].start();
    await reconnected(own);
    await answered(clients, 5);
    assertUndisturbed(others);
    for (const client of own) {
      assert.equal(client.connects, 2, `${client}`);
      assert.equal(client.instance, 3, `${client}`);
      assert.deepEqual(client.errors, [], `${client}`);
    }
    for (const client of own) client.forget();
  }
});

test("a fifth instance and a reload under load break no session, and it gets its share of the new ones", async () => {
  const began = nginx.requests().length;
  await instances[4].start();
  await nginx.reload({ live: 5 });
  await answered(clients, 10);
  assertUndisturbed(clients);
  assertEveryRequestAtHome({ since: began, polling: CLIENTS / 2 });

  // One newcomer from each network: those that are placed elsewhere than before are all on the new instance.
  const newcomers = Array.from({ length: NETWORKS }, (_, n) => new Client(n));
  clients.push(...newcomers);
  await settled(newcomers);
  const moved = newcomers.filter((newcomer) => newcomer.instance !== clients[newcomer.number].instance);
  assert.ok(moved.length >= 1 && moved.length <= NETWORKS / 3, `${moved.length} of ${NETWORKS} networks moved`);
  assert.ok(moved.every((newcomer) => newcomer.instance === 4));
});

test("an instance that stops moves its own clients and no others, each once", async () => {
  const [own, others] = split(clients, 1);
  assert.ok(own.length > 0);
  const began = nginx.requests().length;
  assert.equal(await instances[1].stop(), 0);
  await reconnected(own);
  await answered(clients, 5);
  assertUndisturbed(others);
  for (const client of own) {
    assert.equal(client.connects, 2, `${client}`);
    assert.notEqual(client.instance, 1);
    assert.deepEqual(client.errors, [], `${client}`);
  }
  for (const client of own) client.forget();

  // Requests of the sessions that it took with it are told so, and nobody else is bothered with them.
  const stale = await fetch(`${nginx.url}/socket.io/?EIO=4&transport=polling&sid=1-abcdefghijklmnopqr`);
  assert.equal(stale.status, 400);
  assert.deepEqual(await stale.json(), { code: 1, message: "Session ID unknown" });
  const strays = nginx.requests().slice(began).filter(({ session, upstream }) => session.startsWith("1-") && upstream !== `127.0.0.1:${ports[1]}`);
  assert.deepEqual(strays.map(({ line }) => line), []);
});

test("nothing that nginx wrote for an operator holds a sid", () => {
  const logs = nginx.shippedLogs();
  assert.match(logs, /owner=0 upstream=127\.0\.0\.1:/);
  assert.doesNotMatch(logs, /sid=/);
});

test("the clients go, and no instance has a session left", async () => {
  for (const client of clients) client.close();
  for (const instance of [0, 2, 3, 4].map((number) => instances[number])) {
    await until(`instance ${instance.number} is empty`, async () => sessions(await (await fetch(`${instance.url}/metrics`)).text()) === 0);
  }
});

/** One official client; odd ones only ever poll, the others upgrade, and every fourth begins with a WebSocket. */
class Client {
  constructor(number) {
    this.number = number;
    this.network = `${Math.floor((number % NETWORKS) / 8)}.${7 * (number % NETWORKS)}`;
    this.address = `10.${this.network}.${1 + Math.floor(number / NETWORKS)}`;
    const transports = number % 2 === 1 ? ["polling"] : number % 4 === 0 ? ["websocket"] : ["polling", "websocket"];
    this.forget();
    this.socket = io(nginx.url, { transports, forceNew: true, extraHeaders: { "X-Forwarded-For": this.address } });
    this.socket.on("connect", () => (this.connects += 1));
    this.socket.on("connect_error", (error) => this.errors.push(`${error} ${error.description ?? ""}`));
    this.socket.on("disconnect", (reason) => this.disconnects.push(reason));
    this.socket.on("data", (greeting) => {
      this.greetings += 1;
      this.instance = Number(/^connected to worker: (\d+)$/.exec(greeting)[1]);
      this.ask();
    });
    this.socket.on("s:message", (answer) => {
      if (answer === `/: ${ports[this.instance]}`) this.answers += 1;
      else this.errors.push(`at ${this.instance}, yet answered ${answer}`);
      this.next = setTimeout(() => this.ask(), PACE);
    });
  }

  /** Whatever happened so far is no longer counted. */
  forget() {
    this.connects = this.socket?.connected ? 1 : 0;
    this.greetings = this.connects;
    this.answers = 0;
    this.errors = [];
    this.disconnects = [];
  }

  ask() {
    clearTimeout(this.next);
    if (this.socket.connected) this.socket.emit("b:message", "?");
  }

  get transport() {
    return this.socket.io.engine.transport.name;
  }

  close() {
    clearTimeout(this.next);
    this.socket.disconnect();
  }

  toString() {
    const { number, address, instance, connects, disconnects, errors } = this;
    return `client ${number} ${JSON.stringify({ address, instance, connects, disconnects, errors })}`;
  }
}

/** All are greeted, and those that can have upgraded. */
function settled(some) {
  const lacking = () => some.filter((client) => client.greetings === 0 || client.answers === 0 || (client.number % 2 === 0 && client.transport !== "websocket"));
  return until(() => `${lacking().length} not connected, such as ${lacking()[0]}`, () => lacking().length === 0, 60_000);
}

/** All were greeted a second time since their counts began. */
function reconnected(some) {
  const lacking = () => some.filter((client) => client.greetings < 2 || !client.socket.connected);
  return until(() => `${lacking().length} not back, such as ${lacking()[0]}`, () => lacking().length === 0, 60_000);
}

/** Each has got that many more answers. */
function answered(some, count) {
  const targets = some.map((client) => client.answers + count);
  const lacking = () => some.filter((client, n) => client.answers < targets[n]);
  return until(() => `${lacking().length} without an answer, such as ${lacking()[0]}`, () => lacking().length === 0, 60_000);
}

function split(some, instance) {
  return [some.filter((client) => client.instance === instance), some.filter((client) => client.instance !== instance)];
}

function assertUndisturbed(some) {
  const disturbed = some.filter((client) => client.connects !== 1 || client.disconnects.length > 0 || client.errors.length > 0);
  assert.deepEqual(disturbed.map(String), []);
}

/** By nginx's own account: each session at the one instance that its sid names, each request tried once and answered well. */
function assertEveryRequestAtHome({ since = 0, polling }) {
  const seen = new Set();
  for (const { session, upstream, status, line } of nginx.requests().slice(since)) {
    assert.ok(status === 200 || status === 101, line);
    if (session === "") continue;
    assert.equal(upstream, `127.0.0.1:${ports[Number(session.split("-")[0])]}`, line);
    seen.add(session);
  }
  assert.equal(seen.size, polling);
}

function sessions(metrics) {
  const value = /^stickyport_sessions(?:\{[^}]*\})? (\d+)$/m.exec(metrics)?.[1];
  return value === undefined ? undefined : Number(value);
}

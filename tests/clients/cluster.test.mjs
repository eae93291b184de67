// Two instances of ours and one of Node's in one cluster over a real Redis, in every direction.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { io } from "socket.io-client";
import { Child, programs } from "./lib/differential.mjs";
import { Redis } from "./lib/redis.mjs";
import { freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const redis = await new Redis(scratch()).start();
after(() => redis.stop());

/** One node of the cluster, with a client or more. */
class Node {
  constructor(name, kind) {
    Object.assign(this, { name, kind, clients: [] });
  }

  async start(options = {}) {
    const port = await freePorts(1);
    const adapter = { type: "redis", url: redis.url, opts: options };
    this.child = new Child(programs("harness", "sio-harness-node.cjs")[this.kind], { port, adapter });
    await this.child.event("listening");
    this.url = `http://127.0.0.1:${port}`;
    return this;
  }

  /** A client in these rooms, which notes what it hears. */
  async client(nsp = "/", rooms = []) {
    const client = io(`${this.url}${nsp}`, { transports: ["websocket"], forceNew: true, reconnection: false });
    client.heard = [];
    client.onAny((...args) => client.heard.push(typeof args.at(-1) === "function" ? args.slice(0, -1) : args));
    await event(client, "connect");
    const { id: sid } = client;
    await this.child.event("connection", { sid });
    this.child.say({ c: "join", nsp, sid, rooms });
    for (const _ of rooms) await this.child.event("rooms", { sid });
    Object.assign(client, { node: this, nsp, told: 0 });
    this.clients.push(client);
    return client;
  }

  op(m, options = {}) {
    this.child.say({ c: "op", nsp: "/", m, ...options });
  }

  async stop() {
    this.clients.forEach((client) => client.disconnect());
    await this.child.stop();
  }
}

const [ours, others, theirs] = [new Node("ours", "ours"), new Node("another of ours", "ours"), new Node("Node's", "reference")];
const nodes = [ours, others, theirs];
let mark = 0;

before(async () => {
  await Promise.all(nodes.map((node) => node.start()));
  // The reference subscribes after it listens.
  await listening("/", nodes.length);
});
after(() => Promise.all(nodes.map((node) => node.stop())));

/** What each client heard of an action, without the mark that follows it. */
async function heard(clients, act, end) {
  for (const client of clients) client.heard.length = 0;
  await act();
  const last = `mark ${++mark}`;
  await end(last);
  const isMarked = (client) => client.heard.some(([name]) => name === last);
  await until(() => JSON.stringify(clients.map((client) => client.heard)), () => clients.every(isMarked));
  return clients.map((client) => client.heard.filter(([name]) => name !== last));
}

describe("a broadcast", () => {
  let clients;
  before(async () => {
    clients = [];
    for (const node of nodes) clients.push(await node.client("/", ["all", node.name]), await node.client("/", ["all", "odd"]));
  });
  after(() => clients.forEach((client) => client.disconnect()));
  const first = [0, 2, 4];
  const odd = [1, 3, 5];
  const all = [...first, ...odd];

  for (const sender of nodes) {
    describe(`of ${sender.name}`, () => {
      const reaches = (what, options, receivers, args = ["x", 1, "é", { a: [true, null, 1.5] }]) =>
        test(what, async () => {
          const end = (last) => sender.op("emit", { args: [last] });
          const lists = await heard(clients, () => sender.op("emit", { args, ...options }), end);
          const expected = clients.map((_, index) => (receivers.includes(index) ? [args] : []));
          assert.deepEqual(lists, expected);
        });
      reaches("to everyone", {}, all);
      reaches("to a room", { rooms: ["odd"] }, odd);
      reaches("to several rooms, once to each", { rooms: ["odd", "all"] }, all);
      reaches("to the room of one node", { rooms: [theirs.name] }, [4]);
      reaches("to a room but for others", { rooms: ["all"], except: ["odd", ours.name] }, [2, 4]);
      reaches("to nobody", { rooms: ["nobody"] }, []);
      reaches("uncompressed", { flags: { compress: false } }, all);
      reaches("on its own node only", { flags: { local: true } }, [2 * nodes.indexOf(sender), 2 * nodes.indexOf(sender) + 1]);

      test("with bytes", async () => {
        const args = ["x", { a: { $bin: Buffer.from([0, 1, 255]).toString("base64") } }, { $bin: "" }];
        const lists = await heard(clients, () => sender.op("emit", { args }), (last) => sender.op("emit", { args: [last] }));
        const expected = [["x", { a: Buffer.from([0, 1, 255]) }, Buffer.alloc(0)]];
        for (const list of lists) assert.deepEqual(list, expected);
      });

      test("to one socket by its id", async () => {
        for (const [index, { id }] of clients.entries()) {
          const lists = await heard(clients, () => sender.op("emit", { rooms: [id], args: ["you"] }), (last) => sender.op("emit", { args: [last] }));
          assert.deepEqual(lists, clients.map((_, other) => (other === index ? [["you"]] : [])));
        }
      });

      test("from a socket to the others", async () => {
        const speaker = clients[2 * nodes.indexOf(sender)];
        const say = () => sender.op("emit", { sid: speaker.id, args: ["others"] });
        const lists = await heard(clients, say, (last) => sender.op("emit", { args: [last] }));
        assert.deepEqual(lists, clients.map((client) => (client === speaker ? [] : [["others"]])));
      });

      test("in another namespace", async () => {
        for (const node of nodes) node.child.say({ c: "nsp", nsp: "/other" });
        const elsewhere = [];
        for (const node of nodes) elsewhere.push(await node.client("/other"));
        await listening("/other", nodes.length);
        const say = (last) => sender.op("emit", { nsp: "/other", args: [last] });
        assert.deepEqual(await heard(elsewhere, () => say("there"), say), [[["there"]], [["there"]], [["there"]]]);
        // And what is said here is not heard there.
        for (const client of [...clients, ...elsewhere]) client.heard.length = 0;
        sender.op("emit", { args: ["here"] });
        await until("all heard it", () => clients.every((client) => client.heard.length));
        assert.deepEqual(elsewhere.map((client) => client.heard), [[], [], []]);
        elsewhere.forEach((client) => client.disconnect());
      });
    });
  }

  test("of the reference's emitter", async () => {
    const client = await createClient({ url: redis.url }).connect();
    const emitter = new Emitter(client);
    const lists = await heard(
      clients,
      () => emitter.to("all").except("odd").emit("x", Buffer.from([7])),
      (last) => emitter.emit(last),
    );
    assert.deepEqual(lists, clients.map((_, index) => (index % 2 ? [] : [["x", Buffer.from([7])]])));
    await client.close();
  });

  test("that is rubbish is skipped, and the next one is heard", async () => {
    const client = await createClient({ url: redis.url }).connect();
    const announced = Buffer.from("93a16182a47479706502a46461746191a17881a5726f6f6d73ddffffffff", "hex");
    const deep = Buffer.concat([Buffer.from("93a16182a47479706502a464617461", "hex"), Buffer.alloc(1_000_000, 0x91), Buffer.from("c080", "hex")]);
    for (const message of ["", "{}", "\u0000", announced, deep, Buffer.alloc(20_000_000, 0xc0)]) await client.publish("socket.io#/#", message);
    await client.close();
    const sides = clients.filter((client) => client.node.kind === "ours");
    const lists = await heard(sides, () => {}, (last) => others.op("emit", { args: [last] }));
    assert.deepEqual(lists, [[], [], [], []]);
  });
});

/** Waits until so many nodes listen to a namespace. */
async function listening(nsp, count) {
  const client = await createClient({ url: redis.url }).connect();
  await until(`${count} listen to ${nsp}`, async () => (await client.publish(`socket.io#${nsp}#nobody#`, "")) >= count);
  await client.close();
}

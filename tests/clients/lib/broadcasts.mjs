// Whom a broadcast reaches, whichever node says it and whatever the nodes are joined by.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { until } from "./waiting.mjs";

let mark = 0;

/** Bytes as the harness programs are told them. */
export const bytes = (...values) => ({ $bin: Buffer.from(values).toString("base64") });

/** What each client heard of an action, without the mark that follows it. */
export async function heard(clients, act, end) {
  for (const client of clients) client.heard.length = 0;
  await act();
  const last = `mark ${++mark}`;
  await end(last);
  const isMarked = (client) => client.heard.some(([name]) => name === last);
  await until(() => JSON.stringify(clients.map((client) => client.heard)), () => clients.every(isMarked));
  return clients.map((client) => client.heard.filter(([name]) => name !== last));
}

/**
 * The tests, to be called where others of broadcasts are: two clients of each of four nodes, the second of which is in the room `odd`, which are returned and
 * there when a test runs. `joined` waits until all nodes are in a namespace.
 */
export function broadcasts(nodes, joined = () => {}) {
  const [ours, , theirs] = nodes;
  const clients = [];
  before(async () => {
    for (const node of nodes) clients.push(await node.client("/", ["all", node.name]), await node.client("/", ["all", "odd"]));
  });
  after(() => clients.forEach((client) => client.disconnect()));
  const odd = [1, 3, 5, 7];
  const all = [0, 2, 4, 6, ...odd];

  for (const [number, sender] of nodes.entries()) {
    const say = (last) => sender.op("emit", { args: [last] });
    describe(`of ${sender.name}`, () => {
      const reaches = (what, options, receivers, args = ["x", 1, "é", { a: [true, null, 1.5] }]) =>
        test(what, async () => {
          const lists = await heard(clients, () => sender.op("emit", { args, ...options }), say);
          assert.deepEqual(lists, clients.map((_, index) => (receivers.includes(index) ? [args] : [])));
        });
      reaches("to everyone", {}, all);
      reaches("without arguments", {}, all, ["x"]);
      reaches("to a room", { rooms: ["odd"] }, odd);
      reaches("to several rooms, once to each", { rooms: ["odd", "all"] }, all);
      reaches("to the room of one node", { rooms: [theirs.name] }, [4]);
      reaches("to a room but for others", { rooms: ["all"], except: ["odd", ours.name] }, [2, 4, 6]);
      reaches("to nobody", { rooms: ["nobody"] }, []);
      reaches("uncompressed", { flags: { compress: false } }, all);
      reaches("on its own node only", { flags: { local: true } }, [2 * number, 2 * number + 1]);

      test("with bytes", async () => {
        const args = ["x", { a: bytes(0, 1, 255) }, bytes()];
        const lists = await heard(clients, () => sender.op("emit", { args }), say);
        for (const list of lists) assert.deepEqual(list, [["x", { a: Buffer.from([0, 1, 255]) }, Buffer.alloc(0)]]);
      });

      test("to one socket by its id", async () => {
        for (const [index, { id }] of clients.entries()) {
          const lists = await heard(clients, () => sender.op("emit", { rooms: [id], args: ["you"] }), say);
          assert.deepEqual(lists, clients.map((_, other) => (other === index ? [["you"]] : [])));
        }
      });

      test("to a room that is a number, and to one that was left", async () => {
        const [inside, outside] = [clients[(2 * number + 2) % clients.length], clients[(2 * number + 4) % clients.length]];
        const moves = async (c, client) => {
          client.node.child.say({ c, nsp: "/", sid: client.id, rooms: [123] });
          await client.node.child.event("rooms", { sid: client.id });
        };
        for (const client of [inside, outside]) await moves("join", client);
        await moves("leave", outside);
        const lists = await heard(clients, () => sender.op("emit", { rooms: [123], args: ["number"] }), say);
        assert.deepEqual(lists, clients.map((client) => (client === inside ? [["number"]] : [])));
        await moves("leave", inside);
      });

      test("to a room that is a number, and that everyone was taken out of", async () => {
        const inside = [];
        for (const node of nodes) inside.push(await node.client("/", [123]));
        const act = async () => {
          sender.op("socketsLeave", { args: [123] });
          // Node's have their own leave only when they hear it from Redis.
          await sender.child.event("rooms", { sid: inside[number].id });
          sender.op("emit", { rooms: [123], args: ["number"] });
        };
        assert.deepEqual(await heard(inside, act, say), inside.map(() => []));
        inside.forEach((client) => client.disconnect());
      });

      if (sender.kind === "reference") {
        reaches("to a room, and to what is no room", { rooms: ["all", null, true, 1.5, {}, ["odd"]] }, all);
        reaches("to a room but for what is none", { rooms: ["all"], except: [null, true, 1.5, {}, ["odd"]] }, all);
        reaches("to what is no room", { rooms: [{}, ["odd"]] }, []);
      } else {
        test("to sockets in what is no room, which are listed", async () => {
          const client = await theirs.client("/", [1.5, 1e20, true, null]);
          sender.op("fetchSockets", { n: `listed ${++mark}`, rooms: [client.id] });
          const { value } = await sender.child.event("result", { n: `listed ${mark}` });
          assert.deepEqual(value.map(({ rooms }) => rooms), [[client.id, "1.5", "100000000000000000000", "true", "null"]]);
          client.disconnect();
        });
      }

      test("from a socket to the others", async () => {
        const speaker = clients[2 * number];
        const lists = await heard(clients, () => sender.op("emit", { sid: speaker.id, args: ["others"] }), say);
        assert.deepEqual(lists, clients.map((client) => (client === speaker ? [] : [["others"]])));
      });

      test("in another namespace", async () => {
        for (const node of nodes) node.child.say({ c: "nsp", nsp: "/other" });
        const elsewhere = [];
        for (const node of nodes) elsewhere.push(await node.client("/other"));
        await joined("/other");
        const sayThere = (last) => sender.op("emit", { nsp: "/other", args: [last] });
        assert.deepEqual(await heard(elsewhere, () => sayThere("there"), sayThere), elsewhere.map(() => [["there"]]));
        // And what is said here is not heard there.
        const forget = () => elsewhere.forEach((client) => (client.heard.length = 0));
        assert.deepEqual(await heard(clients, forget, say), clients.map(() => []));
        assert.deepEqual(elsewhere.map((client) => client.heard), elsewhere.map(() => []));
        elsewhere.forEach((client) => client.disconnect());
      });
    });
  }
  return clients;
}

// Two instances of ours and two of Node's in one cluster over the streams of a real Redis, in every direction.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { join } from "node:path";
import { promisify } from "node:util";
import { createClient } from "redis";
import { broadcasts, bytes, heard } from "./lib/broadcasts.mjs";
import { Member } from "./lib/members.mjs";
import { subscribed } from "./lib/nodes.mjs";
import { Redis } from "./lib/redis.mjs";
import { BINARY, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));
const redis = await new Redis(folder()).start();
after(() => redis.stop());

const members = [["ours", "ours"], ["another of ours", "ours"], ["Node's", "reference"], ["another of Node's", "reference"]].map((args) => new Member(...args));
const [ours, others, theirs] = members;
let mark = 0;

before(async () => {
  await Promise.all(members.map((member) => member.start({ type: "redis-streams", url: redis.url })));
  // The reference subscribes and begins to read after it listens.
  await subscribed(redis.url, "socket.io#/#", members.length);
  await hearEachOther(members);
});
after(() => Promise.all(members.map((member) => member.stop())));

/** Until what each says reaches all. */
async function hearEachOther(members) {
  const clients = [];
  for (const member of members) clients.push(await member.client());
  for (const member of members) {
    const name = `begin ${++mark}`;
    await until(`all hear ${member.name}`, () => {
      member.op("emit", { args: [name] });
      return clients.every((client) => client.heard.some(([heard]) => heard === name));
    });
  }
  clients.forEach((client) => client.disconnect());
}

describe("a broadcast", () => {
  const clients = broadcasts(members);

  test("is an entry as Node writes it", async () => {
    const client = await createClient({ url: redis.url }).connect();
    const written = async (member, act) => {
      const [{ id }] = await client.xRevRange("socket.io", "+", "-", { COUNT: 1 });
      act(member);
      const found = await until("it is written", async () => (await client.xRange("socket.io", `(${id}`, "+"))[0]);
      assert.match(found.message.uid, /^[0-9a-f]{16}$/);
      return { ...found.message, uid: "" };
    };
    for (const act of [
      (member) => member.op("emit", { args: ["x", 1, "é", { a: [true, null, 1.5] }] }),
      (member) => member.op("emit", { args: ["x", bytes(1, 2, 3)], rooms: ["all"] }),
      (member) => member.op("emit", { args: ["x"], rooms: ["a", "b"], except: ["c"], flags: { volatile: true, compress: false } }),
      (member) => member.op("socketsJoin", { args: [["a", "b"]], rooms: ["nobody"] }),
      (member) => member.op("socketsLeave", { args: [["a"]], except: ["all"] }),
      (member) => member.op("disconnectSockets", { args: [true], rooms: ["nobody"] }),
    ]) {
      assert.deepEqual(await written(ours, act), await written(theirs, act));
    }
    await client.close();
  });

  test("of our emitter", async () => {
    const run = promisify(execFile);
    const emit = (...words) => run(BINARY, ["emit", "--set", `redis.url=${redis.url}`, "--set", "redis.adapter=redis-streams", ...words]);
    const lists = await heard(
      clients,
      async () => assert.equal((await emit("--room", "all", "--except", "odd", "x", '{"a":[1,"é"]}', "-7")).stdout, "4 servers heard it\n"),
      (last) => emit(last),
    );
    assert.deepEqual(lists, clients.map((_, index) => (index % 2 ? [] : [["x", { a: [1, "é"] }, -7]])));
  });

  test("that is rubbish is skipped, and the next one is heard", async () => {
    const client = await createClient({ url: redis.url }).connect();
    const many = JSON.stringify({ opts: { rooms: Array.from({ length: 1_000_000 }, (_, n) => `r:${n}`) } });
    // Node's adapter dies of some of it, so it goes to ours only: on a cluster of their own.
    const alone = [new Member("one", "ours"), new Member("two", "ours")];
    const opts = { streamName: "rubbish", channelPrefix: "rubbish" };
    for (const member of alone) await member.start({ type: "redis-streams", url: redis.url, opts });
    const sides = [await alone[0].client(), await alone[1].client()];
    const lists = await heard(
      sides,
      async () => {
        const deep = Buffer.concat([Buffer.from("81a67061636b6574", "hex"), Buffer.alloc(1_000_000, 0x91)]).toString("base64");
        for (const data of ["", "{", "{}", "\u0000", "!!", many, deep, "[".repeat(1_000_000), "a".repeat(20_000_000)]) {
          for (const type of ["3", "4", "9", "x"]) await client.xAdd("rubbish", "*", { uid: "a", nsp: "/", type, data });
        }
        await client.xAdd("rubbish", "*", { nothing: "" });
        for (const text of ["", "{}", "\u0000", Buffer.from("84a47479706507", "hex")]) await client.publish("rubbish#/#", text);
      },
      (last) => alone[0].op("emit", { args: [last] }),
    );
    assert.deepEqual(lists, [[], []]);
    await Promise.all(alone.map((member) => member.stop()));
    await client.close();
  });
});

describe("a request", () => {
  let clients;
  before(async () => {
    clients = [];
    for (const member of members) clients.push(await member.client("/", ["all", member.name]));
  });
  after(() => clients.forEach((client) => client.disconnect()));

  /** The rooms of every client, as its own node has them. */
  const roomsAre = (expected) =>
    until(`rooms ${JSON.stringify(expected)}`, async () => {
      const { value } = await ours.result("fetchSockets");
      const found = clients.map(({ id }) => value?.find((socket) => socket.id === id)?.rooms.filter((room) => room.startsWith("r:")));
      return JSON.stringify(found) === JSON.stringify(expected);
    });

  for (const asker of members) {
    describe(`of ${asker.name}`, () => {
      test("for sockets", async () => {
        for (const { id, node } of clients) node.child.say({ c: "data", nsp: "/", sid: id, data: { of: node.name } });
        const { err, value } = await asker.result("fetchSockets");
        assert.equal(err, null);
        const sorted = (list) => list.sort((a, b) => (a.id < b.id ? -1 : 1));
        const expected = clients.map(({ id, node }) => ({ id, rooms: [id, "all", node.name], data: { of: node.name } }));
        assert.deepEqual(sorted(value.map(({ id, rooms, data }) => ({ id, rooms, data }))), sorted(expected));
        for (const { id, handshake } of value) assert.deepEqual(handshake, clients.find((client) => client.id === id).handshake);
        const of = await asker.result("fetchSockets", { rooms: ["all"], except: [ours.name] });
        assert.deepEqual(of.value.map(({ id }) => id).sort(), clients.slice(1).map(({ id }) => id).sort());
      });

      // The reference has no such question here.
      if (asker.kind === "ours") {
        test("for rooms", async () => {
          const { value } = await asker.result("allRooms");
          assert.deepEqual(value.sort(), ["all", ...members.map(({ name }) => name), ...clients.map(({ id }) => id)].sort());
        });
      }

      test("for the number of servers", async () => {
        assert.equal((await asker.result("serverCount")).value, members.length);
      });

      test("to join and leave", async () => {
        asker.op("socketsJoin", { rooms: ["all"], except: [others.name], args: [["r:a", "r:b"]] });
        await roomsAre([["r:a", "r:b"], [], ["r:a", "r:b"], ["r:a", "r:b"]]);
        asker.op("socketsLeave", { rooms: ["r:a"], args: ["r:b"] });
        await roomsAre([["r:a"], [], ["r:a"], ["r:a"]]);
        asker.op("socketsLeave", { args: [["r:a"]] });
        await roomsAre([[], [], [], []]);
      });

      test("for acknowledgements", async () => {
        clients.forEach((client, index) => client.once("ask", (given, answer) => answer(Buffer.concat([given, Buffer.from([index])]))));
        const { err, value } = await asker.result("emit", { args: ["ask", bytes(9)], ack: true, flags: { timeout: 5_000 } });
        assert.equal(err, null);
        assert.deepEqual(value.map((answer) => [...Buffer.from(answer.$bin, "base64")]).sort(), clients.map((_, index) => [9, index]));
      });

      test("for acknowledgements of which one does not come", async () => {
        clients.forEach((client, index) => client.once("ask", (answer) => index && answer(index)));
        const { err, value } = await asker.result("emit", { args: ["ask"], ack: true, flags: { timeout: 300 } });
        assert.match(err.message, /has timed out/);
        if (asker.kind === "ours") assert.deepEqual(value.sort(), [1, 2, 3]);
      });

      test("that servers hear", async () => {
        asker.op("serverSideEmit", { args: ["x", 1, { a: "é" }] });
        for (const member of members) if (member !== asker) assert.deepEqual((await member.child.event("sse")).args, ["x", 1, { a: "é" }]);
      });

      test("that servers acknowledge, with bytes", async () => {
        const rest = members.filter((member) => member !== asker);
        const asked = asker.result("serverSideEmit", { args: ["who?", bytes(7)], ack: true });
        for (const member of rest) {
          const { n, ack, args } = await member.child.event("sse");
          assert.deepEqual([ack, args], [true, ["who?", bytes(7)]]);
          member.child.say({ c: "answer", n, args: [{ name: member.name, bytes: bytes(1) }] });
        }
        const { err, value } = await asked;
        assert.equal(err, null);
        const byName = (a, b) => (a.name < b.name ? -1 : 1);
        assert.deepEqual(value.sort(byName), rest.map(({ name }) => ({ name, bytes: bytes(1) })).sort(byName));
      });

      test("to go, when all was heard that was said before", async () => {
        for (const [index, member] of members.entries()) {
          const client = await member.client("/", ["leaving"]);
          const gone = event(client, "disconnect");
          asker.op("emit", { rooms: ["leaving"], args: ["bye"] });
          asker.op("disconnectSockets", { rooms: ["leaving"], args: [index % 2 === 0] });
          assert.match((await gone)[0], /^(io server disconnect|transport close)$/);
          assert.deepEqual(client.heard, [["bye"]]);
        }
      });
    });
  }

  test("does not wait for a node that was killed", async () => {
    const victim = await new Member("victim", "ours").start({ type: "redis-streams", url: redis.url });
    assert.equal((await ours.result("serverCount")).value, members.length + 1);
    await victim.kill();
    await subscribed(redis.url, "socket.io#/#", members.length);
    const { err, value } = await ours.result("fetchSockets");
    assert.deepEqual([err, value.length], [null, clients.length]);
  });
});

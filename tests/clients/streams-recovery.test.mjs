// Clients of a cluster over streams come back on another node, of ours or of Node's, as who they were, and hear everything once.

import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { join } from "node:path";
import { decode } from "@msgpack/msgpack";
import { createClient } from "redis";
import { io } from "socket.io-client";
import { Member } from "./lib/members.mjs";
import { subscribed } from "./lib/nodes.mjs";
import { Line } from "./lib/broken-line.mjs";
import { Redis } from "./lib/redis.mjs";
import { scratch } from "./lib/servers.mjs";
import { event, until, within } from "./lib/waiting.mjs";

const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));
const redis = await new Redis(folder()).start();
const kept = await createClient({ url: redis.url }).connect();
after(async () => {
  await kept.close();
  await redis.stop();
});
const KEEP = 60_000;
const recovery = { connectionStateRecovery: { maxDisconnectionDuration: KEEP } };
let cluster = 0;

/** Members of a cluster of their own, by their kinds. */
async function start(t, kinds, { at = redis, options = recovery } = {}) {
  const prefix = `cluster${++cluster}`;
  const members = kinds.map((kind, index) => new Member(`${kind} ${index}`, kind));
  const adapter = { type: "redis-streams", url: at.url, opts: { streamName: prefix, channelPrefix: prefix, maxLen: 1_000_000 } };
  await Promise.all(members.map((member) => member.start(adapter, options)));
  t.after(() => Promise.all(members.filter((member) => member.child.program.isRunning).map((member) => member.stop())));
  await subscribed(at.url, `${prefix}#/#`, members.length);
  // The reference begins to read a little later.
  const watchers = [];
  for (const member of members) watchers.push(await member.client());
  await until("all hear all", () => {
    members[0].op("emit", { args: ["begin"] });
    return watchers.every((client) => client.heard.length);
  });
  watchers.forEach((client) => client.disconnect());
  return Object.assign(members, { prefix, adapter });
}

/** A client whose line leads to one member and may lead to another, and what it hears without the offsets. */
async function wanderer(t, member, rooms = []) {
  const line = await Line.to(member.port, t);
  const client = io(`http://127.0.0.1:${line.port}`, { transports: ["websocket"], forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 100 });
  t.after(() => {
    client.io.reconnection(false);
    client.io.engine?.close();
    client.disconnect();
  });
  const heard = [];
  client.onAny((...args) => {
    const isOffset = typeof args.at(-1) === "string" && /^\d+-\d+$/.test(args.at(-1));
    if (args[0] !== "begin") heard.push(isOffset ? args.slice(0, -1) : args);
  });
  await event(client, "connect");
  Object.assign(client, { member, nsp: "/" });
  await member.child.event("connection", { sid: client.id });
  await member.join(client, rooms);
  return { client, line, heard };
}

const pidOf = (member, { id }) => member.child.events.find(({ t, sid }) => t === "connection" && sid === id).pid;

/** What Redis keeps of a client. */
async function record(pid) {
  const text = await kept.get(`sio:session:${pid}`);
  return text && decode(Buffer.from(text, "base64"));
}

const bytes = (...values) => ({ $bin: Buffer.from(values).toString("base64") });

describe("a client comes back", () => {
  for (const [from, to] of [["ours", "ours"], ["ours", "reference"], ["reference", "ours"]]) {
    for (const death of from === "ours" ? ["its line broke", "its node was killed"] : ["its line broke"]) {
      test(`from ${from} to ${to} after ${death}`, { timeout: 60_000 }, async (t) => {
        const [first, second, speaker] = await start(t, [from, to, "ours"]);
        const { client, line, heard } = await wanderer(t, first, ["red"]);
        const { id } = client;
        first.child.say({ c: "data", nsp: "/", sid: id, data: { name: "é", n: [1] } });
        speaker.op("emit", { args: ["before", 1] });
        await until("it hears", () => heard.length === 1);
        // Ours writes a change a little later, Node's when the client has gone.
        const pid = pidOf(first, client);
        if (from === "ours") await until("it is written", async () => (await record(pid))?.data.name);
        else await first.result("fetchSockets");
        const gone = event(client, "disconnect");
        if (death === "its line broke") {
          line.destroy();
          await first.child.event("disconnect", { sid: id });
        } else {
          await first.kill();
          line.destroy();
        }
        await gone;
        const missed = [["to all"], ["to red", { a: bytes(0, 255) }], ["to it", [1, null]]];
        speaker.op("emit", { args: missed[0] });
        speaker.op("emit", { args: missed[1], rooms: ["red", "blue"] });
        speaker.op("emit", { args: ["not for red"], except: ["red"] });
        speaker.op("emit", { args: ["to blue"], rooms: ["blue"] });
        speaker.op("emit", { args: missed[2], rooms: [id] });
        speaker.op("emit", { args: ["volatile"], flags: { volatile: true } });
        speaker.op("emit", { args: ["last"] });
        line.target = second.port;
        const back = event(client, "connect");
        line.mend();
        await back;
        assert.deepEqual([client.recovered, client.id], [true, id]);
        const { recovered, rooms, data } = await second.child.event("connection", { sid: id });
        assert.deepEqual([recovered, rooms.sort(), data], [true, [id, "red"].sort(), { name: "é", n: [1] }]);
        speaker.op("emit", { args: ["after"], rooms: ["red"] });
        await until(() => JSON.stringify(heard), () => heard.some(([name]) => name === "after"));
        const expected = [["before", 1], ["to all"], ["to red", { a: Buffer.from([0, 255]) }], ["to it", [1, null]], ["last"], ["after"]];
        assert.deepEqual(heard.filter(([name]) => name !== "volatile"), expected);
      });
    }
  }

  test("before it has heard anything, after its node was killed", { timeout: 60_000 }, async (t) => {
    const [first, second] = await start(t, ["ours", "ours"]);
    const { client, line, heard } = await wanderer(t, first);
    const { id } = client;
    const pid = pidOf(first, client);
    await until("it is written", () => record(pid));
    await first.kill();
    line.destroy();
    second.op("emit", { args: ["missed"] });
    line.target = second.port;
    const back = event(client, "connect");
    line.mend();
    await back;
    assert.deepEqual([client.recovered, client.id], [true, id]);
    await until("it hears", () => heard.length);
    assert.deepEqual(heard, [["missed"]]);
  });

  test("while its former node believes that it is there, which is told at once", { timeout: 60_000 }, async (t) => {
    const [first, second] = await start(t, ["ours", "ours"]);
    const { client, line, heard } = await wanderer(t, first, ["red"]);
    const { id } = client;
    second.op("emit", { args: ["before"] });
    await until("it hears", () => heard.length === 1);
    line.freeze();
    second.op("emit", { args: ["swallowed"] });
    second.op("emit", { args: ["swallowed, too"], rooms: ["red"] });
    first.child.say({ c: "join", nsp: "/", sid: id, rooms: ["late"] });
    await first.child.event("rooms", { sid: id });
    const gone = event(client, "disconnect");
    client.io.engine.close();
    line.abandon();
    await gone;
    line.target = second.port;
    const back = event(client, "connect");
    line.mend();
    await back;
    assert.deepEqual([client.recovered, client.id], [true, id]);
    assert.equal((await first.child.event("disconnect", { sid: id })).reason, "transport error");
    const { rooms } = await second.child.event("connection", { sid: id });
    assert.deepEqual(rooms.sort(), [id, "red", "late"].sort());
    const { value } = await first.result("fetchSockets");
    assert.deepEqual(value.map((socket) => socket.id), [id]);
    second.op("emit", { args: ["after"] });
    await until("it hears", () => heard.some(([name]) => name === "after"));
    assert.deepEqual(heard, [["before"], ["swallowed"], ["swallowed, too"], ["after"]]);
  });

  test("but not to another namespace", { timeout: 60_000 }, async (t) => {
    const [first, second] = await start(t, ["ours", "ours"]);
    second.child.say({ c: "nsp", nsp: "/other" });
    const { client } = await wanderer(t, first);
    const pid = pidOf(first, client);
    await until("it is written", () => record(pid));
    const thief = io(`${second.url}/other`, { transports: ["websocket"], forceNew: true, reconnection: false, auth: { pid } });
    t.after(() => thief.disconnect());
    await event(thief, "connect");
    assert.equal(thief.recovered, false);
    assert.ok(client.connected);
  });
});

describe("a client is told what was said before it is sent away", () => {
  for (const [what, act] of Object.entries({
    "by its socket": (member, id) => {
      member.child.say({ c: "emit", nsp: "/", sid: id, args: ["bye"] });
      member.child.say({ c: "disconnect", nsp: "/", sid: id });
    },
    "by its node": (member) => {
      member.op("emit", { args: ["bye"] });
      member.op("disconnectSockets", { args: [false] });
    },
    "by another node": (_, id, other) => {
      other.op("emit", { rooms: [id], args: ["bye"] });
      other.op("disconnectSockets", { rooms: [id], args: [false] });
    },
  })) {
    test(what, { timeout: 60_000 }, async (t) => {
      const [member, other] = await start(t, ["ours", "ours"]);
      const { client, heard } = await wanderer(t, member);
      const gone = event(client, "disconnect");
      act(member, client.id, other);
      assert.deepEqual([(await gone)[0], heard], ["io server disconnect", [["bye"]]]);
    });
  }
});

test("a session is kept as Node keeps it, from the beginning to the end", { timeout: 60_000 }, async (t) => {
  const [ours, theirs] = await start(t, ["ours", "reference"]);
  const sessions = [];
  for (const member of [ours, theirs]) {
    const { client, line } = await wanderer(t, member, ["red"]);
    const { id } = client;
    const pid = pidOf(member, client);
    member.child.say({ c: "data", nsp: "/", sid: id, data: { a: [1, "é", null, 1.5] } });
    if (member === ours) {
      const changed = Date.now();
      await until("it is written", async () => (await record(pid))?.data.a);
      assert.ok(Date.now() - changed < 1_000);
      assert.ok((await kept.pTTL(`sio:session:${pid}`)) > KEEP - 5_000);
    }
    line.destroy();
    await member.child.event("disconnect", { sid: id });
    await until("it is written", () => record(pid));
    const found = await record(pid);
    assert.deepEqual([found.sid, found.pid, found.rooms.sort()], [id, pid, [id, "red"].sort()]);
    sessions.push(found);
  }
  assert.deepEqual(sessions[0].data, sessions[1].data);
  assert.deepEqual(Object.keys(sessions[0]).slice(0, 4), Object.keys(sessions[1]));
  // Who leaves by itself does not come back.
  const { client } = await wanderer(t, ours);
  const pid = pidOf(ours, client);
  await until("it is written", () => record(pid));
  client.disconnect();
  await until("it is gone", async () => !(await record(pid)));
});

describe("Redis", () => {
  for (const [what, away] of Object.entries({
    "that was killed and comes back empty": async (mortal) => {
      await mortal.kill();
      return () => mortal.start();
    },
    "that stands still for ten seconds": async (mortal) => {
      mortal.freeze();
      await new Promise((resolve) => setTimeout(resolve, 10_000));
      return () => mortal.thaw();
    },
    "whose connections are cut": async (mortal) => {
      const client = await createClient({ url: mortal.url }).connect();
      await client.sendCommand(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
      await client.close();
      return () => {};
    },
  })) {
    for (const options of [recovery, {}]) {
      test(`${what} costs nothing ${options === recovery ? "with" : "without"} recovery`, { timeout: 120_000 }, async (t) => {
        const mortal = await new Redis(folder()).start();
        t.after(() => mortal.stop());
        const members = await start(t, ["ours", "ours"], { at: mortal, options });
        const clients = [];
        for (const member of members) clients.push(await wanderer(t, member));
        const said = [];
        let n = 0;
        // As long as Redis is away, and a little before and after.
        const speaking = setInterval(() => {
          for (const member of members) {
            said.push(++n);
            member.op("emit", { args: ["n", n] });
          }
        }, 50);
        await until("some are heard", () => clients.every(({ heard }) => heard.length > 10));
        const restore = await away(mortal);
        const before = n;
        await until("more was said", () => n > before + 40);
        await restore();
        const back = n;
        await until("more was said", () => n > back + 20);
        clearInterval(speaking);
        const numbers = ({ heard }) => heard.map(([, number]) => number).sort((a, b) => a - b);
        await until(() => `${clients.map((client) => said.filter((number) => !numbers(client).includes(number)))} of ${n}`, () => clients.every(({ heard }) => heard.length >= said.length), 30_000);
        for (const client of clients) assert.deepEqual(numbers(client), said);
        assert.ok(clients.every(({ client }) => client.connected));
      });
    }
  }
});

/** An application that tells a room what a client in it says, and then the client that it has. */
function takesWhatIsSaid(member) {
  const { child } = member;
  const push = child.events.push.bind(child.events);
  child.events.push = (told) => {
    const [name, room, number] = told.args ?? [];
    if (told.t === "event" && name === "say") {
      member.op("emit", { rooms: [room], args: ["n", number] });
      child.say({ c: "answer", n: told.n, args: [] });
    }
    return push(told);
  };
}

/** The next number of a sequence that begins with the seed. */
function random(seed) {
  return () => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
}

describe("nodes that are killed under load", () => {
  const kills = process.env.KILLS ? Number(process.env.KILLS) : 3;
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);

  test(`${kills} times cost nothing that was acknowledged (SEED=${seed})`, { timeout: 60_000 + kills * 15_000 }, async (t) => {
    const draw = random(seed);
    const members = await start(t, ["ours", "ours", "ours"]);
    const clients = [];
    for (let index = 0; index < 12; index++) {
      const wandering = await wanderer(t, members[index % members.length], [index % 2 ? "odd" : "even"]);
      clients.push(Object.assign(wandering, { room: index % 2 ? "odd" : "even", id: wandering.client.id, resets: 0 }));
      wandering.client.on("connect", () => void (wandering.client.recovered || clients[index].resets++));
    }
    // What a client was told has arrived: the test's own witness, and not what Redis has kept.
    const acknowledged = { odd: [], even: [] };
    let n = 0;
    const isUp = (member) => member.child.program.isRunning;
    members.forEach(takesWhatIsSaid);
    let hears = () => {};
    const speaking = setInterval(() => {
      const { client, line, room } = clients[Math.floor(draw() * clients.length)];
      const number = ++n;
      client.emit("say", room, number, () => {
        acknowledged[room].push(number);
        hears(line.target);
      });
    }, 5);
    t.after(() => clearInterval(speaking));
    for (let kill = 0; kill < kills; kill++) {
      const least = n + 50;
      await until("it goes on", () => n > least);
      const index = Math.floor(draw() * members.length);
      const victim = members[index];
      // At the worst moment, when it has just acknowledged something; one that has only just come has no clients.
      const has = clients.some(({ line }) => line.target === victim.port);
      if (has) await within("an acknowledgement", new Promise((resolve) => (hears = (port) => port === victim.port && resolve(victim.child.program.child.kill("SIGKILL")))));
      await victim.kill();
      for (const wandering of clients) {
        if (wandering.line.target !== victim.port) continue;
        wandering.line.destroy();
        const rest = members.filter(isUp);
        wandering.line.target = rest[Math.floor(draw() * rest.length)].port;
        wandering.line.mend();
      }
      const port = victim.port;
      members[index] = Object.assign(new Member(victim.name, "ours"), { port });
      await members[index].start(members.adapter, recovery);
      takesWhatIsSaid(members[index]);
      const here = () => clients.every(({ client }) => client.connected);
      await until("all are back", here);
      const ids = clients.map(({ client }) => client.id).sort();
      await until("the lists of sockets are right", async () => {
        const lists = await Promise.all(members.map(async (member) => (await member.result("fetchSockets")).value?.map(({ id }) => id).sort()));
        return lists.every((list) => JSON.stringify(list) === JSON.stringify(ids));
      }, 5_000);
    }
    clearInterval(speaking);
    // Whatever a client has said was said before that, and whatever a member has before its end.
    await Promise.all(clients.map(({ client, room }) => client.emitWithAck("say", room, ++n)));
    for (const member of members) member.op("emit", { args: ["end"] });
    await until("all hear the ends", () => clients.every(({ heard }) => heard.filter(([name]) => name === "end").length === members.length));
    assert.ok(acknowledged.odd.length + acknowledged.even.length > kills * 40, `${acknowledged.odd.length + acknowledged.even.length} of ${n}`);
    const numbers = ({ heard }) => heard.filter(([name]) => name === "n").map(([, number]) => number);
    for (const wandering of clients) {
      const { client, room, id, resets } = wandering;
      assert.deepEqual([resets, client.id], [0, id]);
      const heard = numbers(wandering);
      const missing = acknowledged[room].filter((number) => !heard.includes(number));
      assert.deepEqual(missing, [], `acknowledged and not heard by ${id}`);
      // Each of them once, and all in one order, be it acknowledged or not.
      assert.equal(new Set(heard).size, heard.length);
      assert.deepEqual(heard, numbers(clients.find((other) => other.room === room)));
    }
  });
});

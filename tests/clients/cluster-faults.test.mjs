// What a cluster does when Redis fails, in every way that it can: what is delivered, what is lost, what is said, and what it costs.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { createClient } from "redis";
import { Line } from "./lib/line.mjs";
import { Member } from "./lib/members.mjs";
import { Node, subscribed } from "./lib/nodes.mjs";
import { Redis } from "./lib/redis.mjs";
import { scratch } from "./lib/servers.mjs";
import { until } from "./lib/waiting.mjs";

const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));

const log = (node) => readFileSync(node.child.program.log, "utf8");
const metric = async (node, name) => Number((await (await fetch(`${node.url}/metrics`)).text()).match(new RegExp(`^${name} (.*)$`, "m"))[1]);

/** Seconds of processor time that a node has had. */
function cpu(node) {
  const text = readFileSync(`/proc/${node.child.program.child.pid}/stat`, "utf8");
  const [user, system] = text.slice(text.lastIndexOf(")") + 2).split(" ").slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}

async function readiness(node) {
  const answer = await fetch(`${node.url}/readyz`);
  return [answer.status, await answer.json()];
}

/** What may become of a Redis and of the line to it: how, how it ends, and what is said of it. */
const faults = (redis, line) => ({
  "was killed": { act: () => redis.kill(), mend: () => redis.start(), said: /refused|reset|closed|broken/i },
  "stands still": { act: () => redis.freeze(), mend: () => redis.thaw(), said: /timed out/i },
  "is cut off without a word": { act: () => line().die(), mend: () => line().mend(), said: /timed out/i },
  "reads its data": { act: () => line().refuse("LOADING Redis is loading the dataset in memory"), mend: () => line().mend(), said: /LOADING|loading/ },
  // As after a failover, when the former master is the new one's replica.
  "takes no writes": { act: () => follow(redis, "127.0.0.1", "1"), mend: () => follow(redis, "NO", "ONE"), said: /READONLY|read only|read-only/i },
  "wants a password": { act: () => line().refuse("NOAUTH Authentication required."), mend: () => line().mend(), said: /NOAUTH|authentication/i },
});

async function follow(redis, ...master) {
  const client = await createClient({ url: redis.url }).connect();
  await client.sendCommand(["REPLICAOF", ...master]);
  await client.close();
}

/** A Redis and the line to it, which are there while the tests beside them run. */
function redisAndLine() {
  const redis = new Redis(folder());
  let line;
  before(async () => {
    await redis.start();
    line = await new Line(redis.port).open();
  });
  after(async () => {
    line.close();
    await redis.stop();
  });
  return [redis, () => line];
}

describe("Redis", () => {
  const [redis, line] = redisAndLine();
  let nodes;
  let clients;
  let marks = 0;
  // New ones each time: what was said within a minute is not said again.
  beforeEach(async () => {
    nodes = [new Node("ours", "ours"), new Node("another of ours", "ours")];
    for (const node of nodes) await node.start({ key: "faults", requestsTimeout: 500 }, line().url);
    clients = [await nodes[0].client(), await nodes[1].client()];
  });
  afterEach(() => Promise.all(nodes.map((node) => node.stop())));

  const is = (state, deadline = 20_000) =>
    until(`Redis is ${state}`, async () => {
      const found = await Promise.all(nodes.map(readiness));
      return found.every(([status, { redis = "up" }]) => status === 200 && redis === state);
    }, deadline);

  /** Says it until everybody has heard it. */
  const reaches = async () => {
    const name = `mark ${++marks}`;
    await until("all hear all", () => {
      nodes.forEach((node) => node.op("emit", { args: [name, node.name] }));
      return clients.every((client) => nodes.every((node) => client.heard.some(([heard, by]) => heard === name && by === node.name)));
    }, 20_000);
  };

  /** Says so many large things, each of which is heard on the node where it is said. */
  const speaks = async (name, count) => {
    const text = "x".repeat(10_000);
    for (let n = 0; n < count; n++) nodes[0].op("emit", { args: [name, n, text] });
    await until("those here hear it", () => clients[0].heard.filter(([heard]) => heard === name).length === count);
  };

  for (const [what, { act, mend, said }] of Object.entries(faults(redis, line))) {
    test(`that ${what} for ten seconds is done without, and taken up again`, { timeout: 90_000 }, async (t) => {
      await is("up");
      await reaches();
      const connections = line().made;
      const began = Date.now();
      let isMended = false;
      t.after(() => isMended || mend());
      await act();
      await is("down");
      // A sign of life every three seconds, which has three to be answered.
      assert.ok(Date.now() - began < 8_000, `noticed after ${Date.now() - began} ms`);
      assert.deepEqual(await readiness(nodes[0]), [200, { status: "degraded", redis: "down" }]);

      const [unsent, memory, used] = [await metric(nodes[0], "stickyport_cluster_unsent_total"), await metric(nodes[0], "process_resident_memory_bytes"), nodes.map(cpu)];
      const counted = Date.now();
      await speaks("lost", 300);
      assert.equal((await metric(nodes[0], "stickyport_cluster_unsent_total")) - unsent, 300);
      nodes[0].op("fetchSockets", { n: what });
      const { err } = await nodes[0].child.event("result", { n: what });
      assert.ok(err, "it says that the others were not asked");
      const busy = Date.now();
      await until("ten seconds are over", () => Date.now() - began > 10_000);
      const idle = nodes.map((node, at) => [cpu(node) - used[at], Date.now() - counted]);
      // The 300 events take some of it; whoever waits in a circle takes all.
      for (const [seconds, of] of idle) assert.ok(seconds < 0.3 + (0.1 * of) / 1_000, `${seconds} s of ${of} ms, ${busy - counted} ms of which spoke`);
      assert.ok((await metric(nodes[0], "process_resident_memory_bytes")) - memory < 30_000_000);
      assert.ok(line().made - connections <= 24, `${line().made - connections} connections of two nodes in ten seconds`);

      isMended = true;
      await mend();
      await is("up");
      await reaches();
      // What was said meanwhile is lost, and not late.
      assert.ok(!clients[1].heard.some(([name]) => name === "lost"));
      const away = log(nodes[0]).match(/.*Redis is away.*/g);
      assert.equal(away.length, 1);
      assert.match(away[0], said);
      assert.doesNotMatch(log(nodes[0]), /panic/);
      await leavesNothing();
    });
  }

  /** Redis has one connection of each node, and this one. */
  const leavesNothing = async () => {
    const client = await createClient({ url: redis.url }).connect();
    await until("nothing is left", async () => (await client.sendCommand(["CLIENT", "LIST"])).trim().split("\n").length === nodes.length + 1);
    await client.close();
  };
});

describe("Redis, in a cluster over streams,", () => {
  const [redis, line] = redisAndLine();

  let clusters = 0;
  for (const [what, { act, mend, said }] of Object.entries(faults(redis, line))) {
    test(`that ${what} has everything that was said meanwhile when it is back`, { timeout: 60_000 }, async (t) => {
      const prefix = `streams${++clusters}`;
      const members = [new Member("one", "ours"), new Member("other", "ours")];
      let isMended = true;
      t.after(async () => {
        if (!isMended) await mend();
        await Promise.all(members.map((member) => member.stop()));
      });
      const adapter = { type: "redis-streams", url: line().url, opts: { streamName: prefix, channelPrefix: prefix, requestsTimeout: 500 } };
      for (const member of members) await member.start(adapter);
      await subscribed(redis.url, `${prefix}#/#`, 2);
      const clients = [await members[0].client(), await members[1].client("/", ["red"])];
      const numbers = (at) => clients[at].heard.filter(([name]) => name === "n").map(([, n]) => n);
      let n = 0;
      const say = (count) => {
        for (const end = n + count; n < end; ) members[0].op("emit", { args: ["n", ++n] });
      };
      const all = () => Array.from({ length: n }, (_, index) => index + 1);
      say(10);
      await until("all hear all", () => numbers(0).length === n && numbers(1).length === n);

      isMended = false;
      await act();
      // As soon as it has gone, and long before anybody notices.
      say(50);
      await until("it is down", async () => (await Promise.all(members.map(readiness))).every(([status, { redis }]) => status === 200 && redis === "down"), 20_000);
      say(50);
      members[0].op("socketsJoin", { rooms: ["red"], args: ["late"] });
      // Without recovery those here hear it at once, and those there nothing.
      await until("those here hear it", () => numbers(0).length === n);
      assert.equal(numbers(1).length, 10);
      const { err } = await members[0].result("fetchSockets");
      assert.ok(err, "it says that the others were not asked");
      assert.equal(await metric(members[0], "stickyport_cluster_unsent_total"), 0);

      await mend();
      isMended = true;
      say(50);
      await until(() => `${numbers(1).length} of ${n} were heard`, () => numbers(1).length >= n, 20_000);
      await members[1].child.event("rooms", { sid: clients[1].id });
      // Everything once and in its order, on both sides.
      for (const at of [0, 1]) assert.deepEqual(numbers(at), all());
      await until("it is up", async () => (await Promise.all(members.map(readiness))).every(([, { redis = "up" }]) => redis === "up"), 20_000);
      await until("all are in the list", async () => (await members[0].result("fetchSockets")).value?.length === 2);
      members[0].op("emit", { rooms: ["late"], args: ["to late"] });
      await until("it hears", () => clients[1].heard.some(([name]) => name === "to late"));
      assert.match(log(members[0]).match(/.*Redis is away.*/)[0], said);
      assert.doesNotMatch(log(members[0]), /panic/);
    });
  }
});

test("a namespace that Redis's rules forbid is said once, and costs the others nothing", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(folder()).start();
  const client = await createClient({ url: redis.url }).connect();
  const rules = "on >secret ~stickyport#* +@all resetchannels &acl#/#* &acl-request#/# &acl-response#/#*";
  await client.sendCommand(["ACL", "SETUSER", "node", ...rules.split(" ")]);
  const nodes = [new Node("ours", "ours"), new Node("another of ours", "ours")];
  t.after(async () => {
    await Promise.all(nodes.map((node) => node.stop()));
    await client.close();
    await redis.stop();
  });
  const url = `redis://node:secret@127.0.0.1:${redis.port}`;
  for (const node of nodes) await node.start({ key: "acl", requestsTimeout: 500 }, url);
  await subscribed(redis.url, "acl-request#/#", 2);
  const connections = async () => (await client.sendCommand(["CLIENT", "LIST"])).match(/^id=\d+ .* user=node /gm).map((line) => line.match(/id=(\d+)/)[1]).sort();
  const before = await connections();
  for (const node of nodes) node.child.say({ c: "nsp", nsp: "/forbidden" });
  const allowed = [await nodes[0].client(), await nodes[1].client()];
  const forbidden = [await nodes[0].client("/forbidden"), await nodes[1].client("/forbidden")];
  await until("it is said", () => nodes.every((node) => /listen to a namespace/.test(log(node))));
  assert.match(log(nodes[0]), /ERROR.*\/forbidden/);
  assert.doesNotMatch(log(nodes[0]), /Redis is away/);

  const unsent = await metric(nodes[0], "stickyport_cluster_unsent_total");
  nodes[0].op("emit", { nsp: "/forbidden", args: ["here only"] });
  nodes[0].op("emit", { args: ["everywhere"] });
  await until("who may hear it does", () => allowed.every(({ heard }) => heard.length === 1) && forbidden[0].heard.length === 1);
  assert.deepEqual(forbidden[1].heard, []);
  assert.equal((await metric(nodes[0], "stickyport_cluster_unsent_total")) - unsent, 1);
  assert.match(log(nodes[0]), /ERROR.*does not let this node publish/);
  assert.deepEqual(await readiness(nodes[0]), [200, { status: "ready" }]);

  // As soon as it is allowed it works, with no restart and over the connections that were there all the time.
  await client.sendCommand(["ACL", "SETUSER", "node", "&acl#/forbidden#*", "&acl-request#/forbidden#", "&acl-response#/forbidden#*"]);
  await subscribed(redis.url, "acl-request#/forbidden#", 2);
  nodes[0].op("emit", { nsp: "/forbidden", args: ["now"] });
  await until("they hear it", () => forbidden[1].heard.length === 1);
  assert.deepEqual(await connections(), before);
  assert.equal(log(nodes[0]).match(/listen to a namespace/g).length, 1);
});

test("a Redis that is full goes on to carry messages", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(folder()).start();
  const client = await createClient({ url: redis.url }).connect();
  const nodes = [new Node("ours", "ours"), new Node("another of ours", "ours")];
  t.after(async () => {
    await Promise.all(nodes.map((node) => node.stop()));
    await client.close();
    await redis.stop();
  });
  // One comes when it is full already, the other is there.
  await nodes[0].start({ key: "full" }, redis.url);
  await client.sendCommand(["CONFIG", "SET", "maxmemory", "1"]);
  await nodes[1].start({ key: "full" }, redis.url);
  await subscribed(redis.url, "full-request#/#", 2);
  await until("it is said", () => nodes.every((node) => /nodes cannot tell who of them is alive/.test(log(node))));
  const heard = [await nodes[0].client(), await nodes[1].client()];
  for (const node of nodes) node.op("emit", { args: [node.name] });
  await until("all hear all", () => heard.every((client) => client.heard.length === 2));
  for (const node of nodes) {
    assert.deepEqual(await readiness(node), [200, { status: "ready" }]);
    assert.doesNotMatch(log(node), /Redis is away/);
  }
});

test("when instances are killed under load, within five seconds nobody asks for their sockets any more", { timeout: 300_000 }, async (t) => {
  const rounds = process.env.STICKYPORT_LONG ? 20 : 3;
  const redis = await new Redis(folder()).start();
  // The same choice in every run.
  let seed = 7;
  const choose = (count) => (seed = (seed * 48_271) % 2_147_483_647) % count;
  let started = 0;
  const begin = async () => {
    const node = await new Node(`node ${++started}`, "ours").start({ key: "killed", requestsTimeout: 2_000 }, redis.url);
    for (let n = 0; n < 20; n++) await node.client("/", ["all", `room ${n % 3}`]);
    return node;
  };
  const nodes = [await begin(), await begin(), await begin()];
  t.after(async () => {
    await Promise.all(nodes.map((node) => node.stop()));
    await redis.stop();
  });
  let says = true;
  const load = (async () => {
    for (let n = 0; says; n++) {
      nodes.forEach((node) => node.op("emit", { rooms: ["all"], args: ["load", n] }));
      await new Promise(setImmediate);
      await until("it is heard", () => !says || nodes.some((node) => node.clients.some(({ heard }) => heard.some(([, said]) => said === n))));
      nodes.forEach((node) => node.clients.forEach(({ heard }) => heard.splice(0, heard.length - 10)));
    }
  })();
  for (let round = 0; round < rounds; round++) {
    const [victim] = nodes.splice(choose(nodes.length), 1);
    victim.child.program.child.kill("SIGKILL");
    const killed = Date.now();
    const expected = JSON.stringify(nodes.flatMap(({ clients }) => clients.map(({ id }) => id)).sort());
    for (const node of nodes) {
      let asked = 0;
      await until("the list is right", async () => {
        const n = `${round} ${node.name} ${++asked}`;
        node.op("fetchSockets", { n });
        const { err, value } = await node.child.event("result", { n });
        return err === null && JSON.stringify(value.map(({ id }) => id).sort()) === expected;
      });
    }
    assert.ok(Date.now() - killed < 5_000, `${Date.now() - killed} ms`);
    victim.clients.forEach((client) => client.disconnect());
    nodes.push(await begin());
  }
  says = false;
  await load;
});

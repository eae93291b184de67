// Who is in the fleet, as Redis knows it: the list of nodes, and what happens to one whose number is another's.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { createClient } from "redis";
import { io } from "socket.io-client";
import { Redis } from "./lib/redis.mjs";
import { BINARY, Instance, Program, freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const run = promisify(execFile);
const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));
const redis = await new Redis(folder()).start();
after(() => redis.stop());

/** An instance in the cluster of that prefix; of that node, if it is another than the instance. */
async function instance(t, prefix, number, node = number) {
  const first = await freePorts(2);
  const settings = [`redis.url=${redis.url}`, `redis.prefix=${prefix}`, `node=${node}`];
  const made = new Instance(folder(), number, { basePort: first - number, web: first + 1, settings });
  t.after(() => made.stop());
  return made;
}

/** Starts one that may not become ready. */
async function begin(instance) {
  instance.program = new Program(instance.folder, `instance-${instance.number}`, instance.command);
  await instance.program.listensOn(instance.port);
  return instance;
}

async function nodes(prefix, url = redis.url) {
  const { stdout, stderr } = await run(BINARY, ["nodes", "--json", "--set", `redis.url=${url}`, "--set", `redis.prefix=${prefix}`]);
  return Object.assign(JSON.parse(stdout), { said: stderr });
}

async function readiness(instance) {
  const answer = await fetch(`${instance.url}/readyz`);
  return [answer.status, await answer.json()];
}

async function metric(instance, name) {
  const page = await (await fetch(`${instance.url}/metrics`)).text();
  return Number(page.match(new RegExp(`^${name} (.*)$`, "m"))[1]);
}

const log = (instance) => readFileSync(instance.program.log, "utf8");
const states = (list) => list.map(({ node, state }) => [node, state]);

test("every node is in the list, with its load, until it goes", { timeout: 60_000 }, async (t) => {
  const began = Date.now();
  const [first, second] = [await instance(t, "list", 0), await instance(t, "list", 7)];
  await first.start();
  await second.start();
  const list = await nodes("list");
  assert.deepEqual(states(list), [[0, "ready"], [7, "ready"]]);
  for (const [at, { port }] of [first, second].entries()) {
    const { address, boot, version, started, silent, sessions, clients } = list[at];
    assert.equal(address, `127.0.0.1:${port}`);
    assert.match(boot, /^[0-9A-Za-z]{2}$/);
    assert.match(version, /^\d+\.\d+\.\d+$/);
    assert.ok(started >= began - 5_000 && started <= Date.now(), `${started}`);
    assert.ok(silent < 5_000, `${silent}`);
    assert.deepEqual([sessions, clients], [0, 0]);
  }
  const client = io(second.url, { transports: ["websocket"], forceNew: true });
  t.after(() => client.disconnect());
  await event(client, "connect");
  assert.ok(client.id.startsWith(`7-${list[1].boot}`));
  const load = async () => (await nodes("list")).map(({ sessions, clients }) => [sessions, clients]);
  await until("its load is known", async () => JSON.stringify(await load()) === "[[0,0],[1,1]]");

  const { stdout } = await run(BINARY, ["nodes", "--set", `redis.url=${redis.url}`, "--set", "redis.prefix=list"]);
  const [head, ...rows] = stdout.trim().split("\n").map((line) => line.split(/ +/));
  assert.deepEqual(head.slice(0, 5), ["NODE", "ADDRESS", "STATE", "SESSIONS", "CLIENTS"]);
  assert.deepEqual(rows.map((row) => row.slice(0, 5)), [["0", `127.0.0.1:${first.port}`, "ready", "0", "0"], ["7", `127.0.0.1:${second.port}`, "ready", "1", "1"]]);

  second.program.child.kill("SIGUSR1");
  await until("it drains", async () => JSON.stringify(states(await nodes("list"))) === '[[0,"ready"],[7,"draining"]]');
  assert.equal(await second.stop(), 0);
  assert.deepEqual(states(await nodes("list")), [[0, "ready"]]);
  assert.equal(await first.stop(), 0);
  assert.deepEqual(await nodes("list"), Object.assign([], { said: "" }));
  // Nothing is left behind.
  const client_ = await createClient({ url: redis.url }).connect();
  assert.deepEqual(await client_.keys("stickyport#list#*"), []);
  await client_.close();
});

test("a node whose number another has is not ready, says who has it, and takes over when that one goes", { timeout: 60_000 }, async (t) => {
  const [holder, late] = [await instance(t, "taken", 0, 5), await instance(t, "taken", 1, 5)];
  await holder.start();
  await begin(late);
  const conflict = { status: "conflict", node: 5, taken_by: `127.0.0.1:${holder.port}` };
  await until("it says so", async () => (await readiness(late))[1].status === "conflict");
  assert.deepEqual(await readiness(late), [503, conflict]);
  assert.equal((await fetch(`${late.url}/healthz`)).status, 200);
  assert.equal((await fetch(`${late.url}/socket.io/?EIO=4&transport=polling`)).status, 503);
  assert.deepEqual([await metric(late, "stickyport_node_conflict"), await metric(holder, "stickyport_node_conflict")], [1, 0]);
  await until("both are in the list", async () => JSON.stringify(states(await nodes("taken")).sort()) === '[[5,"conflict"],[5,"ready"]]');
  const said = log(late).match(/.*has this number.*/g);
  assert.equal(said.length, 1);
  assert.match(said[0], new RegExp(`"level":"ERROR".*127\\.0\\.0\\.1:${holder.port}`));
  assert.deepEqual(await readiness(holder), [200, { status: "ready" }]);

  await holder.stop();
  await until("the number is free", async () => (await readiness(late))[0] === 200);
  assert.equal((await fetch(`${late.url}/socket.io/?EIO=4&transport=polling`)).status, 200);
  assert.equal(await metric(late, "stickyport_node_conflict"), 0);
});

test("the number of one that was killed is free when it counts as dead", { timeout: 60_000 }, async (t) => {
  const [victim, heir] = [await instance(t, "dead", 0, 5), await instance(t, "dead", 1, 5)];
  await victim.start();
  await victim.program.stop("SIGKILL");
  await begin(heir);
  await until("it is refused", async () => (await readiness(heir))[1].status === "conflict");
  const refused = Date.now();
  await until("it takes over", async () => (await readiness(heir))[0] === 200, 20_000);
  assert.ok(Date.now() - refused < 15_000);
  const list = await nodes("dead");
  assert.deepEqual(list.map(({ address, silent }) => [address, silent > 10_000]), [[`127.0.0.1:${heir.port}`, false], [`127.0.0.1:${victim.port}`, true]]);
});

test("a process that starts where one was killed has its number at once, and nobody waits for the dead one", { timeout: 60_000 }, async (t) => {
  const restarted = await instance(t, "again", 3);
  await restarted.start();
  await restarted.program.stop("SIGKILL");
  const [{ started }] = await nodes("again");
  await begin(restarted);
  await until("it is ready", async () => (await readiness(restarted))[0] === 200, 2_000);
  const list = await nodes("again");
  assert.deepEqual(states(list), [[3, "ready"]]);
  assert.ok(list[0].started > started);
  assert.doesNotMatch(log(restarted), /has this number/);
});

test("a process that is replaced where it is leaves the number to the later one", { timeout: 60_000 }, async (t) => {
  const early = await instance(t, "replaced", 4);
  await early.start();
  const client = await createClient({ url: redis.url }).connect();
  t.after(() => client.close());
  const number = "stickyport#replaced#number#4";
  const later = { ...JSON.parse(await client.get(number)), uid: "later1", started: Date.now() + 60_000 };
  await client.set(number, JSON.stringify(later));
  await until("it notices", () => /has taken this one's place/.test(log(early)));
  assert.deepEqual(JSON.parse(await client.get(number)), later);
  assert.deepEqual(await readiness(early), [200, { status: "ready" }]);
  // What is not its own it does not take along.
  assert.equal(await early.stop(), 0);
  assert.deepEqual(JSON.parse(await client.get(number)), later);
});

test("rubbish in the keys is skipped, and one that others fill does not grow what is read", { timeout: 60_000 }, async (t) => {
  const client = await createClient({ url: redis.url }).connect();
  t.after(() => client.close());
  const far = Date.now() + 5_000;
  const names = ["rubbish", "1 x", "99999999 abcdef", Buffer.from([0xff, 0xfe]), "2 absent", "3 no-map", "4 escape", "5 toobig", "6 number"];
  const members = names.map((value) => ({ score: far, value }));
  await client.zAdd("stickyport#rubbish#nodes", [...members, { score: 1e300, value: "7 future" }]);
  await client.lPush("stickyport#rubbish#node#no-map", "list");
  const info = { node: 4, address: "\u001b[2J", boot: "a1", started: 1, version: "1", state: "ready", sessions: 0, clients: 0 };
  await client.set("stickyport#rubbish#node#escape", JSON.stringify(info));
  await client.set("stickyport#rubbish#node#toobig", "x".repeat(10_000_000));
  await client.set("stickyport#rubbish#node#number", JSON.stringify({ ...info, address: "a:1", node: 66 }));
  await client.lPush("stickyport#rubbish#number#0", "list");
  const node = await instance(t, "rubbish", 0);
  await node.start();
  assert.deepEqual(await readiness(node), [200, { status: "ready" }]);
  const list = await nodes("rubbish");
  assert.deepEqual(states(list), [[0, "ready"]]);
  assert.match(list.said, /skipped: 9/);
  assert.equal(log(node).match(/no node of ours has written/g).length, 1);

  await client.set("stickyport#rubbish#number#0", "[".repeat(500));
  await until("it has its number again", async () => JSON.parse((await client.get("stickyport#rubbish#number#0")).replace(/^\[+$/, "{}")).address === `127.0.0.1:${node.port}`);
  const many = Array.from({ length: 20_000 }, (_, n) => ({ score: far, value: `9 ${n}`.padEnd(8, "x") }));
  await client.zAdd("stickyport#rubbish#nodes", many);
  assert.match((await nodes("rubbish")).said, /skipped: (999|1000)\n/);

  // A key that is none of ours at all: all but the list goes on.
  await client.del("stickyport#rubbish#nodes");
  await client.set("stickyport#rubbish#nodes", "text");
  await until("it is said", () => /nodes cannot tell who of them is alive/.test(log(node)) || /no node of ours/.test(log(node)));
  assert.deepEqual(await readiness(node), [200, { status: "ready" }]);
  await client.del("stickyport#rubbish#nodes");
});

test("nodes that do not reach Redis are ready all the same, after a moment", { timeout: 60_000 }, async (t) => {
  const frozen = await new Redis(folder()).start();
  t.after(() => frozen.stop());
  frozen.freeze();
  const first = await freePorts(2);
  const settings = [`redis.url=${frozen.url}`];
  const node = await begin(new Instance(folder(), 0, { basePort: first, web: first + 1, settings }));
  t.after(() => node.stop());
  assert.deepEqual(await readiness(node), [503, { status: "joining" }]);
  // Its clients wait for nobody.
  assert.equal((await fetch(`${node.url}/socket.io/?EIO=4&transport=polling`)).status, 200);
  await until("it no longer waits", async () => (await readiness(node))[0] === 200);
  assert.deepEqual(await readiness(node), [200, { status: "degraded", redis: "down" }]);
  frozen.thaw();
  await until("it is ready", async () => (await readiness(node))[1].status === "ready");
  assert.deepEqual(states(await nodes("socket.io", frozen.url)), [[0, "ready"]]);
});

test("the list needs a Redis", async () => {
  const status = async (...words) => (await run(BINARY, ["nodes", ...words]).catch((error) => error)).code;
  assert.equal(await status(), 64);
  assert.equal(await status("--set", "redis.url=http://x"), 64);
  assert.equal(await status("--set", `redis.url=redis://127.0.0.1:${await freePorts(1)}`), 75);
});

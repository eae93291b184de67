// A task that comes round on exactly one of three instances, whatever happens to that one and to Redis.

import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { createClient } from "redis";
import { Child, programs } from "./lib/differential.mjs";
import { Redis } from "./lib/redis.mjs";
import { freePorts, scratch } from "./lib/servers.mjs";
import { until } from "./lib/waiting.mjs";

const root = scratch();
const PERIOD = 400;
const COMMAND = programs("harness", "sio-harness-node.cjs").ours;

/** An instance with a task whose turns are noted in one list for all, in the order in which they are told. */
async function instance(t, turns, redis, { lasts = 10, key = "periodic" } = {}) {
  const port = await freePorts(1);
  const adapter = redis && { type: "redis", url: redis.url, opts: { key } };
  const child = new Child(COMMAND, { port, adapter, periodic: { every: PERIOD, lasts } });
  t.after(() => child.program.child.kill("SIGKILL"));
  const made = { child, port, url: `http://127.0.0.1:${port}` };
  const push = child.events.push.bind(child.events);
  child.events.push = (told) => {
    if (told.t === "turn") turns.push({ ...told, by: made, at: Date.now() });
    if (told.t === "turned") turns.find(({ by, number }) => by === made && number === told.number).end = Date.now();
    return push(told);
  };
  await child.event("listening");
  return made;
}

/** What must hold of every list of turns. */
function areRight(turns) {
  const shown = JSON.stringify(turns.map(({ number, token, by }) => [by.port, number, token]));
  for (const [at, { number, token, by }] of turns.entries()) {
    if (at === 0) continue;
    const before = turns[at - 1];
    assert.ok(number > before.number, `each number comes once: ${shown}`);
    assert.ok(token >= before.token, `tokens do not fall: ${shown}`);
    assert.ok(token > before.token || by === before.by, `another holder has another token: ${shown}`);
  }
}

const has = (turns, count, deadline) => {
  const wanted = turns.length + count;
  return until(`${count} more turns`, () => turns.length >= wanted, deadline);
};

test("three instances take each turn once, and when the one that does it is killed another goes on", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(mkdtempSync(join(root, "part-"))).start();
  t.after(() => redis.stop());
  const turns = [];
  let living = [];
  for (let n = 0; n < 3; n++) living.push(await instance(t, turns, redis));
  await has(turns, 5);
  // One of them does it, and goes on doing it.
  assert.equal(new Set(turns.map(({ by }) => by)).size, 1);
  const numbers = turns.map(({ number }) => number);
  assert.deepEqual(numbers, numbers.map((_, at) => numbers[0] + at));

  while (living.length > 1) {
    const { by } = turns.at(-1);
    const killed = Date.now();
    by.child.program.child.kill("SIGKILL");
    await by.child.ended();
    living = living.filter((other) => other !== by);
    await until("another one goes on", () => turns.at(-1).by !== by);
    assert.ok(turns.at(-1).at - killed < 2 * PERIOD, `${turns.at(-1).at - killed} ms`);
    await has(turns, 3);
  }
  areRight(turns);
});

test("one that stops hands over at once, with its turn broken off first", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(mkdtempSync(join(root, "part-"))).start();
  t.after(() => redis.stop());
  const turns = [];
  for (let n = 0; n < 2; n++) await instance(t, turns, redis, { lasts: 60_000 });
  await has(turns, 1);
  const [first] = turns;
  // The next turns are not taken while this one lasts.
  const { metric } = metrics(first.by);
  await until("turns were skipped", async () => (await metric("stickyport_turns_skipped_total")) >= 2);
  assert.equal(turns.length, 1);
  first.by.child.say({ c: "close" });
  await has(turns, 1);
  assert.ok(turns[1].by !== first.by && first.end <= turns[1].at);
  assert.ok(turns[1].at - first.end < PERIOD + 200, `${turns[1].at - first.end} ms`);
  areRight(turns);
});

test("one that stood still does nothing more when it wakes", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(mkdtempSync(join(root, "part-"))).start();
  t.after(() => redis.stop());
  const turns = [];
  for (let n = 0; n < 3; n++) await instance(t, turns, redis);
  for (let round = 0; round < 3; round++) {
    await has(turns, 2);
    const { by } = turns.at(-1);
    by.child.program.child.kill("SIGSTOP");
    await until("another one goes on", () => turns.at(-1).by !== by);
    await has(turns, 2);
    by.child.program.child.kill("SIGCONT");
    await has(turns, 3);
  }
  areRight(turns);
});

for (const [what, act] of Object.entries({
  "stands still": async (redis, away) => {
    redis.freeze();
    await away();
    redis.thaw();
  },
  "is killed and has forgotten everything": async (redis, away) => {
    await redis.kill();
    await away();
    await redis.start();
  },
})) {
  test(`while Redis ${what} nobody takes a turn, and afterwards one goes on`, { timeout: 60_000 }, async (t) => {
    const redis = await new Redis(mkdtempSync(join(root, "part-"))).start();
    t.after(() => redis.stop());
    const turns = [];
    const three = [];
    for (let n = 0; n < 3; n++) three.push(await instance(t, turns, redis, { lasts: 60_000 }));
    await has(turns, 1);
    const [{ by }] = turns;
    const began = Date.now();
    await act(redis, () => until("the turn is broken off", () => turns[0].end));
    assert.ok(turns[0].end - began < 2 * PERIOD, `${turns[0].end - began} ms`);
    await has(turns, 1, 30_000);
    // Never two at a time.
    assert.ok(turns[0].end <= turns[1].at, JSON.stringify(turns.map(({ at, end }) => [at, end])));
    areRight(turns);
    const { metric } = metrics(by);
    assert.equal(await metric("stickyport_turns_cut_total"), 1);
  });
}

test("a Redis that is back at once with an empty memory gives nobody a turn that another has", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(mkdtempSync(join(root, "part-"))).start();
  t.after(() => redis.stop());
  const turns = [];
  for (let n = 0; n < 3; n++) await instance(t, turns, redis);
  for (let round = 0; round < 4; round++) {
    await has(turns, 2);
    await redis.kill();
    await redis.start();
  }
  await has(turns, 3);
  areRight(turns);
});

test("a lease that Redis loses alone is nobody else's while somebody has it", { timeout: 60_000 }, async (t) => {
  const redis = await new Redis(mkdtempSync(join(root, "part-"))).start();
  const client = await createClient({ url: redis.url }).connect();
  t.after(async () => {
    await client.close();
    await redis.stop();
  });
  const turns = [];
  for (let n = 0; n < 3; n++) await instance(t, turns, redis, { lasts: 60_000 });
  await has(turns, 1);
  const [key] = await client.keys("*#lease#*");
  const { metric } = metrics(turns[0].by);
  const goesOn = async () => {
    const skipped = await metric("stickyport_turns_skipped_total");
    await until("it goes on", async () => (await metric("stickyport_turns_skipped_total")) >= skipped + 4);
  };
  // Who finds it missing asks again a lease later, and by then all have seen it again.
  await goesOn();
  for (let round = 0; round < 5; round++) {
    // The others ask at times of their own, and one of them finds it missing.
    const end = Date.now() + PERIOD / 2;
    while (Date.now() < end) await client.del(key);
    await goesOn();
  }
  assert.deepEqual(turns.map(({ end }) => end), [undefined]);
});

test("an instance alone takes every turn", { timeout: 60_000 }, async (t) => {
  const turns = [];
  await instance(t, turns);
  await has(turns, 4, 4 * PERIOD + 2_000);
  areRight(turns);
  assert.equal(new Set(turns.map(({ token }) => token)).size, 1);
  assert.equal(turns.at(-1).number - turns[0].number, turns.length - 1);
});

function metrics({ url }) {
  return {
    metric: async (name) => Number((await (await fetch(`${url}/metrics`)).text()).match(new RegExp(`^${name} (.*)$`, "m"))[1]),
  };
}

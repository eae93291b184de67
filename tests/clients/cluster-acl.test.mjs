// What README.md says that the ACL user of a cluster needs is all that its instances do.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { createClient } from "redis";
import { io } from "socket.io-client";
import { Line } from "./lib/broken-line.mjs";
import { Child, programs } from "./lib/differential.mjs";
import { Member } from "./lib/members.mjs";
import { subscribed } from "./lib/nodes.mjs";
import { Redis, documented } from "./lib/redis.mjs";
import { BINARY, Instance, freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));

for (const type of ["redis", "redis-streams"]) {
  test(`over ${type}`, { timeout: 60_000 }, async (t) => {
    const redis = await new Redis(folder()).start();
    const admin = await createClient({ url: redis.url }).connect();
    await admin.sendCommand(["ACL", "SETUSER", "node", "on", ">secret", ...documented(type).split(" ")]);
    const url = `redis://node:secret@127.0.0.1:${redis.port}`;
    const members = [new Member("one", "ours"), new Member("other", "ours")];
    const stop = [];
    t.after(async () => {
      for (const end of stop) await end();
      await Promise.all(members.filter(({ child }) => child?.program.isRunning).map((member) => member.stop()));
      await admin.close();
      await redis.stop();
    });
    const opts = { connectionStateRecovery: { maxDisconnectionDuration: 60_000 } };
    for (const member of members) await member.start({ type, url, opts: {} }, opts);
    await subscribed(redis.url, type === "redis" ? "socket.io-request#/#" : "socket.io#/#", 2);

    // What is said, asked and done to sockets reaches the other node.
    const [near, far] = [await members[0].client("/", ["a"]), await members[1].client("/", ["b"])];
    members[0].op("emit", { rooms: ["b"], args: ["to b"] });
    await until("it hears", () => far.heard.length);
    assert.equal((await members[0].result("fetchSockets")).value.length, 2);
    assert.equal((await members[0].result("serverCount")).value, 2);
    members[0].op("socketsJoin", { rooms: ["b"], args: ["c"] });
    await members[1].child.event("rooms", { sid: far.id });
    assert.ok((await members[0].result("allRooms")).value.includes("c"));
    far.on("asked", (answer) => answer("yes"));
    near.on("asked", (answer) => answer("yes"));
    assert.deepEqual((await members[0].result("emit", { args: ["asked"], ack: true })).value, ["yes", "yes"]);

    // A task that one of them does.
    const periodic = new Child(programs("harness", "sio-harness-node.cjs").ours, { port: await freePorts(1), adapter: { type, url, opts: {} }, periodic: { every: 100, lasts: 1 } });
    stop.push(() => periodic.stop());
    await periodic.event("turn");

    // The registry, and those who are no instance.
    const first = await freePorts(2);
    const instance = await new Instance(folder(), 3, { basePort: first - 3, web: first + 1, settings: [`redis.url=${url}`, `redis.adapter=${type}`] }).start();
    stop.push(() => instance.stop());
    const settings = ["--set", `redis.url=${url}`, "--set", `redis.adapter=${type}`];
    await until("it is in the list", () => JSON.parse(execFileSync(BINARY, ["nodes", "--json", ...settings])).some(({ node }) => node === 3));
    execFileSync(BINARY, ["emit", "--room", "b", ...settings, "said", "1"]);
    await until("it hears", () => far.heard.some(([name]) => name === "said"));

    // A client comes back on the other node.
    if (type === "redis-streams") {
      const line = await Line.to(members[0].port, t);
      const wanderer = io(`http://127.0.0.1:${line.port}`, { transports: ["websocket"], forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 100 });
      stop.push(() => wanderer.disconnect());
      await event(wanderer, "connect");
      const { id } = wanderer;
      members[1].op("emit", { args: ["anything"] });
      await event(wanderer, "anything");
      line.destroy();
      await members[0].child.event("disconnect", { sid: id });
      line.target = members[1].port;
      const back = event(wanderer, "connect");
      line.mend();
      await back;
      assert.deepEqual([wanderer.recovered, wanderer.id], [true, id]);
    }

    // What a user was refused stands there.
    assert.deepEqual(await admin.sendCommand(["ACL", "LOG"]), []);
    for (const { child } of members) assert.doesNotMatch(readFileSync(child.program.log, "utf8"), /WARN|ERROR/);
  });
}

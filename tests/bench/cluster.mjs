// What a broadcast over Redis costs: two instances of ours and then two of Node's, 500 clients on each, one Redis, in one run.
//
//     node tests/bench/cluster.mjs [--seconds 10] [--rate 10]
//
// Prints processor time per delivery and the latency of deliveries, and ends with 1 if ours costs more than 0.6 of Node's. All clients are in this process, which
// needs most of the latency for itself: p99 says something on a machine that does nothing else.

import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Redis } from "../clients/lib/redis.mjs";
import { Instance, Program, freePorts, scratch } from "../clients/lib/servers.mjs";
import { event, until } from "../clients/lib/waiting.mjs";

const require = createRequire(new URL("../clients/package.json", import.meta.url));
const { WebSocket } = require("ws");
const { Emitter } = require("@socket.io/redis-emitter");
const { createClient } = require("redis");

const CLIENTS = 500;
const ROUNDS = 3;
const options = { seconds: { type: "string", default: "10" }, rate: { type: "string", default: "10" } };
const [seconds, rate] = Object.values(parseArgs({ options }).values).map(Number);
const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));

/** Seconds of processor time that a process has had. */
function cpu({ pid }) {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const [user, system] = text.slice(text.lastIndexOf(")") + 2).split(" ").slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}

const start = {
  ours: async (redis) => {
    const first = await freePorts(3);
    const settings = [`redis.url=${redis.url}`];
    return Promise.all([0, 1].map((number) => new Instance(folder(), number, { basePort: first, web: first + 2, settings }).start()));
  },
  node: async (redis) => {
    const file = fileURLToPath(new URL("servers/cluster.cjs", import.meta.url));
    return Promise.all([0, 1].map(async () => {
      const port = await freePorts(1);
      const program = new Program(folder(), `node-${port}`, [process.execPath, file, `${port}`, redis.url]);
      await program.listensOn(port);
      return { port, program };
    }));
  },
};

/** A client that answers pings and notes when what was said then came. */
async function client(port, latencies) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`, { perMessageDeflate: false });
  const connected = new Promise((resolve) => {
    socket.on("message", (data) => {
      const text = `${data}`;
      if (text === "2") socket.send("3");
      else if (text.startsWith("0")) socket.send("40");
      else if (text.startsWith("40")) resolve();
      else if (text.startsWith('42["tick"')) latencies.push(performance.now() - JSON.parse(text.slice(2))[1]);
    });
  });
  await event(socket, "open");
  await connected;
  return socket;
}

async function measure(kind) {
  const redis = await new Redis(folder()).start();
  const publisher = await createClient({ url: redis.url }).connect();
  const servers = await start[kind](redis);
  await until("both listen", async () => (await publisher.publish("socket.io#/#nobody#", "")) === 2);
  const latencies = [];
  const clients = [];
  for (const { port } of servers) for (let n = 0; n < CLIENTS; n += 50) clients.push(...(await Promise.all(Array.from({ length: 50 }, () => client(port, latencies)))));
  const emitter = new Emitter(publisher);
  const speak = async (count) => {
    const before = latencies.length;
    for (let n = 0; n < count; n++) {
      emitter.emit("tick", performance.now(), { text: "x".repeat(200), list: [1, 2.5, null, true], n });
      await new Promise((resolve) => setTimeout(resolve, 1_000 / rate));
    }
    await until("all is delivered", () => latencies.length === before + count * clients.length, 30_000);
  };
  // Whoever compiles as it runs has done so.
  await speak(2 * rate);
  latencies.length = 0;
  const before = servers.map(({ program }) => cpu(program.child));
  await speak(seconds * rate);
  const used = servers.reduce((sum, { program }, at) => sum + cpu(program.child) - before[at], 0);
  clients.forEach((socket) => socket.terminate());
  await Promise.all(servers.map(({ program }) => program.stop("SIGKILL")));
  await publisher.close();
  await redis.stop();
  latencies.sort((a, b) => a - b);
  const at = (share) => latencies[Math.floor(share * (latencies.length - 1))];
  return { deliveries: latencies.length, cpu: (used / latencies.length) * 1e6, p50: at(0.5), p99: at(0.99) };
}

const median = (list) => list.sort((a, b) => a - b)[Math.floor(list.length / 2)];
const results = { ours: [], node: [] };
console.log(`2 x ${CLIENTS} clients, ${rate} broadcasts a second over Redis for ${seconds} s, ${ROUNDS} rounds in turn`);
for (let round = 0; round < ROUNDS; round++) {
  for (const kind of Object.keys(results)) {
    const result = await measure(kind);
    results[kind].push(result);
    console.log(`${kind.padEnd(4)}  ${result.cpu.toFixed(2)} us of CPU a delivery  p50 ${result.p50.toFixed(1)} ms  p99 ${result.p99.toFixed(1)} ms  (${result.deliveries} deliveries)`);
  }
}
const of = (kind, key) => median(results[kind].map((result) => result[key]));
const share = of("ours", "cpu") / of("node", "cpu");
console.log(`CPU: ${share.toFixed(2)} of Node's; p99: ${of("ours", "p99").toFixed(1)} ms, Node's ${of("node", "p99").toFixed(1)} ms`);
process.exitCode = share <= 0.6 ? 0 : 1;

// Two instances of ours and two of Node's in one cluster over a real Redis, in every direction.

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { join } from "node:path";
import { promisify } from "node:util";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { broadcasts, bytes, heard } from "./lib/broadcasts.mjs";
import { Node, listening, subscribed } from "./lib/nodes.mjs";
import { Redis, documented } from "./lib/redis.mjs";
import { BINARY, Instance, freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const run = promisify(execFile);
/** A Python that has the packages of `requirements.txt`. */
const PYTHON = process.env.STICKYPORT_PYTHON ?? "python3";
const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));
const redis = await new Redis(folder()).start();
after(() => redis.stop());

const four = () => [
  new Node("ours", "ours"),
  new Node("another of ours", "ours"),
  new Node("Node's", "reference"),
  new Node("another of Node's", "reference"),
];
const nodes = four();
const [, others] = nodes;
let mark = 0;

before(async () => {
  await Promise.all(nodes.map((node) => node.start({}, redis.url)));
  // The reference subscribes after it listens.
  await listening(redis.url, "/", nodes.length);
});
after(() => Promise.all(nodes.map((node) => node.stop())));

describe("a broadcast", () => {
  const clients = broadcasts(nodes, (namespace) => listening(redis.url, namespace, nodes.length));

  test("of the reference's emitter", async () => {
    const client = await createClient({ url: redis.url }).connect();
    const emitter = new Emitter(client);
    const args = ["x", 1, "2", [3], Buffer.from([7])];
    for (const [to, isTold] of [
      [emitter, () => true],
      [emitter.volatile, () => true],
      [emitter.compress(false), () => true],
      [emitter.to("all").except("odd"), (_, index) => index % 2 === 0],
      [emitter.to(["odd", clients[2].id]), (_, index) => index % 2 === 1 || index === 2],
      [emitter.except(clients[3].id), (_, index) => index !== 3],
    ]) {
      const lists = await heard(clients, () => to.emit(...args), (last) => emitter.emit(last));
      assert.deepEqual(lists, clients.map((client, index) => (isTold(client, index) ? [args] : [])));
    }
    for (const node of nodes) node.child.say({ c: "nsp", nsp: "/emitted" });
    const elsewhere = [];
    for (const node of nodes) elsewhere.push(await node.client("/emitted"));
    await listening(redis.url, "/emitted", nodes.length);
    const there = emitter.of("/emitted");
    assert.deepEqual(await heard(elsewhere, () => there.emit("there"), (last) => there.emit(last)), elsewhere.map(() => [["there"]]));
    elsewhere.forEach((client) => client.disconnect());
    await client.close();
  });

  test("of Python's emitter", async () => {
    const client = await createClient({ url: redis.url }).connect();
    const last = new Emitter(client);
    const program = "import redis, socket_io_emitter, sys\nemitter = socket_io_emitter.Emitter({'client': redis.from_url(sys.argv[1])})\n";
    for (const [line, isTold] of [
      ["emitter.Emit('x', 1, ['é'])", () => true],
      ["emitter.To('odd').Emit('x', 1, ['é'])", (index) => index % 2 === 1],
    ]) {
      const lists = await heard(clients, () => run(PYTHON, ["-B", "-c", program + line, redis.url]), (name) => last.emit(name));
      assert.deepEqual(lists, clients.map((_, index) => (isTold(index) ? [["x", 1, ["é"]]] : [])));
    }
    await client.close();
  });

  test("of our emitter", async () => {
    const emit = (...words) => run(BINARY, ["emit", "--set", `redis.url=${redis.url}`, ...words]);
    const lists = await heard(
      clients,
      async () => assert.equal((await emit("--room", "all", "--except", "odd", "x", '{"a":[1,"é"]}', "-7")).stdout, "4 servers heard it\n"),
      (last) => emit(last),
    );
    assert.deepEqual(lists, clients.map((_, index) => (index % 2 ? [] : [["x", { a: [1, "é"] }, -7]])));
    const status = async (...words) => (await run(BINARY, ["emit", ...words]).catch((error) => error)).code;
    assert.equal(await status("x"), 64);
    assert.equal(await status("--set", `redis.url=${redis.url}`, "x", "{"), 64);
    assert.equal(await status("--set", `redis.url=${redis.url}`, "connect"), 64);
    assert.equal(await status("--set", `redis.url=redis://127.0.0.1:${await freePorts(1)}`, "x"), 75);
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

for (const [mode, options] of Object.entries({ "": {}, " with the specific response channel": { publishOnSpecificResponseChannel: true } })) {
  describe(`a request${mode}`, () => {
    const prefix = `requests${mode.length}`;
    const nodes = four();
    const [ours, others] = nodes;
    let clients;
    let n = 0;
    before(async () => {
      await Promise.all(nodes.map((node) => node.start({ key: prefix, requestsTimeout: 1_000, ...options }, redis.url)));
      await listening(redis.url, "/", nodes.length, prefix);
      await subscribed(redis.url, `${prefix}-request#/#`, nodes.length);
      clients = [];
      for (const node of nodes) clients.push(await node.client("/", ["all", node.name]));
    });
    after(() => Promise.all(nodes.map((node) => node.stop())));

    /** What an operation comes to. */
    async function result(node, m, options = {}) {
      node.op(m, { n: ++n, ...options });
      return node.child.event("result", { n });
    }

    /** The rooms of every client, as its own node has them. */
    const roomsAre = (expected) =>
      until(`rooms ${JSON.stringify(expected)}`, async () => {
        const { value } = await result(ours, "fetchSockets");
        const found = clients.map(({ id }) => value?.find((socket) => socket.id === id)?.rooms.filter((room) => room.startsWith("r:")));
        return JSON.stringify(found) === JSON.stringify(expected);
      });

    for (const asker of nodes) {
      describe(`of ${asker.name}`, () => {
        test("for sockets", async () => {
          for (const node of nodes) {
            const { sid } = { sid: clients[nodes.indexOf(node)].id };
            node.child.say({ c: "data", nsp: "/", sid, data: { of: node.name } });
          }
          const { err, value } = await result(asker, "fetchSockets");
          assert.equal(err, null);
          const expected = clients.map(({ id, node }) => ({ id, rooms: [id, "all", node.name], data: { of: node.name } }));
          const found = value.map(({ id, rooms, data }) => ({ id, rooms, data }));
          const sorted = (list) => list.sort((a, b) => (a.id < b.id ? -1 : 1));
          assert.deepEqual(sorted(found), sorted(expected));
          for (const { id, handshake } of value) assert.deepEqual(handshake, clients.find((client) => client.id === id).handshake);
          const of = await result(asker, "fetchSockets", { rooms: ["all"], except: [ours.name] });
          assert.deepEqual(of.value.map(({ id }) => id).sort(), clients.slice(1).map(({ id }) => id).sort());
        });

        test("for sockets of its own node", async () => {
          const { value } = await result(asker, "fetchSockets", { flags: { local: true } });
          assert.deepEqual(value.map(({ id }) => id), [clients[nodes.indexOf(asker)].id]);
        });

        test("for rooms", async () => {
          const { value } = await result(asker, "allRooms");
          assert.deepEqual(value.sort(), ["all", ...nodes.map(({ name }) => name), ...clients.map(({ id }) => id)].sort());
        });

        test("for the number of servers", async () => {
          assert.equal((await result(asker, "serverCount")).value, nodes.length);
        });

        test("to join and leave", async () => {
          asker.op("socketsJoin", { rooms: ["all"], except: [others.name], args: [["r:a", "r:b"]] });
          await roomsAre([["r:a", "r:b"], [], ["r:a", "r:b"], ["r:a", "r:b"]]);
          asker.op("socketsLeave", { rooms: ["r:a"], args: ["r:b"] });
          await roomsAre([["r:a"], [], ["r:a"], ["r:a"]]);
          asker.op("socketsLeave", { args: [["r:a"]] });
          await roomsAre([[], [], [], []]);
        });

        test("to join and leave, of those in a room and of one alone", async () => {
          for (const number of [0, 2]) {
            clients[number].node.child.say({ c: "join", nsp: "/", sid: clients[number].id, rooms: ["r:1"] });
          }
          await roomsAre([["r:1"], [], ["r:1"], []]);
          asker.op("socketsJoin", { rooms: ["r:1"], args: ["r:2"] });
          await roomsAre([["r:1", "r:2"], [], ["r:1", "r:2"], []]);
          for (const [number, { id }] of clients.entries()) {
            asker.op("socketsJoin", { rooms: [id], args: [`r:own ${number}`] });
          }
          await roomsAre([["r:1", "r:2", "r:own 0"], ["r:own 1"], ["r:1", "r:2", "r:own 2"], ["r:own 3"]]);
          for (const [number, { id }] of clients.entries()) {
            asker.op("socketsLeave", { rooms: [id], args: [`r:own ${number}`] });
          }
          asker.op("socketsLeave", { rooms: ["r:1"], args: ["r:2"] });
          await roomsAre([["r:1"], [], ["r:1"], []]);
          asker.op("socketsLeave", { args: ["r:1"] });
          await roomsAre([[], [], [], []]);
        });

        test("for rooms and sockets of one that has gone", async () => {
          for (const node of nodes) {
            const client = await node.client("/", ["r:gone"]);
            const { id: sid } = client;
            client.disconnect();
            await node.child.event("disconnect", { sid });
            const [rooms, sockets] = [(await result(asker, "allRooms")).value, (await result(asker, "fetchSockets")).value];
            assert.ok(!rooms.includes("r:gone") && !rooms.includes(sid) && !sockets.some(({ id }) => id === sid));
          }
        });

        test("for acknowledgements where nobody is", async () => {
          const { err, value } = await result(asker, "emit", { args: ["ask"], rooms: ["nobody"], ack: true, flags: { timeout: 1_000 } });
          assert.deepEqual([err, value], [null, []]);
        });

        test("for acknowledgements", async () => {
          const number = nodes.indexOf(asker);
          clients.forEach((client, index) => client.once("ask", (given, answer) => answer(Buffer.concat([given, Buffer.from([index])]))));
          const args = ["ask", bytes(9)];
          const { err, value } = await result(asker, "emit", { args, ack: true, flags: { timeout: 5_000 } });
          assert.equal(err, null, `${number}`);
          const values = value.map((answer) => [...Buffer.from(answer.$bin, "base64")]).sort();
          assert.deepEqual(values, [[9, 0], [9, 1], [9, 2], [9, 3]]);
        });

        test("for the acknowledgement of one socket", async () => {
          clients.forEach((client, index) => client.on("ask", (answer) => answer(index)));
          for (const [index, { id }] of clients.entries()) {
            const { err, value } = await result(asker, "emit", { rooms: [id], args: ["ask"], ack: true, flags: { timeout: 5_000 } });
            assert.deepEqual([err, value], [null, [index]]);
          }
          clients.forEach((client) => client.off("ask"));
        });

        test("for acknowledgements of which one does not come", async () => {
          clients.forEach((client, index) => client.once("ask", (answer) => index && answer(index)));
          const { err, value } = await result(asker, "emit", { args: ["ask"], ack: true, flags: { timeout: 300 } });
          assert.match(err.message, /has timed out/);
          if (asker.kind === "ours") assert.deepEqual(value.sort(), [1, 2, 3]);
        });

        test("that servers hear", async () => {
          asker.op("serverSideEmit", { args: ["x", 1, { a: "é" }] });
          for (const node of nodes) if (node !== asker) assert.deepEqual((await node.child.event("sse")).args, ["x", 1, { a: "é" }]);
        });

        test("that servers acknowledge", async () => {
          const answer = (async () => {
            for (const node of nodes) {
              if (node === asker) continue;
              const { n, ack } = await node.child.event("sse");
              assert.equal(ack, true);
              node.child.say({ c: "answer", n, args: [node.name] });
            }
          })();
          const { err, value } = await result(asker, "serverSideEmit", { args: ["who?"], ack: true });
          await answer;
          assert.equal(err, null);
          assert.deepEqual(value.sort(), nodes.filter((node) => node !== asker).map(({ name }) => name).sort());
        });

        test("that one server does not acknowledge", async () => {
          const [first, ...rest] = nodes.filter((node) => node !== asker);
          const asked = result(asker, "serverSideEmit", { args: ["who?"], ack: true });
          const { n } = await first.child.event("sse");
          first.child.say({ c: "answer", n, args: ["I"] });
          for (const node of rest) await node.child.event("sse");
          const { err, value } = await asked;
          assert.deepEqual([err.message, value], ["timeout reached: only 1 responses received out of 3", ["I"]]);
        });

        test("to go, when all was heard that was said before", async () => {
          for (const [index, node] of nodes.entries()) {
            const client = await node.client("/", ["leaving"]);
            const gone = event(client, "disconnect");
            asker.op("emit", { rooms: ["leaving"], args: ["bye"] });
            asker.op("disconnectSockets", { rooms: ["leaving"], args: [index % 2 === 0] });
            assert.match((await gone)[0], /^(io server disconnect|transport close)$/);
            assert.deepEqual(client.heard, [["bye"]]);
          }
        });
      });
    }

    test("of an emitter", async () => {
      const client = await createClient({ url: redis.url }).connect();
      const emitter = new Emitter(client, { key: prefix });
      emitter.in("all").socketsJoin("r:e");
      await roomsAre([["r:e"], ["r:e"], ["r:e"], ["r:e"]]);
      emitter.socketsLeave("r:e");
      await roomsAre([[], [], [], []]);
      emitter.serverSideEmit("from outside", 1);
      for (const node of nodes) assert.deepEqual((await node.child.event("sse")).args, ["from outside", 1]);
      const leaving = await Promise.all(nodes.map((node) => node.client("/", ["leaving"])));
      const gone = leaving.map((client) => event(client, "disconnect"));
      emitter.in("leaving").disconnectSockets(true);
      await Promise.all(gone);
      assert.ok(clients.every(({ connected }) => connected));
      await client.close();
    });

    test("that is rubbish is skipped", async () => {
      const client = await createClient({ url: redis.url }).connect();
      const many = JSON.stringify({ uid: "x", type: 2, opts: { rooms: ["all"], except: [] }, rooms: Array.from({ length: 1_000_000 }, (_, n) => `r:${n}`) });
      // Node's adapter dies of some of it, so it goes to ours only: on a cluster of their own.
      const alone = [new Node("one", "ours"), new Node("two", "ours")];
      const key = `rubbish${mode.length}`;
      await Promise.all(alone.map((node) => node.start({ key, requestsTimeout: 1_000, ...options }, redis.url)));
      for (const text of ["", "{", "{}", '{"type":2}', '{"type":99}', "null", "\u0081", '{"uid":"x","type":5}', many, "[".repeat(1_000_000)]) {
        await client.publish(`${key}-request#/#`, text);
        await client.publish(`${key}-response#/#`, text);
      }
      const socket = await alone[0].client("/", ["all"]);
      const { value } = await result(alone[1], "fetchSockets");
      assert.deepEqual(value.map(({ id, rooms }) => ({ id, rooms })), [{ id: socket.id, rooms: [socket.id, "all"] }]);
      await Promise.all(alone.map((node) => node.stop()));
      await client.close();
    });

    test("does not wait for a node that was killed", async () => {
      const victim = await new Node("victim", "ours").start({ key: prefix, requestsTimeout: 1_000, ...options }, redis.url);
      assert.equal((await result(ours, "serverCount")).value, nodes.length + 1);
      victim.child.program.child.kill("SIGKILL");
      await victim.child.ended();
      await subscribed(redis.url, `${prefix}-request#/#`, nodes.length);
      const { err, value } = await result(ours, "fetchSockets");
      assert.deepEqual([err, value.length], [null, clients.length]);
    });
  });
}

test("a flood of rubbish costs a line in the log, and no memory", { timeout: 120_000 }, async (t) => {
  const first = await freePorts(2);
  const settings = [`redis.url=${redis.url}`, "redis.prefix=flooded"];
  const instance = await new Instance(folder(), 0, { basePort: first, web: first + 1, settings }).start();
  const metric = async (name) => {
    const page = await (await fetch(`${instance.url}/metrics`)).text();
    return Number(page.match(new RegExp(`^${name} (.*)$`, "m"))[1]);
  };
  t.after(() => instance.stop());
  await until("it is connected", async () => (await metric("stickyport_redis_down")) === 0);
  const client = await createClient({ url: redis.url }).connect();
  t.after(() => client.close());
  const rooms = Array.from({ length: 1_000_000 }, (_, n) => `r:${n}`);
  const many = JSON.stringify({ uid: "x", type: 2, opts: { rooms: [], except: [] }, rooms });
  const announced = Buffer.from("93a16182a47479706502a46461746191a17881a5726f6f6d73ddffffffff", "hex");
  const deep = Buffer.concat([Buffer.from("93a16182a47479706502a464617461", "hex"), Buffer.alloc(1_000_000, 0x91), Buffer.from("c080", "hex")]);
  const channels = ["flooded#/#", "flooded#/#room#", "flooded-request#/#", "flooded-response#/#"];
  const flood = async (rounds) => {
    const skipped = await metric("stickyport_cluster_skipped_total");
    let received = await metric("stickyport_cluster_received_total");
    for (let round = 0; round < rounds; round++) {
      for (const channel of channels) for (const message of [many, announced, deep, "{", ""]) {
        await client.publish(channel, message);
        // One at a time: Redis cuts off whom it has 32 MB for.
        received += 1;
        await until("it was heard", async () => (await metric("stickyport_cluster_received_total")) === received);
      }
    }
    return (await metric("stickyport_cluster_skipped_total")) - skipped;
  };
  assert.ok((await flood(1)) >= 13);
  const before = await metric("process_resident_memory_bytes");
  await flood(20);
  const grown = (await metric("process_resident_memory_bytes")) - before;
  assert.ok(grown < 32_000_000, `${grown} bytes more`);
  const said = readFileSync(instance.program.log, "utf8");
  assert.equal(said.match(/was skipped/g).length, 1);
  assert.equal(await instance.stop(), 0);
});

describe("a node that hangs", () => {
  test("is waited for until it gives no sign of life", { timeout: 60_000 }, async () => {
    const key = "hanging";
    const [asker, victim] = [new Node("asker", "ours"), new Node("victim", "ours")];
    await Promise.all([asker, victim].map((node) => node.start({ key, requestsTimeout: 300 }, redis.url)));
    const client = await asker.client();
    let n = 0;
    const ask = async () => {
      asker.op("fetchSockets", { n: `${++n}` });
      return asker.child.event("result", { n: `${n}` });
    };
    // As soon as it knows the other by name.
    await until("both know each other", async () => (await ask()).err === null);
    victim.child.program.child.kill("SIGSTOP");
    assert.equal((await ask()).err.message, "timeout reached while waiting for fetchSockets response");
    await until("it is not waited for", async () => (await ask()).err === null, 20_000);
    assert.deepEqual((await ask()).value.map(({ id }) => id), [client.id]);
    victim.child.program.child.kill("SIGCONT");
    await until("it is back", async () => {
      asker.op("serverCount", { n: `${++n}` });
      return (await asker.child.event("result", { n: `${n}` })).value === 2;
    });
    await Promise.all([asker, victim].map((node) => node.stop()));
  });
});

describe("Redis", () => {
  const mortal = new Redis(folder());
  const key = "mortal";
  const nodes = [new Node("ours", "ours"), new Node("another of ours", "ours")];
  let clients;
  before(async () => {
    await mortal.start();
    for (const node of nodes) await node.start({ key, requestsTimeout: 500 }, mortal.url);
    clients = [await nodes[0].client(), await nodes[1].client()];
    await reaches();
  });
  after(async () => {
    await Promise.all(nodes.map((node) => node.stop()));
    await mortal.stop();
  });

  const readiness = async (node) => {
    const answer = await fetch(`${node.url}/readyz`);
    assert.equal(answer.status, 200);
    return (await answer.json()).redis ?? "up";
  };
  const is = (state) => until(`Redis is ${state}`, async () => (await Promise.all(nodes.map(readiness))).every((found) => found === state), 20_000);

  /** Says it again until both have heard it. */
  const reaches = async () => {
    const name = `mark ${++mark}`;
    const hasHeard = (client) => client.heard.some(([heard]) => heard === name);
    await until("all hear all", () => {
      nodes[0].op("emit", { args: [name] });
      return clients.every(hasHeard);
    }, 20_000);
  };

  const deliversHere = async () => {
    const name = `mark ${++mark}`;
    nodes[0].op("emit", { args: [name] });
    await until("those here hear it", () => clients[0].heard.some(([heard]) => heard === name));
    assert.ok(!clients[1].heard.some(([heard]) => heard === name));
  };

  test("that was killed is done without, and taken up again when it is back", { timeout: 60_000 }, async () => {
    await mortal.kill();
    await is("down");
    await deliversHere();
    await mortal.start();
    await is("up");
    await reaches();
  });

  test("that stands still for ten seconds is done without, and taken up again", { timeout: 60_000 }, async () => {
    mortal.freeze();
    await is("down");
    await deliversHere();
    mortal.thaw();
    await is("up");
    await reaches();
  });

  test("whose connections are cut is taken up again", { timeout: 60_000 }, async () => {
    const client = await createClient({ url: mortal.url }).connect();
    for (let round = 0; round < 3; round++) {
      await client.sendCommand(["CLIENT", "KILL", "TYPE", "pubsub"]);
      await is("up");
      await reaches();
    }
    const listed = await client.sendCommand(["CLIENT", "LIST"]);
    assert.equal(listed.trim().split("\n").length, nodes.length + 1, listed);
    await client.close();
  });

  test("that refuses us, or is none, is named in the log, once", { timeout: 60_000 }, async () => {
    const web = createServer((request, response) => response.end("no")).listen(0, "127.0.0.1");
    await event(web, "listening");
    const guarded = await new Redis(folder()).start("--requirepass", "right");
    const noCertificate = `rediss://127.0.0.1:${guarded.port}`;
    for (const url of [`redis://127.0.0.1:${web.address().port}`, `redis://:wrong-password@127.0.0.1:${guarded.port}`, noCertificate]) {
      const first = await freePorts(2);
      const instance = await new Instance(folder(), 0, { basePort: first, web: first + 1, settings: [`redis.url=${url}`] }).start();
      await until("it is said", () => /Redis is away/.test(instance.program.lastWords()));
      assert.equal((await (await fetch(`${instance.url}/readyz`)).json()).status, "degraded");
      const said = instance.program.lastWords();
      assert.doesNotMatch(said, /wrong-password|panic/);
      assert.equal(await instance.stop(), 0);
      assert.equal(said.match(/Redis is away/g).length, 1);
    }
    await guarded.stop();
    web.close();
  });

  test("is reached with a password, as an ACL user, through a unix socket and over TLS", { timeout: 60_000 }, async () => {
    const here = folder();
    const [key, certificate, path] = ["key.pem", "certificate.pem", "redis.sock"].map((name) => join(here, name));
    const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate];
    execFileSync("openssl", [...request, "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"], { stdio: "ignore" });
    const tls = await freePorts(1);
    const secured = ["--tls-port", `${tls}`, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"];
    // Always Redis: the Valkey of the tests is built without TLS.
    const guarded = await new Redis(here, "redis-server").start("--requirepass", "right", "--unixsocket", path, ...secured);
    const client = await createClient({ url: `redis://:right@127.0.0.1:${guarded.port}` }).connect();
    const urls = [
      `redis://:right@127.0.0.1:${guarded.port}`,
      `redis://node:secret@127.0.0.1:${guarded.port}`,
      `redis+unix://${path}?pass=right`,
      `rediss://:right@localhost:${tls}`,
    ];
    for (const adapter of ["redis", "redis-streams"]) {
      await client.sendCommand(["ACL", "SETUSER", "node", "reset", "on", ">secret", ...documented(adapter).split(" ")]);
      for (const url of urls) {
        const first = await freePorts(2);
        const settings = [`redis.url=${url}`, `redis.adapter=${adapter}`];
        const instance = new Instance(folder(), 0, { basePort: first, web: first + 1, settings, env: { SSL_CERT_FILE: certificate } });
        await instance.start();
        await until(`${url}: it is connected`, async () => (await (await fetch(`${instance.url}/readyz`)).json()).status === "ready");
        // Over a connection of its own.
        const reads = async () => / cmd=xread /.test(await client.sendCommand(["CLIENT", "LIST"]));
        if (adapter === "redis-streams") await until(`${url}: it reads the stream`, reads);
        const said = instance.program.lastWords();
        assert.doesNotMatch(said, /WARN|right|secret/);
        assert.equal(await instance.stop(), 0);
        await until(`${url}: it has gone`, async () => !(await reads()));
      }
    }
    await client.close();
    // One whose certificate nobody vouches for.
    const first = await freePorts(2);
    const instance = await new Instance(folder(), 0, { basePort: first, web: first + 1, settings: [`redis.url=${urls.at(-1)}`] }).start();
    await until("it is said", () => /Redis is away.*certificate/i.test(instance.program.lastWords()));
    assert.equal(await instance.stop(), 0);
    await guarded.stop();
  });
});

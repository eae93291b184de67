// `stickyport check` asks the Redis of a cluster, and finds what is wrong with it: one mistake at a time, and nothing with one that is right.

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { createServer as createWeb } from "node:http";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { createClient } from "redis";
import { Redis, documented } from "./lib/redis.mjs";
import { BINARY, Program, freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const root = scratch();
const folder = () => mkdtempSync(join(root, "part-"));
/** Wide enough for what instances hold back. */
const WIDE = ["--client-output-buffer-limit", "pubsub 64mb 32mb 10"];
const STREAMS = "redis-streams";

/** What is found: the exit status, and the report. */
async function check(url, { adapter = "redis", flags = [], env = {} } = {}) {
  const settings = join(folder(), "stickyport.toml");
  writeFileSync(settings, `[redis]\nadapter = "${adapter}"\nurl = "${url}"\n`);
  const command = ["check", "--config", settings, "--json", ...flags];
  const done = await new Promise((resolve) => {
    execFile(BINARY, command, { env: { PATH: process.env.PATH, ...env } }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }));
  });
  assert.equal(done.stderr, "");
  assert.doesNotMatch(done.stdout, /secret/);
  return { code: done.code, settings, ...JSON.parse(done.stdout) };
}

const rules = ({ findings }) => findings.map(({ rule }) => rule);

/** Finds that rule broken and no other, and everything said of it. */
function only(report, rule, value) {
  assert.deepEqual(rules(report), [rule], JSON.stringify(report.findings, null, 1));
  const [finding] = report.findings;
  assert.match(finding.value, value);
  assert.ok(finding.effect && finding.mend);
  assert.equal(report.code, { note: 0, warning: 1, error: 2 }[finding.severity]);
  return finding;
}

/** A Redis with these flags, until the test ends. */
async function redis(t, ...flags) {
  const made = await new Redis(folder()).start(...WIDE, ...flags);
  t.after(() => made.stop());
  return made;
}

/** What a user may do who is allowed this. */
async function allow(server, rules) {
  const client = await createClient({ url: server.url }).connect();
  await client.sendCommand(["ACL", "SETUSER", "node", "on", ">secret", ...rules.split(" ")]);
  await client.close();
  return `redis://node:secret@127.0.0.1:${server.port}`;
}

/** A port on which each connection is led by that function, until the test ends. */
async function line(t, lead) {
  const ends = new Set();
  const server = createServer((near) => {
    const far = lead(near);
    for (const end of [near, far].filter(Boolean)) ends.add(end.on("error", () => {}));
  });
  server.listen(0, "127.0.0.1");
  await event(server, "listening");
  t.after(() => {
    server.close();
    for (const end of ends) end.destroy();
  });
  return `redis://127.0.0.1:${server.address().port}`;
}

for (const adapter of ["redis", STREAMS]) {
  describe(`over ${adapter}`, () => {
    test("nothing is found with one that is right", async (t) => {
      const right = await redis(t, "--maxmemory", "200mb", "--maxmemory-policy", "noeviction");
      const report = await check(right.url, { adapter, flags: ["--clients", "50000"] });
      assert.deepEqual([report.code, report.findings], [0, []]);
      // It has left nothing there.
      const client = await createClient({ url: right.url }).connect();
      assert.equal(await client.dbSize(), 0);
      await client.close();
    });

    test("the rules that README.md has for an ACL user are enough, and what he may not see is noted", async (t) => {
      const server = await redis(t);
      only(await check(await allow(server, documented(adapter)), { adapter }), "redis-unseen", /client-output-buffer-limit, maxmemory/);
    });

    test("each rule of that user's is needed", async (t) => {
      const server = await redis(t);
      const rules = documented(adapter).split(" ");
      // Of a user's for streams those that are his alone.
      const own = adapter === STREAMS ? rules.slice(documented("redis").split(" ").length) : rules;
      for (const left of own) {
        const url = await allow(server, `reset on >secret ${rules.filter((rule) => rule !== left).join(" ")}`);
        // Who needs nothing of a connection but that it is there is let in without.
        const { findings } = await check(left === "+@connection" ? `${url}/1` : url, { adapter });
        assert.equal(findings[0].rule, "redis-acl", `without ${left}: ${JSON.stringify(findings)}`);
      }
    });

    test("a channel that its user may not hear is found, and what instances do not use is not", async (t) => {
      const server = await redis(t);
      const plain = adapter === "redis";
      const heard = ["socket.io#/#*", "stickyport#*", ...(plain ? ["socket.io-request#*", "socket.io-response#*"] : [])];
      const may = (channels) => allow(server, `reset on >secret +@all -ping ~* ${channels.map((channel) => `&${channel}`).join(" ")}`);
      assert.deepEqual((await check(await may(heard), { adapter })).findings, []);
      const left = plain ? ["-request#/#", "-response#/#", "-response#/#stickyport-check#"] : ["#/#", "stickyport#socket.io#fence#"];
      for (const channel of left) {
        const name = channel.startsWith("stickyport") ? channel : `socket.io${channel}`;
        const others = heard.filter((each) => !name.startsWith(each.slice(0, -1)));
        // Of two that one rule allows only the other.
        if (name.includes("-response")) others.push(name.endsWith("check#") ? "socket.io-response#/#" : "socket.io-response#/#?*");
        only(await check(await may(others), { adapter }), "redis-acl", new RegExp(`SUBSCRIBE ${name}`));
      }
    });

    test("who asks is not counted with the nodes that listen", async (t) => {
      const server = await redis(t);
      const told = [];
      const client = await createClient({ url: server.url }).connect();
      const monitor = await client.duplicate().connect();
      await monitor.monitor((line) => told.push(line));
      await check(server.url, { adapter });
      await client.sendCommand(["ECHO", "the end"]);
      await until("all is told", () => told.some((line) => /the end/.test(line)));
      for (const [at, line] of told.entries()) if (/"SUBSCRIBE"/.test(line)) assert.match(told[at + 1], new RegExp(`"UNSUBSCRIBE" ${line.split(" ").at(-1)}`));
      await Promise.all([client.close(), monitor.destroy()]);
    });

    test("one that is not there is found", async () => {
      const nobody = `redis://:secret@127.0.0.1:${await freePorts(1)}`;
      const report = await check(nobody, { adapter });
      const finding = only(report, "redis-reachable", /cannot be reached.*refused/i);
      // The line of the URL.
      assert.deepEqual([finding.file, finding.line], [report.settings, 3]);
      assert.deepEqual(rules(await check(nobody, { adapter, flags: ["--offline"] })), []);
    });

    test("a replica is found", async (t) => {
      const server = await redis(t, "--replicaof", `127.0.0.1 ${await freePorts(1)}`);
      only(await check(server.url, { adapter }), "redis-role", /replica/);
    });

    test("one that may not keep what it needs is found", async (t) => {
      const server = await redis(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru");
      only(await check(server.url, { adapter }), adapter === STREAMS ? "redis-eviction" : "redis-forgets", /allkeys-lru/);
    });
  });
}

describe("one that cannot be used is found:", () => {
  test("that does not answer", async (t) => {
    only(await check(await line(t, () => {})), "redis-reachable", /does not answer in time/);
  });

  test("that takes no more connections", async (t) => {
    const server = await redis(t, "--maxclients", "1");
    const client = await createClient({ url: server.url }).connect();
    assert.match(only(await check(server.url), "redis-reachable", /cannot be reached/).mend, /maxclients/);
    await client.close();
  });

  test("that is no Redis", async (t) => {
    const web = createWeb((_, response) => response.end("no")).listen(0, "127.0.0.1");
    await event(web, "listening");
    t.after(() => web.close());
    only(await check(`redis://127.0.0.1:${web.address().port}`), "redis-reachable", /is no Redis/);
  });

  test("with another password, or with one where none is given", async (t) => {
    const server = await redis(t, "--requirepass", "right");
    only(await check(`redis://:secret@127.0.0.1:${server.port}`), "redis-reachable", /does not take the user and the password/);
    only(await check(server.url), "redis-reachable", /does not take the user and the password/);
    assert.deepEqual((await check(`redis://:right@127.0.0.1:${server.port}`)).findings, []);
  });

  test("that speaks TLS where none is expected, does not where it is, or has a certificate that nobody vouches for", async (t) => {
    const here = folder();
    const [key, certificate] = ["key.pem", "certificate.pem"].map((name) => join(here, name));
    const request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate];
    execFileSync("openssl", [...request, "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"], { stdio: "ignore" });
    const tls = await freePorts(1);
    // Always Redis: the Valkey of the tests is built without TLS.
    const server = await new Redis(here, "redis-server").start(...WIDE, "--tls-port", `${tls}`, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no");
    t.after(() => server.stop());
    const env = { SSL_CERT_FILE: certificate };
    assert.deepEqual((await check(`rediss://localhost:${tls}`, { env })).findings, []);
    only(await check(`rediss://localhost:${tls}`), "redis-reachable", /certificate that this host does not trust/);
    only(await check(`rediss://127.0.0.1:${tls}`, { env }), "redis-reachable", /certificate that this host does not trust/);
    only(await check(`redis://localhost:${tls}`), "redis-reachable", /cannot be reached/);
    // Redis itself waits for the end of a line.
    only(await check(`rediss://localhost:${server.port}`, { env }), "redis-reachable", /does not answer in time/);
    const plain = await line(t, (near) => void near.once("data", () => near.write("HTTP/1.1 400 Bad Request\r\n\r\n")));
    only(await check(plain.replace("redis:", "rediss:")), "redis-reachable", /does not speak TLS/);
  });

  test("that is older than 6.0, which does not know HELLO", async (t) => {
    const settings = join(folder(), "old.conf");
    writeFileSync(settings, 'rename-command HELLO ""\n');
    const server = await redis(t, "--include", settings);
    only(await check(server.url), "redis-version", /older than 6.0/);
  });

  test("that still reads its data", async (t) => {
    const server = await redis(t);
    // Refuses all but what is allowed meanwhile, as one does whose data is large.
    const url = await line(t, (near) => {
      const far = connect(server.port, "127.0.0.1");
      far.pipe(near);
      near.on("data", (bytes) => (bytes.includes("PING") ? near.write("-LOADING Redis is loading the dataset in memory\r\n") : far.write(bytes)));
      return far;
    });
    only(await check(url), "redis-reachable", /still reads its data/);
  });

  test("that is a shard, or a sentinel", async (t) => {
    const shard = await redis(t, "--cluster-enabled", "yes", "--cluster-port", `${await freePorts(1)}`);
    const found = rules(await check(shard.url));
    assert.ok(found.includes("redis-role"), `${found}`);
    const [port, settings] = [await freePorts(1), join(folder(), "sentinel.conf")];
    writeFileSync(settings, `port ${port}\nbind 127.0.0.1\n`);
    const sentinel = new Program(folder(), "sentinel", [shard.server, settings, "--sentinel"]);
    t.after(() => sentinel.stop());
    await sentinel.listensOn(port);
    assert.ok(rules(await check(`redis://127.0.0.1:${port}`)).includes("redis-role"));
  });
});

describe("what would be noticed later is found:", () => {
  test("a buffer that one message breaks, and one that a burst breaks", async (t) => {
    for (const [limit, rule] of [["1mb 512kb 10", "redis-buffer"], ["32mb 8mb 60", "redis-bursts"], ["0 0 0"], ["64mb 8mb 60"]]) {
      const server = await redis(t, "--client-output-buffer-limit", `pubsub ${limit}`);
      const report = await check(server.url, { flags: ["--set", "engine.max_payload=2MB"] });
      if (rule) only(report, rule, /client-output-buffer-limit pubsub \d+ \d+ \d+/);
      else assert.deepEqual(report.findings, []);
      // Over streams broadcasts come another way.
      assert.deepEqual((await check(server.url, { adapter: STREAMS })).findings, []);
    }
  });

  test("a buffer that the answers of all clients break", async (t) => {
    const server = await redis(t);
    for (const adapter of ["redis", STREAMS]) {
      only(await check(server.url, { adapter, flags: ["--clients", "100000", "--set", "limits.sessions=0"] }), "redis-bursts", /pubsub 67108864/);
    }
  });

  test("memory that streams and sessions do not fit into", async (t) => {
    const server = await redis(t, "--maxmemory", "20mb");
    const flags = ["--clients", "50000"];
    only(await check(server.url, { adapter: STREAMS, flags }), "redis-memory", /maxmemory 20971520/);
    assert.deepEqual((await check(server.url, { adapter: STREAMS })).findings, []);
    assert.deepEqual((await check(server.url, { flags })).findings, []);
    const all = await check(server.url, { adapter: STREAMS, flags: ["--clients", "18446744073709551615", "--set", "limits.sessions=0"] });
    assert.deepEqual(rules(all).filter((rule) => rule.startsWith("redis")), ["redis-memory", "redis-bursts"]);
  });

  test("a way that is long", async (t) => {
    const server = await redis(t);
    // As over a line between two continents, and to one that is overwhelmed.
    for (const [late, said] of [[60, /it takes \d\dms to answer, more than 20ms/], [700, /it takes 7\d\dms to answer/]]) {
      const url = await line(t, (near) => {
        const far = connect(server.port, "127.0.0.1");
        near.pipe(far);
        far.on("data", (bytes) => setTimeout(() => near.write(bytes), late));
        return far;
      });
      for (const adapter of ["redis", STREAMS]) only(await check(url, { adapter }), "redis-latency", said);
    }
  });

  test("a connection that could not be ended, in a cluster over streams", async (t) => {
    const server = await redis(t);
    for (const [left, said] of [["client|info", /may not CLIENT INFO/], ["client|kill", /may not CLIENT KILL/]]) {
      const url = await allow(server, `allchannels allkeys +@all -${left}`);
      only(await check(url, { adapter: STREAMS }), "redis-writer", said);
      assert.deepEqual((await check(url)).findings, []);
    }
  });

  test("what a user may not see of it in one way, and may in another", async (t) => {
    const server = await redis(t, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru");
    const url = await allow(server, "allchannels allkeys +@all -config");
    const { code, findings, notes } = await check(url);
    assert.deepEqual([code, notes, findings.map(({ rule, value }) => [rule, value])], [
      1,
      1,
      [
        ["redis-forgets", "maxmemory-policy volatile-lru"],
        ["redis-unseen", "its user may not see client-output-buffer-limit"],
      ],
    ]);
  });
});

// The shipped nginx configuration against upstreams that only write down what reaches them.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Nginx } from "./lib/nginx.mjs";
import { REPOSITORY, freePorts, scratch } from "./lib/servers.mjs";

const folder = scratch();
const recorders = [];
let nginx;

before(async () => {
  const first = await freePorts(6);
  // Instances 0-2 are there, 3 is not, and one more stands for port 8080.
  for (const port of [first, first + 1, first + 2, first + 4]) recorders.push(await record(port));
  nginx = await new Nginx(folder, { ports: [0, 1, 2, 3].map((n) => first + n), web: first + 4 }).start();
});
after(async () => {
  await nginx?.stop();
  for (const recorder of recorders) recorder.close();
});

test("nginx accepts the files", () => {
  const { status, stderr } = nginx.check();
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /\[warn\]/);
});

test("nginx accepts the fragments inside a configuration that has other sites", async () => {
  const shared = join(folder, "shared");
  mkdirSync(shared);
  cpSync(join(nginx.folder, "stickyport"), join(shared, "stickyport"), { recursive: true });
  cpSync(join(REPOSITORY, "nginx", "stickyport.conf"), join(shared, "stickyport.conf"));
  writeFileSync(join(shared, "test.conf"), `log_format test '$remote_addr';`);
  writeFileSync(
    join(shared, "nginx.conf"),
    `pid ${shared}/pid; error_log ${shared}/error.log; events { }
    http {
      sendfile on; tcp_nopush on; keepalive_timeout 65; gzip on; client_max_body_size 8m; access_log ${shared}/access.log;
      client_body_temp_path ${shared}/body; proxy_temp_path ${shared}/proxy; fastcgi_temp_path ${shared}/fastcgi;
      uwsgi_temp_path ${shared}/uwsgi; scgi_temp_path ${shared}/scgi;
      map $http_upgrade $connection_upgrade { default upgrade; '' close; }
      include test.conf;
      include stickyport.conf;
      server { listen 127.0.0.1:${await freePorts(1)}; server_name other; }
    }`,
  );
  const { status, stderr } = spawnSync("nginx", ["-t", "-p", shared, "-c", "nginx.conf"], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
});

test("a session's requests go to the owner that its sid names, from wherever they come", async () => {
  for (const owner of [0, 1, 2]) {
    for (let octet = 0; octet < 24; octet++) {
      const { body } = await ask(`/socket.io/?EIO=4&transport=polling&sid=${owner}-abcdefghijklmnopq`, { headers: from(`10.1.${octet}.7`) });
      assert.equal(JSON.parse(body).port, recorders[owner].port);
    }
  }
});

test("the first of two sids decides", async () => {
  const { body } = await ask("/socket.io/?sid=2-x&transport=polling&sid=1-x");
  assert.equal(JSON.parse(body).port, recorders[2].port);
});

test("without a session the address decides, a /24 at a time, and a handshake that finds nobody is tried at another instance", async () => {
  const placed = new Map();
  for (let octet = 0; octet < 40; octet++) {
    const answers = await Promise.all([1, 2, 3].map((host) => ask("/socket.io/?EIO=4&transport=polling", { headers: from(`10.2.${octet}.${host}`) })));
    const ports = new Set(answers.map(({ body }) => JSON.parse(body).port));
    assert.equal(ports.size, 1);
    placed.set(octet, [...ports][0]);
  }
  assert.deepEqual(new Set(placed.values()), new Set(recorders.slice(0, 3).map((recorder) => recorder.port)));
});

test("an unknown owner and a malformed sid are for the pool", async () => {
  for (const sid of ["99-abc", "-", "x", "%30-abc", "0", "00-x"]) {
    const { status } = await ask(`/socket.io/?EIO=4&transport=polling&sid=${sid}`);
    assert.equal(status, 200);
  }
});

test("a session whose owner is down is unknown, in the protocol's words, for GET, POST and upgrade", async () => {
  const url = "/socket.io/?EIO=4&transport=polling&sid=3-abcdefghijklmnopqr";
  const websocket = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw==" };
  const seen = recorders.map((recorder) => recorder.requests.length);
  for (const request of [{}, { method: "POST", body: "2" }, { headers: websocket }]) {
    const { status, headers, body } = await ask(url, request);
    assert.equal(status, 400);
    assert.equal(headers["content-type"], "application/json");
    assert.deepEqual(JSON.parse(body), { code: 1, message: "Session ID unknown" });
  }
  assert.deepEqual(recorders.map((recorder) => recorder.requests.length), seen);
});

test("a POST is never sent twice", async () => {
  const { requests } = recorders[1];
  requests.length = 0;
  const { status } = await ask("/socket.io/?EIO=4&transport=polling&sid=1-x", { method: "POST", body: "hang up" });
  assert.equal(status, 400);
  assert.equal(requests.length, 1);

  for (const { requests } of recorders) requests.length = 0;
  await ask("/socket.io/?EIO=4&transport=polling", { method: "POST", body: "hang up" });
  assert.equal(recorders.reduce((sum, { requests }) => sum + requests.length, 0), 1);
});

test("the instance is told the real address and the whole origin, and nothing that the client made up", async () => {
  const { body } = await ask("/socket.io/?sid=0-x", { headers: { ...from("203.0.113.9"), host: "chat.example:8443" } });
  const { headers } = JSON.parse(body);
  assert.equal(headers["x-forwarded-for"], "203.0.113.9");
  assert.equal(headers["x-forwarded-proto"], "http");
  assert.equal(headers.host, "chat.example:8443");
  assert.equal(headers.connection, undefined);
  assert.equal(headers.upgrade, undefined);
});

test("an upgrade is passed on as one", async () => {
  const { body } = await ask("/socket.io/?sid=0-x", { headers: { connection: "Upgrade", upgrade: "websocket" } });
  const { headers } = JSON.parse(body);
  assert.equal(headers.connection, "upgrade");
  assert.equal(headers.upgrade, "websocket");
});

test("polls use the same few connections to the instance again", async () => {
  const recorder = recorders[0];
  const before = recorder.connections;
  for (let n = 0; n < 200; n++) await ask("/socket.io/?sid=0-x");
  assert.ok(recorder.connections - before <= 4, `${recorder.connections - before} connections for 200 polls`);
});

test("a payload of engine.max_payload bytes passes and a longer one is refused", async () => {
  const url = "/socket.io/?sid=0-x";
  assert.equal((await ask(url, { method: "POST", body: "x".repeat(1_000_000) })).status, 200);
  assert.equal((await ask(url, { method: "POST", body: "x".repeat(1_100_000) })).status, 413);
});

test("WebSockets of the application's own go to the instances' own ports, by address", async () => {
  for (const address of ["10.1.1.7", "10.1.2.7", "10.1.3.7"]) {
    const [placed, own] = [await ask("/socket.io/?EIO=4", { headers: from(address) }), await ask("/ws/chat?a=1", { headers: from(address) })];
    assert.deepEqual([JSON.parse(own.body).port, JSON.parse(own.body).url], [JSON.parse(placed.body).port, "/ws/chat?a=1"]);
  }
});

test("everything else is for port 8080, except what speaks of one instance", async () => {
  for (const path of ["/", "/page", "/healthz", "/api/x?y=1"]) {
    const { body } = await ask(path);
    assert.deepEqual([JSON.parse(body).port, JSON.parse(body).url], [recorders[3].port, path]);
  }
  for (const path of ["/metrics", "/metrics?x", "/readyz", "/socket.io/../metrics", "/%6detrics", "//readyz"]) {
    assert.equal((await ask(path)).status, 404, path);
  }
});

test("no log holds a sid", () => {
  assert.match(nginx.shippedLogs(), /owner=3 upstream=127\.0\.0\.1:\d+ upstream_status=502/);
  assert.doesNotMatch(nginx.shippedLogs(), /sid=|abcdefghijklmnopq/);
});

test("a handshake that finds no instance at all is a 502, for no session is unknown", async () => {
  for (const recorder of recorders.slice(0, 3)) recorder.close();
  assert.equal((await ask("/socket.io/?EIO=4&transport=polling")).status, 502);
});

function from(address) {
  return { "x-forwarded-for": address };
}

function ask(path, { method = "GET", headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(`${nginx.url}`, { path, method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => (text += piece));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body: text }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

/** A server that answers every request with what it has seen of it; "hang up" as a body makes it do that. */
function record(port) {
  const recorder = { port, requests: [], connections: 0 };
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      recorder.requests.push(request.url);
      if (body === "hang up") return request.socket.destroy();
      response.end(JSON.stringify({ port, url: request.url, headers: request.headers }));
    });
  });
  server.on("upgrade", (request, socket) => {
    const body = JSON.stringify({ port, headers: request.headers });
    socket.end(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`);
  });
  server.on("connection", () => (recorder.connections += 1));
  recorder.close = () => {
    server.close();
    server.closeAllConnections();
  };
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(recorder)));
}

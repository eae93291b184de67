// The variants of the shipped nginx configuration: a load balancer in front of either kind, TLS, and unix sockets behind.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { Nginx } from "./lib/nginx.mjs";
import { freePorts, scratch } from "./lib/servers.mjs";

const folder = scratch();
// The loopback stands in for the load balancer's subnets, and another part of it for everybody else.
const [BALANCER, STRANGER] = ["127.0.0.1", "127.0.1.1"];
const trusting = { "stickyport/client.conf": [["10.0.0.0/24", "127.0.0.0/24"]] };

test("behind an ALB the client is the last address that is not the balancer's", async (t) => {
  const nginx = await behind(t, "alb", trusting);
  const told = async (forwarded, localAddress) => {
    const headers = { "x-forwarded-for": forwarded, "x-forwarded-proto": "https" };
    return JSON.parse((await ask(http, nginx.port, "/socket.io/?EIO=4", { headers, localAddress })).body);
  };
  assert.equal((await told("203.0.113.9", BALANCER))["x-forwarded-for"], "203.0.113.9");
  assert.equal((await told("198.51.100.1, 203.0.113.9", BALANCER))["x-forwarded-for"], "203.0.113.9");
  assert.equal((await told("203.0.113.9, 127.0.0.7", BALANCER))["x-forwarded-for"], "203.0.113.9");
  assert.equal((await told("203.0.113.9", STRANGER))["x-forwarded-for"], STRANGER);
  assert.equal((await told("203.0.113.9", BALANCER))["x-forwarded-proto"], "https");
});

test("behind an NLB the client is whom the PROXY line names", async (t) => {
  const nginx = await behind(t, "nlb", trusting);
  const told = async (preface, localAddress) => {
    const answer = await raw(nginx.port, localAddress, preface);
    return /"x-forwarded-for":"([^"]*)"/.exec(answer)?.[1];
  };
  assert.equal(await told("PROXY TCP4 203.0.113.9 10.0.0.1 4321 80\r\n", BALANCER), "203.0.113.9");
  const binary = Buffer.from("0d0a0d0a000d0a515549540a2111000ccb0071090a00000110e10050", "hex");
  assert.equal(await told(binary, BALANCER), "203.0.113.9");
  assert.equal(await told("PROXY TCP4 203.0.113.9 10.0.0.1 4321 80\r\n", STRANGER), STRANGER);
  assert.equal(await raw(nginx.port, BALANCER, ""), "");

  assert.equal((await ask(http, nginx.healthPort, "/healthz")).status, 200);
  assert.equal((await ask(http, nginx.healthPort, "/socket.io/?EIO=4")).status, 404);
});

test("TLS is 1.2 or 1.3, without HSTS, and plain HTTP is sent there", async (t) => {
  const nginx = await behind(t, "tls", { "stickyport/listen.conf": certified() });
  const { status, headers, body } = await ask(https, nginx.port, "/socket.io/?EIO=4");
  assert.equal(status, 200);
  assert.equal(JSON.parse(body)["x-forwarded-proto"], "https");
  assert.equal(headers["strict-transport-security"], undefined);

  const plain = await ask(http, nginx.plainPort, "/page?x=1", { headers: { host: "chat.example" } });
  assert.deepEqual([plain.status, plain.headers.location], [308, "https://chat.example/page?x=1"]);
});

test("older versions of TLS are refused for their age, whatever ciphers a client would have", async (t) => {
  // The shipped ciphers, and OpenSSL's own strictness, would refuse them too.
  const nginx = await behind(t, "tls", { "stickyport/listen.conf": [...certified(), [/ssl_ciphers [^;]*;/, "ssl_ciphers ALL:@SECLEVEL=0;"]] });
  assert.equal(await version(nginx.port, "TLSv1.2"), "TLSv1.2");
  assert.equal(await version(nginx.port, "TLSv1.3"), "TLSv1.3");
  for (const old of ["TLSv1", "TLSv1.1"]) await assert.rejects(version(nginx.port, old), /protocol version|unsupported protocol/, old);
});

test("with HSTS every answer says so, nginx's own too", async (t) => {
  const nginx = await behind(t, "tls", { "stickyport/listen.conf": [...certified(), ["# add_header Strict", "add_header Strict"]] });
  for (const path of ["/socket.io/?EIO=4", "/page", "/metrics", "/socket.io/?EIO=4&transport=polling&sid=7-abcdefghijklmnopqr"]) {
    assert.equal((await ask(https, nginx.port, path)).headers["strict-transport-security"], "max-age=3600", path);
  }
});

test("instances on the proxy's own host are reached through their sockets", async (t) => {
  const nginx = new Nginx(home("unix"), { ports: [1], variant: "unix" });
  for (const number of [0, 1, 2, 3]) await recorder(t, join(nginx.folder, `${number}.sock`), number);
  await nginx.start();
  t.after(() => nginx.stop());
  for (const number of [0, 1, 2, 3]) {
    const { body } = await ask(http, nginx.port, `/socket.io/?EIO=4&transport=polling&sid=${number}-abcdefghijklmnopqr`);
    assert.equal(JSON.parse(body)["x-number"], number);
  }
  assert.equal((await ask(http, nginx.port, "/socket.io/?EIO=4&transport=polling")).status, 200);
  assert.equal((await ask(http, nginx.port, "/socket.io/?EIO=4&transport=polling&sid=4-abcdefghijklmnopqr")).status, 400);
});

/** What gives the variant for TLS a certificate that was made just now. */
function certified() {
  const [certificate, key] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
  const made = spawnSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", certificate], { encoding: "utf8" });
  assert.equal(made.status, 0, made.stderr);
  return [["/etc/ssl/certs/stickyport.pem", certificate], ["/etc/ssl/private/stickyport.key", key]];
}

/** nginx in this variant before one instance, which also stands for the shared port. */
async function behind(t, variant, edits) {
  const port = await freePorts(1);
  await recorder(t, port, 0);
  const nginx = await new Nginx(home(variant), { ports: [port], web: port, variant, edits }).start();
  t.after(() => nginx.stop());
  return nginx;
}

function home(variant) {
  const path = mkdtempSync(join(folder, `${variant}-`));
  // nginx's workers run under another account, and must get through to the sockets.
  chmodSync(folder, 0o711);
  return path;
}

/** A server that answers with the headers that it was sent, and its number. */
function recorder(t, where, number) {
  const server = http.createServer((request, response) => response.end(JSON.stringify({ ...request.headers, "x-number": number })));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return new Promise((resolve) => {
    if (typeof where === "number") server.listen(where, "127.0.0.1", resolve);
    else server.listen({ path: where, writableAll: true, readableAll: true }, resolve);
  });
}

function ask(module, port, path, { headers = {}, localAddress } = {}) {
  return new Promise((resolve, reject) => {
    const request = module.request({ host: "127.0.0.1", port, path, headers, localAddress, agent: false, rejectUnauthorized: false }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (piece) => (body += piece));
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    request.on("error", reject);
    request.end();
  });
}

/** What is answered to a request that follows these bytes on a connection; nothing if that is cut. */
function raw(port, localAddress, preface) {
  return new Promise((resolve) => {
    let text = "";
    const socket = net.connect({ host: "127.0.0.1", port, localAddress }, () => {
      socket.write(preface);
      socket.write("GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    });
    socket.on("data", (piece) => (text += piece));
    socket.on("error", () => {});
    socket.on("close", () => resolve(text));
  });
}

/** The version of TLS that is agreed on when no other one is offered. */
function version(port, only) {
  return new Promise((resolve, reject) => {
    // Old versions are offered only by those who do not insist on today's strength.
    const options = { host: "127.0.0.1", port, rejectUnauthorized: false, minVersion: only, maxVersion: only, ciphers: "DEFAULT@SECLEVEL=0" };
    const socket = connectTls(options, () => {
      resolve(socket.getProtocol());
      socket.destroy();
    });
    socket.on("error", reject);
  });
}

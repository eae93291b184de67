// A bare WebSocket that speaks Engine.IO, and Socket.IO on top of it, packet by packet: what a client in any language may do.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import WebSocket from "ws";
import { Example, freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const folder = scratch();
const first = await freePorts(4);
const echo = new Example(folder, "echo", first);
const hasty = new Example(folder, "echo", first + 1, ["--ping-interval", "100", "--ping-timeout", "100"]);
const conformance = new Example(folder, "conformance", first + 2);
const recovering = new Example(folder, "conformance", first + 3, ["--recovery", "120000"]);
const servers = [echo, hasty, conformance, recovering];
after(() => Promise.all(servers.map((server) => server.stop())));
for (const server of servers) await server.start();

test("the handshake is the first frame, and text and bytes are frames of their kind", async (t) => {
  const line = await open(t, `${echo.url}/engine.io/`);
  assert.match(line.handshake.sid, /^0-[A-Za-z0-9_-]{18}$/);
  assert.deepEqual(line.handshake, { ...line.handshake, upgrades: [], pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 1_000_000 });
  line.send("4Zeichen: ☃ 💩");
  assert.equal(await line.next(), "4Zeichen: ☃ 💩");
  const bytes = Buffer.from(Array.from({ length: 70_000 }, (_, n) => n % 256));
  line.send(bytes);
  assert.deepEqual(await line.next(), bytes);
});

test("it lives as long as it answers pings, and no longer", async (t) => {
  const line = await open(t, `${hasty.url}/engine.io/`);
  for (let ping = 0; ping < 5; ping++) {
    assert.equal(await line.next(), "2");
    line.send("3");
  }
  line.send("4still here");
  assert.equal(await line.next(), "4still here");
  const closed = event(line.socket, "close");
  assert.equal(await line.next(), "2");
  await closed;
});

test("it upgrades a session that began with polling, and loses nothing on the way", async (t) => {
  const polling = `${echo.url}/engine.io/?EIO=4&transport=polling`;
  const { sid, upgrades } = JSON.parse((await (await fetch(polling)).text()).slice(1));
  assert.deepEqual(upgrades, ["websocket"]);
  const post = (body) => fetch(`${polling}&sid=${sid}`, { method: "POST", body }).then((answer) => answer.text());
  const poll = () => fetch(`${polling}&sid=${sid}`).then((answer) => answer.text());

  assert.equal(await post("4over polling"), "ok");
  assert.equal(await poll(), "4over polling");
  const line = await connect(t, `${echo.url}/engine.io/`, `&sid=${sid}`);
  const parked = poll();
  line.send("2probe");
  assert.equal(await line.next(), "3probe");
  assert.equal(await parked, "6");
  await post("4on the way");
  line.send("5");
  assert.equal(await line.next(), "4on the way");
  line.send("4over WebSocket");
  assert.equal(await line.next(), "4over WebSocket");
  assert.deepEqual(await refusal(`${polling}&sid=${sid}`), { code: 3, message: "Bad request" });
});

test("it speaks Socket.IO: a namespace, events, bytes and acknowledgements", async (t) => {
  const line = await open(t, `${conformance.url}/socket.io/`);
  line.send('40{"token":"secret"}');
  assert.match(await line.next(), /^40\{"sid":"[A-Za-z0-9_-]{20}"\}$/);
  assert.equal(await line.next(), '42["auth",{"token":"secret"}]');
  line.send("40/custom,");
  assert.match(await line.next(), /^40\/custom,\{"sid":/);
  assert.equal(await line.next(), '42/custom,["auth",{}]');

  line.send('42/custom,["message",1,"2",{"3":[true]}]');
  assert.equal(await line.next(), '42/custom,["message-back",1,"2",{"3":[true]}]');
  line.send('420["message-with-ack","ö"]');
  assert.equal(await line.next(), '430["ö"]');
  line.send('452-7["message-with-ack",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]');
  line.send(Buffer.of(1, 2, 3));
  line.send(Buffer.alloc(0));
  assert.equal(await line.next(), '462-7[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]');
  assert.deepEqual(await line.next(), Buffer.of(1, 2, 3));
  assert.deepEqual(await line.next(), Buffer.alloc(0));
  line.send("41/custom,");
  line.send('421["message-with-ack"]');
  assert.equal(await line.next(), "431[]");
});

test("it comes back as who it was, by its pid and the last offset, and hears what it missed", async (t) => {
  const url = `${recovering.url}/socket.io/`;
  const join = async (line) => {
    line.send("40");
    const welcome = JSON.parse((await line.next()).slice(2));
    assert.deepEqual(Object.keys(welcome), ["sid", "pid"]);
    const [, , offset] = JSON.parse((await line.next()).slice(2));
    return { ...welcome, offset };
  };
  const line = await open(t, url);
  const { sid, pid, offset } = await join(line);
  const other = await open(t, url);
  await join(other);
  line.socket.terminate();
  other.send('42["broadcast","missed"]');
  other.send('451-["broadcast",{"_placeholder":true,"num":0}]');
  other.send(Buffer.of(1, 2));
  for (let frames = 0; frames < 3; frames++) await other.next();

  const again = await open(t, url);
  again.send(`40${JSON.stringify({ pid, offset })}`);
  const missed = await again.next();
  assert.match(missed, /^42\["broadcast","missed","[^"]+"\]$/);
  assert.match(await again.next(), /^451-\["broadcast",\{"_placeholder":true,"num":0\},"[^"]+"\]$/);
  assert.deepEqual(await again.next(), Buffer.of(1, 2));
  assert.equal(await again.next(), `40${JSON.stringify({ sid, pid })}`);
});

test("it comes back as somebody else after the server restarted", async (t) => {
  const line = await open(t, `${echo.url}/engine.io/`);
  const closed = event(line.socket, "close");
  await echo.restart();
  await closed;
  const { sid } = line.handshake;
  assert.deepEqual(await refusal(`${echo.url}/engine.io/?EIO=4&transport=polling&sid=${sid}`), { code: 1, message: "Session ID unknown" });
  const again = await open(t, `${echo.url}/engine.io/`);
  assert.notEqual(again.handshake.sid, sid);
  again.send("4back");
  assert.equal(await again.next(), "4back");
});

async function refusal(url) {
  const answer = await fetch(url);
  assert.equal(answer.status, 400);
  return answer.json();
}

/** A session of its own. */
async function open(t, url) {
  const line = await connect(t, url);
  const packet = await line.next();
  assert.match(packet, /^0\{/);
  return Object.assign(line, { handshake: JSON.parse(packet.slice(1)) });
}

/** A WebSocket whose frames wait to be looked at. */
async function connect(t, url, query = "") {
  const socket = new WebSocket(`${url.replace("http", "ws")}?EIO=4&transport=websocket${query}`);
  t.after(() => socket.terminate());
  const frames = [];
  socket.on("message", (data, isBinary) => frames.push(isBinary ? data : data.toString()));
  await event(socket, "open");
  const next = () => until(() => "a frame", () => frames.length > 0).then(() => frames.shift());
  return { socket, send: (frame) => socket.send(frame), next };
}

// The official JavaScript clients, old ones and special ones too, against the example applications and the demo, directly and through nginx.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Socket as EngineSocket } from "engine.io-client";
import { io } from "socket.io-client";
import io2 from "socket.io-client-2";
import { io as io3 } from "socket.io-client-3";
import msgpack from "socket.io-msgpack-parser";
import { startApplications } from "./lib/applications.mjs";
import { event, until, within } from "./lib/waiting.mjs";

const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };

/** What each client needs of the server, and what it has to be told; the cases below are the same for all of them. */
const CLIENTS = {
  "socket.io-client 4.8": { io, recovers: true },
  "socket.io-client 4.8 with msgpack": {
    io,
    recovers: true,
    options: { parser: msgpack },
    flags: ["--parser", "msgpack"],
    settings: ["socketio.parser=msgpack"],
  },
  // It listens on when it was refused, for the case that it is let in later.
  "socket.io-client 3.1": { io: io3, activeWhenRefused: true },
  // Its credentials are a query, its refusal is an error with nothing but the data, and it has no id but its session's.
  "socket.io-client 2.5": { io: io2, isOld: true, flags: ["--allow-eio3"], settings: ["engine.allow_eio3=true"] },
};

for (const [title, client] of Object.entries(CLIENTS)) {
  describe(title, () => {
    const place = {};
    before(async () => Object.assign(place, await startApplications(client)));
    after(() => place.stop());
    for (const way of ["direct", "nginx"]) {
      for (const [name, transports] of Object.entries(TRANSPORTS)) {
        describe(`${way}, ${name}`, () => socketIo(client, place, way, name, transports));
      }
    }
  });
}

// Servers of their own: with recovery each event has an argument more, its place in what was sent.
for (const [title, client] of Object.entries(CLIENTS).filter(([, { recovers }]) => recovers)) {
  describe(`${title}, with recovery`, () => {
    const place = {};
    before(async () => Object.assign(place, await startApplications({ flags: [...(client.flags ?? []), "--recovery", "120000"], settings: client.settings })));
    after(() => place.stop());
    for (const way of ["direct", "nginx"]) {
      for (const [name, transports] of Object.entries(TRANSPORTS)) {
        describe(`${way}, ${name}`, () => recovery(client, place, way, name, transports));
      }
    }
  });
}

describe("engine.io-client 6.6", () => {
  const place = {};
  before(async () => Object.assign(place, await startApplications()));
  after(() => place.stop());
  // nginx/ has no route for /engine.io/, the path of the echo application.
  for (const [name, transports] of Object.entries(TRANSPORTS)) describe(name, () => engineIo(place, transports));
});

function socketIo(client, place, way, name, transports) {
  const { connect, connected } = connecting(client, place, way, name, transports);
  const credentials = (auth) => (client.isOld ? { query: auth } : { auth });
  const refusal = async (socket) => (await event(socket, client.isOld ? "error" : "connect_error"))[0];
  const acknowledged = (socket, ...args) =>
    within(`acknowledgement of ${args[0]}`, new Promise((resolve) => socket.emit(...args, (...back) => resolve(back))));

  test(`connects over the transport asked for, and the two ids are ${client.isOld ? "one" : "two"}`, async (t) => {
    const socket = await connected(t, "conformance");
    assert.equal(socket.io.engine.transport.name, name === "polling" ? "polling" : "websocket");
    assert.match(socket.id, /^[A-Za-z0-9_-]{20}$/);
    assert.match(socket.io.engine.id, /^0-[A-Za-z0-9_-]{18}$/);
    assert.equal(socket.id === socket.io.engine.id, client.isOld ?? false);
  });

  test("arguments of any shape come back as they went", async (t) => {
    const socket = await connected(t, "conformance");
    const everything = [
      null, true, 0, -1.5, 2 ** 40, 1e-7, "", "Zeichen: äöü ☃ 💩 \u2028 \"\\\n\u0000", [], {}, [[[]]],
      { a: { b: [1, { c: "d" }] }, "": 1, "ключ": "значение" },
    ];
    socket.emit("message", ...everything);
    assert.deepEqual(await event(socket, "message-back"), everything);
    socket.emit("message");
    assert.deepEqual(await event(socket, "message-back"), []);
  });

  test("what JSON has no words for arrives as JSON shows it", async (t) => {
    const socket = await connected(t, "conformance");
    const lookalike = { _placeholder: true, num: 0 };
    socket.emit("message", undefined, NaN, new Date(1.7e12), { a: undefined, b: [undefined] }, { toJSON: () => "shown" }, lookalike);
    assert.deepEqual(await event(socket, "message-back"), [null, null, "2023-11-14T22:13:20.000Z", { b: [null] }, "shown", lookalike]);
  });

  test("binary comes back from wherever it was nested", async (t) => {
    const socket = await connected(t, "conformance");
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    const nested = [bytes, { deep: [{ deeper: bytes }, "text", Buffer.alloc(0)] }, 7, Buffer.alloc(60_000, 1)];
    socket.emit("message", ...nested);
    assert.deepEqual(await event(socket, "message-back"), nested);
    socket.emit("message", Uint8Array.of(1, 2), Uint8Array.of(3).buffer);
    assert.deepEqual(await event(socket, "message-back"), [Buffer.of(1, 2), Buffer.of(3)]);
  });

  test("the server acknowledges, text and binary", async (t) => {
    const socket = await connected(t, "conformance");
    assert.deepEqual(await acknowledged(socket, "message-with-ack", 1, "2", { 3: [4] }), [1, "2", { 3: [4] }]);
    assert.deepEqual(await acknowledged(socket, "message-with-ack"), []);
    assert.deepEqual(await acknowledged(socket, "message-with-ack", { bytes: Buffer.from("ö") }), [{ bytes: Buffer.from("ö") }]);
    const many = await Promise.all(Array.from({ length: 200 }, (_, n) => acknowledged(socket, "message-with-ack", n)));
    assert.deepEqual(many, many.map((_, n) => [n]));
  });

  test("the client acknowledges, text and binary", async (t) => {
    const socket = await connected(t, "features");
    socket.on("question", (...args) => args.pop()({ answerTo: args }));
    socket.emit("ask", 1, { two: 2 });
    assert.deepEqual(await event(socket, "answer"), [{ answerTo: [1, { two: 2 }] }]);
    socket.emit("ask", Buffer.from([1, 2, 3]));
    assert.deepEqual(await event(socket, "answer"), [{ answerTo: [Buffer.from([1, 2, 3])] }]);
  });

  test("the handshake's auth arrives, and is an empty object without one", async (t) => {
    const auth = client.isOld ? { token: "ä 123" } : { token: "ä 123", nested: [1] };
    if (!client.isOld) assert.deepEqual(await event(connect(t, "conformance", { auth }), "auth"), [auth]);
    assert.deepEqual(await event(connect(t, "conformance", { namespace: "/custom", ...credentials(auth) }), "auth"), [auth]);
    assert.deepEqual(await event(connect(t, "conformance"), "auth"), [{}]);
  });

  test("namespaces share a connection and nothing else", async (t) => {
    const main = await connected(t, "conformance");
    const custom = main.io.socket("/custom");
    await event(custom, "connect");
    assert.notEqual(main.id, custom.id);
    main.on("message-back", () => assert.fail("answered in the wrong namespace"));
    custom.emit("message", "only here");
    assert.deepEqual(await event(custom, "message-back"), ["only here"]);
    custom.disconnect();
    assert.deepEqual(await acknowledged(main, "message-with-ack", "still there"), ["still there"]);
  });

  test("an unknown namespace is refused, the others stay", async (t) => {
    const main = await connected(t, "conformance");
    const unknown = main.io.socket("/unknown");
    assert.equal((await refusal(unknown)).message, "Invalid namespace");
    assert.deepEqual(await acknowledged(main, "message-with-ack", 1), [1]);
  });

  test("a middleware refuses with a message and data, and lets in who knows the secret", async (t) => {
    const refused = connect(t, "features", { namespace: "/guarded", ...credentials({ token: "wrong" }) });
    const error = await refusal(refused);
    if (client.isOld) {
      assert.deepEqual(error, { code: 401 });
    } else {
      assert.equal(error.message, "not authorized");
      assert.deepEqual(error.data, { code: 401 });
      // It does not try again by itself, but may when it is told to.
      assert.equal(refused.active, client.activeWhenRefused ?? false);
    }
    Object.assign(refused, credentials({ token: "secret" }));
    refused.connect();
    await event(refused, "connect");
  });

  test("a broadcast reaches everyone in the namespace and nobody else", async (t) => {
    const [one, two] = await Promise.all([connected(t, "conformance"), connected(t, "conformance")]);
    const other = await connected(t, "conformance", { namespace: "/custom" });
    other.on("broadcast", () => assert.fail("heard in another namespace"));
    const heard = [event(one, "broadcast"), event(two, "broadcast")];
    const bytes = Buffer.from("both");
    one.emit("broadcast", "to all", bytes);
    assert.deepEqual(await Promise.all(heard), [["to all", bytes], ["to all", bytes]]);
    await acknowledged(other, "message-with-ack", 1);
  });

  test("events arrive in the order in which they were sent", async (t) => {
    const socket = connect(t, "conformance");
    const back = [];
    socket.on("message-back", (n) => back.push(n));
    await event(socket, "connect");
    // With both transports, the upgrade happens in the midst of these.
    for (let n = 0; n < 2_000; n++) socket.emit("message", n % 100 === 0 ? { n, bytes: Buffer.alloc(10) } : { n });
    await until(() => `${back.length} of 2000 events`, () => back.length >= 2_000);
    assert.deepEqual(back.map(({ n }) => n), Array.from({ length: 2_000 }, (_, n) => n));
  });

  test("a payload near the limit passes, and one above it ends the connection", async (t) => {
    const socket = await connected(t, "conformance", { reconnection: false });
    // Polling has base64 for a msgpack packet.
    const large = "x".repeat(client.options?.parser && name === "polling" ? 740_000 : 990_000);
    assert.deepEqual(await acknowledged(socket, "message-with-ack", large), [large]);
    const gone = event(socket, "disconnect");
    socket.emit("message", "x".repeat(1_100_000));
    assert.match((await gone)[0], /^transport (error|close)$/);
  });

  test("it comes back by itself after the server restarts", async (t) => {
    const namespace = "/custom";
    const socket = await connected(t, "restarted", { namespace, ...credentials({ who: "me" }) });
    const first = socket.id;
    const gone = event(socket, "disconnect");
    const back = event(socket, "auth", 30_000);
    await place.servers.restarted.restart();
    assert.match((await gone)[0], /^transport (error|close)$/);
    assert.deepEqual(await back, [{ who: "me" }]);
    assert.notEqual(socket.id, first);
    assert.deepEqual(await acknowledged(socket, "message-with-ack", "again"), ["again"]);
  });

  test("the demo says which instance it is and which port it has, in both namespaces", async (t) => {
    for (const namespace of ["/", "/ws"]) {
      const socket = connect(t, "demo", { namespace });
      const greeting = event(socket, "data");
      if (namespace === "/") assert.deepEqual(await greeting, ["connected to worker: 0"]);
      else await event(socket, "connect");
      socket.emit("b:message", "hello");
      assert.deepEqual(await event(socket, "s:message"), [`${namespace}: ${place.servers.demo.port}`]);
    }
  });

  if (name === "upgrade") {
    test("it polls first and upgrades without losing or doubling an event", async (t) => {
      const socket = connect(t, "conformance");
      const seen = [];
      socket.on("message-back", (n) => seen.push(n));
      await event(socket.io, "open");
      assert.equal(socket.io.engine.transport.name, "polling");
      let sent = 0;
      const upgrade = upgraded(socket).then(() => (sent = -sent));
      // One event after the other keeps both transports busy until the upgrade is done.
      socket.on("message-back", () => sent >= 0 && socket.emit("message", ++sent));
      socket.emit("message", ++sent);
      await upgrade;
      const count = -sent;
      await until(() => `${seen.length} of ${count} answers`, () => seen.length >= count);
      assert.deepEqual(await acknowledged(socket, "message-with-ack", "last"), ["last"]);
      assert.deepEqual(seen, Array.from({ length: count }, (_, n) => n + 1));
    });
  }
}

function recovery(client, place, way, name, transports) {
  const { connected } = connecting(client, place, way, name, transports);

  for (const [end, cut] of Object.entries({ "closed": (engine) => engine.close(), "cut off": cutOff })) {
    test(`a client whose line was ${end} comes back as who it was and hears what it missed, more than once`, async (t) => {
      const socket = await connected(t, "conformance", { namespace: "/custom" });
      const other = await connected(t, "conformance", { namespace: "/custom" });
      const heard = [];
      socket.on("broadcast", (...args) => heard.push(args.slice(0, 2)));
      const { id } = socket;
      const expected = [];
      for (let round = 0; round < 3; round++) {
        const gone = event(socket, "disconnect");
        cut(socket.io.engine);
        await gone;
        const back = event(socket, "connect");
        for (const n of [1, 2, 3]) {
          const args = [`${round}.${n}`, Buffer.of(round, n)];
          other.emit("broadcast", ...args);
          expected.push(args);
        }
        socket.emit("message", "said without a line", round);
        const answer = event(socket, "message-back");
        await back;
        assert.equal(socket.recovered, true);
        assert.equal(socket.id, id);
        assert.deepEqual((await answer).slice(0, 2), ["said without a line", round]);
        await until(() => `${heard.length} of ${expected.length} broadcasts`, () => heard.length >= expected.length);
        assert.deepEqual(heard, expected);
        if (name === "upgrade") await upgraded(socket);
      }
    });
  }

  test("after a restart nobody is who they were", async (t) => {
    const socket = await connected(t, "restarted", { namespace: "/custom" });
    const { id } = socket;
    const gone = event(socket, "disconnect");
    const back = event(socket, "connect", 30_000);
    await place.servers.restarted.restart();
    await gone;
    await back;
    assert.equal(socket.recovered, false);
    assert.notEqual(socket.id, id);
  });
}

/** Ends a line without a word: a poll stays where it is, and the server does not know better. */
function cutOff({ transport }) {
  if (transport.ws) return transport.ws.terminate();
  transport.doClose = () => {};
  transport.onError("cut off");
}

/** How a case comes to sockets, which end with it. */
function connecting(client, place, way, name, transports) {
  const connect = (t, application, { namespace = "/", ...options } = {}) => {
    const given = { transports, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200, ...client.options, ...options };
    const socket = client.io(place.urls[way][application] + namespace, given);
    t.after(() => {
      // All namespaces of it, and for good.
      socket.io.reconnection(false);
      socket.io.engine?.close();
      socket.disconnect();
    });
    return socket;
  };
  // With both transports, what a test is about happens on the WebSocket; the upgrade itself has a test of its own.
  const connected = async (t, application, options) => {
    const socket = connect(t, application, options);
    await event(socket, "connect");
    if (name === "upgrade") await upgraded(socket);
    return socket;
  };
  return { connect, connected };
}

function engineIo(place, transports) {
  const open = async (t) => {
    const socket = new EngineSocket(place.urls.direct.echo.replace("http", "ws"), { transports, path: "/engine.io/" });
    socket.binaryType = "nodebuffer";
    t.after(() => socket.close());
    await event(socket, "open");
    return socket;
  };

  test("text and bytes are echoed in order, across an upgrade too", async (t) => {
    const socket = await open(t);
    const sent = Array.from({ length: 300 }, (_, n) => (n % 3 ? `☃ ${n}` : Buffer.from(`bytes ${n}`)));
    const back = [];
    socket.on("message", (message) => back.push(message));
    for (const message of sent) socket.send(message);
    await until(() => `${back.length} of ${sent.length} messages`, () => back.length >= sent.length);
    assert.deepEqual(back, sent);
    if (transports.length > 1) await until("upgrade", () => socket.transport.name === "websocket");
    socket.send("after");
    assert.deepEqual(await event(socket, "message"), ["after"]);
  });

  test("closing ends it on both sides", async (t) => {
    const socket = await open(t);
    const { id } = socket;
    const closed = event(socket, "close");
    socket.close();
    await closed;
    await until("session forgotten", async () => {
      const answer = await fetch(`${place.urls.direct.echo}/engine.io/?EIO=4&transport=${transports.at(-1) === "websocket" ? "polling" : transports[0]}&sid=${id}`);
      return answer.status === 400 && (await answer.json()).code === 1;
    });
  });
}

function upgraded(socket) {
  const { engine } = socket.io;
  return engine.transport.name === "websocket" ? Promise.resolve() : event(engine, "upgrade");
}

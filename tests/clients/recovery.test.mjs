// The official JavaScript client over lines that break, and over lines that die without a word: it comes back as who it was, and hears everything once.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { io } from "socket.io-client";
import { Line } from "./lib/broken-line.mjs";
import { Example, freePorts, scratch } from "./lib/servers.mjs";
import { event, until } from "./lib/waiting.mjs";

const server = new Example(scratch(), "features", await freePorts(1), ["--recovery", "120000"]);
before(() => server.start());
after(() => server.stop());

for (const transport of ["polling", "websocket"]) {
  describe(transport, () => {
    for (const [death, die] of Object.entries({
      "broke on both sides": (line) => line.destroy(),
      "died before the server knew": (line) => line.abandon(),
    })) {
      test(`a line that ${death}, three times in a row`, (t) => roundTrips(t, transport, die, { before: true }));
      test(`a line that ${death} before any event came`, (t) => roundTrips(t, transport, die, { before: false }));
    }
  });
}

async function roundTrips(t, transport, die, { before: hearsBefore }) {
  const line = await Line.to(server.port, t);
  const client = connect(t, line.port, transport);
  await event(client, "connect");
  const speaker = connect(t, server.port, "websocket");
  await event(speaker, "connect");
  const room = `${transport} ${t.name}`;
  for (const socket of [client, speaker]) await socket.emitWithAck("join", room);

  const { id } = client;
  const [heard, said] = [[], []];
  client.on("told", (bytes) => heard.push(bytes.toString()));
  const say = async (...texts) => {
    for (const text of texts) {
      said.push(text);
      await speaker.emitWithAck("tell", room, Buffer.from(text));
      await speaker.emitWithAck("tell", "another room", Buffer.from("not for it"));
    }
  };
  const hears = () => until(() => `${heard} of ${said}`, () => heard.length >= said.length);

  if (hearsBefore) {
    await say("before");
    await hears();
  }
  for (const round of [1, 2, 3]) {
    line.freeze();
    await say(`${round} swallowed`, `${round} swallowed too`);
    const gone = event(client, "disconnect");
    die(line);
    await gone;
    await say(`${round} missed`);
    const back = event(client, "connect");
    line.mend();
    await back;
    assert.equal(client.recovered, true);
    assert.equal(client.id, id);
    await say(`${round} afterwards`);
    await hears();
    assert.deepEqual(heard, said);
  }
}

function connect(t, port, transport) {
  const socket = io(`http://127.0.0.1:${port}`, { transports: [transport], forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 100 });
  t.after(() => {
    socket.io.reconnection(false);
    socket.io.engine?.close();
    socket.disconnect();
  });
  return socket;
}

// The official client in Chromium, in the files that the server serves, and the old ones: bytes, acknowledgements and coming back in a browser.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch } from "./lib/chromium.mjs";
import { Example, freePorts, scratch } from "./lib/servers.mjs";
import { within } from "./lib/waiting.mjs";

const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };

/** Where a page has each client from, the server or a package of npm's, and what the server has to be told. */
const CLIENTS = {
  "socket.io.min.js": { served: "socket.io.min.js", recovers: true },
  "socket.io.esm.min.js": { served: "socket.io.esm.min.js", isModule: true, recovers: true },
  "socket.io.msgpack.min.js": { served: "socket.io.msgpack.min.js", flags: ["--parser", "msgpack"], recovers: true },
  "socket.io-client 3.1": { file: "node_modules/socket.io-client-3/dist/socket.io.min.js" },
  "socket.io-client 2.5": { file: "node_modules/socket.io-client-2/dist/socket.io.js", flags: ["--allow-eio3"] },
};

const folder = scratch();
const browser = await launch();
after(() => browser.close());

for (const [title, client] of Object.entries(CLIENTS)) {
  describe(title, () => {
    const servers = {};
    before(async () => {
      const first = await freePorts(2);
      const flags = [...(client.flags ?? []), ...(client.recovers ? ["--recovery", "120000"] : [])];
      servers.conformance = await new Example(folder, "conformance", first, flags).start();
      servers.features = await new Example(folder, "features", first + 1, client.flags).start();
    });
    after(() => Promise.all(Object.values(servers).map((server) => server.stop())));
    for (const [name, transports] of Object.entries(TRANSPORTS)) {
      describe(name, () => cases(client, servers, name, transports));
    }
  });
}

function cases(client, servers, name, transports) {
  let page;
  before(async () => {
    page = await open(client, servers.conformance.url);
    await evaluate(page, (transports) => {
      window.connect = async (url) => {
        // Version 2 would send cookies along, which no browser does to a server that is open to every origin.
        const socket = io(url, { transports, forceNew: true, withCredentials: false, reconnectionDelay: 50, reconnectionDelayMax: 200 });
        await heard(socket, "connect");
        const { engine } = socket.io;
        if (transports.length > 1 && engine.transport.name !== "websocket") await new Promise((resolve) => engine.once("upgrade", resolve));
        return socket;
      };
      window.heard = (socket, event) => new Promise((resolve) => socket.once(event, (...args) => resolve(args)));
      window.numbers = (bytes) => bytes instanceof ArrayBuffer && [...new Uint8Array(bytes)];
    }, transports);
  });
  after(() => page?.context().close());

  test("it connects over the transport asked for", async () => {
    const transport = await evaluate(page, async () => {
      window.socket = await connect();
      return socket.io.engine.transport.name;
    });
    assert.equal(transport, name === "polling" ? "polling" : "websocket");
  });

  test("text and bytes come back as they went", async () => {
    const [text, { nested }, length, isSame] = await evaluate(page, async () => {
      const large = Uint8Array.from({ length: 70_000 }, (_, n) => n);
      socket.emit("message", "Zeichen: ☃ 💩", { nested: [Uint8Array.of(1, 2).buffer] }, large.buffer);
      const [text, { nested }, back] = await heard(socket, "message-back");
      return [text, { nested: nested.map(numbers) }, back.byteLength, numbers(back).every((byte, n) => byte === large[n])];
    });
    assert.deepEqual([text, nested, length, isSame], ["Zeichen: ☃ 💩", [[1, 2]], 70_000, true]);
  });

  test("the server acknowledges, text and bytes", async () => {
    const answer = await evaluate(page, async () => {
      const answered = new Promise((resolve) => socket.emit("message-with-ack", 1, { two: Uint8Array.of(3).buffer }, (...args) => resolve(args)));
      const [one, { two }] = await answered;
      return [one, numbers(two)];
    });
    assert.deepEqual(answer, [1, [3]]);
  });

  test("the client acknowledges, text and bytes, to a server of another origin", async () => {
    const answer = await evaluate(page, async (url) => {
      const asked = await connect(url);
      asked.on("question", (word, answer) => answer({ word, bytes: Uint8Array.of(4, 5).buffer }));
      asked.emit("ask", "why?");
      const [{ word, bytes }] = await heard(asked, "answer");
      return [word, numbers(bytes)];
    }, servers.features.url);
    assert.deepEqual(answer, ["why?", [4, 5]]);
  });

  if (client.recovers) {
    test("it comes back as who it was when its line broke, and hears what it missed", async () => {
      const { recovered, isSame, missed } = await evaluate(page, async () => {
        const other = await connect();
        const { id } = socket;
        const back = heard(socket, "connect");
        const missed = heard(socket, "broadcast");
        socket.io.engine.close();
        other.emit("broadcast", "missed", Uint8Array.of(6).buffer);
        await back;
        const [text, bytes] = await missed;
        return { recovered: socket.recovered, isSame: socket.id === id, missed: [text, numbers(bytes)] };
      });
      assert.deepEqual({ recovered, isSame, missed }, { recovered: true, isSame: true, missed: ["missed", [6]] });
    });
  }

  test("it comes back by itself after the server restarts", async () => {
    const before = await evaluate(page, () => {
      window.back = heard(socket, "connect");
      return socket.id;
    });
    await servers.conformance.restart();
    const [id, answer] = await evaluate(page, async () => {
      await back;
      return [socket.id, await new Promise((resolve) => socket.emit("message-with-ack", "again", resolve))];
    });
    assert.notEqual(id, before);
    assert.equal(answer, "again");
  });
}

/** A page with the client and nothing else. */
async function open(client, url) {
  const page = await (await browser.newContext()).newPage();
  // The server has no page but a script's text; what counts is whose it is.
  await page.goto(`${url}/socket.io/socket.io.min.js`);
  if (client.isModule) await page.addScriptTag({ type: "module", content: `import { io } from "/socket.io/${client.served}"; window.io = io;` });
  else await page.addScriptTag(client.file ? { path: new URL(client.file, import.meta.url).pathname } : { url: `/socket.io/${client.served}` });
  await page.waitForFunction(() => typeof io === "function");
  return page;
}

/** What a function tells in the page, where nothing has a deadline of its own. */
function evaluate(page, told, argument) {
  return within(`${told}`, page.evaluate(told, argument));
}

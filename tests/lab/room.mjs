// Two official clients, each at an instance of its own, in one chat room: `node room.mjs URL URL` ends well when each has heard the other.

import { createRequire } from "node:module";

const require = createRequire(new URL("../clients/", import.meta.url));
const { io } = require("socket.io-client");

const PATIENCE = 20_000;

setTimeout(() => {
  console.error(`not within ${PATIENCE} ms`);
  process.exit(1);
}, PATIENCE).unref();

const clients = process.argv.slice(2).map((url) => io(url, { transports: ["websocket"], forceNew: true }));
const heard = clients.map((client, number) => new Promise((resolve) => client.on("chat:message", ({ text }) => text === `from ${1 - number}` && resolve())));
await Promise.all(clients.map((client, number) => client.emitWithAck("chat:join", { name: `client ${number}` })));
for (const [number, client] of clients.entries()) client.emit("chat:message", { text: `from ${number}` }, () => {});
await Promise.all(heard);
process.exit();

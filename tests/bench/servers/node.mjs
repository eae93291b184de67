// The conformance example on Node's Socket.IO with its default engine, ws; with --redis URL in a cluster.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";

const require = createRequire(new URL("../../clients/package.json", import.meta.url));
const { Server } = require("socket.io");

const http = createServer();
const { redis: url } = parseArgs({ options: { redis: { type: "string" }, node: { type: "string" } } }).values;
const io = new Server(http, { cors: { origin: "*" }, ...(url && { adapter: await adapter() }) });
for (const namespace of [io.of("/"), io.of("/custom")]) {
    namespace.on("connection", (socket) => {
        socket.emit("auth", socket.handshake.auth);
        socket.on("message", (...args) => socket.emit("message-back", ...args));
        socket.on("message-with-ack", (...args) => args.pop()(...args));
        socket.on("broadcast", (...args) => namespace.emit("broadcast", ...args));
        socket.on("count", async () => socket.emit("counted", (await namespace.fetchSockets()).length));
    });
}
http.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${http.address().port}`));

async function adapter() {
    const { createAdapter } = require("@socket.io/redis-adapter");
    const publisher = require("redis").createClient({ url });
    const subscriber = publisher.duplicate();
    await Promise.all([publisher.connect(), subscriber.connect()]);
    return createAdapter(publisher, subscriber);
}

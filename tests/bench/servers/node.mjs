// The conformance example on Node's Socket.IO with its default engine, ws.

import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../clients/package.json", import.meta.url));
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { cors: { origin: "*" } });
for (const namespace of [io.of("/"), io.of("/custom")]) {
    namespace.on("connection", (socket) => {
        socket.emit("auth", socket.handshake.auth);
        socket.on("message", (...args) => socket.emit("message-back", ...args));
        socket.on("message-with-ack", (...args) => args.pop()(...args));
        socket.on("broadcast", (...args) => namespace.emit("broadcast", ...args));
    });
}
http.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${http.address().port}`));

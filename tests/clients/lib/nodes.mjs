// Nodes of a cluster, ours and the reference's, and what Redis knows of them.

import { createClient } from "redis";
import { io } from "socket.io-client";
import { Child, programs } from "./differential.mjs";
import { freePorts } from "./servers.mjs";
import { event, until } from "./waiting.mjs";

/** One node of a cluster, with a client or more: ours, or the reference's. */
export class Node {
  constructor(name, kind) {
    Object.assign(this, { name, kind, clients: [] });
  }

  async start(options, url) {
    const port = await freePorts(1);
    const adapter = { type: "redis", url, opts: options };
    this.child = new Child(programs("harness", "sio-harness-node.cjs")[this.kind], { port, adapter });
    await this.child.event("listening");
    this.url = `http://127.0.0.1:${port}`;
    return this;
  }

  /** A client in these rooms, which notes what it hears. */
  async client(nsp = "/", rooms = []) {
    const client = io(`${this.url}${nsp}`, { transports: ["websocket"], forceNew: true, reconnection: false });
    client.heard = [];
    client.onAny((...args) => client.heard.push(typeof args.at(-1) === "function" ? args.slice(0, -1) : args));
    await event(client, "connect");
    const { id: sid } = client;
    const { handshake } = await this.child.event("connection", { sid });
    this.child.say({ c: "join", nsp, sid, rooms });
    for (const _ of rooms) await this.child.event("rooms", { sid });
    Object.assign(client, { node: this, nsp, handshake });
    this.clients.push(client);
    return client;
  }

  op(m, options = {}) {
    this.child.say({ c: "op", nsp: "/", m, ...options });
  }

  async stop() {
    this.clients.forEach((client) => client.disconnect());
    await this.child.stop();
  }
}

/** Waits until so many nodes hear what is sent to a namespace. */
export async function listening(url, nsp, count, prefix = "socket.io") {
  const client = await createClient({ url }).connect();
  await until(`${count} listen to ${nsp}`, async () => (await client.publish(`${prefix}#${nsp}#nobody#`, "")) >= count);
  await client.close();
}

/** Waits until so many nodes listen to a channel. */
export async function subscribed(url, channel, count) {
  const client = await createClient({ url }).connect();
  await until(`${count} listen to ${channel}`, async () => (await client.pubSubNumSub([channel]))[channel] === count);
  await client.close();
}

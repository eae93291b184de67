// One member of a cluster, of ours or of Node's, with clients that note what they hear.

import { createClient } from "redis";
import { io } from "socket.io-client";
import { Child, programs } from "./differential.mjs";
import { freePorts } from "./servers.mjs";
import { event, until } from "./waiting.mjs";

export class Member {
  constructor(name, kind) {
    Object.assign(this, { name, kind, clients: [], asked: 0 });
  }

  /** With the reference's adapter of that type and these options for it and for the server. */
  async start(adapter, opts = {}) {
    this.port ??= await freePorts(1);
    this.child = new Child(programs("harness", "sio-harness-node.cjs")[this.kind], { port: this.port, opts, adapter });
    await this.child.event("listening");
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  /** A client in these rooms. */
  async client(nsp = "/", rooms = [], options = {}) {
    const client = io(`${this.url}${nsp}`, { transports: ["websocket"], forceNew: true, reconnection: false, ...options });
    client.heard = [];
    client.onAny((...args) => client.heard.push(typeof args.at(-1) === "function" ? args.slice(0, -1) : args));
    await event(client, "connect");
    await this.child.event("connection", { sid: client.id });
    Object.assign(client, { member: this, nsp });
    await this.join(client, rooms);
    this.clients.push(client);
    return client;
  }

  async join(client, rooms) {
    this.child.say({ c: "join", nsp: client.nsp, sid: client.id, rooms });
    for (const _ of rooms) await this.child.event("rooms", { sid: client.id });
  }

  op(m, options = {}) {
    this.child.say({ c: "op", nsp: "/", m, ...options });
  }

  /** What an operation comes to. */
  async result(m, options = {}) {
    const n = `${m} ${++this.asked}`;
    this.op(m, { n, ...options });
    return this.child.event("result", { n });
  }

  async stop() {
    this.clients.forEach((client) => client.disconnect());
    await this.child.stop();
  }

  /** As if the machine had gone. */
  async kill() {
    this.child.program.child.kill("SIGKILL");
    await this.child.ended();
  }
}

/** Waits until so many listen to a channel. */
export async function subscribed(redis, channel, count) {
  const client = await createClient({ url: redis.url }).connect();
  await until(`${count} listen to ${channel}`, async () => (await client.pubSubNumSub([channel]))[channel] === count);
  await client.close();
}

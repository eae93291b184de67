// Members of a cluster with any adapter, whose clients may join more rooms, and which die.

import { Child, programs } from "./differential.mjs";
import { Node } from "./nodes.mjs";
import { freePorts } from "./servers.mjs";

export class Member extends Node {
  asked = 0;

  /** With the reference's adapter of that type and these options for it and for the server. */
  async start(adapter, opts = {}) {
    this.port ??= await freePorts(1);
    this.child = new Child(programs("harness", "sio-harness-node.cjs")[this.kind], { port: this.port, opts, adapter });
    await this.child.event("listening");
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  async join(client, rooms) {
    this.child.say({ c: "join", nsp: client.nsp, sid: client.id, rooms });
    for (const _ of rooms) await this.child.event("rooms", { sid: client.id });
  }

  /** What an operation comes to. */
  async result(m, options = {}) {
    const n = `${m} ${++this.asked}`;
    this.op(m, { n, ...options });
    return this.child.event("result", { n });
  }

  /** As if the machine had gone. */
  async kill() {
    this.child.program.child.kill("SIGKILL");
    await this.child.ended();
  }
}

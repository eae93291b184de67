// A line to Redis that can be cut off without a word, and that answers in Redis's place.

import { createServer, connect } from "node:net";
import { event } from "./waiting.mjs";

export class Line {
  /** Leads to a port of this host. */
  constructor(port) {
    Object.assign(this, { to: port, made: 0, isDead: false, refuses: undefined, ends: new Set() });
  }

  async open() {
    this.server = createServer((near) => this.lead(near));
    this.server.listen(0, "127.0.0.1");
    await event(this.server, "listening");
    return this;
  }

  get url() {
    return `redis://127.0.0.1:${this.server.address().port}`;
  }

  /** From now on nothing arrives at either end, and neither end learns it; new connections are taken and lead nowhere. */
  die() {
    this.isDead = true;
  }

  /** Answers every command with an error instead of handing it on. */
  refuse(error) {
    this.refuses = `-${error}\r\n`;
  }

  /** What comes from now on arrives; what came meanwhile is lost. */
  mend() {
    this.isDead = false;
    this.refuses = undefined;
  }

  lead(near) {
    this.made += 1;
    const far = connect(this.to, "127.0.0.1");
    const commands = new Commands();
    for (const [end, other] of [[near, far], [far, near]]) {
      this.ends.add(end);
      end.on("error", () => {});
      end.on("close", () => {
        this.ends.delete(end);
        other.destroy();
      });
    }
    near.on("data", (bytes) => {
      if (this.isDead) return;
      for (const command of commands.read(bytes)) {
        if (this.refuses) near.write(this.refuses);
        else far.write(command);
      }
    });
    far.on("data", (bytes) => this.isDead || near.write(bytes));
  }

  close() {
    for (const end of this.ends) end.destroy();
    this.server.close();
  }
}

/** Cuts what a client sends into commands. */
class Commands {
  rest = Buffer.alloc(0);

  read(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    const found = [];
    for (let next; (next = this.next()); ) found.push(next);
    return found;
  }

  next() {
    let at = 0;
    const line = () => {
      const end = this.rest.indexOf("\r\n", at);
      if (end < 0) return undefined;
      const text = this.rest.toString("latin1", at, end);
      at = end + 2;
      return text;
    };
    const head = line();
    if (!head?.startsWith("*")) return undefined;
    for (let part = 0; part < Number(head.slice(1)); part++) {
      const length = line();
      if (length === undefined) return undefined;
      const end = at + Number(length.slice(1));
      if (this.rest.length < end + 2) return undefined;
      at = end + 2;
    }
    const whole = this.rest.subarray(0, at);
    this.rest = this.rest.subarray(at);
    return whole;
  }
}

// A Redis or Valkey of one suite's own, which keeps nothing.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Program, REPOSITORY, freePorts } from "./servers.mjs";

/** What is started: `STICKYPORT_REDIS=…/valkey-server` makes it Valkey. */
const SERVER = process.env.STICKYPORT_REDIS || "redis-server";

export class Redis {
  constructor(folder, server = SERVER) {
    Object.assign(this, { folder, server });
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  async start(...flags) {
    this.port ??= await freePorts(1);
    const command = [this.server, "--port", `${this.port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", this.folder];
    this.program = new Program(this.folder, `redis-${this.port}`, [...command, ...flags]);
    await this.program.listensOn(this.port);
    return this;
  }

  /** As if its host had lost power, but for its port, which the kernel closes. */
  async kill() {
    await this.program.stop("SIGKILL");
  }

  freeze() {
    this.program.child.kill("SIGSTOP");
  }

  thaw() {
    this.program.child.kill("SIGCONT");
  }

  async stop() {
    if (this.program?.isRunning) {
      this.thaw();
      await this.program.stop();
    }
  }
}

/** What README.md says that the ACL user of a cluster with that adapter needs. */
export function documented(adapter) {
  const text = readFileSync(join(REPOSITORY, "README.md"), "utf8").replace(/\s+/g, " ");
  const [, rules] = text.match(/the ACL user needs `([^`]+)`/);
  if (adapter === "redis") return rules;
  return `${rules} ${text.match(/The ACL user needs `([^`]+)` besides/)[1]}`;
}

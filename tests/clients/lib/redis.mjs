// A Redis of one suite's own, which keeps nothing.

import { Program, freePorts } from "./servers.mjs";

export class Redis {
  constructor(folder) {
    this.folder = folder;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  async start(...flags) {
    this.port ??= await freePorts(1);
    const command = ["redis-server", "--port", `${this.port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", this.folder];
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

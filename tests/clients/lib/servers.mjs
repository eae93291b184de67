// Starts the programs under test on free ports of the loopback, and lets none of them outlive its suite.

import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { until, within } from "./waiting.mjs";

export const REPOSITORY = fileURLToPath(new URL("../../..", import.meta.url));
const BUILT = join(process.env.CARGO_TARGET_DIR ?? join(REPOSITORY, "target"), "quick");
export const BINARY = process.env.STICKYPORT_BINARY ?? join(BUILT, "stickyport");
export const EXAMPLES = process.env.STICKYPORT_EXAMPLES ?? join(BUILT, "examples");
const HOLDER = fileURLToPath(new URL("hold_listener.py", import.meta.url));

/** A folder for one suite; removed when its process ends. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), "stickyport-tests-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The first of `count` consecutive ports that nobody listens on; below the range that the kernel gives to outgoing connections. */
export async function freePorts(count) {
  for (let attempt = 0; attempt < 100; attempt++) {
    const first = 20_000 + Math.floor(Math.random() * 12_000);
    const free = await Promise.all(Array.from({ length: count }, (_, n) => isFree(first + n)));
    if (free.every(Boolean)) return first;
  }
  throw new Error(`no ${count} consecutive free ports`);
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** This environment without what is meant for the tests: the server warns of a variable of its own prefix that it does not know. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("STICKYPORT_")));

/** A child process that dies with its parent, however that ends; what it prints is kept for when something fails. */
export class Program {
  constructor(folder, name, command, { stdio = ["ignore", "log", "log"], deathSignal = "KILL", env = {} } = {}) {
    this.name = name;
    this.log = join(folder, `${name}.log`);
    const log = openSync(this.log, "a");
    this.child = spawn("setpriv", ["--pdeathsig", deathSignal, "--", ...command], {
      stdio: stdio.map((stream) => (stream === "log" ? log : stream)),
      env: { ...environment, ...env },
    });
    closeSync(log);
    this.exited = new Promise((resolve) => {
      this.child.once("error", (error) => resolve(`${error}`));
      this.child.once("exit", (code, signal) => resolve(signal ?? code));
    });
    this.exited.then((status) => (this.status = status));
  }

  get isRunning() {
    return this.status === undefined;
  }

  /** Waits for a condition that can only come true while the program runs. */
  async until(what, condition) {
    try {
      await until(`${this.name}: ${what}`, async () => {
        if (!this.isRunning) throw new Error(`${this.name} ended with ${this.status}, ${what} was not reached`);
        return condition();
      });
    } catch (error) {
      error.message += `\n${this.lastWords()}`;
      throw error;
    }
    return this;
  }

  listensOn(port) {
    return this.until(`listening on ${port}`, () => accepts(port));
  }

  /** Asks it to end and returns its exit status. */
  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    return within(`end of ${this.name} after ${signal}`, this.exited, 30_000);
  }

  lastWords() {
    return readFileSync(this.log, "utf8").split("\n").slice(-30).join("\n");
  }
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

/** An example application of the repository, on a port that it keeps when it is started again. */
export class Example {
  constructor(folder, name, port, flags = []) {
    Object.assign(this, { folder, name, port, flags, url: `http://127.0.0.1:${port}` });
  }

  async start() {
    const command = [join(EXAMPLES, this.name), "--port", `${this.port}`, ...this.flags];
    this.program = new Program(this.folder, `${this.name}-${this.port}`, command);
    await this.program.listensOn(this.port);
    return this;
  }

  async stop() {
    if (this.program?.isRunning) await this.program.stop();
  }

  async restart() {
    await this.stop();
    await this.start();
  }
}

/** One instance of the shipped binary. With `held`, its listener is inherited, as systemd would do it, and outlives it. */
export class Instance {
  constructor(folder, number, { basePort, web, held = false, settings = [], env = {} }) {
    this.folder = folder;
    this.number = number;
    this.port = basePort + number;
    this.held = held;
    this.env = env;
    this.command = [BINARY, "serve", "--instance", `${number}`];
    const given = [`ws.host=127.0.0.1`, `ws.base_port=${basePort}`, `http.listen=127.0.0.1:${web}`, `run_dir=${folder}`, "log.format=json"];
    for (const setting of [...given, ...settings]) this.command.push("--set", setting);
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async start() {
    if (this.held) {
      this.holder ??= new Holder(this.folder, this.number, this.port, this.command);
      await this.holder.say("start");
    } else {
      this.program = new Program(this.folder, `instance-${this.number}`, this.command, { env: this.env });
    }
    await (this.holder?.program ?? this.program).until("ready", () => answers(`${this.url}/readyz`));
    return this;
  }

  /** Ends the process, and with it the listener, unless that is held. Returns the exit status. */
  async stop() {
    if (this.held) return this.holder.say("stop");
    return this.program?.isRunning ? this.program.stop() : undefined;
  }

  async end() {
    if (!this.held) return this.stop();
    this.holder?.program.child.stdin.end();
    await this.holder?.program.exited;
  }
}

/** Stands in for systemd: keeps a listening socket, and starts and stops the one process that inherits it. */
class Holder {
  constructor(folder, number, port, command) {
    const stdio = ["pipe", "pipe", "log"];
    this.program = new Program(folder, `instance-${number}`, ["python3", HOLDER, "--listen", `ws=127.0.0.1:${port}`, "--", ...command], { stdio });
    this.answers = createInterface({ input: this.program.child.stdout })[Symbol.asyncIterator]();
  }

  async say(word) {
    this.program.child.stdin.write(`${word}\n`);
    const { value, done } = await within(`${word} of ${this.program.name}`, this.answers.next(), 30_000);
    if (done) throw new Error(`${this.program.name} is gone\n${this.program.lastWords()}`);
    return value;
  }
}

async function answers(url) {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(5_000) });
    await answer.arrayBuffer();
    return answer.ok;
  } catch {
    return false;
  }
}

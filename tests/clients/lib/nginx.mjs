// Runs the shipped nginx/ files; only ports, addresses to listen on, paths and what a slot's `down` says are changed.

import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import { Program, REPOSITORY, freePorts } from "./servers.mjs";

const SLOTS = 8;

// What only a test may log: the beginning of the sid, enough to tell sessions apart.
const TEST_ONLY = ({ folder, status }) => `
    client_body_temp_path ${folder}/body;
    proxy_temp_path ${folder}/proxy;
    fastcgi_temp_path ${folder}/fastcgi;
    uwsgi_temp_path ${folder}/uwsgi;
    scgi_temp_path ${folder}/scgi;
    set_real_ip_from 127.0.0.0/8;
    set_real_ip_from ::1;
    real_ip_header X-Forwarded-For;
    map $arg_sid $test_session { default ''; "~^(?<test_head>[0-9]+-.{9})" $test_head; }
    log_format test '$remote_addr|$request_method|$uri|$arg_transport|$test_session|$status|$upstream_addr|$upstream_status';
    server { listen 127.0.0.1:${status}; access_log off; location / { include generation.conf; } }
`;

export class Nginx {
  /**
   * `ports`: one per instance, in the order of the slots; `live`: how many of these are in service; `web`: the shared HTTP port;
   * `variant`: a folder of nginx/variants whose files replace the plain ones, and `edits` what is changed in these, by file.
   */
  constructor(folder, { ports, live = ports.length, web = 1, variant, edits = {} }) {
    Object.assign(this, { ports, live, web, variant, edits, folder: join(folder, "nginx"), generation: 0 });
    mkdirSync(this.folder);
    // Its workers run under another account, and must get through to the folders they buffer in.
    chmodSync(folder, 0o711);
  }

  async start() {
    this.port = await freePorts(4);
    this.plainPort = this.port + 2;
    this.healthPort = this.port + 3;
    this.url = `http://127.0.0.1:${this.port}`;
    this.accessLog = join(this.folder, "access.log");
    this.hasIpv6 = await hasIpv6();
    this.write();
    const command = ["nginx", "-p", this.folder, "-c", "nginx.conf", "-g", "daemon off;"];
    this.program = new Program(this.folder, "nginx", command, { deathSignal: "TERM" });
    await this.serves();
    return this;
  }

  /** Puts the first `live` slots into service and returns when workers with that configuration answer. */
  async reload({ live }) {
    this.live = live;
    this.write();
    const check = this.check();
    if (check.status !== 0) throw new Error(check.stderr);
    this.program.child.kill("SIGHUP");
    await this.serves();
  }

  check() {
    return spawnSync("nginx", ["-t", "-p", this.folder, "-c", "nginx.conf"], { encoding: "utf8" });
  }

  async stop() {
    if (this.program?.isRunning) await this.program.stop("SIGTERM");
  }

  serves() {
    return this.program.until(`generation ${this.generation}`, async () => {
      const answer = await fetch(`http://127.0.0.1:${this.port + 1}/`, { headers: { connection: "close" } }).catch(() => undefined);
      return answer?.ok && (await answer.text()) === `${this.generation}`;
    });
  }

  write() {
    this.generation += 1;
    const { folder, port } = this;
    const isRoot = process.getuid() === 0;
    cpSync(join(REPOSITORY, "nginx"), folder, { recursive: true });
    if (this.variant) cpSync(join(REPOSITORY, "nginx", "variants", this.variant), folder, { recursive: true });
    writeFileSync(join(folder, "test.conf"), TEST_ONLY({ folder, status: port + 1 }));
    writeFileSync(join(folder, "generation.conf"), `return 200 "${this.generation}";\n`);

    this.edit("nginx.conf", [
      ...(isRoot ? [] : [["user www-data;", ""]]),
      ["/run/nginx-stickyport.pid", join(folder, "nginx.pid")],
      ["/var/log/nginx/stickyport-error.log", join(folder, "error.log")],
      ["include stickyport.conf;", "include test.conf;\n    include stickyport.conf;"],
    ]);
    this.edit("stickyport/server.conf", [
      ["/var/log/nginx/stickyport-error.log", join(folder, "error.log")],
      ["access_log /var/log/nginx/stickyport.log stickyport;", `access_log ${folder}/shipped.log stickyport;\n    access_log ${folder}/access.log test;`],
    ]);
    this.edit("stickyport/listen.conf", this.listens(this.variant === "tls" ? 443 : 80, port));
    if (this.variant === "tls") this.edit("stickyport/redirect.conf", this.listens(80, this.plainPort));
    if (this.variant === "nlb") this.edit("stickyport/health.conf", this.listens(8079, this.healthPort));
    for (const [file, replacements] of Object.entries(this.edits)) this.edit(file, replacements);
    if (this.variant === "unix") return this.useSockets();
    this.edit("stickyport/web.conf", [["127.0.0.1:8080", `127.0.0.1:${this.web}`]]);
    const slots = Array.from({ length: SLOTS }, (_, slot) => slot);
    this.edit(
      "stickyport/pool.conf",
      slots.map((slot) => [
        new RegExp(`server 127\\.0\\.0\\.1:${3131 + slot}( [^;]*?)( down)?;`),
        `server 127.0.0.1:${this.ports[slot] ?? 1}$1${slot < this.live ? "" : " down"};`,
      ]),
    );
    this.edit(
      "stickyport/owners.conf",
      slots.map((slot) => [`127.0.0.1:${3131 + slot};`, `127.0.0.1:${this.ports[slot] ?? 1};`]),
    );
  }

  /** The two lines of a port, on the loopback and on another port. */
  listens(shipped, port) {
    return [
      [new RegExp(`listen ${shipped}([^;]*);`), `listen 127.0.0.1:${port}$1;`],
      [new RegExp(`listen \\[::\\]:${shipped}([^;]*);`), this.hasIpv6 ? `listen [::1]:${port}$1;` : ""],
    ];
  }

  /** The sockets of the instances, in the folder of the test. */
  useSockets() {
    const sockets = Array.from({ length: SLOTS }, (_, slot) => [`/run/stickyport/${slot}.sock`, join(this.folder, `${slot}.sock`)]);
    for (const file of ["pool", "owners"]) this.edit(`stickyport/${file}.conf`, sockets);
  }

  /** Replaces each of these, and complains where the shipped file no longer has it once. */
  edit(file, replacements) {
    const path = join(this.folder, file);
    let text = readFileSync(path, "utf8");
    for (const [shipped, ours] of replacements) {
      if (text.split(shipped).length < 2) throw new Error(`nginx/${file} has no ${shipped}`);
      text = text.replace(shipped, ours);
    }
    writeFileSync(path, text);
  }

  /** What the test log says about the requests to /socket.io/ so far. */
  requests() {
    return readFileSync(this.accessLog, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [client, method, uri, transport, session, status, upstream, upstreamStatus] = line.split("|");
        return { client, method, uri, transport, session, status: Number(status), upstream, upstreamStatus, line };
      })
      .filter((request) => request.uri === "/socket.io/");
  }

  /** Everything that nginx itself has written for an operator to read. */
  shippedLogs() {
    return ["shipped.log", "error.log"].map((file) => readFileSync(join(this.folder, file), "utf8")).join("");
  }
}

function hasIpv6() {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(0, "::1", () => server.close(() => resolve(true)));
  });
}

// A line between a client and a server that can break in more ways than one, and lead elsewhere afterwards.

import { once } from "node:events";
import { connect as dial, createServer } from "node:net";

/** What lies between a client and the server, and can break in more ways than one. */
export class Line {
  pairs = new Set();
  /** The server's port, for new connections. */
  target;
  /** How new connections fare. */
  state = "whole";

  static async to(port, t) {
    const line = new Line();
    line.target = port;
    line.server = createServer((near) => line.join(near, dial(line.target, "127.0.0.1")));
    line.server.listen(0, "127.0.0.1");
    await once(line.server, "listening");
    line.port = line.server.address().port;
    t.after(() => {
      line.server.close();
      line.destroy();
    });
    return line;
  }

  join(near, far) {
    const pair = { near, far, isFrozen: this.state === "frozen" };
    this.pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("data", (bytes) => void (pair.isFrozen || to.write(bytes)));
      from.on("error", () => {});
      from.on("close", () => {
        if (pair.isFrozen) return;
        to.destroy();
        this.pairs.delete(pair);
      });
    }
    if (this.state === "dead") this.end(pair);
  }

  /** From now on every byte of either side is swallowed, and neither hears of the other's end. */
  freeze() {
    for (const pair of this.pairs) pair.isFrozen = true;
    this.state = "frozen";
  }

  /** Both sides notice. */
  destroy() {
    for (const pair of this.pairs) this.end(pair);
    this.state = "dead";
  }

  /** Once frozen: only the client notices. */
  abandon() {
    for (const { near } of this.pairs) near.destroy();
    this.state = "dead";
  }

  /** New connections go through again. */
  mend() {
    this.state = "whole";
  }

  end({ near, far }) {
    near.destroy();
    far.destroy();
  }
}

// One of Node's in a cluster: the reference's server and its adapter, and nothing else.

const { createRequire } = require("node:module");
const { join } = require("node:path");

const load = createRequire(join(__dirname, "../../clients/package.json"));
const { Server } = load("socket.io");
const { createAdapter } = load("@socket.io/redis-adapter");
const { createClient } = load("redis");

const [port, url] = process.argv.slice(2);

(async () => {
  const publisher = createClient({ url });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  new Server(Number(port), { adapter: createAdapter(publisher, subscriber), perMessageDeflate: false });
})();

// The example applications and the demo, each with an nginx of its own in front.
//
// As a program it serves those who are not JavaScript: told what to start by a JSON argument, it prints where everything is, and on the line `restart` restarts what is to be
// restarted and says so; it ends with its input.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { Nginx } from "./nginx.mjs";
import { Example, Instance, freePorts, scratch } from "./servers.mjs";

/** `flags` are those of the example applications, `settings` what says the same to the demo. */
export async function startApplications({ flags = [], settings = [] } = {}) {
  const folder = scratch();
  const first = await freePorts(6);
  const web = first + 5;
  const servers = {
    conformance: new Example(folder, "conformance", first, flags),
    features: new Example(folder, "features", first + 1, flags),
    echo: new Example(folder, "echo", first + 2, flags),
    // One of its own for the restart: for seconds after one, nginx takes the only instance of its pool for dead.
    restarted: new Example(folder, "conformance", first + 3, flags),
    demo: new Instance(folder, 0, { basePort: first + 4, web, settings }),
  };
  const urls = { direct: {}, nginx: {} };
  const proxies = [];
  for (const [name, server] of Object.entries(servers)) {
    await server.start();
    urls.direct[name] = server.url;
    const nginx = await new Nginx(scratch(), { ports: [server.port], web }).start();
    proxies.push(nginx);
    urls.nginx[name] = nginx.url;
  }
  const stop = () => Promise.all([...Object.values(servers), ...proxies].map((server) => server.stop()));
  return { servers, urls, stop };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const applications = await startApplications(JSON.parse(process.argv[2] ?? "{}"));
  console.log(JSON.stringify({ urls: applications.urls, demoPort: applications.servers.demo.port }));
  for await (const line of createInterface({ input: process.stdin })) {
    if (line !== "restart") throw new Error(`what is ${line}?`);
    await applications.servers.restarted.restart();
    console.log("restarted");
  }
  await applications.stop();
}

// A Chromium that keeps nothing, and that connects to nobody by itself.

import { chromium } from "playwright-core";
import { scratch } from "./servers.mjs";

export function launch() {
  const home = scratch();
  return chromium.launch({
    // What it keeps for its user goes with the rest.
    env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home },
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // It may do nothing of its own: each connection is to be one of the page's.
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

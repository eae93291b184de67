// The page in Chromium: through nginx, and on its own port. Screenshots stay in tests/artefacts.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { launch } from "./lib/chromium.mjs";
import { Nginx } from "./lib/nginx.mjs";
import { Instance, REPOSITORY, freePorts, scratch } from "./lib/servers.mjs";
import { DEADLINE, until } from "./lib/waiting.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const DESKTOP = { viewport: { width: 1280, height: 860 } };

const artefacts = join(REPOSITORY, "tests", "artefacts");
mkdirSync(artefacts, { recursive: true });

const folder = scratch();
const basePort = await freePorts(5);
const web = basePort + 4;
const ports = [0, 1, 2, 3].map((number) => basePort + number);
const instances = ports.map((_, number) => new Instance(folder, number, { basePort, web, held: true }));
const nginx = new Nginx(folder, { ports, web });
let browser;

after(async () => {
  await browser?.close();
  await nginx.stop();
  await Promise.all(instances.map((instance) => instance.end()));
});
for (const instance of instances) await instance.start();
await nginx.start();
browser = await launch();

test("it polls first, upgrades, and shows who serves it", async (t) => {
  const page = await open(t, `${nginx.url}/page`);
  await shows(page, "log", /session open over polling/);
  await shows(page, "log", /upgraded to websocket/);
  await shows(page, "transport", /^websocket$/);
  await shows(page, "rtt", /\d/);
  const instance = Number(await text(page, "instance"));
  assert.equal(await text(page, "port"), `${ports[instance]}`);
  assert.equal(await text(page, "owner"), `${instance}`);

  const [handshake] = page.requests.filter((url) => url.pathname === "/socket.io/");
  assert.equal(handshake.searchParams.get("transport"), "polling");
  assert.equal(handshake.searchParams.get("sid"), null);
  assert.equal(page.websockets.length, 1);
  const { sid } = Object.fromEntries(page.websockets[0].searchParams);
  assert.match(sid, new RegExp(`^${instance}-`));
  assert.ok(!(await page.content()).includes(sid), "the page shows the sid");
});

test("it comes back to its instance after that was restarted in place", async (t) => {
  const page = await open(t, `${nginx.url}/page`);
  await shows(page, "transport", /^websocket$/);
  await shows(page, "port", /^\d+$/);
  const instance = instances[Number(await text(page, "instance"))];
  const port = await text(page, "port");
  assert.equal(await instance.stop(), "stopped 0");
  await shows(page, "state", /^reconnecting$/);
  await page.screenshot({ path: join(artefacts, "page-restarting.png"), fullPage: true });
  await instance.start();
  await shows(page, "reconnects", /^1$/);
  await shows(page, "state", /^connected$/);
  await shows(page, "log", new RegExp(`back on instance ${instance.number}`));
  await shows(page, "transport", /^websocket$/);
  assert.equal(await text(page, "instance"), `${instance.number}`);
  assert.equal(await text(page, "port"), port);
  await page.screenshot({ path: join(artefacts, "page-back.png"), fullPage: true });
  assert.equal(await text(page, "reconnects"), "1");
  // Whatever the restart made it log is not what the other tests look for.
  page.complaints.length = 0;
});

for (const [name, device, colorScheme] of [["phone", PHONE, "light"], ["phone-dark", PHONE, "dark"], ["desktop", DESKTOP, "light"], ["desktop-dark", DESKTOP, "dark"]]) {
  test(`${name}: two people talk, and nothing sticks out`, async (t) => {
    const [ada, grace] = [await open(t, `${nginx.url}/page`, { ...device, colorScheme }), await open(t, `${nginx.url}/page`)];
    for (const [page, who] of [[ada, "Ada"], [grace, "Grace"]]) {
      await shows(page, "transport", /^websocket$/);
      await page.getByTestId("chat-name").fill(who);
      await page.getByTestId("chat-name").press("Enter");
    }
    await shows(ada, "room-list", /Grace/);
    await shows(grace, "room-list", /Ada/);
    await say(ada, "Is this thing on?");
    await say(grace, "It is. <b>Not bold</b>, by the way.");
    for (const page of [ada, grace]) await shows(page, "chat-log", /Ada\s*Is this thing on\?[^]*Grace\s*It is\. <b>Not bold<\/b>/);

    const { wide, background } = await ada.evaluate(() => ({
      wide: document.documentElement.scrollWidth - window.innerWidth,
      background: getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3).map(Number),
    }));
    assert.ok(wide <= 0, `${wide} pixels wider than the screen`);
    const brightness = background.reduce((sum, part) => sum + part) / 3;
    assert.ok(colorScheme === "dark" ? brightness < 80 : brightness > 175, `background ${background}`);
    await ada.screenshot({ path: join(artefacts, `page-${name}.png`), fullPage: true });
  });
}

test("polling only and WebSocket only are what they say", async (t) => {
  for (const transport of ["polling", "websocket"]) {
    const page = await open(t, `${nginx.url}/page?transport=${transport}`);
    await shows(page, "transport", new RegExp(`^${transport}$`));
    await shows(page, "rtt", /\d/);
    assert.equal(page.websockets.length, transport === "polling" ? 0 : 1);
  }
});

test("opened on the shared port, it connects to the port of the instance that rendered it", async (t) => {
  const page = await open(t, `http://127.0.0.1:${web}/page`, { elsewhere: new RegExp(`^127\\.0\\.0\\.1:(${ports.join("|")})$`) });
  await shows(page, "transport", /^websocket$/);
  await shows(page, "rtt", /\d/);
  const instance = Number(await text(page, "instance"));
  assert.equal(await page.locator("html").getAttribute("data-instance"), `${instance}`);
  const sockets = [...page.websockets, ...page.requests.filter((url) => url.searchParams.has("EIO"))];
  assert.deepEqual([...new Set(sockets.map((url) => url.host))], [`127.0.0.1:${ports[instance]}`]);
});

/** A page that must ask nobody but its own origin (and `elsewhere`), and complain about nothing. */
async function open(t, url, { elsewhere, ...device } = {}) {
  const context = await browser.newContext({ ...DESKTOP, ...device });
  const page = await context.newPage();
  Object.assign(page, { requests: [], websockets: [], complaints: [] });
  page.on("request", (request) => page.requests.push(new URL(request.url())));
  page.on("websocket", (websocket) => page.websockets.push(new URL(websocket.url())));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(`${error}`));
  t.after(async () => {
    await context.close();
    const hosts = [...page.requests, ...page.websockets].filter((url) => url.protocol !== "data:").map((url) => url.host);
    const foreign = hosts.filter((host) => host !== new URL(url).host && !elsewhere?.test(host));
    assert.deepEqual(foreign, []);
    assert.deepEqual(page.complaints, []);
  });
  await page.goto(url);
  return page;
}

async function say(page, words) {
  await page.getByTestId("chat-input").fill(words);
  await page.getByTestId("chat-send").click();
}

function text(page, id) {
  return page.getByTestId(id).innerText();
}

/** Waits until the element reads like this. */
async function shows(page, id, pattern) {
  let last;
  await until(() => `${id} to read ${pattern}; it read ${JSON.stringify(last)}`, async () => pattern.test((last = await text(page, id))), DEADLINE);
}

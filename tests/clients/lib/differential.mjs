// Plays one script against our harness program and against the reference's, and says where what came out differs.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { EXAMPLES, Program, scratch } from "./servers.mjs";
import { within } from "./waiting.mjs";

const REFERENCE = fileURLToPath(new URL("../reference/", import.meta.url));
const folder = scratch();
let started = 0;

/** How to start both: ours by the name of its example application, the reference's by its file in `reference/`. */
export function programs(ours, reference) {
  return { ours: [join(EXAMPLES, ours)], reference: [process.execPath, join(REFERENCE, reference)] };
}

/** A harness program: commands go in, events come out and are kept in their order. */
export class Child {
  constructor(command, argument) {
    const name = `${command.at(-1).split("/").at(-1)}-${started++}`;
    this.program = new Program(folder, name, [...command, JSON.stringify(argument)], { stdio: ["pipe", "pipe", "log"] });
    this.events = [];
    this.waiting = [];
    this.seen = new Set();
    createInterface({ input: this.program.child.stdout }).on("line", (line) => {
      this.events.push(JSON.parse(line));
      this.waiting = this.waiting.filter(({ find, resolve }) => {
        const event = find();
        if (event) resolve(event);
        return !event;
      });
    });
    // It may end before it has read what it was told.
    this.program.child.stdin.on("error", () => {});
  }

  /** The next event of that type that nobody has waited for yet and that has these fields. */
  async event(type, fields = {}) {
    const find = () => {
      const event = this.events.find((event) => event.t === type && !this.seen.has(event) && Object.entries(fields).every(([name, value]) => event[name] === value));
      if (event) this.seen.add(event);
      return event;
    };
    const found = find() ?? new Promise((resolve) => this.waiting.push({ find, resolve }));
    try {
      return await within(`event ${type} ${JSON.stringify(fields)} of ${this.program.name}`, Promise.resolve(found));
    } catch (error) {
      error.message += `\n${this.events.map((event) => JSON.stringify(event)).join("\n")}\n${this.program.lastWords()}`;
      throw error;
    }
  }

  say(command) {
    this.program.child.stdin.write(`${JSON.stringify(command)}\n`);
  }

  /** Ends it by command and returns its exit status; its events are complete then. */
  async stop() {
    this.say({ c: "stop" });
    return this.ended();
  }

  async ended() {
    return within(`end of ${this.program.name}`, new Promise((resolve) => this.program.child.once("close", resolve)));
  }
}

/**
 * A test per script: `run(command)` plays it against one of the two and returns what came out. Where they differ must be what `deviations` names: a list
 * of `{ at, ours, reference }`, in any order.
 */
export function compare(name, commands, run, deviations = []) {
  test(name, async () => {
    const [ours, reference] = await Promise.all([run(commands.ours), run(commands.reference)]);
    const found = differences(ours, reference);
    const lines = (list) => list.map((entry) => JSON.stringify(ordered(entry))).sort().join("\n");
    if (lines(found) !== lines(deviations)) {
      assert.fail(`differences:\n${lines(found)}\nexpected:\n${lines(deviations)}\nours: ${JSON.stringify(ours)}\nreference: ${JSON.stringify(reference)}`);
    }
  });
}

/** Where two values differ, by path. */
export function differences(ours, reference, at = "") {
  const isTree = (value) => typeof value === "object" && value !== null;
  if (!isTree(ours) || !isTree(reference) || Array.isArray(ours) !== Array.isArray(reference)) {
    // What is left out is told apart from what is null.
    return Object.is(ours, reference) ? [] : [{ at, ours: ours === undefined ? "(nothing)" : ours, reference: reference === undefined ? "(nothing)" : reference }];
  }
  const keys = new Set([...Object.keys(ours), ...Object.keys(reference)]);
  return [...keys].flatMap((key) => differences(ours[key], reference[key], at ? `${at}.${key}` : key));
}

/** The same with keys in one order. */
function ordered(value) {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(ordered);
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => [key, ordered(value)]));
}

/** Puts names in place of what is another text in every run; `names` are pairs of both. */
export function rename(value, names) {
  const text = names.reduce((text, [from, to]) => text.replaceAll(JSON.stringify(from).slice(1, -1), to), JSON.stringify(value));
  return JSON.parse(text);
}

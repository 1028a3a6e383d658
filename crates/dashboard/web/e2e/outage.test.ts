// What the page says when what it follows stops, freezes and comes back. The gateway is the test's own; the processes of
// stats-notifier and Postgres are named by NOTIFIER_PID and POSTGRES_PID, and left out where they are not.
//
// GATEWAY_PROGRAM is the program of sse-gateway, NEWCYCLE__UPSTREAM__ADDRESSES what it follows.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Dashboard, barriers, live, post, shown, start } from "./browser";

const PROGRAM = process.env["GATEWAY_PROGRAM"];
const PORT = Number(process.env["TEST_GATEWAY_PORT"] ?? 18_090);
/** How soon a page must not say "live" any more. */
const SECONDS = 5;

let gateway: ChildProcess;
let dashboard: Dashboard | undefined;
let baseItem: string;

async function run(): Promise<void> {
  const env = { ...process.env, NEWCYCLE__HTTP__PORT: String(PORT), NEWCYCLE__INTERNAL__PORT: String(PORT + 1) };
  gateway = spawn(PROGRAM ?? "", [], { env, stdio: "ignore" });
  const ready = () => fetch(`http://127.0.0.1:${PORT + 1}/readyz`).then((answer) => answer.ok, () => false);
  const deadline = performance.now() + 20_000;
  while (!(await ready())) {
    if (performance.now() > deadline) throw new Error("the gateway is not ready");
    await sleep(50);
  }
}

beforeAll(async () => {
  if (PROGRAM === undefined) return;
  await run();
  dashboard = await start(`http://127.0.0.1:${PORT}`);
  baseItem = (await post("base-items", { description: "an outage test" })).id;
});
afterAll(async () => {
  await dashboard?.close();
  gateway?.kill("SIGKILL");
});
afterEach(() => expect(dashboard?.problems() ?? []).toEqual([]));

const says = (page: Page) => page.locator("body").innerText().then((text) => /live/i.test(text));

/** The processes of a server: itself, and those that it started. */
function family(process: string): number[] {
  let children: string[] = [];
  try {
    children = execFileSync("pgrep", ["-P", process], { encoding: "utf8" }).trim().split("\n");
  } catch {
    // It started none.
  }
  return [process, ...children].map(Number);
}

function signal(processes: number[], name: NodeJS.Signals): void {
  for (const id of processes) {
    try {
      process.kill(id, name);
    } catch {
      // It ended meanwhile.
    }
  }
}

/** Freezes processes, sees the page notice, thaws them, and sees it come back without a reload. */
async function freeze(processes: () => number[]): Promise<void> {
  const page = await dashboard!.open("?unit=year");
  await live(page);
  await page.evaluate("globalThis.reloaded = false");
  const before = await shown(page, "item-creation");
  const frozen = processes();
  signal(frozen, "SIGSTOP");
  const began = performance.now();
  try {
    await page.locator("#condition:not([data-kind=live])").waitFor({ timeout: 20_000 });
    const seconds = (performance.now() - began) / 1_000;
    console.log(`not live after ${seconds.toFixed(1)} s: ${await page.locator("#condition").innerText()}`);
    expect(seconds).toBeLessThan(SECONDS);
    expect(await says(page)).toBe(false);
    expect(await shown(page, "item-creation"), "the numbers stay").toBe(before);
    expect(await barriers(page)).toEqual([]);
  } finally {
    signal(frozen, "SIGCONT");
  }
  await live(page);
  await post("items", { base_item_id: baseItem });
  await expect.poll(() => shown(page, "item-creation"), { timeout: 15_000 }).toBe(before + 1);
  expect(await page.evaluate("globalThis.reloaded")).toBe(false);
  await page.context().close();
}

it.skipIf(PROGRAM === undefined)("the gateway freezes", () => freeze(() => [gateway.pid ?? 0]));

it.skipIf(PROGRAM === undefined || process.env["NOTIFIER_PID"] === undefined)("stats-notifier freezes", () =>
  freeze(() => [Number(process.env["NOTIFIER_PID"])]));

it.skipIf(PROGRAM === undefined || process.env["POSTGRES_PID"] === undefined)("Postgres freezes", () =>
  freeze(() => family(process.env["POSTGRES_PID"] ?? "")));

it.skipIf(PROGRAM === undefined)("the gateway dies, and another one comes", async () => {
  const page = await dashboard!.open("?unit=year");
  await live(page);
  const before = await shown(page, "item-creation");
  gateway.kill("SIGKILL");
  await page.locator("#condition[data-kind=retrying]").waitFor({ timeout: SECONDS * 1_000 });
  expect(await says(page)).toBe(false);
  await post("items", { base_item_id: baseItem });
  await sleep(500);
  expect(await shown(page, "item-creation"), "nothing is made up meanwhile").toBe(before);
  await run();
  await live(page);
  await expect.poll(() => shown(page, "item-creation"), { timeout: 15_000 }).toBe(before + 1);
  await page.context().close();
});

it.skipIf(PROGRAM === undefined)("the leading tab freezes where there is no shared worker", async () => {
  const window = await dashboard!.browser.newContext();
  await window.addInitScript("delete globalThis.SharedWorker");
  const leader = await dashboard!.open("?unit=year", window);
  await live(leader);
  const other = await dashboard!.open("?unit=year", window);
  await live(other);
  const before = await shown(other, "item-creation");
  // Frozen outright, as a browser freezes what is hidden for long: no timer, no message, but its lock is kept.
  const session = await window.newCDPSession(leader);
  await session.send("Debugger.enable");
  await session.send("Debugger.pause");
  await post("items", { base_item_id: baseItem });
  await expect.poll(() => shown(other, "item-creation"), { timeout: 20_000 }).toBe(before + 1);
  await live(other);
  await session.send("Debugger.resume");
  await live(leader);
  await expect.poll(() => shown(leader, "item-creation"), { timeout: 20_000 }).toBe(before + 1);
  await window.close();
});

// What the page shows when a service stops, freezes and comes back. The test starts a gateway of
// its own. NOTIFIER_PID and POSTGRES_PID are the other processes to freeze. Tests whose variables
// are missing are skipped.

import { type ChildProcess, execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Dashboard, barriers, live, post, shown, start } from "./browser";
import { PORT, PROGRAM, startGateway } from "./gateway";
import { killService } from "./service";

/** The page must not say "live" any more after this many seconds. */
const STALE_SECONDS = 5;

let gateway: ChildProcess;
let dashboard: Dashboard | undefined;
let baseItem: string;

beforeAll(async () => {
  if (PROGRAM === undefined) return;
  gateway = await startGateway();
  dashboard = await start(`http://127.0.0.1:${PORT}`);
  baseItem = (await post("base-items", { description: "an outage test" })).id;
});
afterAll(async () => {
  await dashboard?.close();
  await killService(gateway);
});
afterEach(() => expect(dashboard?.problems() ?? []).toEqual([]));

const saysLive = (page: Page) => page.locator("body").innerText().then((text) => /live/i.test(text));

/** A process and its children. */
function processTree(process: string): number[] {
  let children: string[] = [];
  try {
    children = execFileSync("pgrep", ["-P", process], { encoding: "utf8" }).trim().split("\n");
  } catch {
    // It has no children.
  }
  return [process, ...children].map(Number);
}

function signal(processes: number[], name: NodeJS.Signals): void {
  for (const id of processes) {
    try {
      process.kill(id, name);
    } catch {
      // The process has ended.
    }
  }
}

/** The last second of the minute that the page compares; -1 if there is none yet. */
async function lastCompared(page: Page): Promise<number> {
  const text = await page.locator("[data-metric=item-creation] [data-part=compared]").innerText();
  return Math.max(-1, ...(text.split(",")[0]?.match(/\d+/g) ?? []).map(Number));
}

/**
 * Freezes processes, waits until the page notices, thaws them, and waits until the page recovers
 * without a reload.
 */
async function freeze(processes: () => number[]): Promise<void> {
  const page = await dashboard!.open("?unit=year");
  await live(page);
  const minute = await dashboard!.open("?unit=minute", page.context());
  await live(minute);
  await page.evaluate("globalThis.reloaded = false");
  const before = await shown(page, "item-creation");
  const frozen = processes();
  signal(frozen, "SIGSTOP");
  const began = performance.now();
  const second = new Date().getUTCSeconds();
  try {
    await page.locator("#condition:not([data-kind=live])").waitFor({ timeout: 20_000 });
    const seconds = (performance.now() - began) / 1_000;
    console.log(`not live after ${seconds.toFixed(1)} s: ${await page.locator("#condition").innerText()}`);
    expect(seconds).toBeLessThan(STALE_SECONDS);
    expect(await saysLive(page)).toBe(false);
    expect(await shown(page, "item-creation"), "the counts stay").toBe(before);
    expect(await barriers(page)).toEqual([]);
    await minute.locator("#condition:not([data-kind=live])").waitFor({ timeout: 20_000 });
    // Nothing is known about the second of the freeze and later ones. A much later one is of the
    // minute before.
    const isKnown = (last: number) => last < second || last > second + 30;
    await expect.poll(() => lastCompared(minute).then(isKnown), { timeout: 10_000, message: "only known seconds are compared" }).toBe(true);
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
  freeze(() => processTree(process.env["POSTGRES_PID"] ?? "")));

it.skipIf(PROGRAM === undefined)("the gateway dies and restarts", async () => {
  const page = await dashboard!.open("?unit=year");
  await live(page);
  const before = await shown(page, "item-creation");
  await killService(gateway);
  await page.locator("#condition[data-kind=retrying]").waitFor({ timeout: STALE_SECONDS * 1_000 });
  expect(await saysLive(page)).toBe(false);
  await post("items", { base_item_id: baseItem });
  await sleep(500);
  expect(await shown(page, "item-creation"), "the count stays the same meanwhile").toBe(before);
  gateway = await startGateway();
  await live(page);
  await expect.poll(() => shown(page, "item-creation"), { timeout: 15_000 }).toBe(before + 1);
  await page.context().close();
});

it.skipIf(PROGRAM === undefined)("the leading tab freezes, without a shared worker", async () => {
  const window = await dashboard!.browser.newContext();
  await window.addInitScript("delete globalThis.SharedWorker");
  const leader = await dashboard!.open("?unit=year", window);
  await live(leader);
  const other = await dashboard!.open("?unit=year", window);
  await live(other);
  const before = await shown(other, "item-creation");
  // As a browser freezes tabs that are hidden for long: no timers and no messages, but it keeps its
  // lock.
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

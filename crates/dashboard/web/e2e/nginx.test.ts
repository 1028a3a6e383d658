// The documented configuration of nginx, with an EventSource of Chromium: a gateway that restarts,
// or that is full, does not end it. NGINX is the nginx binary. Skipped if it is missing.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { AUTHORIZED, KEY, post } from "./browser";
import { PORT, PROGRAM, startGateway } from "./gateway";
import { killService } from "./service";

const NGINX = process.env["NGINX"];
const NGINX_PORT = Number(process.env["TEST_NGINX_PORT"] ?? 18_092);
const SKIPPED = NGINX === undefined || PROGRAM === undefined;
const URL_OF_NGINX = `http://127.0.0.1:${NGINX_PORT}`;

let folder: string;
let nginx: ChildProcess;
let gateway: ChildProcess;
let browser: Browser;

/** Replaces an address that must be in the configuration. */
function replace(configuration: string, before: string, after: string): string {
  if (!configuration.includes(before)) throw new Error(`no ${before} in deploy/nginx.conf`);
  return configuration.replaceAll(before, after);
}

beforeAll(async () => {
  if (SKIPPED) return;
  folder = mkdtempSync(join(tmpdir(), "newcycle-nginx-"));
  const documented = readFileSync(new URL("../../../../deploy/nginx.conf", import.meta.url), "utf8");
  const site = replace(replace(documented, "127.0.0.1:8081", `127.0.0.1:${PORT}`), "127.0.0.1:8088", `127.0.0.1:${NGINX_PORT}`);
  writeFileSync(join(folder, "site.conf"), site);
  const folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`);
  writeFileSync(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; events {} http { access_log off; ${folders.join(" ")} include ${folder}/site.conf; }`,
  );
  nginx = spawn(NGINX, ["-p", folder, "-c", join(folder, "nginx.conf"), "-e", "stderr"], { stdio: "ignore" });
  gateway = await startGateway();
  browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
});
afterAll(async () => {
  await browser?.close();
  await killService(gateway);
  nginx?.kill();
  if (!SKIPPED) rmSync(folder, { recursive: true, force: true });
});

/** A page whose `globalThis.seen` lists what its EventSource receives. */
async function follow(): Promise<Page> {
  const page = await browser.newPage();
  // The page has the origin of the gateway, so its EventSource sends the session by itself.
  await page.context().addCookies([{ name: `newcycle-${NGINX_PORT}`, value: KEY, url: URL_OF_NGINX }]);
  // Any page of this origin: nginx answers 404.
  await page.goto(`${URL_OF_NGINX}/`);
  await page.evaluate(`
    globalThis.seen = [];
    globalThis.source = new EventSource("/statistics/item-creation/year");
    for (const kind of ["snapshot", "patch", "status"]) {
      source.addEventListener(kind, (event) => seen.push({ kind, data: event.data, id: event.lastEventId }));
    }
  `);
  return page;
}

type Seen = { kind: string; data: string; id: string };
const seen = (page: Page): Promise<Seen[]> => page.evaluate("globalThis.seen") as Promise<Seen[]>;
const statusOf = (events: Seen[]) => events.filter((event) => event.kind === "status").map((event) => JSON.parse(event.data).upstream as string);
const state = (page: Page) => page.evaluate("globalThis.source.readyState");

it.skipIf(SKIPPED)("an EventSource behind nginx survives a restart of the gateway", async () => {
  const page = await follow();
  await expect.poll(async () => statusOf(await seen(page)), { timeout: 20_000 }).toContain("live");
  await killService(gateway);
  await page.evaluate("globalThis.seen.length = 0");
  await expect.poll(async () => statusOf(await seen(page)), { timeout: 20_000 }).toContain("stale");
  expect(await state(page), "it must not be closed").not.toBe(2);
  const item = await post("base-items", { description: "behind nginx" });
  gateway = await startGateway();
  await post("items", { base_item_id: item.id });
  await expect.poll(async () => statusOf(await seen(page)).at(-1), { timeout: 20_000 }).toBe("live");
  await expect.poll(async () => (await seen(page)).some((event) => event.kind !== "status" && event.id !== "")).toBe(true);
  await page.close();
});

it.skipIf(SKIPPED)("an EventSource behind nginx waits for a place in a gateway that is full", async () => {
  await killService(gateway);
  gateway = await startGateway({ NEWCYCLE__STREAM__MAX_SUBSCRIBERS: "1" });
  const open = (signal?: AbortSignal) =>
    fetch(`http://127.0.0.1:${PORT}/statistics/item-creation/year`, { headers: { ...AUTHORIZED, accept: "text/event-stream" }, signal: signal ?? null });
  const held = new AbortController();
  expect((await open(held.signal)).status).toBe(200);
  expect((await open()).status, "it is full").toBe(503);
  const page = await follow();
  await expect.poll(async () => statusOf(await seen(page)), { timeout: 20_000 }).toContain("stale");
  expect(await state(page), "it must not be closed").not.toBe(2);
  expect(statusOf(await seen(page)), "it has no place yet").not.toContain("live");
  held.abort();
  await expect.poll(async () => statusOf(await seen(page)).at(-1), { timeout: 20_000 }).toBe("live");
  await page.close();
});

it.skipIf(SKIPPED)("other clients behind nginx get the errors themselves", async () => {
  await killService(gateway);
  await expect.poll(async () => (await fetch(`${URL_OF_NGINX}/statistics/item-creation/year`, { headers: { accept: "application/json" } })).status).toBe(502);
  const headers = { accept: "text/event-stream", origin: "https://page.example" };
  const stream = await fetch(`${URL_OF_NGINX}/statistics/item-creation/year`, { headers });
  expect(stream.status).toBe(200);
  expect(stream.headers.get("content-type")).toBe("text/event-stream");
  // A page of another origin can read it, also with its session.
  expect(stream.headers.get("access-control-allow-origin")).toBe("https://page.example");
  expect(stream.headers.get("access-control-allow-credentials")).toBe("true");
  const block = await stream.text();
  expect(block.split("\n\n"), "one block").toHaveLength(2);
  expect(block).toMatch(/^retry: \d+\nevent: status\ndata: \{"upstream":"stale"/);
  const status = JSON.parse(block.slice(block.indexOf("{"))) as Record<string, string>;
  for (const name of ["since", "now"]) {
    expect(status[name]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000(Z|[+-]\d\d:\d\d)$/);
  }
  const either = { accept: "text/event-stream;q=0.5, application/json" };
  expect((await fetch(`${URL_OF_NGINX}/statistics/item-creation/year`, { headers: either })).status).toBe(502);
});

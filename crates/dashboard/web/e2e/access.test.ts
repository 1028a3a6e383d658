// Who may see and do what: login links, sessions, keys that end, and pages of others.

import type { ChildProcess } from "node:child_process";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { AUTHORIZED, type Dashboard, FOLDER, GATEWAY, INGEST, KEY, PORT, barriers, live, start } from "./browser";
import { PORT as GATEWAY_PORT, PROGRAM, startGateway } from "./gateway";
import { NO_KEYS, newKey, revoke } from "./keys";
import { serve } from "./serve";
import { killService } from "./service";

/** A stream must end within this time after its key was revoked, in milliseconds. */
const REVOKED_WITHIN = 3_000;
/** How long a slow server takes for the page, in milliseconds. A stream comes back sooner. */
const SLOW = 1_500;

let dashboard: Dashboard;
beforeAll(async () => {
  dashboard = await start();
});
afterAll(() => dashboard.close());
afterEach(() => expect(dashboard.problems()).toEqual([]));

const denied = (page: Page, timeout = 20_000) => page.locator("body[data-condition=denied]").waitFor({ timeout });
const title = (page: Page) => page.locator("#denial-title").innerText();
const isShown = (page: Page, selector: string) => page.locator(selector).isVisible();
const open = (context: BrowserContext, key = KEY) => dashboard.open("?unit=year", context, key);

/** Checks that a page shows no counts, and does not say that it is live. */
async function expectNothingShown(page: Page): Promise<void> {
  for (const selector of [".panels", ".view", "#units", "#add-events"]) expect(await isShown(page, selector), selector).toBe(false);
  expect(await page.locator("body").innerText()).not.toMatch(/\blive\b/i);
}

it("logs in by a link, and leaves no key in the address or in the history", async () => {
  const context = await dashboard.browser.newContext();
  const page = await context.newPage();
  await page.goto(`${dashboard.url}/?unit=year#${KEY}`);
  await live(page);
  expect(page.url()).toBe(`${dashboard.url}/?unit=year`);
  const session = await context.newCDPSession(page);
  const { entries } = await session.send("Page.getNavigationHistory");
  expect(entries.map((entry) => entry.url).filter((url) => url.includes("nc_"))).toEqual([]);
  const [cookie, ...others] = await context.cookies();
  expect(others).toEqual([]);
  const name = `newcycle-${new URL(dashboard.url).port}`;
  expect(cookie).toMatchObject({ name, value: KEY, path: "/", domain: "127.0.0.1", httpOnly: true, sameSite: "Strict" });
  expect(await page.evaluate("document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage })")).not.toContain("nc_");
  await page.reload();
  await live(page);
  expect(await isShown(page, "#log-out")).toBe(true);
  expect(await isShown(page, "#open")).toBe(false);
  await context.close();
});

it("without a session, shows how to get a link, and a link opened in that tab logs in", async () => {
  const context = await dashboard.browser.newContext();
  const page = await context.newPage();
  await page.goto(`${dashboard.url}/?unit=year`);
  await denied(page);
  expect(await title(page)).toBe("You are not logged in");
  const help = await page.locator("#denial").innerText();
  for (const command of ["cargo xtask up", "access link"]) expect(help).toContain(command);
  await expectNothingShown(page);
  expect(await barriers(page)).toEqual([]);
  await page.goto(`${dashboard.url}/?unit=year#${KEY.slice(0, -1)}`);
  await expect.poll(() => title(page)).toBe("The key is not valid");
  await page.goto(`${dashboard.url}/?unit=year#${KEY}`);
  await live(page);
  expect(page.url()).not.toContain("nc_");
  await context.close();
});

it("logs all of seven tabs out, and in again", async () => {
  for (const lacking of [null, "SharedWorker"]) {
    const context = await dashboard.browser.newContext();
    if (lacking !== null) await context.addInitScript(`delete globalThis.${lacking}`);
    const pages: Page[] = [];
    for (let tab = 0; tab < 7; tab += 1) pages.push(await open(context));
    for (const page of pages) await live(page);
    await pages[3]?.locator("#log-out").click();
    for (const page of pages) {
      await denied(page);
      await expect.poll(() => title(page)).toBe("You are not logged in");
      await expectNothingShown(page);
    }
    expect(await context.cookies()).toEqual([]);
    await pages[5]?.goto(`${dashboard.url}/?unit=year#${KEY}`);
    for (const page of pages) await live(page);
    await context.close();
  }
});

it("loads each tab again once after a login, however slow the server of the page is", async () => {
  for (const lacking of [null, "SharedWorker"]) {
    const context = await dashboard.browser.newContext();
    if (lacking !== null) await context.addInitScript(`delete globalThis.${lacking}`);
    const pages = [await open(context), await open(context), await open(context)];
    for (const page of pages) await live(page);
    await pages[0]?.locator("#log-out").click();
    for (const page of pages) await denied(page);
    // While the documents are on their way, the stream goes on in the old ones.
    const loads = pages.map(() => 0);
    for (const [tab, page] of pages.entries()) {
      await page.route((address) => address.pathname === "/", async (route) => {
        loads[tab] = (loads[tab] ?? 0) + 1;
        await page.waitForTimeout(SLOW);
        await route.continue();
      });
    }
    await pages[1]?.goto(`${dashboard.url}/?unit=year#${KEY}`);
    await expect.poll(() => loads.every((count) => count > 0), { timeout: 20_000 }).toBe(true);
    for (const page of pages) await page.locator("#session").waitFor();
    for (const page of pages) await live(page);
    expect(loads).toEqual([1, 1, 1]);
    await context.close();
  }
});

it.skipIf(NO_KEYS)("ends within seconds in all tabs when the key is revoked, says why, and goes on after a login", async () => {
  for (const lacking of [null, "SharedWorker"]) {
    const context = await dashboard.browser.newContext();
    if (lacking !== null) await context.addInitScript(`delete globalThis.${lacking}`);
    const { key, name } = newKey("statistics:read,ingest:read,ingest:write");
    const pages = [await open(context, key), await open(context), await open(context)];
    for (const page of pages) await live(page);
    await pages[0]?.locator("#add-events").waitFor();
    revoke(name);
    const began = performance.now();
    await Promise.all(pages.map((page) => denied(page, REVOKED_WITHIN)));
    console.log(`denied ${Math.round(performance.now() - began)} ms after the key was revoked`);
    for (const page of pages) {
      expect(await title(page)).toBe("The key was revoked");
      await expectNothingShown(page);
    }
    let requests = 0;
    for (const page of pages) page.on("request", (request) => (requests += request.url().startsWith(GATEWAY) ? 1 : 0));
    await pages[0]?.waitForTimeout(3_000);
    expect(requests, "the tabs stop").toBe(0);
    await expect.poll(() => context.cookies(), { message: "a cookie that was refused is dropped" }).toEqual([]);
    await pages[1]?.goto(`${dashboard.url}/?unit=year#${KEY}`);
    for (const page of pages) await live(page);
    await context.close();
  }
});

it.skipIf(NO_KEYS)("says that a key has expired, while the page is open and later", async () => {
  const context = await dashboard.browser.newContext();
  const { key } = newKey("statistics:read", "8s");
  const page = await open(context, key);
  await live(page);
  await denied(page);
  expect(await title(page)).toBe("The key has expired");
  await page.goto("about:blank");
  await page.goto(`${dashboard.url}/#${key}`);
  await denied(page);
  expect(await title(page)).toBe("The key is not valid");
  expect(await page.locator("#denial-reason").innerText()).toContain("it has expired");
  await context.close();
});

it.skipIf(NO_KEYS)("shows only what the key permits", async () => {
  const context = await dashboard.browser.newContext();
  const page = await open(context, newKey("statistics:read").key);
  await live(page);
  await page.waitForTimeout(500);
  expect(await isShown(page, "#add-events")).toBe(false);
  expect(await page.locator("#units input").count()).toBe(9);
  await context.close();

  const narrow = await dashboard.browser.newContext();
  const part = await open(narrow, newKey("statistics:read:transfers/day,statistics:read:*/hour").key);
  await live(part);
  const units = await part.locator("#units input").evaluateAll((inputs) => inputs.map((input) => (input as HTMLInputElement).value));
  expect(units).toEqual(["hour", "day"]);
  const panels = async () => [await isShown(part, "[data-metric=item-creation]"), await isShown(part, "[data-metric=transfers]")];
  expect(await panels()).toEqual([true, true]);
  await part.locator("#units input[value=day]").click();
  await expect.poll(panels).toEqual([false, true]);
  await live(part);
  await narrow.close();

  const producer = await dashboard.browser.newContext();
  const none = await open(producer, newKey("ingest:write").key);
  await denied(none);
  expect(await title(none)).toBe("The key does not permit this");
  expect(await none.locator("#denial-reason").innerText()).toContain("statistics:read");
  expect(await isShown(none, "#log-out")).toBe(true);
  await producer.close();
});

it("lets no page on another port of the host read, write, log in or log out", async () => {
  const hostile: Server = createServer((_request, response) => {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>hostile</title>");
  });
  await new Promise<void>((resolve) => hostile.listen(0, "127.0.0.1", resolve));
  const context = await dashboard.browser.newContext();
  await live(await open(context));
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${(hostile.address() as AddressInfo).port}/`);
  // Playwright does not report answers that the browser keeps from the page.
  const session = await context.newCDPSession(page);
  const sent = new Map<string, { readonly url: string; readonly method: string }>();
  const statuses = new Map<string, number>();
  session.on("Network.requestWillBeSent", ({ requestId, request }) => sent.set(requestId, request));
  session.on("Network.responseReceivedExtraInfo", ({ requestId, statusCode }) => statuses.set(requestId, statusCode));
  await session.send("Network.enable");
  const send = (url: string, init: object) =>
    page.evaluate(async ([url, init]) => {
      try {
        const response = await fetch(url as string, { credentials: "include", ...(init as RequestInit) });
        return response.type === "opaque" ? "unreadable" : `${response.status}: ${await response.text()}`;
      } catch {
        return "unreadable";
      }
    }, [url, init] as const);
  const count = async () => {
    const response = await fetch(`${INGEST}/base-items?limit=1000`, { headers: AUTHORIZED });
    return ((await response.json()) as { data: unknown[] }).data.length;
  };
  const before = await count();
  const simple = { method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" } };
  const attempts: [string, object][] = [
    [`${GATEWAY}/statistics/transfers/day`, { headers: { accept: "application/json" } }],
    [`${GATEWAY}/statistics/transfers/day`, { mode: "no-cors" }],
    [`${GATEWAY}/access`, {}],
    [`${INGEST}/base-items`, {}],
    [`${INGEST}/base-items`, { ...simple, body: '{"description":"hostile"}' }],
    [`${INGEST}/base-items`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"description":"hostile"}' }],
    [`${dashboard.url}/session`, { ...simple, body: "" }],
    [`${dashboard.url}/session`, { ...simple, body: JSON.stringify({ key: KEY }) }],
    [`${dashboard.url}/session`, { method: "DELETE" }],
  ];
  for (const [url, init] of attempts) expect(await send(url, init), url).toBe("unreadable");
  // Such requests need no leave to be sent. The services refuse them.
  const written = () => [...statuses].filter(([id]) => sent.get(id)?.method === "POST");
  await expect.poll(() => written().length).toBeGreaterThanOrEqual(3);
  for (const [id, status] of written()) expect(status, sent.get(id)?.url).toBe(403);
  expect(await count()).toBe(before);
  expect((await context.cookies()).map((cookie) => cookie.value)).toEqual([KEY]);
  await context.close();
  hostile.close();
});

it.skipIf(NO_KEYS || PROGRAM === undefined)("keeps the sessions of two dashboards on one host apart", async () => {
  const gateway: ChildProcess = await startGateway();
  const other = await serve(FOLDER, PORT, `http://127.0.0.1:${GATEWAY_PORT}`, INGEST);
  const context = await dashboard.browser.newContext();
  const page = await open(context);
  await live(page);
  const second = await context.newPage();
  const { key } = newKey("statistics:read");
  await second.goto(`http://127.0.0.1:${PORT}/?unit=year#${key}`);
  await live(second);
  const values = (await context.cookies()).map((cookie) => [cookie.name, cookie.value] as const);
  expect(new Map(values)).toEqual(new Map([[`newcycle-${new URL(dashboard.url).port}`, KEY], [`newcycle-${PORT}`, key]]));
  const button = (page: Page) => page.locator("#log-out").getAttribute("title");
  expect(await button(second)).not.toBe(await button(page));
  await second.locator("#log-out").click();
  await denied(second);
  await page.reload();
  await live(page);
  await context.close();
  other.close();
  await killService(gateway);
});

it.skipIf(PROGRAM === undefined)("shows without a session what everyone may read", async () => {
  const gateway = await startGateway({ NEWCYCLE__ACCESS__ANONYMOUS_SCOPES: "statistics:read" });
  const server = await serve(FOLDER, PORT, `http://127.0.0.1:${GATEWAY_PORT}`, INGEST);
  const page = await dashboard.browser.newPage();
  await page.goto(`http://127.0.0.1:${PORT}/`);
  await live(page);
  for (const selector of ["#denial", "#add-events", "#log-out"]) expect(await isShown(page, selector), selector).toBe(false);
  await page.context().close();
  server.close();
  await killService(gateway);
});

it("renews the session of a wall once a day, without a reload", async () => {
  const context = await dashboard.browser.newContext();
  await context.clock.install();
  const page = await open(context);
  await live(page);
  const renewals: string[] = [];
  page.on("request", (request) => {
    if (request.url().endsWith("/session")) renewals.push(`${request.method()} ${request.postData() ?? ""}`);
  });
  const expires = async () => (await context.cookies())[0]?.expires ?? 0;
  await page.evaluate("globalThis.reloaded = false");
  for (let day = 1; day <= 3; day += 1) {
    const before = await expires();
    await page.waitForTimeout(1_100);
    await context.clock.fastForward("12:00:00");
    await page.waitForTimeout(300);
    expect(renewals, "not twice a day").toHaveLength(day - 1);
    await context.clock.fastForward("12:30:00");
    await expect.poll(() => renewals.length).toBe(day);
    await expect.poll(expires).toBeGreaterThan(before);
    await live(page);
  }
  expect(new Set(renewals)).toEqual(new Set(["POST "]));
  expect(await page.evaluate("globalThis.reloaded")).toBe(false);
  await context.close();
});

it("says why there is no login over http beyond this machine", async () => {
  const server = await serve(FOLDER, PORT, GATEWAY, INGEST);
  const page = await dashboard.browser.newPage();
  let sent = "";
  page.on("request", (request) => (sent += request.url() + (request.postData() ?? "")));
  await page.goto(`http://newcycle.test:${PORT}/#${KEY}`);
  await denied(page);
  expect(await title(page)).toBe("There is no login over http");
  expect(await page.locator("#denial").innerText()).toContain("https");
  expect(page.url()).not.toContain("nc_");
  expect(sent.replace(`/#${KEY}`, "/"), "the key is not sent").not.toContain("nc_");
  await page.context().close();
  server.close();
});

it.skipIf(PROGRAM === undefined)("says that access is open", async () => {
  const gateway = await startGateway({ NEWCYCLE__ACCESS__MODE: "open" });
  const own = await start(`http://127.0.0.1:${GATEWAY_PORT}`);
  const page = await own.browser.newPage();
  await page.goto(`${own.url}/?unit=year`);
  await live(page);
  expect(await page.locator("#open").innerText()).toContain("Access is open");
  expect(await isShown(page, "#log-out")).toBe(false);
  expect(await barriers(page)).toEqual([]);
  await own.close();
  await killService(gateway);
});

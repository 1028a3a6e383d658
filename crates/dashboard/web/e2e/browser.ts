// A browser with pages of the dashboard. A violation of the page's security policy, an error of the
// page, or a request to another host than the services fails the test.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { serve } from "./serve";

export const GATEWAY = process.env["GATEWAY_URL"] ?? "http://127.0.0.1:8081";
export const INGEST = process.env["INGEST_URL"] ?? "http://127.0.0.1:8080";
/** The port of the tests' own page server. */
export const PORT = Number(process.env["DASHBOARD_PORT"] ?? 8082);

/** The link that logs a browser in, with a key that may add events and read. */
const LINK = process.env["LOGIN_LINK"] ?? "";
export const KEY = LINK.slice(LINK.indexOf("#") + 1);
/** The headers of requests that the tests send themselves. */
export const AUTHORIZED = { authorization: `Bearer ${KEY}` };

/** The built page. */
export const FOLDER = fileURLToPath(new URL("../dist", import.meta.url));

/** Prevents the browser from sending requests of its own. */
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // A host that is not loopback.
  "--host-resolver-rules=MAP newcycle.test 127.0.0.1",
];

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export interface Dashboard {
  readonly url: string;
  readonly browser: Browser;
  /**
   * Opens a page in a new browser context, or in the given one. Tabs of one context share a worker
   * and a session. The first one logs in with the key.
   */
  open(query?: string, context?: BrowserContextOptions | BrowserContext, key?: string): Promise<Page>;
  /** The problems of all pages since the last call. */
  problems(): string[];
  close(): Promise<void>;
}

/** Starts a browser, and a page server if the pages follow another gateway than the stack's. */
export async function start(gateway = GATEWAY): Promise<Dashboard> {
  const given = gateway === GATEWAY ? process.env["DASHBOARD_URL"] : undefined;
  const server = given === undefined ? await serve(FOLDER, PORT, gateway, INGEST) : null;
  const url = given ?? `http://127.0.0.1:${PORT}`;
  const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  let problems: string[] = [];
  const hosts = [url, gateway, INGEST].map((address) => new URL(address).host);
  const loggedIn = new WeakSet<BrowserContext>();
  const watch = (page: Page) => {
    page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
    page.on("console", (message) => {
      // Browsers report policy violations here. Failed requests are ignored: some tests cause them.
      if (/Content Security Policy|Refused to/.test(message.text())) problems.push(message.text());
    });
    page.on("request", (request) => {
      const { host, protocol } = new URL(request.url());
      if (protocol.startsWith("http") && !hosts.includes(host)) problems.push(`a request to ${host}`);
    });
  };
  return {
    url,
    browser,
    async open(query = "", given = {}, key = KEY) {
      const context = "newPage" in given ? given : await browser.newContext(given);
      const page = await context.newPage();
      watch(page);
      await page.goto(`${url}/${query}${loggedIn.has(context) ? "" : `#${key}`}`);
      loggedIn.add(context);
      return page;
    },
    problems() {
      const seen = problems;
      problems = [];
      return seen;
    },
    async close() {
      await browser.close();
      server?.close();
    },
  };
}

/** Waits until the page shows its counts as live. */
export async function live(page: Page): Promise<void> {
  await page.locator("#condition[data-kind=live]").waitFor({ timeout: 20_000 });
}

/** The displayed count of the current bucket of a metric. */
export async function shown(page: Page, metric: "item-creation" | "transfers"): Promise<number> {
  const text = await page.locator(`[data-metric=${metric}] [data-part=count]`).innerText();
  return Number(text.replaceAll(/\D/g, ""));
}

/** The accessibility problems that axe-core finds. */
export async function barriers(page: Page): Promise<unknown> {
  await page.evaluate(AXE);
  return page.evaluate(
    "axe.run().then((result) => result.violations.map((found) => `${found.id}: ${found.nodes.map((node) => node.html + ' ' + node.failureSummary).join('; ')}`))",
  );
}

/** The number of rows in the database, counted page by page through ingest-api. */
export async function rows(path: "items" | "transfers"): Promise<number> {
  let count = 0;
  for (let after: string | null = ""; after !== null; ) {
    const query = after === "" ? "" : `&after=${after}`;
    const response = await fetch(`${INGEST}/${path}?limit=1000${query}`, { headers: AUTHORIZED });
    const page = (await response.json()) as { data: unknown[]; next: string | null };
    count += page.data.length;
    after = page.next;
  }
  return count;
}

/** The times of all items in the database, in Unix milliseconds. */
export async function createdAt(): Promise<number[]> {
  const times: number[] = [];
  for (let after: string | null = ""; after !== null; ) {
    const query: string = after === "" ? "" : `&after=${after}`;
    const response = await fetch(`${INGEST}/items?limit=1000${query}`, { headers: AUTHORIZED });
    const page = (await response.json()) as { data: { created_at: string }[]; next: string | null };
    times.push(...page.data.map((item) => Date.parse(item.created_at)));
    after = page.next;
  }
  return times;
}

/** Posts to ingest-api, and returns the row. */
export async function post(path: string, body: object): Promise<{ id: string }> {
  const headers = { ...AUTHORIZED, "content-type": "application/json" };
  const response = await fetch(`${INGEST}/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as { id: string };
}

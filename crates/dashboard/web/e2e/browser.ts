// A browser, and pages of the dashboard in it. A violation of the page's security policy, an error of the page, and a
// request to any other host than the services each fail the test that sees it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, type BrowserContextOptions, type Page, chromium } from "playwright-core";
import { serve } from "./serve";

export const GATEWAY = process.env["GATEWAY_URL"] ?? "http://127.0.0.1:8081";
export const INGEST = process.env["INGEST_URL"] ?? "http://127.0.0.1:8080";
/** Where the tests serve the pages themselves; ingest-api must allow this origin. */
const PORT = Number(process.env["DASHBOARD_PORT"] ?? 8082);

/** Without these, the browser asks its maker's hosts for things of its own. */
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export interface Dashboard {
  readonly url: string;
  readonly browser: Browser;
  /** Opens a page in a window of its own kind, or in the one given: tabs of one window share a worker. */
  open(query?: string, window?: BrowserContextOptions | BrowserContext): Promise<Page>;
  /** What went wrong in pages since this was last asked. */
  problems(): string[];
  close(): Promise<void>;
}

/** Starts a browser; and where the pages are to follow another gateway than the stack's, a server for them. */
export async function start(gateway = GATEWAY): Promise<Dashboard> {
  const given = gateway === GATEWAY ? process.env["DASHBOARD_URL"] : undefined;
  const folder = fileURLToPath(new URL("../dist", import.meta.url));
  const server = given === undefined ? await serve(folder, PORT, gateway, INGEST) : null;
  const url = given ?? `http://127.0.0.1:${PORT}`;
  const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  let problems: string[] = [];
  const hosts = [url, gateway, INGEST].map((address) => new URL(address).host);
  const watch = (page: Page) => {
    page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
    page.on("console", (message) => {
      // Browsers report violations of the policy there; that a request failed is what some tests are about.
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
    async open(query = "", window = {}) {
      const context = "newPage" in window ? window : await browser.newContext(window);
      const page = await context.newPage();
      watch(page);
      await page.goto(`${url}/${query}`);
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

/** Waits until the page shows its numbers as live. */
export async function live(page: Page): Promise<void> {
  await page.locator("#condition[data-kind=live]").waitFor({ timeout: 20_000 });
}

/** The count of the current bucket of a metric, as shown. */
export async function shown(page: Page, metric: "item-creation" | "transfers"): Promise<number> {
  const text = await page.locator(`[data-metric=${metric}] [data-part=count]`).innerText();
  return Number(text.replaceAll(/\D/g, ""));
}

/** What axe-core finds that would keep somebody from using the page. */
export async function barriers(page: Page): Promise<unknown> {
  await page.evaluate(AXE);
  return page.evaluate(
    "axe.run().then((result) => result.violations.map((found) => `${found.id}: ${found.nodes.map((node) => node.html + ' ' + node.failureSummary).join('; ')}`))",
  );
}

/** How many rows the database has, counted page by page as ingest-api lists them. */
export async function rows(path: "items" | "transfers"): Promise<number> {
  let count = 0;
  for (let after: string | null = ""; after !== null; ) {
    const query = after === "" ? "" : `&after=${after}`;
    const response = await fetch(`${INGEST}/${path}?limit=1000${query}`);
    const page = (await response.json()) as { data: unknown[]; next: string | null };
    count += page.data.length;
    after = page.next;
  }
  return count;
}

/** Sends to ingest-api, and returns the row. */
export async function post(path: string, body: object): Promise<{ id: string }> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(`${INGEST}/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as { id: string };
}

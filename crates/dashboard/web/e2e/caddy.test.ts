// The documented configuration of Caddy, with services that have the documented settings: the page,
// the streams and ingest-api at one address, over HTTPS and HTTP/2. CADDY is the caddy binary.
// Skipped if it is missing.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type BrowserContext, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { KEY, live, shown } from "./browser";
import { PROGRAM } from "./gateway";
import { killService, startService } from "./service";

const CADDY = process.env["CADDY"];
/** A name that only this browser knows. The services must allow it. */
const NAME = "newcycle.test";
const [SITE_PORT = 0, ...PORTS] = (process.env["CADDY_PORTS"] ?? "").split(",").map(Number);
const SITE = `https://${NAME}:${SITE_PORT}`;
const SKIPPED = CADDY === undefined || PROGRAM === undefined;

interface Service {
  readonly program: string;
  /** Where the documented configuration expects it. */
  readonly documented: string;
  readonly port: number;
  readonly internalPort: number;
  readonly settings: { readonly [variable: string]: string | undefined };
}

/** The settings that deploy/README.md lists. */
const BEHIND = { NEWCYCLE__HTTP__TRUSTED_PROXIES: "127.0.0.1", NEWCYCLE__HTTP__ALLOWED_HOSTS: NAME };
const service = (place: number, program: string | undefined, documented: string, settings: Service["settings"]): Service => ({
  program: program ?? "",
  documented,
  port: PORTS[2 * place] ?? 0,
  internalPort: PORTS[2 * place + 1] ?? 0,
  settings: { ...BEHIND, ...settings },
});
const ingest = service(0, process.env["INGEST_PROGRAM"], "127.0.0.1:8080", {
  NEWCYCLE__CORS__ALLOWED_ORIGINS: SITE,
  // It has no such setting; the others need it.
  NEWCYCLE__UPSTREAM__ADDRESSES: undefined,
  NEWCYCLE__DATABASE__PASSWORD: process.env["INGEST_PASSWORD"] ?? "",
});
const gateway = service(1, PROGRAM, "127.0.0.1:8081", { NEWCYCLE__CORS__ALLOWED_ORIGINS: SITE });
const dashboard = service(2, process.env["DASHBOARD_PROGRAM"], "127.0.0.1:8082", {
  NEWCYCLE__SERVICES__GATEWAY_URL: `${SITE}/gateway`,
  NEWCYCLE__SERVICES__INGEST_URL: `${SITE}/ingest`,
});
const SERVICES = [ingest, gateway, dashboard];

let folder: string;
let caddy: ChildProcess;
let browser: Browser;
const running = new Map<Service, ChildProcess>();

const run = async (service: Service) => {
  const { program, port, internalPort, settings } = service;
  running.set(service, await startService(program, port, internalPort, settings));
};

/** Starts Caddy with the documented file, on other ports. */
async function startCaddy(): Promise<void> {
  let site = readFileSync(new URL("../../../../deploy/Caddyfile", import.meta.url), "utf8");
  for (const { documented, port } of SERVICES) {
    if (!site.includes(documented)) throw new Error(`no ${documented} in deploy/Caddyfile`);
    site = site.replaceAll(documented, `127.0.0.1:${port}`);
  }
  writeFileSync(join(folder, "site"), site);
  // Certificates of its own, and nothing outside the folder.
  const options = `admin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\nstorage file_system ${folder}/storage`;
  writeFileSync(join(folder, "Caddyfile"), `{\n${options}\n}\nimport ${folder}/site\n`);
  const env = { PATH: process.env["PATH"], HOME: folder, NEWCYCLE_SITE: `${NAME}:${SITE_PORT}` };
  caddy = spawn(CADDY ?? "", ["run", "--config", join(folder, "Caddyfile"), "--adapter", "caddyfile"], { env, stdio: "ignore" });
}

beforeAll(async () => {
  if (SKIPPED) return;
  folder = mkdtempSync(join(tmpdir(), "newcycle-caddy-"));
  await startCaddy();
  await Promise.all(SERVICES.map(run));
  browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-quic", `--host-resolver-rules=MAP ${NAME} 127.0.0.1`],
  });
});
afterAll(async () => {
  if (SKIPPED) return;
  await browser?.close();
  for (const process of running.values()) await killService(process);
  if (caddy?.exitCode === null) {
    caddy.kill();
    await once(caddy, "exit");
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Opens the page, logs in if there is the fragment of a link, and waits until it is live. */
async function open(context: BrowserContext, link = ""): Promise<Page> {
  const page = await context.newPage();
  // Caddy may still start.
  await expect.poll(() => page.goto(`${SITE}/?unit=year${link}`).then(() => true, () => false), { timeout: 20_000 }).toBe(true);
  await live(page);
  return page;
}

/** What the page's own script could do: sends a request with the session. */
const send = (page: Page, path: string, body?: object) =>
  page.evaluate(
    async ({ path, body }) => {
      const init = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
      const response = await fetch(path, init);
      return { status: response.status, location: response.headers.get("location"), body: (await response.json()) as { id: string } };
    },
    { path, body },
  );

it.skipIf(SKIPPED)("a link logs in over HTTPS, and the page, its streams and its posts share one address", async () => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await open(context, `#${KEY}`);
  expect(page.url()).toBe(`${SITE}/?unit=year`);
  const cookies = await context.cookies();
  expect(cookies).toHaveLength(1);
  expect(cookies[0]).toMatchObject({ name: "__Host-newcycle", value: KEY, domain: NAME, path: "/", secure: true, httpOnly: true, sameSite: "Strict" });
  const answer = await page.reload();
  expect(await answer?.headerValue("strict-transport-security")).toBe("max-age=31536000");
  await live(page);
  const protocols = await page.evaluate(`
    performance.getEntries().filter((entry) => "nextHopProtocol" in entry && entry.name.startsWith("https:"))
      .map((entry) => new URL(entry.name).pathname.split("/")[1] + " " + entry.nextHopProtocol)
  `);
  expect(new Set(protocols as string[])).toEqual(new Set([" h2", "assets h2", "config.json h2", "gateway h2", "ingest h2"]));

  const count = await shown(page, "item-creation");
  const base = await send(page, "/ingest/base-items", { description: "behind Caddy" });
  const item = await send(page, "/ingest/items", { base_item_id: base.body.id });
  expect(item).toMatchObject({ status: 201, location: `/ingest/items/${item.body.id}` });
  expect(await send(page, item.location ?? "")).toMatchObject({ status: 200, body: { id: item.body.id } });
  await expect.poll(() => shown(page, "item-creation"), { timeout: 15_000 }).toBe(count + 1);
  await context.close();
});

it.skipIf(SKIPPED)("seven tabs with a stream each, and requests next to them, need one connection", async () => {
  const alone = await browser.newContext({ ignoreHTTPSErrors: true });
  await alone.addInitScript("delete globalThis.SharedWorker; delete globalThis.BroadcastChannel");
  const pages: Page[] = [];
  for (let tab = 0; tab < 7; tab += 1) pages.push(await open(alone, tab === 0 ? `#${KEY}` : ""));
  expect(await subscribers()).toBe(7);
  const first = pages[0] as Page;
  const count = await shown(first, "item-creation");
  const base = await send(first, "/ingest/base-items", { description: "seven tabs" });
  expect((await send(first, "/ingest/items", { base_item_id: base.body.id })).status).toBe(201);
  for (const page of pages) await expect.poll(() => shown(page, "item-creation"), { timeout: 15_000 }).toBe(count + 1);
  // Caddy ends a stream whose client is gone.
  await alone.close();
  await expect.poll(subscribers, { timeout: 5_000 }).toBe(0);
});

/** The number of streams of the gateway behind Caddy. */
async function subscribers(): Promise<number> {
  const secret = readFileSync(process.env["NEWCYCLE__INTERNAL__SECRET_FILE"] ?? "", "utf8").trim();
  const response = await fetch(`http://127.0.0.1:${gateway.internalPort}/metrics`, { headers: { authorization: `Bearer ${secret}` } });
  return Number(/^gateway_stream_subscribers (\d+)$/m.exec(await response.text())?.[1]);
}

it.skipIf(SKIPPED)("requests wait for a service that restarts", async () => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await open(context, `#${KEY}`);
  for (const [service, path] of [[dashboard, "/config.json"], [gateway, "/gateway/access"], [ingest, "/ingest/access"]] as const) {
    await killService(running.get(service));
    let status = 0;
    const answer = send(page, path).then((answer) => (status = answer.status));
    await page.waitForTimeout(1_000);
    expect(status, "it waits").toBe(0);
    await run(service);
    // Caddy would answer 502. A service that has no list of keys yet answers 503 itself.
    expect([200, 503]).toContain(await answer);
  }
  await live(page);
  await context.close();
});

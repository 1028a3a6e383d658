// A short form of the page's tests, in Firefox and in WebKit. FIREFOX, WEBKIT_DRIVER and XVFB are
// the programs. Tests whose variables are missing are skipped.

import type { ChildProcess } from "node:child_process";
import type { Server } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FOLDER, INGEST, KEY, PORT, post } from "./browser";
import { PORT as GATEWAY_PORT, PROGRAM, startGateway } from "./gateway";
import { type OtherBrowser, startFirefox, startWebKit } from "./other-browsers";
import { serve } from "./serve";
import { killService } from "./service";

const FIREFOX = process.env["FIREFOX"];
const WEBKIT_DRIVER = process.env["WEBKIT_DRIVER"];
const XVFB = process.env["XVFB"];

/** Collects all errors of the page, from its first script on. */
const WATCH = `
  globalThis.problems = [];
  addEventListener("error", (event) => problems.push("error: " + (event.message ?? event.target.outerHTML)), true);
  addEventListener("unhandledrejection", (event) => problems.push("rejection: " + event.reason));
  document.addEventListener("securitypolicyviolation", (event) => problems.push("policy: " + event.blockedURI));
  for (const level of ["error", "warn"]) {
    const report = console[level];
    console[level] = (...words) => { problems.push(level + ": " + words.join(" ")); report(...words); };
  }
`;

const webkit = (variables: NodeJS.ProcessEnv) => () => startWebKit(WEBKIT_DRIVER ?? "", XVFB ?? "", variables);
const hasWebKit = PROGRAM !== undefined && WEBKIT_DRIVER !== undefined && XVFB !== undefined;
const ENGLISH = { LANG: "en_US.UTF-8", LANGUAGE: "", LC_ALL: "" };
/** With this locale, WebKit reports "C" as the language. */
const NO_LANGUAGE = { LANG: "C.UTF-8", LANGUAGE: "", LC_ALL: "" };

const browsers: { name: string; exists: boolean; start: () => Promise<OtherBrowser>; languages: RegExp }[] = [
  { name: "Firefox", exists: FIREFOX !== undefined && PROGRAM !== undefined, start: () => startFirefox(FIREFOX ?? ""), languages: /en/ },
  { name: "WebKit", exists: hasWebKit, start: webkit(ENGLISH), languages: /en/ },
  { name: "WebKit without a language", exists: hasWebKit, start: webkit(NO_LANGUAGE), languages: /^C$/ },
];

let server: Server;
let gateway: ChildProcess | undefined;
let baseItem: string;
beforeAll(async () => {
  if (PROGRAM === undefined) return;
  // It lets the page of this server use its session.
  gateway = await startGateway();
  server = await serve(FOLDER, PORT, `http://127.0.0.1:${GATEWAY_PORT}`, INGEST, WATCH);
  baseItem = (await post("base-items", { description: "another browser" })).id;
  await post("items", { base_item_id: baseItem });
});
afterAll(async () => {
  server?.close();
  await killService(gateway);
});

describe.each(browsers.filter((browser) => browser.exists))("in $name", ({ name, start, languages }) => {
  let browser: OtherBrowser | undefined;
  beforeAll(async () => {
    browser = await start();
  });
  afterAll(() => browser?.close());

  const value = (expression: string) => browser?.value(expression) ?? Promise.reject(new Error("no browser"));
  const text = (selector: string) => value(`document.querySelector(${JSON.stringify(selector)}).innerText.trim()`);
  const count = async () => Number(String(await text("[data-metric=item-creation] [data-part=count]")).replaceAll(/\D/g, ""));
  const expectSoon = (what: string, look: () => Promise<unknown>, wanted: unknown) =>
    expect.poll(look, { timeout: 20_000, interval: 50, message: what }).toEqual(wanted);

  it("follows the counts, and changes the view", async () => {
    await browser?.open(`http://127.0.0.1:${PORT}/?unit=year#${KEY}`);
    console.log(`${name}: ${await value("navigator.userAgent")}`);
    expect(await value("navigator.languages.join()")).toMatch(languages);
    await expectSoon("the page is live", () => text("#condition-text"), "Live");
    const before = await count();
    expect(before).toBeGreaterThan(0);
    await post("items", { base_item_id: baseItem });
    await expectSoon("the new item is counted", count, before + 1);
    await browser?.click("#units input[value=day]");
    await expectSoon("the unit is shown", () => text("[data-metric=item-creation] [data-part=caption]"), "today, UTC");
    expect(await value("location.search")).toBe("?unit=day&last=30");
    await browser?.click("#earlier");
    await expectSoon("the period is fixed", () => value("new URLSearchParams(location.search).has('from')"), true);
    expect(await value("problems")).toEqual([]);
  });
});

it.runIf(browsers.every((browser) => !browser.exists))("without other browsers, there is nothing to test", () => undefined);

// The page in a real browser, against a running stack.

import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { AUTHORIZED, type Dashboard, GATEWAY, barriers, createdAt, live, post, rows, shown, start } from "./browser";

let dashboard: Dashboard;
let baseItem: string;
let user: string;
let item: string;
beforeAll(async () => {
  dashboard = await start();
  baseItem = (await post("base-items", { description: "an end-to-end test" })).id;
  user = (await post("users", {})).id;
  item = (await post("items", { base_item_id: baseItem })).id;
});
afterAll(() => dashboard.close());
afterEach(() => expect(dashboard.problems()).toEqual([]));

const expectSoon = (what: string, look: () => Promise<unknown>, wanted: unknown) =>
  expect.poll(look, { timeout: 15_000, interval: 50, message: what }).toEqual(wanted);

/** The count of the newest bucket of a topic, from the gateway. */
async function counted(topic: string): Promise<number> {
  const response = await fetch(`${GATEWAY}/statistics/${topic}?last=1`, { headers: { ...AUTHORIZED, accept: "application/json" } });
  const window = (await response.json()) as { buckets: { count: number }[] };
  return window.buckets.at(-1)?.count ?? 0;
}

it("shows new events immediately", async () => {
  const page = await dashboard.open("?unit=year");
  await live(page);
  const before = await shown(page, "transfers");
  await Promise.all(Array.from({ length: 60 }, () => post("transfers", { item_id: item, owner_id: user })));
  await expectSoon("the burst is shown", () => shown(page, "transfers"), before + 60);
  expect(await counted("transfers/year")).toBe(before + 60);
  expect(await shown(page, "item-creation")).toBe(await counted("item-creation/year"));
  // All rows in the database of the tests are from this year.
  expect(await shown(page, "transfers")).toBe(await rows("transfers"));
  expect(await shown(page, "item-creation")).toBe(await rows("items"));
  await page.context().close();
});

it("says how old the counts are, also if nothing happens", async () => {
  const page = await dashboard.open("?unit=year");
  await live(page);
  const age = page.locator("#age");
  const seconds = async () => Number(/^as of ([0-9.]+) s ago$/.exec(await age.innerText())?.[1]);
  // Each hop repeats its status once a second, so the age goes up and down.
  let last = await seconds();
  const directions = new Set<number>();
  const goesOn = async () => {
    const now = await seconds();
    directions.add(Math.sign(now - last));
    last = now;
    return directions.has(1) && directions.has(-1);
  };
  await expectSoon("it grows, and is confirmed again", goesOn, true);
  await page.context().close();
});

it("changes the unit with one click, and goes back and forward", async () => {
  const page = await dashboard.open();
  await live(page);
  const caption = page.locator("[data-metric=transfers] [data-part=caption]");
  for (const unit of ["second", "hour", "week", "month", "quarter", "year"]) {
    await page.locator(`#units input[value=${unit}]`).click();
    await expectSoon("the unit is shown", () => caption.innerText().then((text) => text.includes(`this ${unit}`)), true);
    expect(new URL(page.url()).searchParams.get("unit")).toBe(unit);
  }
  await page.goBack();
  await expectSoon("back", () => caption.innerText(), "this quarter, UTC");
  await page.goForward();
  await expectSoon("forward", () => caption.innerText(), "this year, UTC");
  const copy = await dashboard.open(new URL(page.url()).search);
  await expectSoon("a link shows the same", () => copy.locator("#units input:checked").inputValue(), "year");
  await Promise.all([page.context().close(), copy.context().close()]);
});

it("zooms by dragging, both charts in step, and comes back", async () => {
  const page = await dashboard.open("?unit=minute&last=240");
  await live(page);
  const box = await page.locator("[data-metric=transfers] .u-over").boundingBox();
  if (box === null) throw new Error("there is no chart");
  const at = (part: number) => [box.x + box.width * part, box.y + box.height / 2] as const;
  await page.mouse.move(...at(0.5));
  const readouts = page.locator("[data-part=readout]");
  await expectSoon("both say the same minute", async () => {
    const [one, other] = await readouts.allInnerTexts();
    return one?.split(": ")[0] === other?.split(": ")[0] && /: [\d,]+$/.test(one ?? "");
  }, true);
  await page.mouse.move(...at(0.25));
  await page.mouse.down();
  await page.mouse.move(...at(0.5), { steps: 5 });
  await page.mouse.up();
  await expectSoon("the period is in the address", async () => new URL(page.url()).searchParams.has("from"), true);
  const { searchParams } = new URL(page.url());
  const minutes = (Date.parse(searchParams.get("to") ?? "") - Date.parse(searchParams.get("from") ?? "")) / 60_000;
  expect(minutes).toBeGreaterThan(55);
  expect(minutes).toBeLessThan(65);
  await page.locator("#newest").click();
  await expectSoon("it follows again", async () => new URL(page.url()).search, "?unit=minute&last=240");
  await page.context().close();
});

it("shows counts from before the live window", async () => {
  const long = new Date(Date.UTC(1987, 5, 5, 12, 30)).toISOString();
  await post("items", { base_item_id: baseItem, created_at: long });
  const page = await dashboard.open("?unit=day&from=1987-06-01T00:00:00Z&to=1987-06-20T00:00:00Z");
  await live(page);
  const readout = page.locator("[data-metric=item-creation] [data-part=readout]");
  await expectSoon("the old day is shown", () => readout.innerText().then((text) => /^\d+ in total, peak \d+ at .*Jun 5, 1987 UTC$/.test(text)), true);
  for (let click = 0; click < 3; click += 1) await page.locator("#earlier").click();
  await expectSoon("an earlier period has no events", () => readout.innerText(), "0 in total");
  await page.context().close();
});

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

it("compares the whole hours of today with the same hours of earlier days", async () => {
  const today = Math.floor(Date.now() / DAY) * DAY;
  // Some before and some after this time of day, and not as many on each day.
  for (const [daysAgo, counts] of [[1, [3, 1, 4]], [7, [2, 6, 5]]] as const) {
    for (const [index, hour] of [0, 11, 23].entries()) {
      const time = new Date(today - daysAgo * DAY + hour * HOUR + 1).toISOString();
      for (let count = 0; count < (counts[index] ?? 0); count += 1) await post("items", { base_item_id: baseItem, created_at: time });
    }
  }
  // A recount of the database, by the service's rows.
  const expected = async () => {
    const times = await createdAt();
    const now = Date.now();
    const midnight = Math.floor(now / DAY) * DAY;
    const passed = Math.floor((now - midnight) / HOUR) * HOUR;
    const count = (daysAgo: number) => times.filter((time) => time >= midnight - daysAgo * DAY && time < midnight - daysAgo * DAY + passed).length;
    return [1, 7].map((daysAgo) => (passed === 0 ? null : count(0) - count(daysAgo)));
  };
  const page = await dashboard.open("?unit=day");
  await live(page);
  const change = async (part: string) => {
    const text = await page.locator(`[data-metric=item-creation] [data-part=${part}]`).innerText();
    return text === "–" ? null : Number(text.split(" ")[0]?.replaceAll(",", ""));
  };
  await expectSoon("the changes are a recount", async () => {
    const [before, shown, after] = [await expected(), [await change("change"), await change("week-change")], await expected()];
    // A new hour may have begun meanwhile.
    return [before, after].some((counts) => JSON.stringify(counts) === JSON.stringify(shown));
  }, true);
  await page.context().close();
});

it("shows the same if the clock of the viewer is wrong", async () => {
  for (const error of [-400 * DAY, -5_000, 5_000, 3 * DAY]) {
    const window = await dashboard.browser.newContext();
    await window.addInitScript(`{ const now = Date.now; Date.now = () => now() + ${error}; }`);
    const page = await dashboard.open("?unit=minute", window);
    await live(page);
    // The seconds that have passed, by this machine's clock, which is the server's.
    const passed = () => {
      const seconds = new Date().getUTCSeconds();
      return seconds === 0 ? "no whole second" : seconds === 1 ? "second 0," : `seconds 0 to ${seconds - 1},`;
    };
    const compared = page.locator("[data-metric=transfers] [data-part=compared]");
    await expectSoon("the server's second is the running one", () => compared.innerText().then((text) => text.startsWith(passed())), true);
    await window.close();
  }
});

it("has labels in a view of thousands of years", async () => {
  const window = await dashboard.browser.newContext();
  await window.addInitScript(`{
    globalThis.drawn = new Set();
    const draw = CanvasRenderingContext2D.prototype.fillText;
    CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) { drawn.add(text); return draw.call(this, text, ...rest); };
  }`);
  const page = await dashboard.open("?unit=year&from=0001-01-01T00:00:00Z&to=4001-01-01T00:00:00Z", window);
  await live(page);
  await expectSoon("years are drawn", () => page.evaluate("['1000', '2000', '3000'].every((year) => drawn.has(year))"), true);
  await window.close();
});

it("opens with any list of languages, and names months by the Gregorian calendar", async () => {
  const month = (locale: string) => new Intl.DateTimeFormat(locale, { month: "long", calendar: "gregory", timeZone: "UTC" }).format();
  for (const [languages, name] of [
    ['["C"]', month("en")],
    ["[]", month("en")],
    ["undefined", month("en")],
    ['["xx-invalid", "en_US"]', month("en")],
    ['["fa-IR"]', month("fa-IR")],
    ['["ja-JP-u-ca-japanese"]', month("ja")],
  ] as const) {
    const window = await dashboard.browser.newContext();
    const property = (name: string, value: string) => `Object.defineProperty(Navigator.prototype, "${name}", { get: () => ${value}, configurable: true });`;
    await window.addInitScript(property("languages", languages) + property("language", `(${languages})?.[0]`));
    const page = await dashboard.open("?unit=month", window);
    await live(page);
    await page.locator("[data-metric=transfers] [data-part=chart]").press("ArrowLeft");
    const readout = page.locator("[data-metric=transfers] [data-part=readout]");
    await expectSoon(`the month is named with ${languages}`, () => readout.innerText().then((text) => text.includes(name)), true);
    await window.close();
  }
});

it("shows descriptions so that none reads as another", async () => {
  const tricky = "end-to-end \u202Eelcycib\u2069 דוגמה 12";
  const { id } = await post("base-items", { description: tricky });
  const page = await dashboard.open("?unit=year");
  await live(page);
  await page.locator("#add-events > summary").click();
  const input = page.locator("[data-pick=base-item] input");
  await input.fill(id.slice(-8));
  const option = page.locator("[data-pick=base-item] [role=option]").first();
  const label = `\u2068end-to-end [U+202E]elcycib[U+2069] דוגמה 12\u2069 …${id.slice(-8)}`;
  await expectSoon("the control characters are visible", () => option.textContent(), label);
  // The id is at the end, and reads from left to right.
  const places = await option.evaluate((option) => {
    const text = option.firstChild as Text;
    const place = (index: number) => {
      const range = document.createRange();
      range.setStart(text, index);
      range.setEnd(text, index + 1);
      return range.getBoundingClientRect().left;
    };
    return Array.from({ length: 8 }, (_, index) => place(text.length - 8 + index));
  });
  expect(places).toEqual([...places].sort((one, other) => one - other));
  await option.click();
  expect(await input.inputValue()).toBe(label);
  // A description that is typed from an edited label has no isolates.
  await input.press("End");
  await input.press("x");
  await expectSoon("the text for a new row", () => page.locator("[data-pick=base-item] [role=option]").last().textContent(), `New base item “${label.replaceAll(/[\u2068\u2069]/g, "").replace(/^/, "\u2068")}x\u2069”`);
  await page.context().close();
});

it("shows how far back a unit is kept", async () => {
  const page = await dashboard.open("?unit=second&from=1999-06-01T00:00:00Z&to=1999-06-01T00:10:00Z");
  await live(page);
  await expectSoon("the note is shown", () => page.locator("#note").innerText().then((text) => text.includes("have expired")), true);
  await page.context().close();
});

it("keeps seven tabs live over HTTP/1.1, with and without a shared worker", async () => {
  for (const lacking of [null, "SharedWorker"]) {
    const window = await dashboard.browser.newContext();
    if (lacking !== null) await window.addInitScript(`delete globalThis.${lacking}`);
    const pages: Page[] = [];
    for (let tab = 0; tab < 7; tab += 1) pages.push(await dashboard.open("?unit=year", window));
    for (const page of pages) await live(page);
    const before = await counted("transfers/year");
    await post("transfers", { item_id: item, owner_id: user });
    for (const page of pages) await expectSoon("every tab shows it", () => shown(page, "transfers"), before + 1);
    // Without a worker, the first tab leads. Another one takes over.
    await pages.shift()?.close();
    await post("transfers", { item_id: item, owner_id: user });
    for (const page of pages) await expectSoon("the others continue", () => shown(page, "transfers"), before + 2);
    for (const page of pages) await live(page);
    await window.close();
  }
});

it("creates and transfers an item by keyboard", async () => {
  const page = await dashboard.open("?unit=year");
  await live(page);
  const [items, transfers] = [await shown(page, "item-creation"), await shown(page, "transfers")];
  await page.locator("#add-events > summary").press("Enter");
  const pick = async (list: string, typed: string) => {
    const input = page.locator(`[data-pick=${list}] input`);
    await input.focus();
    await input.fill(typed);
    await page.locator(`[data-pick=${list}] [role=option]`).first().waitFor();
    await input.press("ArrowDown");
    await input.press("Enter");
  };
  await pick("base-item", "end-to-end");
  await page.locator("#create button").press("Enter");
  await expectSoon("the item is shown", () => shown(page, "item-creation"), items + 1);
  await expectSoon("the result is shown", () => page.locator("#create output").innerText().then((text) => text.startsWith("Created item")), true);
  await pick("item", "");
  await pick("user", "");
  await page.locator("#transfer button").press("Enter");
  await expectSoon("the transfer is shown", () => shown(page, "transfers"), transfers + 1);
  await page.locator("[data-pick=item] input").fill("00000000-0000-7000-8000-000000000000");
  await page.locator("#transfer button").press("Enter");
  const output = page.locator("#transfer output");
  await expectSoon("the refusal of the API is shown", () => output.getAttribute("data-failed"), "true");
  expect(await output.innerText()).toContain("item_id");
  await page.context().close();
});

it("reads out each bucket by keyboard", async () => {
  const page = await dashboard.open("?unit=year&last=25");
  await live(page);
  const chart = page.locator("[data-metric=transfers] [data-part=chart]");
  const readOut = () => chart.getAttribute("aria-valuetext");
  const year = new Date().getUTCFullYear();
  await chart.focus();
  await chart.press("ArrowLeft");
  await expectSoon("the newest", () => readOut().then((text) => text?.startsWith(`${year} UTC: `)), true);
  await chart.press("ArrowLeft");
  await expectSoon("the one before", () => readOut().then((text) => text?.startsWith(`${year - 1} UTC: `)), true);
  await chart.press("Escape");
  await expectSoon("all of them", () => readOut().then((text) => text?.includes("in total")), true);
  await chart.press("PageUp");
  await expectSoon("earlier", async () => new URL(page.url()).searchParams.has("from"), true);
  await chart.press("Escape");
  await expectSoon("and back", async () => new URL(page.url()).searchParams.has("from"), false);
  await page.context().close();
});

it("simulates traffic", async () => {
  const page = await dashboard.open("?unit=year");
  await live(page);
  const before = await shown(page, "item-creation");
  await page.locator("#add-events > summary").click();
  await page.locator("#traffic select").selectOption("20");
  await page.locator("[role=switch]").click();
  await expectSoon("items are created", () => shown(page, "item-creation").then((count) => count > before + 5), true);
  await page.locator("[role=switch]").click();
  await expectSoon("it stops", () => page.locator("[role=switch]").getAttribute("aria-checked"), "false");
  await page.context().close();
});

it("has no accessibility problems", async () => {
  for (const colorScheme of ["light", "dark"] as const) {
    for (const viewport of [{ width: 1440, height: 900 }, { width: 390, height: 844 }]) {
      const page = await dashboard.open("", { colorScheme, viewport });
      await live(page);
      await page.locator("#add-events > summary").click();
      await page.locator("[data-pick=base-item] input").click();
      await page.locator("[data-pick=base-item] [role=option]").first().waitFor();
      expect(await barriers(page)).toEqual([]);
      await page.context().close();
    }
  }
});

it("has no layout shifts while it loads and runs", async () => {
  const page = await dashboard.open();
  await page.evaluate(`new PerformanceObserver((list) => { for (const entry of list.getEntries()) globalThis.shifted = (globalThis.shifted ?? 0) + entry.value; }).observe({ type: "layout-shift", buffered: true })`);
  await live(page);
  await post("items", { base_item_id: baseItem });
  await page.waitForTimeout(1_500);
  expect(await page.evaluate("globalThis.shifted ?? 0")).toBeLessThan(0.01);
  await page.context().close();
});

it("loads less than 150 kB, compressed", async () => {
  const page = await dashboard.open();
  await live(page);
  const bytes = await page.evaluate(() =>
    performance
      .getEntries()
      .filter((entry): entry is PerformanceResourceTiming => entry instanceof PerformanceResourceTiming)
      .filter((entry) => entry.name.startsWith(location.origin))
      .reduce((sum, entry) => sum + entry.transferSize, 0),
  );
  expect(bytes).toBeGreaterThan(10_000);
  expect(bytes).toBeLessThan(150_000);
  await page.context().close();
});

it("uses little of the main thread at ten updates per second", async () => {
  const page = await dashboard.open("?unit=second&last=3600");
  await live(page);
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const busy = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return metrics.find((metric) => metric.name === "TaskDuration")?.value ?? 0;
  };
  const [began, before] = [performance.now(), await busy()];
  for (let update = 0; update < 50; update += 1) {
    await post("items", { base_item_id: baseItem });
    await page.waitForTimeout(90);
  }
  const share = (await busy() - before) / ((performance.now() - began) / 1_000);
  console.log(`the main thread was busy for ${(share * 100).toFixed(1)} % of the time`);
  expect(share).toBeLessThan(0.5);
  await page.context().close();
});

// Takes screenshots, into the folder in PICTURES.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Dashboard, live, post, start } from "./browser";

const FOLDER = process.env["PICTURES"] ?? "pictures";

let dashboard: Dashboard;
beforeAll(async () => {
  mkdirSync(FOLDER, { recursive: true });
  dashboard = await start();
  const { id } = await post("base-items", { description: "a bicycle" });
  await post("items", { base_item_id: id });
});
afterAll(() => dashboard.close());

const screens = {
  "desktop-light": { viewport: { width: 1440, height: 900 }, colorScheme: "light" },
  "desktop-dark": { viewport: { width: 1440, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "light", deviceScaleFactor: 2, hasTouch: true },
  "phone-dark": { viewport: { width: 390, height: 844 }, colorScheme: "dark", deviceScaleFactor: 2, hasTouch: true },
  "full-hd": { viewport: { width: 1920, height: 1080 }, colorScheme: "dark" },
  wall: { viewport: { width: 3840, height: 2160 }, colorScheme: "dark" },
} as const;

const queries = { "": "", "-seconds": "?unit=second&last=300", "-weeks": "?unit=week&last=52", "-milliseconds": "?unit=millisecond" } as const;

for (const [screen, window] of Object.entries(screens)) {
  it(`on ${screen}`, async () => {
    for (const [name, query] of Object.entries(queries)) {
      const page = await dashboard.open(query, window);
      await live(page);
      await page.waitForTimeout(400);
      await page.screenshot({ path: join(FOLDER, `${screen}${name}.png`) });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      expect(wide, "the page must not be wider than the screen").toBe(false);
      await page.context().close();
    }
    expect(dashboard.problems()).toEqual([]);
  });
}

it("with \"Add events\" open", async () => {
  for (const screen of ["desktop-light", "phone"] as const) {
    const page = await dashboard.open("", screens[screen]);
    await live(page);
    await page.locator("#add-events > summary").click();
    await page.locator("[data-pick=item] input").click();
    await page.locator("[data-pick=item] [role=option]").first().waitFor();
    await page.screenshot({ path: join(FOLDER, `${screen}-add-events.png`), fullPage: true });
    await page.context().close();
  }
  expect(dashboard.problems()).toEqual([]);
});

// An hour of ten updates a second, as fast as the page takes them: its memory must not grow. The gateway is a pretended
// one, whose time runs faster, and there is no shared worker, so that what the hub holds is measured with the page's.

import { once } from "node:events";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Dashboard, live, start } from "./browser";

const BEGIN = Date.parse("2026-11-23T09:00:00Z");
const UPDATES = 36_000;
/** Updates of one piece of time on the wire. */
const BATCH = 20;

let gateway: Server;
let dashboard: Dashboard;
let sent = 0;
let pause: () => Promise<void> = async () => undefined;

const topics = (count: number, buckets: { time: string; count: number }[]) =>
  ["item-creation/second", "transfers/second"].map((topic) => ({ topic, window: 3_600, buckets: buckets.map((bucket) => ({ ...bucket, count })) }));

beforeAll(async () => {
  gateway = createServer(async (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "access-control-allow-origin": "*" });
    const say = (type: string, data: unknown, id = "") => `event: ${type}\n${id}data: ${JSON.stringify(data)}\n\n`;
    const status = (now: number) => say("status", { upstream: "live", since: new Date(BEGIN).toISOString(), now: new Date(now).toISOString() });
    response.write(say("snapshot", topics(0, []), "id: ab.0\n") + status(BEGIN));
    while (sent < UPDATES && !response.destroyed) {
      let text = "";
      for (const end = sent + BATCH; sent < end; ) {
        sent += 1;
        const time = new Date(BEGIN + Math.floor(sent / 10) * 1_000).toISOString();
        text += say("patch", topics((sent % 10) + 1, [{ time, count: 0 }]), `id: ab.${sent}\n`);
      }
      if (!response.write(text + status(BEGIN + sent * 100))) await once(response, "drain");
      await pause();
    }
  });
  gateway.listen(0, "127.0.0.1");
  await once(gateway, "listening");
  dashboard = await start(`http://127.0.0.1:${(gateway.address() as AddressInfo).port}`);
});
afterAll(async () => {
  await dashboard.close();
  gateway.closeAllConnections();
  gateway.close();
});

it("holds no more after an hour than after a quarter of one", async () => {
  pause = () => new Promise((resolve) => setTimeout(resolve, 20));
  const window = await dashboard.browser.newContext();
  await window.addInitScript("delete globalThis.SharedWorker");
  const page = await dashboard.open("?unit=second&last=900", window);
  await live(page);
  const session = await window.newCDPSession(page);
  await session.send("HeapProfiler.enable");
  const heap = async (updates: number) => {
    await expect.poll(() => sent, { timeout: 120_000, interval: 20 }).toBeGreaterThanOrEqual(updates);
    await session.send("HeapProfiler.collectGarbage");
    return (await session.send("Runtime.getHeapUsage")).usedSize / 1e6;
  };
  const [quarter, end] = [await heap(UPDATES / 4), await heap(UPDATES)];
  console.log(`the heap held ${quarter.toFixed(2)} MB after a quarter, ${end.toFixed(2)} MB at the end`);
  const readout = page.locator("[data-metric=transfers] [data-part=readout]");
  // Ten in each of 900 seconds, but for the one that is not over yet.
  await expect.poll(() => readout.innerText(), { timeout: 3_000 }).toMatch(/^(8,9|9,0)\d\d in all/);
  // The window fills up meanwhile: 2,700 more buckets of 2 topics, in the hub and in the tab, of 16 bytes and some.
  expect(end - quarter).toBeLessThan(1);
  expect(dashboard.problems()).toEqual([]);
}, 180_000);

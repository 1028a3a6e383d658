// One hour of ten updates per second, sent as fast as the page accepts them: its memory must not
// grow. The gateway is simulated, and its clock runs faster. There is no shared worker, so the
// hub's memory is measured together with the page's.

import { once } from "node:events";
import { type Server, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Dashboard, live, start } from "./browser";

const BEGIN = Date.parse("2026-11-23T09:00:00Z");
const UPDATES = 36_000;
/** Updates per write. */
const BATCH = 20;

let gateway: Server;
let dashboard: Dashboard;
let sent = 0;
let pause: () => Promise<void> = async () => undefined;

const topics = (count: number, buckets: { time: string; count: number }[]) =>
  ["item-creation/second", "transfers/second"].map((topic) => ({ topic, window: 3_600, buckets: buckets.map((bucket) => ({ ...bucket, count })) }));

beforeAll(async () => {
  gateway = createServer(async (request, response) => {
    response.setHeader("access-control-allow-origin", request.headers.origin ?? "*");
    response.setHeader("access-control-allow-credentials", "true");
    if (request.url === "/access") {
      response.end(JSON.stringify({ name: "test", kind: "key", scopes: ["statistics:read"], expires_in: null }));
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const event = (type: string, data: unknown, id = "") => `event: ${type}\n${id}data: ${JSON.stringify(data)}\n\n`;
    const status = (now: number) => event("status", { upstream: "live", since: new Date(BEGIN).toISOString(), now: new Date(now).toISOString() });
    response.write(event("snapshot", topics(0, []), "id: ab.0\n") + status(BEGIN));
    while (sent < UPDATES && !response.destroyed) {
      let text = "";
      for (const end = sent + BATCH; sent < end; ) {
        sent += 1;
        const time = new Date(BEGIN + Math.floor(sent / 10) * 1_000).toISOString();
        text += event("patch", topics((sent % 10) + 1, [{ time, count: 0 }]), `id: ab.${sent}\n`);
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

it("uses no more memory after an hour than after a quarter of an hour", async () => {
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
  const quarter = await heap(UPDATES / 4);
  const end = await heap(UPDATES);
  console.log(`the heap had ${quarter.toFixed(2)} MB after a quarter, ${end.toFixed(2)} MB at the end`);
  const readout = page.locator("[data-metric=transfers] [data-part=readout]");
  // Ten per second for 900 seconds, except for the current one.
  await expect.poll(() => readout.innerText(), { timeout: 3_000 }).toMatch(/^(8,9|9,0)\d\d in total/);
  // The window fills up meanwhile: 2,700 more buckets of 2 topics, in the hub and in the tab, of a
  // little more than 16 bytes each.
  expect(end - quarter).toBeLessThan(1);
  expect(dashboard.problems()).toEqual([]);
}, 180_000);

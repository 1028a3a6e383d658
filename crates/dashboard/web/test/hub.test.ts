// The hub against a real server: one connection for all tabs.

import { type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HEARTBEAT, Hub, type HubMessage } from "../src/share/hub";
import { Statistics, type Topic } from "../src/statistics-stream";

let server: Server;
let hub: Hub;
let open: { topics: Topic[]; response: ServerResponse }[];
/** The topics of every connection so far. */
let requested: Topic[][];
let tick = 0;
let permitted: Topic[] | null;

const event = (type: string, data: object, id = "") => `event: ${type}\n${id === "" ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
const windows = (topics: Topic[], count: number) =>
  topics.map((topic) => ({ topic, window: 10, buckets: [{ time: "2026-11-23T00:00:00Z", count }] }));

/** The count of a topic changes. */
function change(topic: Topic, count: number): void {
  tick += 1;
  for (const { topics, response } of open) {
    if (topics.includes(topic)) response.write(event("patch", windows([topic], count), `ab.${tick}`));
  }
}

const address = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

/** A tab that applies the frames it gets. */
function tab(name: string) {
  const statistics = new Statistics();
  const messages: HubMessage[] = [];
  const receive = (message: HubMessage) => {
    messages.push(message);
    if (message.kind === "frame") expect(statistics.apply(message.frame)).toBeNull();
  };
  return {
    watch: (...topics: Topic[]) => hub.receive(name, { kind: "watch", topics }, receive),
    change: () => hub.receive(name, { kind: "session" }, receive),
    leave: () => hub.receive(name, { kind: "leave" }, receive),
    count: (topic: Topic) => statistics.window(topic)?.counts[0],
    /** Until when the counts of each condition message have every event. */
    complete: () => messages.filter((message) => message.kind === "condition").map((message) => message.complete),
    conditions: () =>
      messages.filter((message) => message.kind === "condition").map((message) => message.condition.kind),
  };
}

beforeEach(async () => {
  open = [];
  requested = [];
  tick = 0;
  permitted = null;
  server = createServer((request, response) => {
    const topics = new URL(request.url ?? "", "http://localhost").searchParams.getAll("topic") as Topic[];
    const connection = { topics, response };
    requested.push(topics);
    if (permitted !== null && topics.some((topic) => !permitted?.includes(topic))) {
      response.writeHead(403, { "content-type": "application/problem+json" });
      response.end(JSON.stringify({ type: "/problems/insufficient-scope", detail: "not this topic" }));
      return;
    }
    open.push(connection);
    request.on("close", () => (open = open.filter((other) => other !== connection)));
    response.writeHead(200, { "content-type": "text/event-stream" });
    const status = { upstream: "live", since: "2026-11-23T09:00:00Z", now: "2026-11-23T09:37:00Z" };
    response.write(event("snapshot", windows(topics, 1), `ab.${tick}`) + event("status", status));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  hub = new Hub(address());
});
afterEach(() => {
  hub.close();
  vi.useRealTimers();
  server.closeAllConnections();
  server.close();
});

it("sends a second tab of the same topics a snapshot, without a second connection", async () => {
  const one = tab("one");
  const other = tab("other");
  one.watch("transfers/day");
  await expect.poll(() => one.count("transfers/day")).toBe(1);
  change("transfers/day", 5);
  await expect.poll(() => one.count("transfers/day")).toBe(5);
  other.watch("transfers/day");
  expect(other.count("transfers/day")).toBe(5);
  expect(other.conditions()).toEqual(["live"]);
  change("transfers/day", 6);
  await expect.poll(() => [one.count("transfers/day"), other.count("transfers/day")]).toEqual([6, 6]);
  expect(requested).toHaveLength(1);
});

it("forwards the age of the counts at once, and repeats the condition if the gateway is silent", async () => {
  hub.close();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  hub = new Hub(address());
  const one = tab("one");
  one.watch("transfers/day");
  await expect.poll(() => one.conditions().at(-1)).toBe("live");
  const now = "2026-11-23T09:37:01Z";
  for (const { response } of open) response.write(event("status", { upstream: "live", since: now, now, age_ms: 30 }));
  const complete = Date.parse(now) - 30;
  await expect.poll(() => one.complete().at(-1), { message: "no timer has run" }).toBe(complete);
  const before = one.complete().length;
  await vi.advanceTimersByTimeAsync(HEARTBEAT);
  expect(one.complete().slice(before)).toEqual([complete]);
});

it("replaces the connection by one for the topics of all tabs", async () => {
  const one = tab("one");
  const other = tab("other");
  one.watch("transfers/day");
  await expect.poll(() => one.count("transfers/day")).toBe(1);
  other.watch("transfers/week");
  await expect.poll(() => other.count("transfers/week")).toBe(1);
  expect(requested.at(-1)).toEqual(["transfers/day", "transfers/week"]);
  await expect.poll(() => open.length).toBe(1);
  change("transfers/day", 9);
  await expect.poll(() => one.count("transfers/day")).toBe(9);
  expect(other.count("transfers/day"), "a tab gets only the topics that it watches").toBeUndefined();
});

it("keeps the connection when a tab leaves, and sends a snapshot when it returns", async () => {
  const one = tab("one");
  const other = tab("other");
  one.watch("transfers/day");
  other.watch("transfers/day", "transfers/week");
  await expect.poll(() => other.count("transfers/week")).toBe(1);
  await expect.poll(() => open.length).toBe(1);
  const connections = requested.length;
  other.leave();
  change("transfers/week", 4);
  change("transfers/day", 7);
  await expect.poll(() => one.count("transfers/day")).toBe(7);
  expect(other.count("transfers/week"), "a tab that left gets nothing").toBe(1);
  const again = tab("again");
  again.watch("transfers/week");
  expect(again.count("transfers/week")).toBe(4);
  expect(requested).toHaveLength(connections);
});

it("ends the stream of all tabs when the session changes, and tries again only for a new tab", async () => {
  const one = tab("one");
  const other = tab("other");
  one.watch("transfers/day");
  other.watch("transfers/day");
  await expect.poll(() => other.conditions().at(-1)).toBe("live");
  permitted = [];
  one.change();
  await expect.poll(() => [one.conditions().at(-1), other.conditions().at(-1)]).toEqual(["denied", "denied"]);
  await expect.poll(() => open.length).toBe(0);
  const connections = requested.length;
  one.watch("transfers/day");
  other.watch("transfers/day");
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  expect(requested, "a tab that is denied does not try again").toHaveLength(connections);
  permitted = ["transfers/day"];
  const again = tab("again");
  again.watch("transfers/day");
  expect(again.conditions(), "it gets no denial of before").not.toContain("denied");
  await expect.poll(() => [one.conditions().at(-1), again.conditions().at(-1)]).toEqual(["live", "live"]);
  expect(again.count("transfers/day")).toBe(1);
});

it("follows fewer topics at once if one of them may be why the stream was denied", async () => {
  permitted = ["transfers/day"];
  const one = tab("one");
  one.watch("transfers/day", "transfers/week");
  await expect.poll(() => one.conditions().at(-1)).toBe("denied");
  one.watch("transfers/day");
  await expect.poll(() => one.count("transfers/day")).toBe(1);
});

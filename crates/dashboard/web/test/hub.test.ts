// The hub against a real server: one connection, whoever watches what.

import { type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Hub, type News } from "../src/share/hub";
import { Statistics } from "../src/statistics-stream";

let server: Server;
let hub: Hub;
let open: { topics: string[]; response: ServerResponse }[];
/** Every connection that was ever made. */
let asked: string[][];
let tick = 0;

const event = (type: string, data: object, id = "") => `event: ${type}\n${id === "" ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
const windows = (topics: string[], count: number) =>
  topics.map((topic) => ({ topic, window: 10, buckets: [{ time: "2026-11-23T00:00:00Z", count }] }));

/** The server counts something. */
function change(topic: string, count: number): void {
  tick += 1;
  for (const { topics, response } of open) {
    if (topics.includes(topic)) response.write(event("patch", windows([topic], count), `ab.${tick}`));
  }
}

/** A tab that applies what it is told, as tabs do. */
function tab(name: string) {
  const statistics = new Statistics();
  const news: News[] = [];
  const hear = (said: News) => {
    news.push(said);
    if (said.kind === "frame") expect(statistics.apply(said.frame)).toBeNull();
  };
  return {
    news,
    watch: (...topics: string[]) => hub.hear(name, { kind: "watch", topics }, hear),
    leave: () => hub.hear(name, { kind: "leave" }, hear),
    count: (topic: string) => statistics.window(topic)?.counts[0],
    conditions: () => news.filter((said) => said.kind === "condition").map((said) => said.condition.kind),
  };
}

beforeEach(async () => {
  [open, asked, tick] = [[], [], 0];
  server = createServer((request, response) => {
    const topics = new URL(request.url ?? "", "http://localhost").searchParams.getAll("topic");
    const connection = { topics, response };
    asked.push(topics);
    open.push(connection);
    request.on("close", () => (open = open.filter((other) => other !== connection)));
    response.writeHead(200, { "content-type": "text/event-stream" });
    const status = { upstream: "live", since: "2026-11-23T09:00:00Z", now: "2026-11-23T09:37:00Z" };
    response.write(event("snapshot", windows(topics, 1), `ab.${tick}`) + event("status", status));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  hub = new Hub(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
afterEach(() => {
  hub.close();
  server.closeAllConnections();
  server.close();
});

it("brings a second tab of the same topics up to date without a second connection", async () => {
  const [one, other] = [tab("one"), tab("other")];
  one.watch("transfers/day");
  await expect.poll(() => one.count("transfers/day")).toBe(1);
  change("transfers/day", 5);
  await expect.poll(() => one.count("transfers/day")).toBe(5);
  other.watch("transfers/day");
  expect(other.count("transfers/day")).toBe(5);
  expect(other.conditions()).toEqual(["live"]);
  change("transfers/day", 6);
  await expect.poll(() => [one.count("transfers/day"), other.count("transfers/day")]).toEqual([6, 6]);
  expect(asked).toHaveLength(1);
});

it("follows the union, in the place of the connection before", async () => {
  const [one, other] = [tab("one"), tab("other")];
  one.watch("transfers/day");
  await expect.poll(() => one.count("transfers/day")).toBe(1);
  other.watch("transfers/week");
  await expect.poll(() => other.count("transfers/week")).toBe(1);
  expect(asked.at(-1)).toEqual(["transfers/day", "transfers/week"]);
  await expect.poll(() => open.length).toBe(1);
  change("transfers/day", 9);
  await expect.poll(() => one.count("transfers/day")).toBe(9);
  expect(other.count("transfers/day"), "nobody is told what it does not watch").toBeUndefined();
});

it("does not connect anew because a tab left, and brings it up to date when it comes back", async () => {
  const [one, other] = [tab("one"), tab("other")];
  one.watch("transfers/day");
  other.watch("transfers/day", "transfers/week");
  await expect.poll(() => other.count("transfers/week")).toBe(1);
  await expect.poll(() => open.length).toBe(1);
  const connections = asked.length;
  other.leave();
  change("transfers/week", 4);
  change("transfers/day", 7);
  await expect.poll(() => one.count("transfers/day")).toBe(7);
  expect(other.count("transfers/week"), "who left is told nothing").toBe(1);
  const again = tab("again");
  again.watch("transfers/week");
  expect(again.count("transfers/week")).toBe(4);
  expect(asked).toHaveLength(connections);
});

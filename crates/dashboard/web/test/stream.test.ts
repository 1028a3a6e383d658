// The stream client against a real server: its condition, and where it resumes.

import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Condition, StatisticsStream } from "../src/statistics-stream";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server;
let answer: Answer;
let requests: { url: string; lastId: string | undefined; key: string | undefined }[];
let conditions: Condition[];
let stream: StatisticsStream;
let complete: number[];

beforeEach(async () => {
  requests = [];
  conditions = [];
  complete = [];
  server = createServer((request, response) => {
    const { authorization: key, "last-event-id": lastId } = request.headers;
    requests.push({ url: request.url ?? "", lastId: lastId?.toString(), key });
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  stream = new StatisticsStream(`http://127.0.0.1:${port}`, {
    frame: () => undefined,
    condition: (condition) => conditions.push(condition),
    complete: (until) => complete.push(until),
  });
});
afterEach(() => {
  stream.follow([]);
  server.closeAllConnections();
  server.close();
});

const event = (type: string, data: object, id = "") => `event: ${type}\n${id === "" ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
const window = (count: number) => [{ topic: "transfers/day", window: 400, buckets: [{ time: "2026-11-23T00:00:00Z", count }] }];
const status = (upstream: string, access?: object) =>
  event("status", { upstream, since: "2026-11-23T09:00:00Z", now: "2026-11-23T09:37:00Z", access });
const kinds = () => conditions.map((condition) => condition.kind);
const counts = () => stream.statistics.window("transfers/day")?.counts;

describe("the stream client", () => {
  it("is live only once the server says so", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`retry: 10\n\n${event("snapshot", window(3), "ab.1")}`);
      setTimeout(() => response.write(status("stale")), 50);
      setTimeout(() => response.write(event("patch", window(4), "ab.2") + status("live")), 100);
    };
    stream.follow(["transfers/day"]);
    await expect.poll(counts).toEqual([3]);
    expect(stream.condition.kind).toBe("connecting");
    await expect.poll(kinds).toEqual(["stale", "live"]);
    expect(counts()).toEqual([4]);
    expect(requests[0]?.url).toBe("/statistics?topic=transfers%2Fday&heartbeat=1");
  });

  it("says until when the counts are complete, if the server does", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const [since, now] = ["2026-11-23T09:00:00Z", "2026-11-23T09:37:00Z"];
      response.write(status("live") + event("status", { upstream: "live", since, now, age_ms: 250 }));
    };
    stream.follow(["transfers/day"]);
    await expect.poll(() => complete).toEqual([Date.parse("2026-11-23T09:36:59.750Z")]);
  });

  it("resumes after a lost connection", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      if (requests.length === 1) response.end(`retry: 10\n\n${event("snapshot", window(3), "ab.1")}${status("live")}`);
      else response.write(event("patch", window(5), "ab.4") + status("live"));
    };
    stream.follow(["transfers/day"]);
    await expect.poll(counts).toEqual([5]);
    expect(requests.map((request) => request.lastId)).toEqual([undefined, "ab.1"]);
    expect(kinds()).toEqual(["live", "retrying", "live"]);
  });

  it("starts over if a frame does not fit", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const frames = event("snapshot", window(3), "ab.1") + event("patch", window(9), "cd.2");
      response.write(requests.length === 1 ? frames : event("snapshot", window(7), "cd.3") + status("live"));
    };
    stream.follow(["transfers/day"]);
    await expect.poll(counts).toEqual([7]);
    expect(requests.map((request) => request.lastId)).toEqual([undefined, undefined]);
  });

  it("shows the server's reason for a refusal, and retries", async () => {
    answer = (_request, response) => {
      if (requests.length === 1) {
        response.writeHead(503, { "content-type": "application/problem+json" });
        response.end(JSON.stringify({ title: "no", detail: "the maximum number of clients is connected" }));
      } else {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write(status("live"));
      }
    };
    stream.follow(["transfers/day"]);
    await expect.poll(kinds).toEqual(["refused"]);
    expect(conditions[0]).toMatchObject({ reason: "the maximum number of clients is connected" });
    stream.hurry();
    await expect.poll(kinds).toEqual(["refused", "live"]);
  });

  it("stops when it is denied, until it is asked to connect again", async () => {
    for (const [code, type, why] of [
      [401, "no-credential", "no-credential"],
      [401, "invalid-credential", "invalid-credential"],
      [403, "insufficient-scope", "insufficient-scope"],
      [403, "foreign-origin", "foreign-origin"],
      [403, "of-a-proxy", "other"],
    ] as const) {
      requests = [];
      conditions = [];
      answer = (_request, response) => {
        if (requests.length > 1) {
          response.writeHead(200, { "content-type": "text/event-stream" });
          response.write(event("snapshot", window(3), "ab.1") + status("live", { expires_in: 5 }));
        } else {
          response.writeHead(code, { "content-type": "application/problem+json" });
          response.end(JSON.stringify({ type: `/problems/${type}`, detail: "not with this key" }));
        }
      };
      stream.follow(["transfers/day"]);
      await expect.poll(() => stream.condition).toMatchObject({ kind: "denied", why, reason: "not with this key" });
      stream.hurry();
      // Longer than the delay before a retry.
      await new Promise((resolve) => setTimeout(resolve, 1_200));
      expect(requests).toHaveLength(1);
      stream.reconnect();
      await expect.poll(() => stream.condition.kind).toBe("live");
      expect(kinds().slice(-3)).toEqual(["denied", "connecting", "live"]);
    }
  }, 20_000);

  it("stops when the key ends, and drops what it permitted", async () => {
    for (const why of ["revoked", "expired"]) {
      requests = [];
      answer = (_request, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write(`retry: 10\n\n${event("snapshot", window(3), "ab.1")}${status("live", { expires_in: 1 })}`);
        setTimeout(() => response.end(status("live", { expires_in: 0, ended: why })), 50);
      };
      stream.follow(["transfers/day"]);
      await expect.poll(() => stream.condition).toMatchObject({ kind: "denied", why });
      expect(counts()).toBeUndefined();
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect(requests).toHaveLength(1);
    }
  });

  it("goes on if the gateway cannot check keys for a while", async () => {
    answer = (_request, response) => {
      if (requests.length === 2) {
        response.writeHead(503, { "content-type": "application/problem+json" });
        response.end(JSON.stringify({ type: "/problems/unavailable", detail: "no list of keys" }));
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      if (requests.length > 2) response.write(event("patch", window(4), "ab.2") + status("live"));
      else response.end(`retry: 10\n\n${event("snapshot", window(3), "ab.1")}${status("stale", { expires_in: 0, ended: "unknown" })}`);
    };
    stream.follow(["transfers/day"]);
    await expect.poll(counts).toEqual([4]);
    expect(kinds()).toEqual(["stale", "retrying", "refused", "live"]);
    expect(requests.map((request) => request.lastId)).toEqual([undefined, "ab.1", "ab.1"]);
  });

  it("sends a key as a header", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(status("live"));
    };
    const withKey = new StatisticsStream(stream.gateway, stream.listener, { key: "nc_x" });
    withKey.follow(["transfers/day"]);
    await expect.poll(kinds).toEqual(["live"]);
    expect(requests.map((request) => request.key)).toEqual(["Bearer nc_x"]);
    withKey.follow([]);
  });

  it("is not live any more when the stream falls silent", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(status("live"));
    };
    stream.follow(["transfers/day"]);
    await expect.poll(kinds).toEqual(["live"]);
    const began = performance.now();
    await expect.poll(kinds, { timeout: 10_000 }).toEqual(["live", "retrying"]);
    expect(performance.now() - began).toBeLessThan(5_000);
  }, 15_000);

  it("drops topics that are not followed any more", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(event("snapshot", window(3), "ab.1") + status("live"));
    };
    stream.follow(["transfers/day"]);
    await expect.poll(counts).toEqual([3]);
    stream.follow(["transfers/week"]);
    expect(counts()).toBeUndefined();
  });
});

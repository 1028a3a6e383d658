// The state machine runs the same cases as the one in Rust. Also tests the parts of the stream
// client that need no network.

import { describe, expect, it } from "vitest";
import { EventReader, type Frame, Statistics, firstAtLeast } from "../src/statistics-stream";
import type { TopicWindow } from "../src/wire/sse-gateway";
import cases from "../../../domain/tests/cases/statistics.json";

interface Step {
  event: string;
  id: string;
  data: TopicWindow[];
  refused: string | null;
  state: { topic: string; buckets: { time: string; count: number }[] }[];
}

const content = (statistics: Statistics) =>
  statistics
    .topics()
    .map((topic) => ({ topic, window: statistics.window(topic) }))
    .filter(({ window }) => window !== undefined && window.times.length > 0)
    .map(({ topic, window }) => ({ topic, times: [...window!.times], counts: [...window!.counts] }))
    .sort((one, other) => (one.topic < other.topic ? -1 : 1));

const expected = (state: Step["state"]) =>
  state
    .map(({ topic, buckets }) => ({
      topic,
      times: buckets.map((bucket) => Date.parse(bucket.time)),
      counts: buckets.map((bucket) => bucket.count),
    }))
    .sort((one, other) => (one.topic < other.topic ? -1 : 1));

describe("the state machine", () => {
  it.each(cases as { name: string; steps: Step[] }[])("$name", ({ steps }) => {
    expect(steps.length).toBeGreaterThan(1);
    const statistics = new Statistics();
    for (const [index, step] of steps.entries()) {
      const kind = step.event as Frame["kind"];
      const refused = statistics.apply({ kind, id: step.id, topics: step.data });
      expect(refused, `step ${index}`).toBe(step.refused);
      expect(content(statistics), `step ${index}`).toEqual(expected(step.state));
    }
  });

  it("has cases of every kind", () => {
    const steps = (cases as { steps: Step[] }[]).flatMap((history) => history.steps);
    expect(steps.length).toBeGreaterThan(80);
    expect(new Set(steps.map((step) => step.refused))).toEqual(new Set([null, "backward", "other term"]));
  });
});

describe("the event reader", () => {
  const text =
    ": a comment\nretry: 1500\n\nevent: snapshot\nid: ab.1\ndata: [{\"a\":1}\ndata:,2]\n\r\nevent:status\rdata: {}\r\n\r\ndata\n\nid: x\n\n";
  const events = [
    ["snapshot", '[{"a":1}\n,2]', "ab.1"],
    ["status", "{}", "ab.1"],
    ["message", "", "ab.1"],
  ];

  it("finds the same events wherever the text is split", () => {
    for (let size = 1; size <= text.length; size += 1) {
      const read: string[][] = [];
      const reader = new EventReader((...event) => read.push(event));
      for (let from = 0; from < text.length; from += size) reader.read(text.slice(from, from + size));
      expect(read, `in pieces of ${size}`).toEqual(events);
      expect(reader.retry).toBe(1_500);
    }
  });

  it("refuses an endless event", () => {
    const reader = new EventReader(() => undefined);
    const endless = () => {
      for (let piece = 0; piece < 20; piece += 1) reader.read("x".repeat(1_000_000));
    };
    expect(endless).toThrow("longer than");
  });
});

describe("searching a window", () => {
  it("finds the first time at or after the given one", () => {
    const times = [10, 20, 30];
    expect([5, 10, 11, 30, 31].map((time) => firstAtLeast(times, time))).toEqual([0, 0, 1, 2, 3]);
    expect(firstAtLeast([], 1)).toBe(0);
  });
});

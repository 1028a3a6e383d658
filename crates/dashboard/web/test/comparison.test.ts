// Comparisons with earlier buckets, against a recount of the events.

import { afterEach, describe, expect, it, vi } from "vitest";
import { type Compared, FINER, type Windows, description, withPrevious, withWeekBefore } from "../src/comparison";
import type { Window } from "../src/statistics-stream";
import { FACTS, UNITS, type Unit, start, step } from "../src/units";

const DAY = 86_400_000;
const COMPARED = UNITS.filter((unit) => unit !== "millisecond");
/** The windows' sizes, as of the Rust crate `domain`. */
const CAPACITY = { second: 3_600, minute: 1_440, hour: 2_160, day: 400, week: 160, month: 120, quarter: 80, year: 100, millisecond: 1_000 };

/** Reproducible random numbers from 0 to 1 (mulberry32). */
function generator(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The window of some events, without the buckets before `keptSince`. */
function windowOf(unit: Unit, events: readonly number[], capacity = CAPACITY[unit], keptSince = -Infinity): Window {
  const counts = new Map<number, number>();
  for (const event of events) counts.set(start(unit, event), (counts.get(start(unit, event)) ?? 0) + 1);
  const newest = [...counts].sort(([one], [other]) => one - other).filter(([time]) => time >= keptSince);
  const held = newest.slice(-capacity);
  return { capacity, times: held.map(([time]) => time), counts: held.map(([, count]) => count) };
}

const windowsOf = (unit: Unit, events: readonly number[]): Windows => ({
  shown: windowOf(unit, events),
  finer: windowOf(FINER[unit] ?? unit, events),
});

/** How much of a bucket has passed, in whole finer buckets: months of a year, else milliseconds. */
function passed(unit: Unit, bucket: number, now: number): number {
  if (unit === "year") return new Date(now).getUTCMonth();
  const length = FACTS[FINER[unit] ?? unit].length;
  return Math.floor((now - bucket) / length) * length;
}

/** The same comparison, made from the events. */
function recount(unit: Unit, events: readonly number[], now: number, weekBefore = false): Compared {
  const running = start(unit, now);
  const current = unit === "second" ? running - 1_000 : running;
  const earlier = weekBefore ? current - 7 * DAY : start(unit, current - 1);
  const end = step(unit, earlier, 1);
  const limit = Math.min(unit === "second" ? 1_000 : passed(unit, current, now), end - earlier);
  const within = (bucket: number) =>
    events.filter((event) => start(unit, event) === bucket && (unit === "year" ? new Date(event).getUTCMonth() : event - bucket) < limit).length;
  return { current: within(current), earlier: within(earlier) };
}

describe("a comparison", () => {
  it("is a recount of the events, or a dash if the windows do not have them all", () => {
    const random = generator(14);
    let [known, unknown] = [0, 0];
    for (let round = 0; round < 3_000; round += 1) {
      const unit = COMPARED[round % COMPARED.length] ?? "day";
      const finer = FINER[unit] ?? unit;
      const now = Math.floor(Date.parse("1903-01-01T00:00:00Z") + random() * 200 * 365 * DAY);
      // Nearly three buckets of the past, also eight days, and a little of the future.
      const reach = Math.max(FACTS[unit].length * 2.8, unit === "day" ? 8.5 * DAY : 0);
      const events = Array.from({ length: Math.floor(random() * 60) }, () => Math.floor(now - reach * (random() ** 2 - 0.03)));
      const capacity = random() < 0.5 ? CAPACITY[finer] : 1 + Math.floor(random() * 50);
      // Units are kept for days, or for ever.
      const keptSince = unit !== "second" && random() < 0.2 ? start(finer, Math.floor(now - reach * random())) : -Infinity;
      const windows = { shown: windowOf(unit, events), finer: windowOf(finer, events, capacity, keptSince) };
      if (unit === finer) windows.shown = windows.finer;
      for (const week of unit === "day" ? [false, true] : [false]) {
        const shown = week ? withWeekBefore(windows, now) : withPrevious(unit, windows, now);
        const what = `round ${round}: ${unit} at ${new Date(now).toISOString()}`;
        if (shown !== null) expect(shown, what).toEqual(recount(unit, events, now, week));
        const earlier = week ? start(unit, now) - 7 * DAY : start(unit, start(unit, now) - (unit === "second" ? 1_001 : 1));
        const isFull = windows.finer.times.length >= capacity;
        const reaches = !isFull || (windows.finer.times[0] ?? 0) <= earlier;
        const hasPassed = unit === "second" || passed(unit, start(unit, now), now) > 0;
        if (!reaches || !hasPassed) expect(shown, what).toBeNull();
        else if (keptSince <= earlier) expect(shown, what).not.toBeNull();
        if (shown === null) unknown += 1;
        else known += 1;
      }
    }
    // Both outcomes are tested.
    expect(known).toBeGreaterThan(1_500);
    expect(unknown).toBeGreaterThan(500);
  });

  it("shows no change while the traffic is steady, at any moment", () => {
    const random = generator(47);
    for (const unit of COMPARED.filter((unit) => unit !== "year")) {
      for (let round = 0; round < 8; round += 1) {
        const now = Math.floor(Date.parse("2026-01-01T00:00:00Z") + random() * 3 * 365 * DAY);
        const apart = unit === "second" ? 100 : FACTS[FINER[unit] ?? unit].length / 2;
        const reach = unit === "day" ? 9 * DAY : 3.2 * FACTS[unit].length;
        const newest = Math.floor(now / apart) * apart;
        const windows = windowsOf(unit, Array.from({ length: reach / apart }, (_, index) => newest - index * apart));
        const week = unit === "day" ? [withWeekBefore(windows, now)] : [];
        for (const shown of [withPrevious(unit, windows, now), ...week]) {
          if (shown === null) expect(description(unit, now)).toMatch(/^no whole/);
          else expect(shown.current, `${unit} at ${new Date(now).toISOString()}`).toBe(shown.earlier);
        }
      }
    }
  });

  it("compares ten hours of today with ten hours of yesterday and of a week ago, at 10:47", () => {
    const now = Date.parse("2026-11-26T10:47:00Z");
    const at = (day: number, ...hours: number[]) => hours.map((hour) => Date.UTC(2026, 10, day, hour, 30));
    const windows = windowsOf("day", [...at(26, 0, 9, 9, 10), ...at(25, 0, 1, 10, 23), ...at(19, 5, 10, 12)]);
    expect(withPrevious("day", windows, now)).toEqual({ current: 3, earlier: 2 });
    expect(withWeekBefore(windows, now)).toEqual({ current: 3, earlier: 1 });
    expect(description("day", now)).toBe("hours 0 to 9 UTC, against the same hours");
  });

  it("is not known without the finer window", () => {
    const { shown } = windowsOf("day", [0]);
    expect(withPrevious("day", { shown, finer: undefined }, DAY)).toBeNull();
    expect(withPrevious("millisecond", { shown, finer: shown }, DAY)).toBeNull();
  });

  it("is not made with hours that have expired", () => {
    const now = Date.parse("2026-11-26T10:47:00Z");
    const events = [Date.UTC(2026, 9, 2), Date.UTC(2026, 9, 28), Date.UTC(2026, 10, 1)];
    const shown = windowOf("month", events);
    const hours = (keptSince: number) => windowOf("hour", events, CAPACITY.hour, keptSince);
    expect(withPrevious("month", { shown, finer: hours(Date.UTC(2026, 8, 27)) }, now)).toEqual({ current: 1, earlier: 1 });
    expect(withPrevious("month", { shown, finer: hours(Date.UTC(2026, 9, 27)) }, now)).toBeNull();
  });
});

describe("the words", () => {
  const said = (unit: Unit, now: string) => description(unit, Date.parse(now));

  it("name the part that is compared", () => {
    expect(said("second", "2026-11-26T10:47:46.500Z")).toBe("the last whole second, against the one before");
    expect(said("minute", "2026-11-26T10:47:46.500Z")).toBe("seconds 0 to 45, against the same seconds of the previous minute");
    expect(said("hour", "2026-11-26T10:01:46Z")).toBe("minute 0, against the same minute of the previous hour");
    expect(said("week", "2026-11-26T10:47:46Z")).toBe("first 3 days and 10 hours, against the same hours of the previous week");
    expect(said("week", "2026-11-23T01:47:46Z")).toBe("first 1 hour, against the same hour of the previous week");
    expect(said("month", "2026-11-26T00:47:46Z")).toBe("first 25 days, against the same hours of the previous month");
    expect(said("quarter", "2026-11-26T10:47:46Z")).toBe("first 56 days, against the same days of the previous quarter");
    expect(said("year", "2026-11-26T10:47:46Z")).toBe("first 10 months, against the same months of the previous year");
  });

  // Numbers of such digits with only a dash between them would be shown from right to left.
  it("have a word between numbers, in the digits of the viewer", async () => {
    vi.resetModules();
    vi.stubGlobal("navigator", { languages: ["ar-SA"], language: "ar-SA" });
    const { description } = await import("../src/comparison");
    const said = (unit: Unit) => description(unit, Date.parse("2026-11-26T10:47:46.500Z"));
    expect(said("minute")).toBe("seconds ٠ to ٤٥, against the same seconds of the previous minute");
    expect(said("hour")).toBe("minutes ٠ to ٤٦, against the same minutes of the previous hour");
    expect(said("day")).toBe("hours ٠ to ٩ UTC, against the same hours");
    expect(said("week")).toBe("first ٣ days and ١٠ hours, against the same hours of the previous week");
  });
  afterEach(() => vi.unstubAllGlobals());

  it("say that the previous month or quarter was shorter", () => {
    expect(said("month", "2026-03-31T10:00:00Z")).toBe("first 28 days, against the whole previous month");
    expect(said("quarter", "2026-06-30T23:00:00Z")).toBe("first 90 days, against the whole previous quarter");
  });

  it("say that it is too early", () => {
    expect(said("year", "2026-01-31T23:00:00Z")).toBe("no whole month of this year has passed yet");
    expect(said("day", "2026-01-31T00:59:59Z")).toBe("no whole hour of this day has passed yet");
  });
});

// The calendar, and the view in the page's address.

import { describe, expect, it } from "vitest";
import { UNITS, type Unit, start, starts, step } from "../src/units";
import { BUCKETS_MAX, BUCKETS_MIN, formatView, parseView, periodOf, withUnit } from "../src/view";

const text = (time: number) => new Date(time).toISOString();

describe("the calendar", () => {
  // The same as `truncates_to_the_start_of_each_unit` of the Rust crate `domain`.
  it("truncates to the start of each unit", () => {
    const time = Date.parse("2024-02-29T23:59:59.999Z");
    expect(UNITS.map((unit) => text(start(unit, time)))).toEqual([
      "2024-02-29T23:59:59.999Z",
      "2024-02-29T23:59:59.000Z",
      "2024-02-29T23:59:00.000Z",
      "2024-02-29T23:00:00.000Z",
      "2024-02-29T00:00:00.000Z",
      "2024-02-26T00:00:00.000Z",
      "2024-02-01T00:00:00.000Z",
      "2024-01-01T00:00:00.000Z",
      "2024-01-01T00:00:00.000Z",
    ]);
  });

  it("rounds times before 1970 down, and times in year 1", () => {
    expect(text(start("second", Date.parse("1969-12-31T23:59:59.001Z")))).toBe("1969-12-31T23:59:59.000Z");
    expect(text(start("week", Date.parse("1969-12-31T00:00:00Z")))).toBe("1969-12-29T00:00:00.000Z");
    for (const unit of UNITS) expect(text(start(unit, Date.parse("0001-01-01T00:00:00Z")))).toBe("0001-01-01T00:00:00.000Z");
  });

  it("steps through each unit without gaps", () => {
    for (const unit of UNITS) {
      let time = start(unit, Date.parse("2023-12-30T00:00:00Z"));
      for (let count = 0; count < 50; count += 1) {
        const next = step(unit, time, 1);
        expect(start(unit, next - 1)).toBe(time);
        expect(step(unit, next, -1)).toBe(time);
        time = next;
      }
    }
  });
});

describe("the view in the address", () => {
  const now = Date.parse("2026-11-23T09:37:12.345Z");

  it("survives a round trip through the address", () => {
    for (const query of [
      "?unit=minute&last=240",
      "?unit=day&from=2026-11-01T00:00:00.000Z&to=2026-11-21T00:00:00.000Z",
      "?unit=second&last=900&from=2026-11-01T00:00:00.000Z&to=2026-11-01T00:10:00.000Z",
    ]) {
      expect(formatView(parseView(query))).toBe(query);
    }
  });

  it("replaces an invalid address by the default view", () => {
    for (const query of ["", "?unit=decade", "?last=-1", "?unit=minute&last=61", "?from=2026&to=2025", "?from=x&to=y"]) {
      expect(formatView(parseView(query))).toBe("?unit=minute&last=60");
    }
  });

  it("always has a number of buckets that can be drawn", () => {
    const periods = [
      ["0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"],
      ["0001-01-01T00:00:00Z", "0001-01-01T00:00:01Z"],
      ["9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z"],
      ["2026-11-23T09:37:00Z", "2026-11-23T09:37:01Z"],
      ["2026-02-01T00:00:00Z", "2026-11-01T00:00:00Z"],
    ];
    for (const [from, to] of periods) {
      for (const unit of UNITS) {
        const view = parseView(`?unit=${unit}&from=${from}&to=${to}`);
        const { from: begin, to: end } = periodOf(view, now);
        const buckets = starts(unit, begin, end);
        expect(buckets.length, `${unit} ${from} ${to}`).toBeGreaterThanOrEqual(BUCKETS_MIN - 1);
        expect(buckets.length).toBeLessThanOrEqual(BUCKETS_MAX * 1.1);
        expect(buckets[0]).toBe(begin);
      }
    }
  });

  it("shows four thousand years", () => {
    const { from, to } = periodOf(parseView("?unit=year&from=0001-01-01T00:00:00Z&to=4001-01-01T00:00:00Z"), now);
    expect([text(from), text(to)]).toEqual(["0001-01-01T00:00:00.000Z", "4001-01-01T00:00:00.000Z"]);
  });

  it("ends with the current bucket", () => {
    const ends = (unit: Unit) => text(periodOf(parseView(`?unit=${unit}`), now).to);
    expect(ends("minute")).toBe("2026-11-23T09:38:00.000Z");
    expect(ends("year")).toBe("2027-01-01T00:00:00.000Z");
    expect(ends("millisecond")).toBe("2026-11-23T09:37:12.300Z");
  });

  it("keeps its period when the unit changes", () => {
    const view = withUnit(parseView("?unit=hour&from=2026-11-01T00:00:00Z&to=2026-11-03T00:00:00Z"), "minute");
    expect(formatView(view)).toBe("?unit=minute&from=2026-11-01T00:00:00.000Z&to=2026-11-03T00:00:00.000Z");
  });
});

// The marks of the time axis.

import { expect, it } from "vitest";
import { CALENDAR_STEPS, calendarMarks } from "../src/calendar-axis";
import { marks } from "../src/format";

const DAY = 86_400;
const seconds = (text: string) => Date.parse(text) / 1_000;
const texts = (times: number[]) => times.map((time) => new Date(time * 1_000).toISOString().slice(0, 10));
/** The step that uPlot selects if the chart has room for this number of labels. */
const stepFor = (from: number, to: number, labels: number) => CALENDAR_STEPS.find((apart) => (to - from) / apart <= labels) ?? 0;

it("has labels in a view of any length", () => {
  for (const [from, to] of [
    ["0001-01-01T00:00:00Z", "4000-01-01T00:00:00Z"],
    ["5999-01-01T00:00:00Z", "9999-01-01T00:00:00Z"],
    ["0001-01-01T00:00:00Z", "0006-01-01T00:00:00Z"],
    ["1026-07-01T00:00:00Z", "2026-07-01T00:00:00Z"],
    ["2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"],
  ] as const) {
    for (const labels of [3, 5, 10]) {
      const [begin, end] = [seconds(from), seconds(to)];
      const apart = stepFor(begin, end, labels);
      const times = calendarMarks(begin, end, apart);
      expect(times.length, `${from} ${labels}`).toBeGreaterThanOrEqual(1);
      expect(times.length, `${from} ${labels}`).toBeLessThanOrEqual(labels + 1);
      expect(times.every((time) => time >= begin && time <= end)).toBe(true);
      expect(marks("year", times, apart).every((label) => /\d|[A-Z]/.test(label))).toBe(true);
    }
  }
});

it("has marks at round years, and at starts of months and days in UTC", () => {
  const years = calendarMarks(seconds("0001-01-01T00:00:00Z"), seconds("4000-01-01T00:00:00Z"), 500 * 365 * DAY);
  expect(marks("year", years, 500 * 365 * DAY)).toEqual(["500", "1000", "1500", "2000", "2500", "3000", "3500", "4000"]);
  const months = calendarMarks(seconds("2025-11-01T00:00:00Z"), seconds("2026-11-30T00:00:00Z"), 3 * 30 * DAY);
  expect(texts(months)).toEqual(["2026-01-01", "2026-04-01", "2026-07-01", "2026-10-01"]);
  const days = calendarMarks(seconds("0001-02-27T00:00:00Z"), seconds("0001-03-06T00:00:00Z"), 2 * DAY);
  expect(texts(days)).toEqual(["0001-02-27", "0001-03-01", "0001-03-03", "0001-03-05"]);
});

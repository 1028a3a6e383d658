// The nine units, and the calendar of their buckets: UTC and proleptic Gregorian, as on the server.
//
// Invariant: `start` and `step` agree with `TimeUnit::truncate` of the Rust crate `domain`, so the
// page and the server have the same buckets.

export const UNITS = [
  "millisecond",
  "second",
  "minute",
  "hour",
  "day",
  "week",
  "month",
  "quarter",
  "year",
] as const;

export type Unit = (typeof UNITS)[number];

export const METRICS = ["item-creation", "transfers"] as const;

export type Metric = (typeof METRICS)[number];

interface Facts {
  /** The label on narrow screens. */
  readonly short: string;
  /** The usual length of a bucket, in milliseconds. */
  readonly length: number;
  /** The selectable numbers of buckets of a moving view. The first one is the default. */
  readonly spans: readonly { readonly buckets: number; readonly label: string }[];
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const facts = (short: string, length: number, ...spans: [number, string][]): Facts => ({
  short,
  length,
  spans: spans.map(([buckets, label]) => ({ buckets, label })),
});

export const FACTS: { readonly [unit in Unit]: Facts } = {
  millisecond: facts("ms", 1, [1_000, "1 s"], [500, "½ s"], [200, "200 ms"]),
  second: facts("s", SECOND, [60, "1 min"], [300, "5 min"], [900, "15 min"], [3_600, "1 h"]),
  minute: facts("min", MINUTE, [60, "1 h"], [240, "4 h"], [720, "12 h"], [1_440, "24 h"]),
  hour: facts("h", HOUR, [48, "2 days"], [168, "7 days"], [720, "30 days"], [2_160, "90 days"]),
  day: facts("d", DAY, [30, "30 days"], [90, "90 days"], [180, "180 days"], [400, "400 days"]),
  week: facts("wk", 7 * DAY, [26, "½ year"], [52, "1 year"], [104, "2 years"], [156, "3 years"]),
  month: facts("mo", 30 * DAY, [24, "2 years"], [60, "5 years"], [120, "10 years"]),
  quarter: facts("qtr", 91 * DAY, [16, "4 years"], [40, "10 years"], [80, "20 years"]),
  year: facts("yr", 365 * DAY, [25, "25 years"], [50, "50 years"], [100, "100 years"]),
};

/** Whether the buckets are days or longer. These follow UTC, not the viewer's time zone. */
export const isCalendar = (unit: Unit): boolean => FACTS[unit].length >= DAY;

/** The range of times that the server supports. */
export const EARLIEST = Date.parse("0001-01-01T00:00:00Z");
export const LATEST = Date.parse("9999-12-31T23:59:59.999Z");

/** Midnight UTC of a day. `Date.UTC` would turn the years 1 to 99 into 1901 to 1999. */
function midnight(year: number, month: number, day: number): number {
  const date = new Date(0);
  date.setUTCFullYear(year, month, day);
  return date.getTime();
}

/** The start of the bucket that contains `time`, in Unix milliseconds. */
export function start(unit: Unit, time: number): number {
  const date = new Date(time);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  switch (unit) {
    case "week": {
      const day = Math.floor(time / DAY) * DAY;
      return day - ((date.getUTCDay() + 6) % 7) * DAY;
    }
    case "month":
      return midnight(year, month, 1);
    case "quarter":
      return midnight(year, month - (month % 3), 1);
    case "year":
      return midnight(year, 0, 1);
    default: {
      const length = FACTS[unit].length;
      return Math.floor(time / length) * length;
    }
  }
}

/**
 * The start of the bucket `steps` buckets after the one that starts at `time`; before it if
 * negative.
 */
export function step(unit: Unit, time: number, steps: number): number {
  const date = new Date(time);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  switch (unit) {
    case "month":
      return midnight(year, month + steps, 1);
    case "quarter":
      return midnight(year, month + 3 * steps, 1);
    case "year":
      return midnight(year + steps, 0, 1);
    default:
      return time + steps * FACTS[unit].length;
  }
}

/** The first start of a bucket at `time` or later. */
export function ceiling(unit: Unit, time: number): number {
  const floor = start(unit, time);
  return floor === time ? time : step(unit, floor, 1);
}

/** The starts of the buckets from `from` until before `to`. */
export function starts(unit: Unit, from: number, to: number): number[] {
  const list: number[] = [];
  for (let time = start(unit, from); time < to; time = step(unit, time, 1)) list.push(time);
  return list;
}

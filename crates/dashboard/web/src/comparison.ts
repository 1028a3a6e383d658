// Compares the current bucket with an earlier one, although the current one is not complete: only
// the part that has passed, in whole buckets of a finer unit, against the same part of the earlier
// one. At 10:47, the hours 0 to 9 of today are compared with the hours 0 to 9 of yesterday.
//
// Invariants: both sides have the same number of finer buckets. The finer bucket that is running is
// on neither side. All counts are of one version, and a count that the windows do not have is null.

import { count } from "./format";
import { type Window, firstAtLeast } from "./statistics-stream";
import { type Unit, start, starts, step } from "./units";

/**
 * The unit whose whole buckets are compared. Seconds are compared as a whole: the last one that has
 * passed, with the one before. Milliseconds are too short to be compared by time.
 */
export const FINER: { readonly [unit in Unit]: Unit | null } = {
  millisecond: null,
  second: "second",
  minute: "second",
  hour: "minute",
  day: "hour",
  week: "hour",
  month: "hour",
  quarter: "day",
  year: "month",
};

/** The first part of a bucket. Times are Unix milliseconds. */
interface Part {
  /** The starts of the bucket and of the next one. */
  readonly bucket: number;
  readonly end: number;
  /** Where the part ends: the start of a finer bucket that does not belong to it. */
  readonly to: number;
}

interface Parts {
  readonly current: Part;
  readonly earlier: Part;
  /** The number of finer buckets of each. */
  readonly buckets: number;
  /** Whether the earlier bucket is shorter than what has passed of the current one. */
  readonly whole: boolean;
}

/** The two sides of a comparison, with an earlier bucket that is `steps` of `by` before. */
function parts(unit: Unit, finer: Unit, now: number, by: Unit, steps: number): Parts {
  const running = start(finer, now);
  // Of seconds, the current bucket is the running one, so the one before is compared.
  const current = unit === finer ? step(unit, running, -1) : start(unit, now);
  const earlier = step(by, current, -steps);
  const end = step(unit, earlier, 1);
  const passed = starts(finer, current, running).length;
  // Months and quarters have different lengths.
  const buckets = Math.min(passed, starts(finer, earlier, end).length);
  const part = (bucket: number): Part => ({ bucket, end: step(unit, bucket, 1), to: step(finer, bucket, buckets) });
  return { current: part(current), earlier: part(earlier), buckets, whole: unit !== finer && part(earlier).to === end };
}

/** The windows of one metric, at one version. */
export interface Windows {
  /** The window of the unit that is shown. */
  readonly shown: Window | undefined;
  /** The window of its finer unit. */
  readonly finer: Window | undefined;
}

/** The counts of both sides. */
export interface Compared {
  readonly current: number;
  readonly earlier: number;
}

/** The comparison with the previous bucket; null if it cannot be made. */
export function withPrevious(unit: Unit, windows: Windows, now: number): Compared | null {
  return compared(unit, windows, now, unit, 1);
}

/** The comparison of a day with the same day of the week before; null if it cannot be made. */
export function withWeekBefore(windows: Windows, now: number): Compared | null {
  return compared("day", windows, now, "week", 1);
}

function compared(unit: Unit, windows: Windows, now: number, by: Unit, steps: number): Compared | null {
  const finer = FINER[unit];
  if (finer === null) return null;
  const { current, earlier, buckets } = parts(unit, finer, now, by, steps);
  if (buckets === 0) return null;
  const [count, before] = [countOf(current, windows), countOf(earlier, windows)];
  return count === null || before === null ? null : { current: count, earlier: before };
}

/**
 * The count of a part. Null if the windows do not have it: they begin later, or the finer unit does
 * not keep its buckets that long. In that case they do not add up to the count of the whole bucket.
 */
function countOf(part: Part, { shown, finer }: Windows): number | null {
  const whole = countAt(shown, part.bucket);
  if (whole === null || whole !== sum(finer, part.bucket, part.end)) return null;
  return sum(finer, part.bucket, part.to);
}

/** The count of the bucket that starts at `time`; null if the window does not reach back to it. */
export function countAt(window: Window | undefined, time: number): number | null {
  return sum(window, time, time + 1);
}

/** The sum of the counts in a period; null if the window does not reach back to its begin. */
function sum(window: Window | undefined, from: number, to: number): number | null {
  if (window === undefined) return null;
  const { times, counts, capacity } = window;
  // A window that is not full has every bucket that was ever touched. A missing bucket is zero.
  if (times.length >= capacity && (times[0] ?? from) > from) return null;
  let total = 0;
  for (let index = firstAtLeast(times, from); index < times.length && (times[index] ?? to) < to; index += 1) {
    total += counts[index] ?? 0;
  }
  return total;
}

/** What is compared, in words. */
export function description(unit: Unit, now: number): string {
  const finer = FINER[unit];
  if (finer === null) return "the last millisecond with events, against the one before";
  if (unit === finer) return `the last whole ${unit}, against the one before`;
  const { buckets, whole } = parts(unit, finer, now, unit, 1);
  if (buckets === 0) return `no whole ${finer} of this ${unit} has passed yet`;
  if (whole) return `${lengthOf(finer, buckets)}, against the whole previous ${unit}`;
  const same = buckets === 1 ? `the same ${finer}` : `the same ${finer}s`;
  // The page names the days that today is compared with.
  return `${name(unit, finer, buckets)}, against ${same}${unit === "day" ? "" : ` of the previous ${unit}`}`;
}

/**
 * The name of the first buckets of a unit. Seconds, minutes and hours have a clock's numbers. The
 * word between them keeps their order: Arabic digits with a dash would be shown from right to left.
 */
function name(unit: Unit, finer: Unit, buckets: number): string {
  if (unit !== "minute" && unit !== "hour" && unit !== "day") return lengthOf(finer, buckets);
  const numbers = buckets === 1 ? `${finer} ${count(0)}` : `${finer}s ${count(0)} to ${count(buckets - 1)}`;
  return unit === "day" ? `${numbers} UTC` : numbers;
}

/** The length of the first buckets, such as "first 3 days and 10 hours". */
function lengthOf(finer: Unit, buckets: number): string {
  const amount = (number: number, unit: Unit) => `${count(number)} ${unit}${number === 1 ? "" : "s"}`;
  if (finer !== "hour") return `first ${amount(buckets, finer)}`;
  const [days, hours] = [Math.floor(buckets / 24), buckets % 24];
  const amounts = [days > 0 ? amount(days, "day") : "", hours > 0 ? amount(hours, "hour") : ""];
  return `first ${amounts.filter((amount) => amount !== "").join(" and ")}`;
}

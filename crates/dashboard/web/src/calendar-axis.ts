// Where the time axis has marks if buckets are days or longer: at starts of days, months and years
// in UTC. Times are Unix seconds, as uPlot has them.

import { step } from "./units";

const DAY = 86_400;
/** The usual lengths of a month and of a year, in seconds: what uPlot divides the axis by. */
const MONTH = 30 * DAY;
const YEAR = 365 * DAY;

/** The distances between marks that look even to a reader, ascending, in seconds. */
export const CALENDAR_STEPS: number[] = [
  ...[1, 2, 3, 5, 7, 10, 15].map((days) => days * DAY),
  ...[1, 2, 3, 4, 6].map((months) => months * MONTH),
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000].map((years) => years * YEAR),
];

/** The marks from `from` to `to`. `apart` is one of `CALENDAR_STEPS`. */
export function calendarMarks(from: number, to: number, apart: number): number[] {
  const list: number[] = [];
  const unit = apart >= YEAR ? "year" : apart >= MONTH ? "month" : "day";
  const steps = Math.round(apart / { year: YEAR, month: MONTH, day: DAY }[unit]);
  for (let time = firstMark(unit, steps, from) * 1_000; time <= to * 1_000; time = step(unit, time, steps)) {
    if (time >= from * 1_000) list.push(time / 1_000);
  }
  return list;
}

/**
 * A mark at `from` or less than a step earlier. Years are multiples of the step, and so are the
 * months of a year.
 */
function firstMark(unit: "day" | "month" | "year", steps: number, from: number): number {
  if (unit === "day") return Math.ceil(from / DAY) * DAY;
  const date = new Date(from * 1_000);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  const [markYear, markMonth] = unit === "year" ? [year - (year % steps), 0] : [year, month - (month % steps)];
  return new Date(0).setUTCFullYear(markYear, markMonth, 1) / 1_000;
}

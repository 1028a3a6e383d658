// Formats numbers and times in the viewer's language and digits. Buckets of a day or longer follow
// UTC, and are labelled so.
//
// Invariant: times are always named by the Gregorian calendar, because buckets follow it. Another
// calendar's month or year begins in the middle of one.

import { LANGUAGES } from "./language";
import { isolated } from "./plain-text";
import { type Unit, isCalendar } from "./units";

const whole = new Intl.NumberFormat([...LANGUAGES]);
const compact = new Intl.NumberFormat([...LANGUAGES], { notation: "compact", maximumFractionDigits: 1 });
const signed = new Intl.NumberFormat([...LANGUAGES], { signDisplay: "exceptZero" });
const percent = new Intl.NumberFormat([...LANGUAGES], { style: "percent", signDisplay: "exceptZero", maximumFractionDigits: 0 });
const rough = new Intl.NumberFormat([...LANGUAGES], { maximumSignificantDigits: 3 });

export const count = (value: number): string => whole.format(value);
/** Short form, for axes. */
export const shortCount = (value: number): string => (Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value));
export const difference = (value: number): string => signed.format(value);
/** A relative change. A factor is easier to read than thousands of percent. */
export const share = (value: number): string => (value < 10 ? percent.format(value) : `×${count(Math.round(value + 1))}`);
export const rate = (value: number): string => rough.format(value);

const tenths = new Intl.NumberFormat([...LANGUAGES], { minimumFractionDigits: 1, maximumFractionDigits: 1 });
/** How long ago something was true, from milliseconds. */
export const age = (milliseconds: number): string =>
  `as of ${milliseconds < 10_000 ? tenths.format(milliseconds / 1_000) : count(Math.round(milliseconds / 1_000))} s ago`;

const formats = new Map<string, Intl.DateTimeFormat>();

/** Cached, because creating a format costs far more than using it. */
function format(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = JSON.stringify(options);
  const cached = formats.get(key) ?? new Intl.DateTimeFormat([...LANGUAGES], { ...options, calendar: "gregory" });
  formats.set(key, cached);
  return cached;
}

const TIME: Intl.DateTimeFormatOptions = { hour: "numeric", minute: "2-digit" };
const DATE: Intl.DateTimeFormatOptions = { year: "numeric", month: "short", day: "numeric" };

const NAMES: { readonly [unit in Unit]: Intl.DateTimeFormatOptions } = {
  millisecond: { ...TIME, second: "2-digit", fractionalSecondDigits: 3 },
  second: { ...TIME, second: "2-digit" },
  minute: TIME,
  hour: { weekday: "short", day: "numeric", month: "short", ...TIME },
  day: { weekday: "short", ...DATE },
  week: DATE,
  month: { year: "numeric", month: "long" },
  quarter: { year: "numeric" },
  year: { year: "numeric" },
};

/** A time inside an English text, which languages written from right to left would reorder. */
const apart = (text: string): string => (/[\p{Script=Arab}\p{Script=Hebr}\p{Bidi_Control}]/u.test(text) ? isolated(text) : text);

/**
 * The name of the bucket that starts at `time`. Includes the date unless it is the day of `now`.
 */
export function bucket(unit: Unit, time: number, now: number): string {
  const date = new Date(time);
  if (isCalendar(unit)) {
    const name = apart(format({ ...NAMES[unit], timeZone: "UTC" }).format(date));
    if (unit === "quarter") return `Q${count(Math.floor(date.getUTCMonth() / 3) + 1)} ${name} UTC`;
    return unit === "week" ? `week of ${name} UTC` : `${name} UTC`;
  }
  const otherDay = unit !== "hour" && date.toDateString() !== new Date(now).toDateString();
  return apart(format(otherDay ? { ...DATE, ...NAMES[unit] } : NAMES[unit]).format(date));
}

/** A time of day. Includes the date unless it is today. */
export function moment(time: number): string {
  const today = new Date(time).toDateString() === new Date().toDateString();
  const second: Intl.DateTimeFormatOptions = { ...TIME, second: "2-digit" };
  return apart(format(today ? second : { ...DATE, ...second }).format(new Date(time)));
}

/** A period. */
export function period(unit: Unit, from: number, to: number): string {
  const last = unit === "millisecond" || unit === "second" ? to : to - 1;
  if (isCalendar(unit)) return `${apart(format({ ...DATE, timeZone: "UTC" }).formatRange(from, last))} UTC`;
  const fine: Intl.DateTimeFormatOptions = unit === "millisecond" || unit === "second" ? { second: "2-digit" } : {};
  return apart(format({ ...DATE, ...TIME, ...fine }).formatRange(from, to));
}

const MINUTE = 60;
const HOUR = 3_600;
const DAY = 86_400;

/**
 * The labels of axis marks that are `apart` seconds apart. The first mark of a new day or year
 * names it.
 */
export function marks(unit: Unit, times: readonly number[], apart: number): string[] {
  const zone: Intl.DateTimeFormatOptions = isCalendar(unit) ? { timeZone: "UTC" } : {};
  const name = (options: Intl.DateTimeFormatOptions, time: number) => format({ ...options, ...zone }).format(time);
  const day = (time: number) => name({ day: "numeric", month: "short" }, time);
  const year = (time: number) => name({ year: "numeric" }, time);
  let before = "";
  return times.map((seconds) => {
    const time = seconds * 1_000;
    if (apart >= 300 * DAY) return year(time);
    const head = apart >= DAY ? year(time) : day(time);
    const first = before === "";
    const changed = head !== before;
    before = head;
    if (apart >= 27 * DAY) {
      const month = name({ month: "short" }, time);
      return changed ? `${month}\n${head}` : month;
    }
    if (apart >= DAY) return changed && !first ? `${day(time)}\n${head}` : day(time);
    const fraction = Math.abs(Math.round(seconds) - seconds) > 1e-6 || apart < 1;
    const clock: Intl.DateTimeFormatOptions = fraction
      ? { second: "2-digit", fractionalSecondDigits: 3 }
      : { ...TIME, ...(apart < MINUTE ? { second: "2-digit" } : {}) };
    const text = name(clock, time);
    return changed && (!first || apart >= HOUR) ? `${text}\n${head}` : text;
  });
}

// What a chart draws: one value for each bucket of a period. A bucket in which nothing was counted is zero; one of which
// nothing is known (not yet asked for, or given up by the unit) is null, and is not drawn at all.

import { type Window, firstAtLeast } from "./statistics-stream";
import type { History, Past } from "./history";
import { type Unit, FACTS, start, starts } from "./units";
import type { Period, View } from "./view";

export interface Series {
  /** The starts of the buckets, in Unix milliseconds. */
  readonly times: readonly number[];
  readonly counts: (number | null)[];
  /** What is asked of history for it; null where the live window has all. */
  readonly past: Past | null;
}

/** The counts of a topic in a period, as far as they are known `now`. */
export function seriesOf(
  topic: string,
  view: View,
  period: Period,
  window: Window | undefined,
  history: History,
  now: number,
): Series {
  const { unit } = view;
  const times = starts(unit, period.from, period.to);
  // A window that is not full has all that was ever counted; and one that moves on shows nothing but what is new.
  const [oldest] = window?.times ?? [];
  const full = window !== undefined && window.times.length >= window.bound;
  const known = oldest === undefined ? start(unit, now) : oldest;
  const needsPast = period.from < known && (view.period !== null || full);
  const past = needsPast ? history.past(topic, { from: period.from, to: steady(unit, known, period.to) }) : null;
  const counts = times.map((time): number | null => {
    if (time > now) return null;
    if (time >= known || past === null) return window === undefined ? null : 0;
    if (time < past.since) return null;
    return past.counts.get(time) ?? (past.complete ? 0 : null);
  });
  if (window !== undefined && times.length > 0) overlay(times, counts, window);
  return { times, counts, past };
}

/** Puts the window's counts in their places. */
function overlay(times: readonly number[], counts: (number | null)[], window: Window): void {
  let place = 0;
  for (let held = firstAtLeast(window.times, times[0] ?? 0); held < window.times.length; held += 1) {
    const time = window.times[held] ?? 0;
    while (place < times.length && (times[place] ?? 0) < time) place += 1;
    if (place === times.length) return;
    if (times[place] === time) counts[place] = window.counts[held] ?? 0;
  }
}

/** How far history is asked for: beyond what it must know, so that it is not asked anew for each bucket that a window gives up. */
function steady(unit: Unit, known: number, to: number): number {
  const stride = FACTS[unit].length * 512;
  return Math.min(to, start(unit, Math.ceil(known / stride) * stride));
}

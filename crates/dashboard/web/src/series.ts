// The values of a chart: one for each bucket of a period. A bucket without events is 0. A bucket
// that is unknown (not loaded yet, or not kept by the unit any more) is null, and is not drawn.

import { type Topic, type Window, firstAtLeast } from "./statistics-stream";
import type { History, Past } from "./history";
import { type Unit, FACTS, start, starts } from "./units";
import type { Period, View } from "./view";

export interface Series {
  /** The starts of the buckets, in Unix milliseconds. */
  readonly times: readonly number[];
  readonly counts: (number | null)[];
  /** The part that comes from history; null if the live window has everything. */
  readonly past: Past | null;
}

/** The counts of a topic in a period, as far as they are known at `now`. */
export function seriesOf(
  topic: Topic,
  view: View,
  period: Period,
  window: Window | undefined,
  history: History,
  now: number,
): Series {
  const { unit } = view;
  const times = starts(unit, period.from, period.to);
  // A window that is not full has every bucket that exists, so a moving view needs no history then.
  const [oldest] = window?.times ?? [];
  const full = window !== undefined && window.times.length >= window.capacity;
  const knownSince = oldest === undefined ? start(unit, now) : oldest;
  const needsPast = period.from < knownSince && (view.period !== null || full);
  const past = needsPast ? history.past(topic, { from: period.from, to: historyEnd(unit, knownSince, period.to) }) : null;
  const counts = times.map((time): number | null => {
    if (time > now) return null;
    if (time >= knownSince || past === null) return window === undefined ? null : 0;
    if (time < past.since) return null;
    return past.counts.get(time) ?? (past.complete ? 0 : null);
  });
  if (window !== undefined && times.length > 0) overlay(times, counts, window);
  return { times, counts, past };
}

/** Copies the window's counts into `counts`. */
function overlay(times: readonly number[], counts: (number | null)[], window: Window): void {
  let index = 0;
  for (let held = firstAtLeast(window.times, times[0] ?? 0); held < window.times.length; held += 1) {
    const time = window.times[held] ?? 0;
    while (index < times.length && (times[index] ?? 0) < time) index += 1;
    if (index === times.length) return;
    if (times[index] === time) counts[index] = window.counts[held] ?? 0;
  }
}

/**
 * The end of the history to request. Rounded up, so that not every bucket that leaves the window
 * causes a new request.
 */
function historyEnd(unit: Unit, knownSince: number, to: number): number {
  const stride = FACTS[unit].length * 512;
  return Math.min(to, start(unit, Math.ceil(knownSince / stride) * stride));
}

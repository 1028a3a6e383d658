// What is looked at: a unit, and either the newest buckets, moving on, or a period that stands still. It lives in the
// address of the page, so that a link shows the same, and the browser's back and forward go through what was looked at.
//
// Invariant: whatever the address says becomes a view that can be drawn: of at least `BUCKETS_MIN` buckets and at most
// `BUCKETS_MAX`, within the years that the server knows.

import { EARLIEST, FACTS, LATEST, UNITS, type Unit, ceiling, start, step } from "./units";

export const BUCKETS_MIN = 5;
export const BUCKETS_MAX = 4_000;

/** A period, in Unix milliseconds, half-open, from the start of one bucket to that of another. */
export interface Period {
  readonly from: number;
  readonly to: number;
}

export interface View {
  readonly unit: Unit;
  /** How many of the newest buckets are shown while the view moves on. */
  readonly last: number;
  /** The period at which the view stands still; null where it moves on. */
  readonly period: Period | null;
}

export function defaultView(unit: Unit): View {
  return { unit, last: FACTS[unit].spans[0]?.buckets ?? BUCKETS_MIN, period: null };
}

/** The view that an address asks for; what makes no sense in it is as if it were not there. */
export function parseView(query: string): View {
  const parameters = new URLSearchParams(query);
  const unit = UNITS.find((unit) => unit === parameters.get("unit")) ?? "minute";
  const view = defaultView(unit);
  const last = Number(parameters.get("last"));
  const spans = FACTS[unit].spans.map((span) => span.buckets);
  const [from, to] = [Date.parse(parameters.get("from") ?? ""), Date.parse(parameters.get("to") ?? "")];
  return {
    unit,
    last: spans.includes(last) ? last : view.last,
    period: from < to ? fit(unit, from, to) : null,
  };
}

/** The query of the address of a view. */
export function formatView(view: View): string {
  const parameters = new URLSearchParams({ unit: view.unit });
  if (view.period === null) {
    parameters.set("last", String(view.last));
  } else {
    // The view that it goes back to.
    if (view.last !== defaultView(view.unit).last) parameters.set("last", String(view.last));
    parameters.set("from", new Date(view.period.from).toISOString());
    parameters.set("to", new Date(view.period.to).toISOString());
  }
  return `?${parameters}`.replaceAll("%3A", ":");
}

/** The period nearest to the given one that can be drawn by this unit: its end stays, where something must give. */
export function fit(unit: Unit, from: number, to: number): Period {
  const length = FACTS[unit].length;
  const [lowest, highest] = [start(unit, EARLIEST), start(unit, LATEST)];
  const bounded = (time: number) => Math.min(Math.max(time, lowest), highest);
  let end = ceiling(unit, bounded(to));
  let begin = start(unit, bounded(from));
  if ((end - begin) / length < BUCKETS_MIN) {
    end = step(unit, start(unit, bounded((begin + end) / 2)), Math.ceil(BUCKETS_MIN / 2));
    begin = step(unit, end, -BUCKETS_MIN);
  }
  if ((end - begin) / length > BUCKETS_MAX) begin = step(unit, end, -BUCKETS_MAX);
  if (begin < lowest) [begin, end] = [lowest, step(unit, lowest, BUCKETS_MIN)];
  return { from: begin, to: end };
}

/** The same by another unit. A period stays as it is, as far as the unit can draw it. */
export function withUnit(view: View, unit: Unit): View {
  const period = view.period === null ? null : fit(unit, view.period.from, view.period.to);
  return { ...defaultView(unit), period };
}

/** The period that a view shows when it is `now`; one that moves on ends with the bucket that is not over yet. */
export function periodOf(view: View, now: number): Period {
  if (view.period !== null) return view.period;
  // A millisecond is over before it can be drawn, and a picture ten times a second is enough.
  const current = start(view.unit, view.unit === "millisecond" ? Math.floor(now / 100) * 100 - 1 : now);
  const to = step(view.unit, current, 1);
  return { from: step(view.unit, to, -view.last), to };
}

/** When a view that moves on next shows another bucket, after `now`. */
export function nextMove(unit: Unit, now: number): number {
  return unit === "millisecond" ? Math.floor(now / 100) * 100 + 100 : step(unit, start(unit, now), 1);
}

/** The period that is half a period earlier (-1) or later (1). */
export function moved(unit: Unit, period: Period, by: -1 | 1): Period {
  const half = (by * (period.to - period.from)) / 2;
  return fit(unit, period.from + half, period.to + half);
}

/** The period that is `factor` times as long, around the same middle. */
export function scaled(unit: Unit, period: Period, factor: number): Period {
  const middle = (period.from + period.to) / 2;
  const half = ((period.to - period.from) / 2) * factor;
  return fit(unit, middle - half, middle + half);
}

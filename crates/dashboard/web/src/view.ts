// The view: a unit, and either the newest buckets (a moving view) or a fixed period. It is part of
// the page's address, so links and the browser's back and forward buttons work.
//
// Invariant: any address becomes a view that can be drawn: at least `BUCKETS_MIN` and at most
// `BUCKETS_MAX` buckets, within the range of times that the server supports.

import { EARLIEST, FACTS, LATEST, UNITS, type Unit, ceiling, start, step } from "./units";

export const BUCKETS_MIN = 5;
export const BUCKETS_MAX = 4_000;

/** A half-open period in Unix milliseconds, between two starts of buckets. */
export interface Period {
  readonly from: number;
  readonly to: number;
}

export interface View {
  readonly unit: Unit;
  /** How many of the newest buckets a moving view shows. */
  readonly last: number;
  /** The period of a fixed view; null for a moving one. */
  readonly period: Period | null;
}

export function defaultView(unit: Unit): View {
  return { unit, last: FACTS[unit].spans[0]?.buckets ?? BUCKETS_MIN, period: null };
}

/** Parses the query of an address. Parameters that are not valid are ignored. */
export function parseView(query: string): View {
  const parameters = new URLSearchParams(query);
  const unit = UNITS.find((unit) => unit === parameters.get("unit")) ?? "minute";
  const view = defaultView(unit);
  const last = Number(parameters.get("last"));
  const spans = FACTS[unit].spans.map((span) => span.buckets);
  const from = Date.parse(parameters.get("from") ?? "");
  const to = Date.parse(parameters.get("to") ?? "");
  return {
    unit,
    last: spans.includes(last) ? last : view.last,
    period: from < to ? fit(unit, from, to) : null,
  };
}

/** The query for a view's address. */
export function formatView(view: View): string {
  const parameters = new URLSearchParams({ unit: view.unit });
  if (view.period === null) {
    parameters.set("last", String(view.last));
  } else {
    // For the way back to a moving view.
    if (view.last !== defaultView(view.unit).last) parameters.set("last", String(view.last));
    parameters.set("from", new Date(view.period.from).toISOString());
    parameters.set("to", new Date(view.period.to).toISOString());
  }
  return `?${parameters}`.replaceAll("%3A", ":");
}

/** The nearest period that this unit can draw. If it has to be shortened, its end stays. */
export function fit(unit: Unit, from: number, to: number): Period {
  const length = FACTS[unit].length;
  const lowest = start(unit, EARLIEST);
  const highest = start(unit, LATEST);
  const bounded = (time: number) => Math.min(Math.max(time, lowest), highest);
  let end = ceiling(unit, bounded(to));
  let begin = start(unit, bounded(from));
  if ((end - begin) / length < BUCKETS_MIN) {
    end = step(unit, start(unit, bounded((begin + end) / 2)), Math.ceil(BUCKETS_MIN / 2));
    begin = step(unit, end, -BUCKETS_MIN);
  }
  if ((end - begin) / length > BUCKETS_MAX) begin = step(unit, end, -BUCKETS_MAX);
  if (begin < lowest) begin = lowest;
  if ((end - begin) / length < BUCKETS_MIN) end = step(unit, begin, BUCKETS_MIN);
  return { from: begin, to: end };
}

/** The view in another unit. A period stays the same, as far as the unit can draw it. */
export function withUnit(view: View, unit: Unit): View {
  const period = view.period === null ? null : fit(unit, view.period.from, view.period.to);
  return { ...defaultView(unit), period };
}

/** The period that a view shows at `now`. A moving view ends with the current bucket. */
export function periodOf(view: View, now: number): Period {
  if (view.period !== null) return view.period;
  // Milliseconds pass too fast to draw each. Ten updates per second are enough.
  const current = start(view.unit, view.unit === "millisecond" ? Math.floor(now / 100) * 100 - 1 : now);
  const to = step(view.unit, current, 1);
  return { from: step(view.unit, to, -view.last), to };
}

/** When a moving view next shows a new bucket, after `now`. */
export function nextMove(unit: Unit, now: number): number {
  return unit === "millisecond" ? Math.floor(now / 100) * 100 + 100 : step(unit, start(unit, now), 1);
}

/** The period moved by half its length, earlier (-1) or later (1). */
export function moved(unit: Unit, period: Period, by: -1 | 1): Period {
  const half = (by * (period.to - period.from)) / 2;
  return fit(unit, period.from + half, period.to + half);
}

/** The period scaled by `factor` around its middle. */
export function scaled(unit: Unit, period: Period, factor: number): Period {
  const middle = (period.from + period.to) / 2;
  const half = ((period.to - period.from) / 2) * factor;
  return fit(unit, middle - half, middle + half);
}

// What is shown of one metric: the count of the current bucket, how it compares, and the chart.
//
// Invariant: the figures are of the moment that is drawn, and of one state of the counts; what is unknown is a dash.

import { Chart, type ChartListener } from "./chart";
import * as format from "./format";
import { part, say } from "./page";
import type { Series } from "./series";
import { type Window, firstAtLeast } from "./statistics-stream";
import { FACTS, UNITS, type Unit, isCalendar, start, step } from "./units";
import type { Period, View } from "./view";

/** What the viewer did in the chart. */
export interface PanelListener extends Pick<ChartListener, "zoomed"> {
  /** A key that moves the cursor to another bucket, or changes the view. */
  pressed(event: KeyboardEvent): void;
}

/** In what a rate is said: so that it is neither thousands nor thousandths, as a rule. */
const RATES: { readonly [unit in Unit]: Unit } = {
  millisecond: "second",
  second: "second",
  minute: "second",
  hour: "minute",
  day: "hour",
  week: "day",
  month: "day",
  quarter: "day",
  year: "day",
};

const UNKNOWN = "–";

/** The least time between two flashes of a count that changes, in milliseconds: traffic must not make it flicker. */
const CALM = 2_000;

export class Panel {
  readonly #chart: Chart;
  readonly #place: HTMLElement;
  readonly #parts: { readonly [name: string]: HTMLElement };
  #series: Series = { times: [], counts: [], past: null };
  #unit: Unit = "minute";
  #now = 0;
  #pointed: number | null = null;
  #count: number | null = null;
  #flashed = 0;

  constructor(
    readonly root: HTMLElement,
    listener: PanelListener,
  ) {
    const names = ["count", "caption", "elapsed", "rate", "before-name", "before", "change", "readout", "chart"];
    this.#parts = Object.fromEntries(names.map((name) => [name, part(`[data-part=${name}]`, root)]));
    this.#place = part("[data-part=chart]", root);
    const empty = { unit: this.#unit, from: 0, to: 1, times: [], counts: [], current: -1 };
    this.#chart = new Chart(this.#place, empty, {
      zoomed: listener.zoomed,
      pointed: (place) => {
        this.#pointed = place;
        this.#read();
      },
    });
    this.#place.addEventListener("keydown", listener.pressed);
    this.#place.addEventListener("blur", () => this.#chart.point(null));
    part(".count", root).addEventListener("animationend", () => delete root.dataset["changed"]);
  }

  /** Where the cursor is: the place of a bucket in the chart. */
  get pointed(): number | null {
    return this.#pointed;
  }

  point(place: number | null): void {
    this.#chart.point(place);
  }

  /** How far of the current bucket is over, from 0 to 1: cheap, and shown more often than the rest. */
  elapse(unit: Unit, now: number): void {
    const from = start(unit, now);
    const over = unit === "millisecond" ? 0 : (now - from) / (step(unit, from, 1) - from);
    this.#part("elapsed").style.transform = `scaleX(${over.toFixed(3)})`;
  }

  /** Shows these counts, as they are `now`. */
  show(view: View, period: Period, series: Series, window: Window | undefined, now: number): void {
    const { unit } = view;
    this.#series = series;
    this.#unit = unit;
    this.#now = now;
    this.#figures(unit, window, now);
    const current = series.times.lastIndexOf(start(unit, now));
    this.#chart.draw({ unit, ...period, times: series.times, counts: series.counts, current });
    this.#read();
  }

  #part(name: string): HTMLElement {
    return this.#parts[name] ?? this.root;
  }

  #figures(unit: Unit, window: Window | undefined, now: number): void {
    const say_ = (name: string, text: string) => say(this.#part(name), text);
    if (window === undefined) {
      for (const name of ["count", "rate", "before", "change"]) say_(name, UNKNOWN);
      this.#count = null;
      return;
    }
    const at = (time: number) => {
      const place = firstAtLeast(window.times, time);
      return window.times[place] === time ? (window.counts[place] ?? 0) : 0;
    };
    // Nobody can see the count of the millisecond that it is: shown is the last one that was counted.
    const last = window.times.at(-1);
    const current = unit === "millisecond" ? (last ?? start(unit, now)) : start(unit, now);
    const before = unit === "millisecond" ? (window.times.at(-2) ?? step(unit, current, -1)) : step(unit, current, -1);
    const [count, previous] = [at(current), at(before)];
    const text = format.count(count);
    say_("count", text);
    // Long numbers are set smaller, so that they fit.
    this.#part("count").style.setProperty("--digits", String(text.length));
    if (this.#count !== null && this.#count !== count && performance.now() > this.#flashed + CALM) {
      this.#flashed = performance.now();
      this.root.dataset["changed"] = "";
    }
    this.#count = count;
    say_("caption", unit === "millisecond" ? caption(last, now) : `${unit === "day" ? "today" : `this ${unit}`}${zone(unit)}`);
    say_("before-name", unit === "millisecond" ? "One before" : `Previous ${unit}`);
    say_("before", format.count(previous));
    const change = count - previous;
    const share = previous > 0 ? ` (${format.share(change / previous)})` : "";
    say_("change", `${format.difference(change)}${share}`);
    this.#part("change").dataset["sign"] = String(Math.sign(change));
    say_("rate", perTime(this.#rate(unit, window, now, at), RATES[unit]));
  }

  /** Events of the last unit of time, ending now: the bucket before counts for as much as it reaches into it. */
  #rate(unit: Unit, window: Window, now: number, at: (time: number) => number): number {
    const per = FACTS[RATES[unit]].length;
    if (unit === "millisecond") {
      const first = firstAtLeast(window.times, now - per);
      return window.counts.slice(first).reduce((sum, count) => sum + count, 0);
    }
    const current = start(unit, now);
    const before = step(unit, current, -1);
    const length = step(unit, current, 1) - current;
    const left = 1 - (now - current) / length;
    return Math.max(0, ((at(current) + at(before) * left) / length) * per);
  }

  /** Says what is under the cursor; else what the chart holds in all. */
  #read(): void {
    const { times, counts } = this.#series;
    const slider = this.#place;
    const place = this.#pointed;
    const time = place === null ? undefined : times[place];
    if (place !== null && time !== undefined) {
      const count = counts[place];
      const name = format.bucket(this.#unit, time, this.#now);
      const text = count === null || count === undefined ? "not known" : format.count(count);
      say(this.#part("readout"), `${name}: ${text}`);
      slider.setAttribute("aria-valuetext", `${name}: ${text}`);
      slider.setAttribute("aria-valuenow", String(place));
    } else {
      let [known, sum, peak, peakAt] = [false, 0, 0, 0];
      for (let place = 0; place < counts.length; place += 1) {
        const count = counts[place] ?? null;
        if (count === null) continue;
        known = true;
        sum += count;
        if (count > peak) [peak, peakAt] = [count, times[place] ?? 0];
      }
      const most = peak > 0 ? `, most ${format.count(peak)} at ${format.bucket(this.#unit, peakAt, this.#now)}` : "";
      say(this.#part("readout"), !known ? "\u00a0" : `${format.count(sum)} in all${most}`);
      slider.setAttribute("aria-valuetext", this.#part("readout").textContent ?? "");
    }
    slider.setAttribute("aria-valuemax", String(Math.max(times.length - 1, 0)));
  }
}

/** A rate in a unit of time in which it is no small fraction. */
function perTime(rate: number, per: Unit): string {
  const longer = UNITS[UNITS.indexOf(per) + 1];
  if (rate === 0 || rate >= 0.1 || longer === undefined || isCalendar(per)) return `${format.rate(rate)} / ${per}`;
  return perTime((rate * FACTS[longer].length) / FACTS[per].length, longer);
}

function caption(last: number | undefined, now: number): string {
  return last === undefined ? "no millisecond yet" : `in the last one counted, ${format.bucket("millisecond", last, now)}`;
}

const zone = (unit: Unit): string => (isCalendar(unit) ? ", UTC" : "");

// One metric: the count of the current bucket, comparisons with earlier ones, and the chart.
//
// Invariant: all figures belong to the moment that is drawn, and to one state of the counts.
// Unknown values are dashes.

import { Chart, type ChartListener } from "./chart";
import { type Compared, type Windows, countAt, description, withPrevious, withWeekBefore } from "./comparison";
import * as format from "./format";
import { element, setText } from "./page";
import type { Series } from "./series";
import { type Window, firstAtLeast } from "./statistics-stream";
import { FACTS, UNITS, type Unit, isCalendar, start, step } from "./units";
import type { Period, View } from "./view";

/** Reports what the viewer did in the chart. */
export interface PanelListener extends Pick<ChartListener, "zoomed"> {
  /** A key that moves the cursor to another bucket, or changes the view. */
  pressed(event: KeyboardEvent): void;
}

/** The unit of the rate: chosen so that rates are rarely thousands or thousandths. */
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

/**
 * The minimum time between two flashes of a changing count, in milliseconds, so that it does not
 * flicker.
 */
const FLASH_INTERVAL = 2_000;

export class Panel {
  readonly #chart: Chart;
  readonly #slider: HTMLElement;
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
    const names = [
      "count", "caption", "elapsed", "rate", "before-name", "before", "change-name", "change", "week", "week-change",
      "compared", "readout", "chart",
    ];
    this.#parts = Object.fromEntries(names.map((name) => [name, element(`[data-part=${name}]`, root)]));
    this.#slider = element("[data-part=chart]", root);
    const empty = { unit: this.#unit, from: 0, to: 1, times: [], counts: [], current: -1 };
    this.#chart = new Chart(this.#slider, empty, {
      zoomed: listener.zoomed,
      pointed: (index) => {
        this.#pointed = index;
        this.#showReadout();
      },
    });
    this.#slider.addEventListener("keydown", listener.pressed);
    this.#slider.addEventListener("blur", () => this.#chart.point(null));
    element(".count", root).addEventListener("animationend", () => delete root.dataset["changed"]);
  }

  /** The index of the bucket under the cursor. */
  get pointed(): number | null {
    return this.#pointed;
  }

  point(index: number | null): void {
    this.#chart.point(index);
  }

  /**
   * Shows how much of the current bucket has passed. Cheap, and so called more often than the rest.
   */
  showProgress(unit: Unit, now: number): void {
    const from = start(unit, now);
    const passed = unit === "millisecond" ? 0 : (now - from) / (step(unit, from, 1) - from);
    this.#part("elapsed").style.transform = `scaleX(${passed.toFixed(3)})`;
  }

  /** Shows the counts as of `now`. */
  show(view: View, period: Period, series: Series, windows: Windows, now: number): void {
    const { unit } = view;
    this.#series = series;
    this.#unit = unit;
    this.#now = now;
    this.#showFigures(unit, windows, now);
    const current = series.times.lastIndexOf(start(unit, now));
    this.#chart.draw({ unit, ...period, times: series.times, counts: series.counts, current });
    this.#showReadout();
  }

  #part(name: string): HTMLElement {
    return this.#parts[name] ?? this.root;
  }

  #showFigures(unit: Unit, windows: Windows, now: number): void {
    const window = windows.shown;
    const show = (name: string, text: string) => setText(this.#part(name), text);
    this.#part("week").hidden = unit !== "day";
    show("change-name", unit === "day" ? "vs. yesterday" : "Change");
    show("compared", description(unit, now));
    if (window === undefined) {
      for (const name of ["count", "rate", "before"]) show(name, UNKNOWN);
      for (const name of ["change", "week-change"]) this.#showChange(name, null);
      this.#count = null;
      return;
    }
    const at = (time: number) => countAt(window, time) ?? 0;
    const known = (count: number | null) => (count === null ? UNKNOWN : format.count(count));
    // The current millisecond is too short to see, so this shows the last one with a count.
    const last = window.times.at(-1);
    const current = unit === "millisecond" ? (last ?? start(unit, now)) : start(unit, now);
    const before = unit === "millisecond" ? (window.times.at(-2) ?? step(unit, current, -1)) : step(unit, current, -1);
    const count = countAt(window, current);
    const previous = countAt(window, before);
    const text = known(count);
    show("count", text);
    // Long numbers use a smaller font.
    this.#part("count").style.setProperty("--digits", String(text.length));
    if (this.#count !== null && this.#count !== count && performance.now() > this.#flashed + FLASH_INTERVAL) {
      this.#flashed = performance.now();
      this.root.dataset["changed"] = "";
    }
    this.#count = count;
    show("caption", unit === "millisecond" ? caption(last, now) : `${unit === "day" ? "today" : `this ${unit}`}${zone(unit)}`);
    show("before-name", unit === "millisecond" ? "Previous one" : `Previous ${unit}`);
    show("before", known(previous));
    const lasts = { current: at(current), earlier: at(before) };
    this.#showChange("change", unit === "millisecond" ? lasts : withPrevious(unit, windows, now));
    this.#showChange("week-change", unit === "day" ? withWeekBefore(windows, now) : null);
    show("rate", count === null ? UNKNOWN : perTime(this.#rate(unit, window, now, at), RATES[unit]));
  }

  /** Shows a change, or a dash if it is not known. */
  #showChange(name: string, compared: Compared | null): void {
    const part = this.#part(name);
    if (compared === null) {
      setText(part, UNKNOWN);
      delete part.dataset["sign"];
      return;
    }
    const { current, earlier } = compared;
    const change = current - earlier;
    const share = earlier > 0 ? ` (${format.share(change / earlier)})` : "";
    setText(part, `${format.difference(change)}${share}`);
    part.dataset["sign"] = String(Math.sign(change));
  }

  /**
   * Events per unit of time, over one bucket length ending now. The previous bucket counts in
   * proportion to its overlap.
   */
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

  /** Shows the bucket under the cursor, or the total of the chart. */
  #showReadout(): void {
    const { times, counts } = this.#series;
    const slider = this.#slider;
    const index = this.#pointed;
    const time = index === null ? undefined : times[index];
    if (index !== null && time !== undefined) {
      const count = counts[index];
      const name = format.bucket(this.#unit, time, this.#now);
      const text = count === null || count === undefined ? "unknown" : format.count(count);
      setText(this.#part("readout"), `${name}: ${text}`);
      slider.setAttribute("aria-valuetext", `${name}: ${text}`);
      slider.setAttribute("aria-valuenow", String(index));
    } else {
      let known = false;
      let sum = 0;
      let peak = 0;
      let peakAt = 0;
      for (const [index, count] of counts.entries()) {
        if (count === null) continue;
        known = true;
        sum += count;
        if (count > peak) [peak, peakAt] = [count, times[index] ?? 0];
      }
      const most = peak > 0 ? `, peak ${format.count(peak)} at ${format.bucket(this.#unit, peakAt, this.#now)}` : "";
      setText(this.#part("readout"), !known ? "\u00a0" : `${format.count(sum)} in total${most}`);
      slider.setAttribute("aria-valuetext", this.#part("readout").textContent ?? "");
    }
    slider.setAttribute("aria-valuemax", String(Math.max(times.length - 1, 0)));
  }
}

/** A rate, per a unit of time that is long enough to make it at least 0.1. */
function perTime(rate: number, per: Unit): string {
  const longer = UNITS[UNITS.indexOf(per) + 1];
  if (rate === 0 || rate >= 0.1 || longer === undefined || isCalendar(per)) return `${format.rate(rate)} / ${per}`;
  return perTime((rate * FACTS[longer].length) / FACTS[per].length, longer);
}

function caption(last: number | undefined, now: number): string {
  return last === undefined ? "no events yet" : `in the last millisecond with events, ${format.bucket("millisecond", last, now)}`;
}

const zone = (unit: Unit): string => (isCalendar(unit) ? ", UTC" : "");

// One chart of counts over time, drawn by uPlot: a bar for each bucket, the one that is not over yet paler.
//
// Invariants: the time axis is a true one, as wide as the period whatever was counted. The chart draws what it is given
// and changes no view itself: dragging and keys only say which period is wanted.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { marks, shortCount } from "./format";
import { type Unit, isCalendar } from "./units";

export interface ChartData {
  readonly unit: Unit;
  /** The period, in Unix milliseconds. */
  readonly from: number;
  readonly to: number;
  /** The starts of the buckets, in Unix milliseconds, and their counts; null where a count is unknown. */
  readonly times: readonly number[];
  readonly counts: readonly (number | null)[];
  /** The place of the bucket that is not over yet; -1 where none is shown. */
  readonly current: number;
}

export interface ChartListener {
  /** Somebody marked this period, in Unix milliseconds. */
  zoomed(from: number, to: number): void;
  /** The bucket under the cursor, or null. */
  pointed(place: number | null): void;
}

/** What is drawn is so much wider than the gap beside it, as long as there is room for a gap. */
const BAR = 0.84;
/** Bars of fewer pixels have no gaps: they would only shimmer. */
const GAPS_FROM = 4;

const { bars } = uPlot.paths;

/** The colours of the page's style, as the canvas needs them. */
function palette(root: HTMLElement) {
  const style = getComputedStyle(root);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const size = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
  return {
    bar: colour("--series"),
    pale: colour("--series-pale"),
    text: colour("--muted"),
    grid: colour("--grid"),
    size,
    font: `${Math.round(size * 0.75)}px ${style.fontFamily}`,
  };
}

export class Chart {
  readonly #root: HTMLElement;
  readonly #listener: ChartListener;
  #data: ChartData;
  #plot: uPlot;
  #look: ReturnType<typeof palette>;

  constructor(root: HTMLElement, data: ChartData, listener: ChartListener) {
    this.#root = root;
    this.#listener = listener;
    this.#data = data;
    this.#look = palette(root);
    this.#plot = this.#make();
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(root);
    // A change of colours or of the size of letters.
    const redo = () => this.#remake();
    for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
      matchMedia(query).addEventListener("change", redo);
    }
    let letters = this.#look.size;
    addEventListener("resize", () => {
      const size = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
      if (Math.abs(size - letters) > 0.5) redo();
      letters = size;
    });
  }

  /** Draws this from now on. */
  draw(data: ChartData): void {
    const before = this.#data;
    this.#data = data;
    if (before.unit !== data.unit) {
      this.#remake();
      return;
    }
    // Scales follow from the data; the x scale is the period's.
    this.#plot.setData(this.#aligned());
  }

  /** Points at a bucket, or at none. */
  point(place: number | null): void {
    const time = place === null ? undefined : this.#data.times[place];
    const next = place === null ? undefined : (this.#data.times[place + 1] ?? this.#data.to);
    if (time === undefined || next === undefined) {
      this.#plot.setCursor({ left: -10, top: -10 });
      return;
    }
    const left = this.#plot.valToPos((time + next) / 2_000, "x");
    this.#plot.setCursor({ left, top: this.#plot.over.clientHeight / 2 });
  }

  #remake(): void {
    this.#plot.destroy();
    this.#look = palette(this.#root);
    this.#plot = this.#make();
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(this.#root.clientWidth, 120), height: Math.max(this.#root.clientHeight, 100) };
  }

  /** uPlot's lists: seconds, what is over, and what is not over yet. What is zero has no bar, which would cost time. */
  #aligned(): uPlot.AlignedData {
    const { times, counts, current } = this.#data;
    return [
      times.map((time) => time / 1_000),
      counts.map((count, place) => (place === current ? null : count || null)),
      counts.map((count, place) => (place === current ? count || null : null)),
    ];
  }

  #series(fill: () => string): uPlot.Series {
    const dense: uPlot.Series.PathBuilder | undefined = bars?.({ size: [1, Infinity], align: 1 });
    const apart: uPlot.Series.PathBuilder | undefined = bars?.({ size: [BAR, Infinity], align: 1, radius: [0.12, 0] });
    return {
      fill,
      width: 0,
      points: { show: false },
      paths: (plot, series, from, to) => {
        const pixels = plot.over.clientWidth / Math.max(this.#data.times.length, 1);
        return (pixels < GAPS_FROM ? dense : apart)?.(plot, series, from, to) ?? null;
      },
    };
  }

  #make(): uPlot {
    const look = this.#look;
    const { unit } = this.#data;
    const rem = look.size;
    const axis: uPlot.Axis = { stroke: () => look.text, font: look.font, gap: rem * 0.35, ticks: { show: false } };
    const options: uPlot.Options = {
      ...this.#size(),
      padding: [rem * 0.6, rem * 1.5, 0, 0],
      legend: { show: false },
      // Buckets of a day and longer are of UTC: the axis must not put their bars between two of the viewer's days.
      tzDate: isCalendar(unit)
        ? (seconds) => uPlot.tzDate(new Date(seconds * 1_000), "Etc/UTC")
        : (seconds) => new Date(seconds * 1_000),
      scales: {
        x: { time: true, range: () => [this.#data.from / 1_000, this.#data.to / 1_000] },
        // From zero, and high enough that a single event does not fill the chart.
        y: { range: (_plot, low, high) => [Math.min(low ?? 0, 0), Math.max((high ?? 0) * 1.08, 4)] },
      },
      axes: [
        {
          ...axis,
          size: rem * 2.2,
          space: rem * 6,
          grid: { show: false },
          values: (_plot, splits, _axis, _space, apart) => marks(unit, splits, apart),
        },
        {
          ...axis,
          size: rem * 2.9,
          space: rem * 2.6,
          grid: { stroke: () => look.grid, width: 1 },
          incrs: [1, 2, 5].flatMap((digit) => Array.from({ length: 15 }, (_, power) => digit * 10 ** power)).sort((one, other) => one - other),
          values: (_plot, splits) => splits.map(shortCount),
        },
      ],
      series: [
        {},
        this.#series(() => look.bar),
        this.#series(() => look.pale),
      ],
      cursor: {
        sync: { key: "time", setSeries: false, scales: ["x", null] },
        drag: { x: true, y: false, setScale: false, dist: 6 },
        points: { show: false },
        x: true,
        y: false,
        // The bucket that the pointer is in, not the one whose start is nearest.
        dataIdx: (plot, _series, _nearest, seconds) => {
          const times = plot.data[0];
          let place = times.length - 1;
          while (place > 0 && (times[place] ?? 0) > seconds) place -= 1;
          return place;
        },
      },
      hooks: {
        draw: [(plot) => this.#ground(plot)],
        setCursor: [(plot) => this.#listener.pointed(plot.cursor.left === undefined || plot.cursor.left < 0 ? null : this.#placeAt(plot))],
        setSelect: [
          (plot) => {
            const { left, width } = plot.select;
            if (width < 6) return;
            const [from, to] = [plot.posToVal(left, "x") * 1_000, plot.posToVal(left + width, "x") * 1_000];
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            // The synced chart tells the same; whoever listens sees that it is the same.
            this.#listener.zoomed(from, to);
          },
        ],
      },
    };
    return new uPlot(options, this.#aligned(), this.#root);
  }

  /** A line at zero, where counts are known: that nothing was counted is not the same as not to know. */
  #ground(plot: uPlot): void {
    const { times, counts, to } = this.#data;
    const place = (time: number) => plot.valToPos(time / 1_000, "x", true);
    const y = Math.round(plot.valToPos(0, "y", true));
    plot.ctx.fillStyle = this.#look.pale;
    for (let from = 0; from < counts.length; from += 1) {
      if (counts[from] === null) continue;
      let end = from;
      while (end < counts.length && counts[end] !== null) end += 1;
      const [left, right] = [place(times[from] ?? 0), place(times[end] ?? to)];
      plot.ctx.fillRect(left, y, right - left, Math.max(1, Math.round(devicePixelRatio)));
      from = end;
    }
  }

  #placeAt(plot: uPlot): number | null {
    const time = plot.posToVal(plot.cursor.left ?? 0, "x") * 1_000;
    const { times } = this.#data;
    let place = times.length - 1;
    while (place >= 0 && (times[place] ?? 0) > time) place -= 1;
    return place < 0 ? null : place;
  }
}

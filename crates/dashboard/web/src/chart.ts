// A chart of counts over time, drawn by uPlot: one bar per bucket. The current bucket is paler,
// because it is not complete yet.
//
// Invariants: the time axis is linear and always spans the whole period. The chart never changes
// the view by itself: dragging and keys only report which period is wanted.

// Before uPlot, which cannot be imported otherwise if the browser's language is not valid.
import "./language";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { CALENDAR_STEPS, calendarMarks } from "./calendar-axis";
import { marks, shortCount } from "./format";
import { type Unit, isCalendar } from "./units";

export interface ChartData {
  readonly unit: Unit;
  /** The period, in Unix milliseconds. */
  readonly from: number;
  readonly to: number;
  /**
   * The starts of the buckets in Unix milliseconds, and their counts; null if a count is unknown.
   */
  readonly times: readonly number[];
  readonly counts: readonly (number | null)[];
  /** The index of the current bucket; -1 if it is not shown. */
  readonly current: number;
}

export interface ChartListener {
  /** The viewer selected this period by dragging, in Unix milliseconds. */
  zoomed(from: number, to: number): void;
  /** The index of the bucket under the cursor, or null. */
  pointed(index: number | null): void;
}

/** The width of a bar, as a share of its bucket. The rest is the gap. */
const BAR = 0.84;
/** Narrower bars, in pixels, have no gaps, which would shimmer. */
const GAPS_FROM = 4;

const { bars } = uPlot.paths;

/** The colours and fonts of the page's style, for the canvas. */
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
  #palette: ReturnType<typeof palette>;

  constructor(root: HTMLElement, data: ChartData, listener: ChartListener) {
    this.#root = root;
    this.#listener = listener;
    this.#data = data;
    this.#palette = palette(root);
    this.#plot = this.#make();
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(root);
    // Colours and font sizes may change.
    const redo = () => this.#remake();
    for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
      matchMedia(query).addEventListener("change", redo);
    }
    let fontSize = this.#palette.size;
    addEventListener("resize", () => {
      const size = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);
      if (Math.abs(size - fontSize) > 0.5) redo();
      fontSize = size;
    });
  }

  /** Draws new data. */
  draw(data: ChartData): void {
    const before = this.#data;
    this.#data = data;
    if (before.unit !== data.unit) {
      this.#remake();
      return;
    }
    // The scales follow from the data, the x scale from the period.
    this.#plot.setData(this.#aligned());
  }

  /** Moves the cursor to a bucket, or hides it. */
  point(index: number | null): void {
    const time = index === null ? undefined : this.#data.times[index];
    const next = index === null ? undefined : (this.#data.times[index + 1] ?? this.#data.to);
    if (time === undefined || next === undefined) {
      this.#plot.setCursor({ left: -10, top: -10 });
      return;
    }
    const left = this.#plot.valToPos((time + next) / 2_000, "x");
    this.#plot.setCursor({ left, top: this.#plot.over.clientHeight / 2 });
  }

  #remake(): void {
    this.#plot.destroy();
    this.#palette = palette(this.#root);
    this.#plot = this.#make();
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(this.#root.clientWidth, 120), height: Math.max(this.#root.clientHeight, 100) };
  }

  /**
   * The data as uPlot takes it: seconds, complete buckets, the current bucket. Zero counts become
   * null, because drawing empty bars would cost time.
   */
  #aligned(): uPlot.AlignedData {
    const { times, counts, current } = this.#data;
    return [
      times.map((time) => time / 1_000),
      counts.map((count, index) => (index === current ? null : count || null)),
      counts.map((count, index) => (index === current ? count || null : null)),
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
    const colours = this.#palette;
    const { unit } = this.#data;
    const rem = colours.size;
    const axis: uPlot.Axis = { stroke: () => colours.text, font: colours.font, gap: rem * 0.35, ticks: { show: false } };
    const options: uPlot.Options = {
      ...this.#size(),
      padding: [rem * 0.6, rem * 1.5, 0, 0],
      legend: { show: false },
      tzDate: (seconds) => new Date(seconds * 1_000),
      scales: {
        x: { time: true, range: () => [this.#data.from / 1_000, this.#data.to / 1_000] },
        // From zero, and high enough that one event does not fill the chart.
        y: { range: (_plot, low, high) => [Math.min(low ?? 0, 0), Math.max((high ?? 0) * 1.08, 4)] },
      },
      axes: [
        {
          ...axis,
          size: rem * 2.2,
          space: rem * 6,
          grid: { show: false },
          // Buckets of a day or longer follow UTC. uPlot's own marks would lie between two days,
          // and at most 100 years apart, which is too dense for a view of thousands of years.
          ...(isCalendar(unit) ? { incrs: CALENDAR_STEPS, splits: (_plot, _axis, from, to, apart) => calendarMarks(from, to, apart) } : {}),
          values: (_plot, splits, _axis, _space, apart) => marks(unit, splits, apart),
        },
        {
          ...axis,
          size: rem * 2.9,
          space: rem * 2.6,
          grid: { stroke: () => colours.grid, width: 1 },
          incrs: [1, 2, 5].flatMap((digit) => Array.from({ length: 15 }, (_, power) => digit * 10 ** power)).sort((one, other) => one - other),
          values: (_plot, splits) => splits.map(shortCount),
        },
      ],
      series: [
        {},
        this.#series(() => colours.bar),
        this.#series(() => colours.pale),
      ],
      cursor: {
        sync: { key: "time", setSeries: false, scales: ["x", null] },
        drag: { x: true, y: false, setScale: false, dist: 6 },
        points: { show: false },
        x: true,
        y: false,
        // The bucket that contains the pointer, not the one whose start is nearest.
        dataIdx: (plot, _series, _nearest, seconds) => {
          const times = plot.data[0];
          let index = times.length - 1;
          while (index > 0 && (times[index] ?? 0) > seconds) index -= 1;
          return index;
        },
      },
      hooks: {
        draw: [(plot) => this.#drawBaseline(plot)],
        setCursor: [(plot) => this.#listener.pointed(plot.cursor.left === undefined || plot.cursor.left < 0 ? null : this.#indexAt(plot))],
        setSelect: [
          (plot) => {
            const { left, width } = plot.select;
            if (width < 6) return;
            const [from, to] = [plot.posToVal(left, "x") * 1_000, plot.posToVal(left + width, "x") * 1_000];
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            // The synchronised chart reports the same selection. The listener ignores the second
            // one.
            this.#listener.zoomed(from, to);
          },
        ],
      },
    };
    return new uPlot(options, this.#aligned(), this.#root);
  }

  /** A line at zero wherever counts are known, to distinguish zero from unknown. */
  #drawBaseline(plot: uPlot): void {
    const { times, counts, to } = this.#data;
    const position = (time: number) => plot.valToPos(time / 1_000, "x", true);
    const y = Math.round(plot.valToPos(0, "y", true));
    plot.ctx.fillStyle = this.#palette.pale;
    for (let from = 0; from < counts.length; from += 1) {
      if (counts[from] === null) continue;
      let end = from;
      while (end < counts.length && counts[end] !== null) end += 1;
      const [left, right] = [position(times[from] ?? 0), position(times[end] ?? to)];
      plot.ctx.fillRect(left, y, right - left, Math.max(1, Math.round(devicePixelRatio)));
      from = end;
    }
  }

  #indexAt(plot: uPlot): number | null {
    const time = plot.posToVal(plot.cursor.left ?? 0, "x") * 1_000;
    const { times } = this.#data;
    let index = times.length - 1;
    while (index >= 0 && (times[index] ?? 0) > time) index -= 1;
    return index < 0 ? null : index;
  }
}

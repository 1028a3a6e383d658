// The page: takes the view from the address and the counts from the feed, and draws the panels.
//
// Invariants: everything is drawn at most once per animation frame, except that a change of the
// condition is drawn at once, and only if something changed or a new bucket began. While the counts
// are not live, the shown time stands still, because nothing is known about later moments.

import { addEvents } from "./add-events";
import { Api } from "./api";
import { FINER } from "./comparison";
import { reason, showCondition } from "./condition";
import { loadConfig } from "./config";
import { Controls } from "./controls";
import { Feed } from "./feed";
import { moment } from "./format";
import { History } from "./history";
import { element, setText } from "./page";
import { Panel } from "./panel";
import { type Series, seriesOf } from "./series";
import { METRICS, type Metric, type Unit } from "./units";
import { type Period, type View, fit, formatView, nextMove, parseView, periodOf } from "./view";

/** How often the progress bar of the current bucket moves, in milliseconds. */
const PROGRESS_INTERVAL = 250;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

class Dashboard {
  view: View = parseView(location.search);
  readonly #feed: Feed;
  readonly #history: History;
  readonly #controls: Controls;
  readonly #panels: { readonly metric: Metric; readonly panel: Panel }[];
  /**
   * The moment that is shown, by the server's clock. It advances only while the counts are live.
   * Before the server has sent its time, it is this machine's, and no counts are shown.
   */
  #now = Date.now();
  #hasTime = false;
  #drawScheduled = false;
  #moveTimer: ReturnType<typeof setTimeout> | null = null;

  constructor(gateway: string) {
    this.#history = new History(gateway, () => this.#redraw());
    this.#controls = new Controls(this);
    this.#panels = METRICS.map((metric) => {
      const listener = {
        zoomed: (from: number, to: number) => this.#zoom(from, to),
        pressed: (event: KeyboardEvent) => this.#pressKey(event),
      };
      return { metric, panel: new Panel(element(`[data-metric=${metric}]`), listener) };
    });
    this.#feed = new Feed(gateway, {
      frame: () => this.#redraw(),
      condition: (condition) => {
        // At once and before the word "live", which is not true of counts that are not drawn yet.
        this.#draw();
        showCondition(condition);
      },
    });
    showCondition(this.#feed.condition);
    this.#watch();
    addEventListener("popstate", () => this.#showView(parseView(location.search)));
    document.addEventListener("visibilitychange", () => this.#redraw());
    setInterval(() => this.#showProgress(), PROGRESS_INTERVAL);
  }

  get period(): Period {
    return periodOf(this.view, this.#now);
  }

  get newest(): boolean {
    return this.view.period === null || this.view.period.to > this.#now;
  }

  /** Shows another view, and adds it to the browser's history. */
  go(view: View): void {
    const query = formatView(view);
    if (query === formatView(this.view)) return;
    window.history.pushState(null, "", query);
    this.#showView(view);
  }

  #showView(view: View): void {
    const unit = this.view.unit;
    this.view = view;
    if (unit !== view.unit) this.#watch();
    this.#redraw();
  }

  #watch(): void {
    const { unit } = this.view;
    const units = new Set([unit, FINER[unit] ?? unit]);
    this.#feed.watch(METRICS.flatMap((metric) => [...units].map((unit) => `${metric}/${unit}` as const)));
    this.#redraw();
  }

  #zoom(from: number, to: number): void {
    const period = fit(this.view.unit, from, to);
    // Dragging in one chart also selects in the other.
    const { period: shown } = this.view;
    if (shown?.from === period.from && shown.to === period.to) return;
    this.go({ ...this.view, period });
  }

  #pressKey(event: KeyboardEvent): void {
    const panel = this.#panels.find(({ panel }) => panel.root.contains(event.target as Node))?.panel;
    if (panel === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = Number(element("[data-part=chart]", panel.root).getAttribute("aria-valuemax"));
    const at = panel.pointed ?? last + 1;
    const keys: { readonly [key: string]: () => void } = {
      ArrowLeft: () => panel.point(Math.max(at - 1, 0)),
      ArrowRight: () => panel.point(Math.min(at + 1, last)),
      Home: () => panel.point(0),
      End: () => panel.point(last),
      PageUp: () => this.#controls.move(-1),
      PageDown: () => this.#controls.move(1),
      "+": () => this.#controls.scale(0.5),
      "-": () => this.#controls.scale(2),
      Escape: () => (panel.pointed === null ? this.#controls.follow() : panel.point(null)),
    };
    const pressed = keys[event.key];
    if (pressed === undefined) return;
    event.preventDefault();
    pressed();
  }

  #redraw(): void {
    if (this.#drawScheduled) return;
    this.#drawScheduled = true;
    requestAnimationFrame(() => {
      this.#drawScheduled = false;
      this.#draw();
    });
  }

  #draw(): void {
    this.#advance();
    const { period } = this;
    const pasts: Series["past"][] = [];
    let empty = true;
    for (const { metric, panel } of this.#panels) {
      const topic = `${metric}/${this.view.unit}` as const;
      const windowOf = (unit: Unit | null) =>
        unit === null || !this.#hasTime ? undefined : this.#feed.statistics.window(`${metric}/${unit}`);
      const window = windowOf(this.view.unit);
      const series = seriesOf(topic, this.view, period, window, this.#history, this.#now);
      panel.show(this.view, period, series, { shown: window, finer: windowOf(FINER[this.view.unit]) }, this.#now);
      pasts.push(series.past);
      if (window === undefined || window.times.length > 0) empty = false;
    }
    this.#controls.show();
    element("#getting-started").hidden = !empty;
    setText(element("#note"), reason(this.#feed.condition) || note(this.view.unit, pasts));
    this.#showProgress();
    this.#scheduleMove();
  }

  #advance(): void {
    const { condition } = this.#feed;
    if (condition.kind === "live" || condition.kind === "connecting") this.#now = this.#feed.now();
    // If the counts are stale already when the page opens, this is their last moment.
    else if (condition.kind === "stale" && !this.#hasTime) this.#now = condition.since;
    // The clock went on until the silence was noticed, but the counts end where the silence began.
    else this.#now = Math.min(this.#now, condition.since);
    this.#hasTime ||= this.#feed.hasServerTime;
  }

  /** Schedules the next drawing for when a new bucket begins, or a new one that is compared. */
  #scheduleMove(): void {
    if (this.#moveTimer !== null) clearTimeout(this.#moveTimer);
    if (this.#feed.condition.kind !== "live" || document.hidden) return;
    const now = this.#feed.now();
    const next = nextMove(FINER[this.view.unit] ?? this.view.unit, now);
    const wait = Math.max(next - now, reducedMotion.matches ? 1_000 : 50);
    // setTimeout overflows on long delays.
    this.#moveTimer = setTimeout(() => this.#redraw(), Math.min(wait + 1, 3_600_000));
  }

  #showProgress(): void {
    if (document.hidden || this.#feed.condition.kind !== "live") return;
    for (const { panel } of this.#panels) panel.showProgress(this.view.unit, this.#feed.now());
  }
}

/** The note about the part of the charts that comes from history. */
function note(unit: Unit, pasts: Series["past"][]): string {
  const past = pasts.filter((past) => past !== null);
  const problem = past.find((past) => past.problem !== null)?.problem;
  if (problem !== undefined) return `Earlier counts cannot be loaded: ${problem}`;
  if (past.some((past) => !past.complete)) return "Loading earlier counts …";
  const since = Math.max(...past.filter((past) => past.since > past.from).map((past) => past.since));
  if (Number.isFinite(since)) return `The ${unit}s before ${moment(since)} have expired. Select a longer unit.`;
  return "";
}

async function start(): Promise<void> {
  const config = await loadConfig();
  const commands = [
    "json='content-type: application/json'",
    `base=$(curl -s -H "$json" -d '{"description":"a bicycle"}' ${config.ingest}/base-items | grep -o '[0-9a-f-]\\{36\\}')`,
    `curl -s -H "$json" -d "{\\"base_item_id\\":\\"$base\\"}" ${config.ingest}/items`,
  ];
  setText(element("#getting-started-code"), commands.join("\n"));
  new Dashboard(config.gateway);
  addEvents(new Api(config.ingest));
}

start().catch((error: unknown) => {
  showCondition({ kind: "refused", since: Date.now(), reason: "" });
  setText(element("#note"), `The page cannot start: ${error instanceof Error ? error.message : String(error)}`);
});

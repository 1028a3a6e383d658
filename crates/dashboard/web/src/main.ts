// The page: takes the view from the address and the counts from the feed, and draws the panels.
//
// Invariants: everything is drawn at most once per animation frame, except that a change of the
// condition is drawn at once, and only if something changed or a new bucket began. While the counts
// are not live, the shown time stands still, because nothing is known about later moments. What the
// viewer may not do is not shown. If the session changes, in any tab, the page starts again.

import { addEvents } from "./add-events";
import { Api } from "./api";
import { FINER } from "./comparison";
import { reason, showAge, showCondition } from "./condition";
import { loadConfig } from "./config";
import { Controls } from "./controls";
import { Feed } from "./feed";
import { moment } from "./format";
import { History } from "./history";
import { isInsecure } from "./insecure";
import { element, setText } from "./page";
import { Panel } from "./panel";
import { reloadOnce } from "./reload";
import { type Answer, type Rights, rightsAt } from "./rights";
import { type Series, seriesOf } from "./series";
import { announceChange, dropRefused, keepRenewed, logIn, logOut, onChange, takeKey } from "./session";
import type { Condition, Topic } from "./statistics-stream";
import { METRICS, type Metric, UNITS, type Unit } from "./units";
import { type Period, type View, fit, formatView, nextMove, parseView, periodOf, withUnit } from "./view";

/** How often the progress bar of the current bucket moves, in milliseconds. */
const PROGRESS_INTERVAL = 250;
/** The delay before a service that did not answer is asked again, in milliseconds. */
const RIGHTS_RETRY = 5_000;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

class Dashboard {
  view: View;
  readonly units: readonly Unit[];
  readonly #mayRead: (topic: Topic) => boolean;
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

  /** @param rights what the viewer may read; null if that is not known */
  constructor(gateway: string, rights: Rights | null) {
    this.#mayRead = (topic) => rights?.mayRead(topic) ?? true;
    this.units = UNITS.filter((unit) => METRICS.some((metric) => this.#mayRead(`${metric}/${unit}`)));
    this.view = this.#permitted(parseView(location.search));
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
      condition: (condition) => this.#showCondition(condition),
    });
    showCondition(this.#feed.condition);
    this.#watch();
    addEventListener("popstate", () => this.#showView(this.#permitted(parseView(location.search))));
    document.addEventListener("visibilitychange", () => this.#redraw());
    setInterval(() => this.#showProgress(), PROGRESS_INTERVAL);
  }

  /** Ends what the session before this one permitted. */
  changeSession(): void {
    this.#feed.changeSession();
  }

  #showCondition(condition: Condition): void {
    if (document.body.dataset["condition"] === "denied" && condition.kind !== "denied") {
      // There is another session, which may permit more or less than the one before.
      if (condition.kind === "live" || condition.kind === "stale") reloadOnce();
      return;
    }
    // At once and before the word "live", which is not true of counts that are not drawn yet.
    this.#draw();
    showCondition(condition);
    if (condition.kind !== "denied") return;
    element("#add-events").hidden = true;
    if (["revoked", "expired", "invalid-credential"].includes(condition.why)) void dropRefused();
  }

  /** The view, in a unit that the viewer may select. */
  #permitted(view: View): View {
    const unit = this.units.includes(view.unit) ? view.unit : this.units[0];
    return unit === undefined || unit === view.unit ? view : withUnit(view, unit);
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
    const topics = METRICS.flatMap((metric) => [...units].map((unit) => `${metric}/${unit}` as const));
    this.#feed.watch(topics.filter(this.#mayRead));
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
      panel.root.hidden = !this.#mayRead(topic);
      if (panel.root.hidden) continue;
      const windowOf = (unit: Unit | null) =>
        unit === null || !this.#hasTime ? undefined : this.#feed.statistics.window(`${metric}/${unit}`);
      const window = windowOf(this.view.unit);
      const series = seriesOf(topic, this.view, period, window, this.#history, this.#now);
      panel.show(this.view, period, series, { shown: window, finer: windowOf(FINER[this.view.unit]) }, this.#now);
      pasts.push(series.past);
      if (window === undefined || window.times.length > 0) empty = false;
    }
    this.#controls.show();
    element("#getting-started").hidden = !empty || element("#add-events").hidden;
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
    showAge(this.#feed.condition, this.#feed.age());
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

/** Asks a service until it answers. */
async function rightsOnceKnown(service: string, hasNewKey: boolean): Promise<Exclude<Answer, { kind: "unavailable" }>> {
  for (;;) {
    const answer = await rightsAt(service, hasNewKey);
    if (answer.kind !== "unavailable") return answer;
    await new Promise((resolve) => setTimeout(resolve, RIGHTS_RETRY));
  }
}

/** Shows who is logged in, and lets the viewer log out. */
function showSession(rights: Rights, dashboard: () => Dashboard | null): void {
  element("#open").hidden = rights.access.kind !== "everyone";
  if (rights.access.kind !== "key") return;
  keepRenewed();
  element("#session").hidden = false;
  const button = element<HTMLButtonElement>("#log-out");
  button.title = `Logged in with the key “${rights.access.name}”`;
  button.addEventListener("click", async () => {
    button.disabled = true;
    const outcome = await logOut();
    button.disabled = false;
    if (outcome.kind === "done") restart(dashboard());
    else setText(element("#note"), outcome.reason);
  });
}

/** Starts all tabs again, because the session changed. */
function restart(dashboard: Dashboard | null): void {
  dashboard?.changeSession();
  announceChange();
  reloadOnce();
}

async function showAddEvents(ingest: string, hasNewKey: boolean): Promise<void> {
  const answer = await rightsOnceKnown(ingest, hasNewKey);
  // The lists to pick from need reading.
  if (answer.kind !== "granted" || !answer.rights.may("ingest:write") || !answer.rights.may("ingest:read")) return;
  const commands = [
    // Other users of the machine can see the arguments of curl.
    '(umask 077; echo "authorization: Bearer $(cargo xtask key)" > .newcycle/header)',
    "json='content-type: application/json'",
    `base=$(curl -s -H @.newcycle/header -H "$json" -d '{"description":"a bicycle"}' ${ingest}/base-items | grep -o '[0-9a-f-]\\{36\\}')`,
    `curl -s -H @.newcycle/header -H "$json" -d "{\\"base_item_id\\":\\"$base\\"}" ${ingest}/items`,
  ];
  setText(element("#getting-started-code"), commands.join("\n"));
  element("#add-events").hidden = document.body.dataset["condition"] === "denied";
  addEvents(new Api(ingest));
}

async function start(key: string | null): Promise<void> {
  let dashboard: Dashboard | null = null;
  const since = Date.now();
  // A service that cannot check keys yet, such as during a start of everything.
  const waiting = (reason: string) => {
    showCondition({ kind: "retrying", since, reason: "" });
    setText(element("#note"), reason);
  };
  const enter = async (key: string): Promise<boolean> => {
    // The key must not be sent where others can read it.
    const insecure = { kind: "refused", status: 403, why: "other", reason: "" } as const;
    const outcome = isInsecure() ? insecure : await logIn(key, waiting);
    if (outcome.kind === "refused") showCondition({ kind: "denied", since, why: outcome.why, reason: outcome.reason });
    return outcome.kind === "done";
  };
  // A login link can be opened in a tab that shows the page already.
  addEventListener("hashchange", async () => {
    const key = takeKey();
    if (key !== null && (await enter(key))) restart(dashboard);
  });
  onChange(reloadOnce);
  if (key !== null && !(await enter(key))) return;
  const { gateway, ingest } = await loadConfig();
  const answer = await rightsAt(gateway, key !== null);
  const rights = answer.kind === "granted" ? answer.rights : null;
  if (rights !== null) showSession(rights, () => dashboard);
  void showAddEvents(ingest, key !== null);
  const isReader = rights === null || METRICS.some((metric) => UNITS.some((unit) => rights.mayRead(`${metric}/${unit}`)));
  if (!isReader) {
    const reason = `The key “${rights.access.name}” may not read counts: it does not have the scope statistics:read.`;
    showCondition({ kind: "denied", since, why: "insufficient-scope", reason });
    return;
  }
  // Without a session, the stream says whether it needs one.
  dashboard = new Dashboard(gateway, rights);
  if (key !== null) {
    dashboard.changeSession();
    announceChange();
  }
  if (answer.kind !== "unavailable") return;
  // The gateway need not name such a page, so its refusals cannot be read.
  if (isInsecure()) showCondition({ kind: "denied", since, why: "no-credential", reason: "" });
  // The page opened during an outage of the gateway.
  const later = await rightsOnceKnown(gateway, false);
  if (later.kind !== "granted") return;
  const mayReadAll = METRICS.every((metric) => UNITS.every((unit) => later.rights.mayRead(`${metric}/${unit}`)));
  if (mayReadAll) showSession(later.rights, () => dashboard);
  else reloadOnce();
}

// Before anything else, so that nothing else sees the key.
start(takeKey()).catch((error: unknown) => {
  showCondition({ kind: "refused", since: Date.now(), reason: "" });
  setText(element("#note"), `The page cannot start: ${error instanceof Error ? error.message : String(error)}`);
});

// Counts from before the live windows, asked of the gateway a page at a time.
//
// Invariants: one period is asked for at a time, and one that nobody looks at any more is not asked for to its end. What
// is kept is bounded, and is of periods that are over, which change only when somebody writes of the past.

import { refusal } from "./statistics-stream";
import type { Page } from "./wire/Page";
import type { Period } from "./view";

/** Buckets of one request; the gateway's default setting allows as many. */
const PAGE = 5_000;
/** After how long what could not be had is asked for again, if it is still looked at, in milliseconds. */
const RETRY = 5_000;
/** How many periods are kept. */
const KEPT = 16;

/** What was counted in a period. */
export interface Past {
  /** Whether all of it is there. */
  readonly complete: boolean;
  /** Buckets by their start, in Unix milliseconds; what is in none was not counted, from `since` on. */
  readonly counts: ReadonlyMap<number, number>;
  /** What was asked for begins here. */
  readonly from: number;
  /** The first moment of which there are counts: the unit gave up what was before. */
  readonly since: number;
  /** Why it is not complete, where something went wrong. */
  readonly problem: string | null;
}

export class History {
  readonly #kept = new Map<string, Past>();
  readonly #asking = new Map<string, { readonly key: string; readonly stop: AbortController }>();

  /** @param changed called when more of some period is there */
  constructor(
    readonly gateway: string,
    readonly changed: () => void,
  ) {}

  /** What is known of a topic's period; the rest is asked for, and what was asked for before is not any more. */
  past(topic: string, period: Period): Past {
    const key = `${topic} ${period.from} ${period.to}`;
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    // While its end moves on with the live window, what was asked for before is nearly all of it.
    const begin = `${topic} ${period.from} `;
    const nearly = [...this.#kept].findLast(([key]) => key.startsWith(begin));
    const asking = this.#asking.get(topic);
    if (asking?.key !== key) {
      asking?.stop.abort();
      const stop = new AbortController();
      this.#asking.set(topic, { key, stop });
      void this.#ask(topic, period, key, stop.signal);
    }
    return nearly?.[1] ?? { complete: false, counts: new Map(), from: period.from, since: period.from, problem: null };
  }

  async #ask(topic: string, period: Period, key: string, signal: AbortSignal): Promise<void> {
    const counts = new Map<number, number>();
    let [since, from] = [period.from, period.from];
    let problem: string | null = null;
    try {
      while (from < period.to) {
        const query = new URLSearchParams({
          from: new Date(from).toISOString(),
          to: new Date(period.to).toISOString(),
          limit: String(PAGE),
        });
        const headers = { accept: "application/json" };
        const response = await fetch(`${this.gateway}/statistics/${topic}?${query}`, { headers, signal });
        if (response.status === 410) {
          const gone = (await response.json()) as { kept_since: string };
          const kept = Date.parse(gone.kept_since);
          // Everything was given up, or the answer leads nowhere.
          if (!(kept > from)) throw new Error("the gateway keeps none of this period");
          since = kept;
          from = Math.min(kept, period.to);
          continue;
        }
        if (!response.ok) throw new Error(await refusal(response));
        const page = (await response.json()) as Page;
        for (const { time, count } of page.buckets) counts.set(Date.parse(time), count);
        from = page.next === null ? period.to : Date.parse(page.next);
      }
    } catch (error) {
      if (signal.aborted) return;
      problem = error instanceof Error ? error.message : String(error);
    }
    const oldest = this.#kept.keys().next();
    if (this.#kept.size >= KEPT && !oldest.done) this.#kept.delete(oldest.value);
    this.#kept.set(key, { complete: problem === null, counts, from: period.from, since, problem });
    this.#asking.delete(topic);
    this.changed();
    if (problem === null) return;
    setTimeout(() => {
      this.#kept.delete(key);
      this.changed();
    }, RETRY);
  }
}

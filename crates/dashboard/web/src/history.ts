// Counts from before the live windows, requested from the gateway page by page.
//
// Invariants: each topic has at most one request, which is aborted when the viewer moves to another
// period. The cache is bounded. It holds periods before the live window, which change only through
// back-dated events and deletions.

import { credentials } from "./insecure";
import { problemOf, type Topic } from "./statistics-stream";
import type { HistoryPage } from "./wire/sse-gateway";
import type { Period } from "./view";

/** Buckets per request. The gateway's default settings allow this many. */
const PAGE_BUCKETS = 5_000;
/** The delay before a failed request is repeated, if the period is still shown, in milliseconds. */
const RETRY = 5_000;
/** The maximum number of periods in the cache. */
const CACHED = 16;

/** The counts of a period. */
export interface Past {
  /** Whether the whole period was loaded. */
  readonly complete: boolean;
  /**
   * Counts by the start of their bucket, in Unix milliseconds. From `since` on, missing buckets are
   * 0.
   */
  readonly counts: ReadonlyMap<number, number>;
  /** The start of the period. */
  readonly from: number;
  /** The first moment with counts. The unit does not keep what was before it. */
  readonly since: number;
  /** Why loading failed; null if it did not. */
  readonly problem: string | null;
}

export class History {
  readonly #cache = new Map<string, Past>();
  readonly #loading = new Map<string, { readonly key: string; readonly stop: AbortController }>();

  /** @param changed called when a period was loaded, or failed */
  constructor(
    readonly gateway: string,
    readonly changed: () => void,
  ) {}

  /**
   * What is loaded of a topic's period. Requests the rest, and aborts the request for another
   * period.
   */
  past(topic: Topic, period: Period): Past {
    const key = `${topic} ${period.from} ${period.to}`;
    const cached = this.#cache.get(key);
    if (cached !== undefined) return cached;
    // The end of a period moves with the live window. Until it is loaded, the last period with the
    // same start covers nearly all of it.
    const begin = `${topic} ${period.from} `;
    const similar = [...this.#cache].findLast(([key]) => key.startsWith(begin));
    const loading = this.#loading.get(topic);
    if (loading?.key !== key) {
      loading?.stop.abort();
      const stop = new AbortController();
      this.#loading.set(topic, { key, stop });
      void this.#load(topic, period, key, stop.signal);
    }
    return similar?.[1] ?? { complete: false, counts: new Map(), from: period.from, since: period.from, problem: null };
  }

  async #load(topic: Topic, period: Period, key: string, signal: AbortSignal): Promise<void> {
    const counts = new Map<number, number>();
    let since = period.from;
    let from = period.from;
    let problem: string | null = null;
    try {
      while (from < period.to) {
        const query = new URLSearchParams({
          from: new Date(from).toISOString(),
          to: new Date(period.to).toISOString(),
          limit: String(PAGE_BUCKETS),
        });
        const headers = { accept: "application/json" };
        const init: RequestInit = { headers, signal, credentials: credentials() };
        const response = await fetch(`${this.gateway}/statistics/${topic}?${query}`, init);
        if (response.status === 410) {
          const gone = (await response.json()) as { kept_since: string };
          const kept = Date.parse(gone.kept_since);
          // Nothing is kept, or the answer would repeat the same request.
          if (!(kept > from)) throw new Error("the gateway keeps nothing of this period");
          since = kept;
          from = Math.min(kept, period.to);
          continue;
        }
        if (!response.ok) throw new Error(await problemOf(response));
        const page = (await response.json()) as HistoryPage;
        for (const { time, count } of page.buckets) counts.set(Date.parse(time), count);
        from = page.next === null ? period.to : Date.parse(page.next);
      }
    } catch (error) {
      if (signal.aborted) return;
      problem = error instanceof Error ? error.message : String(error);
    }
    const oldest = this.#cache.keys().next();
    if (this.#cache.size >= CACHED && !oldest.done) this.#cache.delete(oldest.value);
    this.#cache.set(key, { complete: problem === null, counts, from: period.from, since, problem });
    this.#loading.delete(topic);
    this.changed();
    if (problem === null) return;
    setTimeout(() => {
      this.#cache.delete(key);
      this.changed();
    }, RETRY);
  }
}

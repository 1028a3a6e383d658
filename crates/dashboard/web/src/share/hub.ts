// One stream for all tabs: it follows whatever any of them shows, and hands each tab the frames of what it shows.
//
// Invariants: there is at most one connection, for the union of the topics shown. A tab gets a topic's snapshot before
// any patch of it, and says of itself every so often that it is there, so nothing is kept for a tab that is gone.

import { type Condition, type Frame, StatisticsStream } from "../statistics-stream";
import type { TopicFrame } from "../wire/TopicFrame";

/** How often the hub says that it is there, in milliseconds. */
export const BEAT = 1_000;
/** After how long a tab that says nothing is gone. Browsers let a hidden tab speak once a minute. */
const GONE = 150_000;
/** How long the connection is kept as it is when it has more than any tab shows: a tab may only be loading anew. */
const LINGER = 30_000;

/** What a tab tells the hub. */
export type Request =
  /** It shows these topics. Said again now and then, it also says that the tab is there. */
  | { readonly kind: "watch"; readonly topics: readonly string[] }
  /** It lacks what it showed, and begins anew with these topics. */
  | { readonly kind: "begin"; readonly topics: readonly string[] }
  /** It would not wait for the next attempt. */
  | { readonly kind: "hurry" }
  | { readonly kind: "leave" };

/** What the hub tells a tab. */
export type News =
  | { readonly kind: "frame"; readonly frame: Frame }
  /** Said on each change, and every `BEAT`. `now` is the server's time, where it was ever heard. */
  | { readonly kind: "condition"; readonly condition: Condition; readonly now: number | null };

interface Tab {
  topics: readonly string[];
  /** Of which of them it has the state. */
  has: Set<string>;
  heard: number;
  readonly tell: (news: News) => void;
}

export class Hub {
  readonly #stream: StatisticsStream;
  readonly #tabs = new Map<string, Tab>();
  #followed: readonly string[] = [];
  /** The server's time, and when it was that. */
  #clock: { readonly now: number; readonly at: number } | null = null;
  #narrow: ReturnType<typeof setTimeout> | null = null;
  readonly #beat: ReturnType<typeof setInterval>;

  constructor(gateway: string) {
    this.#stream = new StatisticsStream(gateway, {
      frame: (frame) => this.#relay(frame),
      condition: () => this.#tellAll(),
      time: (now) => (this.#clock = { now, at: performance.now() }),
    });
    this.#beat = setInterval(() => this.#tellAll(), BEAT);
  }

  /** A tab that goes by `name` says something; `tell` is how it is told something. */
  hear(name: string, request: Request, tell: (news: News) => void): void {
    if (request.kind === "leave") {
      this.#tabs.delete(name);
      this.#follow();
      return;
    }
    if (request.kind === "hurry") {
      this.#stream.hurry();
      return;
    }
    const known = this.#tabs.get(name);
    const tab = known ?? { topics: [], has: new Set<string>(), heard: 0, tell };
    if (request.kind === "begin") tab.has.clear();
    tab.topics = request.topics;
    tab.has = new Set(request.topics.filter((topic) => tab.has.has(topic)));
    tab.heard = performance.now();
    this.#tabs.set(name, tab);
    this.#follow();
    this.#bring(tab);
    if (known === undefined || request.kind === "begin") this.#tell(tab);
  }

  /** Ends the stream. Tabs are not told: whoever takes over tells them more. */
  close(): void {
    clearInterval(this.#beat);
    if (this.#narrow !== null) clearTimeout(this.#narrow);
    this.#tabs.clear();
    this.#stream.follow([]);
  }

  /** Follows what is shown. Less than before needs no new connection at once. */
  #follow(): void {
    const shown = [...new Set([...this.#tabs.values()].flatMap((tab) => tab.topics))].sort();
    if (this.#narrow !== null) clearTimeout(this.#narrow);
    this.#narrow = null;
    if (shown.some((topic) => !this.#followed.includes(topic))) {
      this.#followed = shown;
      this.#stream.follow(shown);
    } else if (shown.length < this.#followed.length) {
      this.#narrow = setTimeout(() => {
        this.#followed = shown;
        this.#stream.follow(shown);
      }, LINGER);
    }
  }

  #relay(frame: Frame): void {
    for (const tab of this.#tabs.values()) {
      const known = (part: TopicFrame) => tab.topics.includes(part.topic) && tab.has.has(part.topic);
      if (frame.kind === "snapshot") {
        for (const part of frame.topics) if (tab.topics.includes(part.topic)) tab.has.add(part.topic);
      }
      const topics = frame.topics.filter(known);
      if (topics.length > 0) tab.tell({ kind: "frame", frame: { ...frame, topics } });
    }
  }

  /** Gives a tab what is held of the topics whose state it has not. */
  #bring(tab: Tab): void {
    const { statistics } = this.#stream;
    const topics: TopicFrame[] = [];
    for (const topic of tab.topics) {
      const window = statistics.window(topic);
      if (window === undefined || tab.has.has(topic)) continue;
      const bucket = (time: number, place: number) => ({
        time: new Date(time).toISOString(),
        count: window.counts[place] ?? 0,
      });
      topics.push({ topic, window: window.bound, buckets: window.times.map(bucket) });
      tab.has.add(topic);
    }
    const { id } = statistics;
    if (topics.length > 0 && id !== null) tab.tell({ kind: "frame", frame: { kind: "snapshot", id, topics } });
  }

  #tell(tab: Tab): void {
    const clock = this.#clock;
    const now = clock === null ? null : clock.now + (performance.now() - clock.at);
    tab.tell({ kind: "condition", condition: this.#stream.condition, now });
  }

  #tellAll(): void {
    const before = performance.now() - GONE;
    let gone = false;
    for (const [name, tab] of this.#tabs) {
      if (tab.heard < before) gone = this.#tabs.delete(name);
      else this.#tell(tab);
    }
    if (gone) this.#follow();
  }
}

// One stream for all tabs: follows the topics of all tabs, and forwards to each tab the frames of
// its topics.
//
// Invariants: there is at most one connection, for the union of all topics. A tab gets a topic's
// snapshot before any patch of it. Tabs report regularly that they are open, so the hub keeps
// nothing for a tab that is gone. A stream that was denied is tried again only for a new tab, or
// when a tab reports that the session changed.

import { credentials } from "../insecure";
import { type Condition, type Frame, StatisticsStream, type Topic } from "../statistics-stream";
import type { TopicWindow } from "../wire/sse-gateway";

/** The longest interval between two condition messages to a tab, in milliseconds. */
export const HEARTBEAT = 1_000;
/**
 * A tab that sends nothing for this long is gone, in milliseconds. Browsers let hidden tabs run
 * once a minute.
 */
const TAB_TIMEOUT = 150_000;
/**
 * How long topics are still followed that no tab shows any more, in milliseconds. A tab may just be
 * reloading.
 */
const LINGER = 30_000;

/** A message from a tab to the hub. */
export type TabMessage =
  /** The tab shows these topics. Repeated regularly, to report that the tab is open. */
  | { readonly kind: "watch"; readonly topics: readonly Topic[] }
  /** The tab has no state, and needs snapshots of these topics. */
  | { readonly kind: "begin"; readonly topics: readonly Topic[] }
  /** The hub should reconnect now, if a retry is scheduled. */
  | { readonly kind: "hurry" }
  /** The session of the browser changed, so the stream must not go on with the old one. */
  | { readonly kind: "session" }
  | { readonly kind: "leave" };

/** A message from the hub to a tab. */
export type HubMessage =
  | { readonly kind: "frame"; readonly frame: Frame }
  /**
   * Sent on each change, for each status of the gateway, and after `HEARTBEAT` without either.
   * `now` is the server's time, and the counts have every event before `complete`; null if it is
   * not known yet.
   */
  | { readonly kind: "condition"; readonly condition: Condition; readonly now: number | null; readonly complete: number | null };

interface Tab {
  topics: readonly Topic[];
  /** The topics whose state the tab has. */
  has: Set<Topic>;
  lastMessage: number;
  readonly send: (message: HubMessage) => void;
}

export class Hub {
  readonly #stream: StatisticsStream;
  readonly #tabs = new Map<string, Tab>();
  #followed: readonly Topic[] = [];
  /** The server's time, and when it was received. */
  #clock: { readonly now: number; readonly at: number } | null = null;
  #complete: number | null = null;
  #unfollowTimer: ReturnType<typeof setTimeout> | null = null;
  #heartbeat: ReturnType<typeof setTimeout> | undefined;

  constructor(gateway: string) {
    const listener = {
      frame: (frame: Frame) => this.#relay(frame),
      condition: () => this.#sendConditionToAll(),
      time: (now: number) => (this.#clock = { now, at: performance.now() }),
      // Forwarded at once: by a clock of its own, the hub would add up to a second to the age.
      complete: (until: number) => {
        this.#complete = until;
        this.#sendConditionToAll();
      },
    };
    this.#stream = new StatisticsStream(gateway, listener, { credentials: credentials() });
    this.#sendConditionToAll();
  }

  /** Handles a message of the tab `name`. `send` sends messages to that tab. */
  receive(name: string, message: TabMessage, send: (message: HubMessage) => void): void {
    if (message.kind === "leave") {
      this.#tabs.delete(name);
      this.#follow();
      return;
    }
    if (message.kind === "hurry") {
      this.#stream.hurry();
      return;
    }
    if (message.kind === "session") {
      this.#stream.reconnect();
      return;
    }
    const known = this.#tabs.get(name);
    const tab = known ?? { topics: [], has: new Set<Topic>(), lastMessage: 0, send };
    if (message.kind === "begin") tab.has.clear();
    tab.topics = message.topics;
    tab.has = new Set(message.topics.filter((topic) => tab.has.has(topic)));
    tab.lastMessage = performance.now();
    this.#tabs.set(name, tab);
    const followed = this.#followed;
    this.#follow();
    if (known === undefined && this.#stream.condition.kind === "denied" && followed === this.#followed) this.#stream.reconnect();
    this.#sendMissing(tab);
    if (known === undefined || message.kind === "begin") this.#sendCondition(tab);
  }

  /** Ends the stream. Tabs get no message, because the next hub will send them one. */
  close(): void {
    clearTimeout(this.#heartbeat);
    if (this.#unfollowTimer !== null) clearTimeout(this.#unfollowTimer);
    this.#tabs.clear();
    this.#stream.follow([]);
  }

  /**
   * Follows the topics of all tabs. Dropped topics do not need a new connection at once, unless
   * they may be why the stream was denied.
   */
  #follow(): void {
    const shown = [...new Set([...this.#tabs.values()].flatMap((tab) => tab.topics))].sort();
    if (this.#unfollowTimer !== null) clearTimeout(this.#unfollowTimer);
    this.#unfollowTimer = null;
    const denied = this.#stream.condition.kind === "denied" && shown.length < this.#followed.length;
    if (denied || shown.some((topic) => !this.#followed.includes(topic))) {
      this.#followed = shown;
      this.#stream.follow(shown);
    } else if (shown.length < this.#followed.length) {
      this.#unfollowTimer = setTimeout(() => {
        this.#followed = shown;
        this.#stream.follow(shown);
      }, LINGER);
    }
  }

  #relay(frame: Frame): void {
    for (const tab of this.#tabs.values()) {
      const known = (part: TopicWindow) => tab.topics.includes(part.topic) && tab.has.has(part.topic);
      if (frame.kind === "snapshot") {
        for (const part of frame.topics) if (tab.topics.includes(part.topic)) tab.has.add(part.topic);
      }
      const topics = frame.topics.filter(known);
      if (topics.length > 0) tab.send({ kind: "frame", frame: { ...frame, topics } });
    }
  }

  /** Sends a tab snapshots of the topics whose state it lacks. */
  #sendMissing(tab: Tab): void {
    const { statistics } = this.#stream;
    const topics: TopicWindow[] = [];
    for (const topic of tab.topics) {
      const window = statistics.window(topic);
      if (window === undefined || tab.has.has(topic)) continue;
      const bucket = (time: number, index: number) => ({
        time: new Date(time).toISOString(),
        count: window.counts[index] ?? 0,
      });
      topics.push({ topic, window: window.capacity, buckets: window.times.map(bucket) });
      tab.has.add(topic);
    }
    const { id } = statistics;
    if (topics.length > 0 && id !== null) tab.send({ kind: "frame", frame: { kind: "snapshot", id, topics } });
  }

  #sendCondition(tab: Tab): void {
    const clock = this.#clock;
    const now = clock === null ? null : clock.now + (performance.now() - clock.at);
    tab.send({ kind: "condition", condition: this.#stream.condition, now, complete: this.#complete });
  }

  #sendConditionToAll(): void {
    clearTimeout(this.#heartbeat);
    this.#heartbeat = setTimeout(() => this.#sendConditionToAll(), HEARTBEAT);
    const before = performance.now() - TAB_TIMEOUT;
    let gone = false;
    for (const [name, tab] of this.#tabs) {
      if (tab.lastMessage < before) gone = this.#tabs.delete(name);
      else this.#sendCondition(tab);
    }
    if (gone) this.#follow();
  }
}

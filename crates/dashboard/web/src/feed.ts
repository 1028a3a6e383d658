// What this tab knows of the numbers: their state, whether it is live, and the server's time.
//
// Invariant: the condition is "live" only while the hub said so within `SILENCE`; a hub that stops answering is replaced.

import { type Condition, type Frame, Statistics } from "./statistics-stream";
import { type Link, connect } from "./share/connect";
import { BEAT, type News } from "./share/hub";

/** After how long without a word the hub is given up, in milliseconds: more than two of its beats. */
const SILENCE = 2.5 * BEAT;
/** How often the hub is told that this tab is there, in milliseconds. */
const PRESENCE = 20_000;
/** By how much the server's clock may go back before this page's picture of it does, in milliseconds. */
const SETBACK = 10_000;

export interface Follower {
  frame(frame: Frame): void;
  condition(condition: Condition): void;
}

export class Feed {
  readonly #gateway: string;
  readonly #follower: Follower;
  #statistics = new Statistics();
  #condition: Condition = { kind: "connecting" };
  #topics: readonly string[] = [];
  #link: Link;
  #attempt = 0;
  #heard = performance.now();
  #looked = performance.now();
  #clock = { now: Date.now(), at: performance.now() };
  #latest = 0;

  constructor(gateway: string, follower: Follower) {
    this.#gateway = gateway;
    this.#follower = follower;
    this.#link = this.#connect();
    setInterval(() => this.#look(), BEAT);
    setInterval(() => this.#link.say({ kind: "watch", topics: this.#topics }), PRESENCE);
    addEventListener("pagehide", () => this.#link.say({ kind: "leave" }));
    addEventListener("pageshow", (event) => {
      if (event.persisted) this.#begin();
    });
    addEventListener("online", () => this.#link.say({ kind: "hurry" }));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      // A tab that was hidden for long may have been taken for gone.
      this.#link.say({ kind: "watch", topics: this.#topics });
      this.#link.say({ kind: "hurry" });
    });
  }

  get statistics(): Statistics {
    return this.#statistics;
  }

  get condition(): Condition {
    return this.#condition;
  }

  /** The server's time in Unix milliseconds; this machine's until the server was heard of. */
  now(): number {
    const now = this.#clock.now + (performance.now() - this.#clock.at);
    if (now > this.#latest || now < this.#latest - SETBACK) this.#latest = now;
    return this.#latest;
  }

  /** Follows these topics from now on. */
  watch(topics: readonly string[]): void {
    this.#topics = topics;
    this.#statistics.keep(topics);
    this.#link.say({ kind: "watch", topics });
  }

  #connect(): Link {
    let current = true;
    const link = connect(
      this.#gateway,
      this.#attempt,
      (news) => current && this.#take(news),
      () => queueMicrotask(() => this.#begin()),
    );
    return {
      say: link.say,
      close() {
        current = false;
        link.close();
      },
    };
  }

  #begin(): void {
    this.#link.say({ kind: "begin", topics: this.#topics });
  }

  #take(news: News): void {
    this.#heard = performance.now();
    if (news.kind === "frame") {
      if (this.#statistics.apply(news.frame) === null) {
        this.#follower.frame(news.frame);
      } else {
        // Of whatever state this tab is, the hub's whole one fits.
        this.#statistics = new Statistics();
        this.#begin();
      }
      return;
    }
    if (news.now !== null) this.#clock = { now: news.now, at: performance.now() };
    this.#become(news.condition);
  }

  /** Looks whether the hub still answers. */
  #look(): void {
    const now = performance.now();
    const [silent, slept] = [now - this.#heard > SILENCE, now - this.#looked > SILENCE];
    this.#looked = now;
    if (!silent) return;
    const since = "since" in this.#condition ? this.#condition.since : this.now() - (now - this.#heard);
    this.#become({ kind: "retrying", since, reason: "the connection that all tabs share does not answer" });
    // Who slept has not heard because of that: what was said meanwhile comes now.
    if (slept) return;
    this.#link.close();
    this.#attempt += 1;
    this.#heard = now;
    this.#link = this.#connect();
    this.#begin();
  }

  #become(condition: Condition): void {
    if (JSON.stringify(condition) === JSON.stringify(this.#condition)) return;
    this.#condition = condition;
    this.#follower.condition(condition);
  }
}

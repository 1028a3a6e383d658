// This tab's copy of the counts, whether they are live, and the server's time.
//
// Invariant: the condition is "live" only if the hub reported it within the last `SILENCE`. A hub
// that stops responding is replaced.

import { type Condition, type Frame, Statistics, type Topic } from "./statistics-stream";
import { type Link, connect } from "./share/connect";
import { HEARTBEAT, type HubMessage } from "./share/hub";

/**
 * A hub that sends nothing for this long is lost, in milliseconds. More than two of its heartbeats.
 */
const SILENCE = 2.5 * HEARTBEAT;
/** How often this tab reports to the hub that it is open, in milliseconds. */
const PRESENCE = 20_000;
/** The page's clock stands still if the server's goes back by less than this, in milliseconds. */
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
  #topics: readonly Topic[] = [];
  #link: Link;
  #attempt = 0;
  #lastMessage = performance.now();
  #lastCheck = performance.now();
  #clock = { now: Date.now(), at: performance.now() };
  #hasServerTime = false;
  #latest = 0;
  #complete: number | null = null;

  constructor(gateway: string, follower: Follower) {
    this.#gateway = gateway;
    this.#follower = follower;
    this.#link = this.#connect();
    setInterval(() => this.#check(), HEARTBEAT);
    setInterval(() => this.#link.send({ kind: "watch", topics: this.#topics }), PRESENCE);
    addEventListener("pagehide", () => this.#link.send({ kind: "leave" }));
    addEventListener("pageshow", (event) => {
      if (event.persisted) this.#begin();
    });
    addEventListener("online", () => this.#link.send({ kind: "hurry" }));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      // The hub may have dropped a tab that was hidden for long.
      this.#link.send({ kind: "watch", topics: this.#topics });
      this.#link.send({ kind: "hurry" });
    });
  }

  get statistics(): Statistics {
    return this.#statistics;
  }

  get condition(): Condition {
    return this.#condition;
  }

  /** Whether `now` is the server's time. */
  get hasServerTime(): boolean {
    return this.#hasServerTime;
  }

  /**
   * The server's time in Unix milliseconds; the time of this machine until the server has sent its
   * own.
   */
  now(): number {
    const now = this.#clock.now + (performance.now() - this.#clock.at);
    if (now > this.#latest || now < this.#latest - SETBACK) this.#latest = now;
    return this.#latest;
  }

  /** How old the counts are, in milliseconds; null if that is not known. */
  age(): number | null {
    return this.#complete === null ? null : Math.max(0, this.now() - this.#complete);
  }

  /** Follows these topics instead of the previous ones. */
  watch(topics: readonly Topic[]): void {
    this.#topics = topics;
    this.#statistics.keep(topics);
    this.#link.send({ kind: "watch", topics });
  }

  /** Reports that the session of the browser changed. */
  changeSession(): void {
    this.#link.send({ kind: "session" });
  }

  #connect(): Link {
    let current = true;
    const link = connect(
      this.#gateway,
      this.#attempt,
      (message) => current && this.#receive(message),
      () => queueMicrotask(() => this.#begin()),
    );
    return {
      send: link.send,
      close() {
        current = false;
        link.close();
      },
    };
  }

  #begin(): void {
    this.#link.send({ kind: "begin", topics: this.#topics });
  }

  #receive(message: HubMessage): void {
    this.#lastMessage = performance.now();
    if (message.kind === "frame") {
      if (this.#statistics.apply(message.frame) === null) {
        this.#follower.frame(message.frame);
      } else {
        // A new state accepts any snapshot.
        this.#statistics = new Statistics();
        this.#begin();
      }
      return;
    }
    if (message.now !== null) {
      this.#clock = { now: message.now, at: performance.now() };
      // This machine's clock may have been ahead, and must not hold up the server's.
      if (!this.#hasServerTime) this.#latest = 0;
      this.#hasServerTime = true;
    }
    this.#complete = message.complete;
    // What the key permitted is not shown any more.
    if (message.condition.kind === "denied") this.#statistics = new Statistics();
    this.#setCondition(message.condition);
  }

  /** Checks that the hub still sends. */
  #check(): void {
    const now = performance.now();
    const silent = now - this.#lastMessage > SILENCE;
    const slept = now - this.#lastCheck > SILENCE;
    this.#lastCheck = now;
    if (!silent) return;
    const since = "since" in this.#condition ? this.#condition.since : this.now() - (now - this.#lastMessage);
    this.#setCondition({ kind: "retrying", since, reason: "the connection shared by all tabs does not respond" });
    // If this tab slept, the hub's messages are still queued, and arrive now.
    if (slept) return;
    this.#link.close();
    this.#attempt += 1;
    this.#lastMessage = now;
    this.#link = this.#connect();
    this.#begin();
  }

  #setCondition(condition: Condition): void {
    if (JSON.stringify(condition) === JSON.stringify(this.#condition)) return;
    this.#condition = condition;
    this.#follower.condition(condition);
  }
}

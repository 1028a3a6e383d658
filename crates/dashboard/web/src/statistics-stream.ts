// Follows the statistics of a gateway, and holds them. To use it in another page, copy this file and the folder wire,
// which holds types alone.
//
// Invariants: `Statistics` holds exactly the state of the version that it names, for all topics followed. The condition
// is "live" only while the gateway was heard of within `SILENCE` and said itself that its numbers follow the database.
//
// The stream is read by fetch, not by the browser's EventSource: that one gives up for good on any answer but 200,
// cannot say what the answer was, cannot take up where another one stopped, and never notices that nothing comes.

import type { Status } from "./wire/Status";
import type { TopicFrame } from "./wire/TopicFrame";

/** How often the gateway is asked to say that it is there, in seconds. */
const HEARTBEAT = 1;
/** After how long without a word the stream is given up, in milliseconds: more than two missed heartbeats. */
const SILENCE = 3_500;
/** The wait before the first new attempt where the gateway named none, in milliseconds. */
const RETRY = 1_000;
/** The longest wait between attempts, in milliseconds. */
const RETRY_MAX = 8_000;
/** The longest event taken, in characters. */
const EVENT_MAX = 16_777_216;

/** One event that carries a state, or a change of it. */
export interface Frame {
  readonly kind: "snapshot" | "patch";
  /** The version that whoever applies it then has. */
  readonly id: string;
  readonly topics: readonly TopicFrame[];
}

/** The newest buckets of one topic, oldest first: parallel lists of their starts, in Unix milliseconds, and counts. */
export interface Window {
  /** How many buckets are kept at most. */
  readonly bound: number;
  readonly times: readonly number[];
  readonly counts: readonly number[];
}

/** Why a frame was not applied. */
export type Misfit = "backward" | "other term";

/** The newest buckets ever touched of each topic, at one version: the same state machine as every hop before has. */
export class Statistics {
  #version: { readonly nonce: string; readonly tick: number; readonly id: string } | null = null;
  #topics = new Map<string, { bound: number; times: number[]; counts: number[] }>();

  /** The version whose state this is; null before the first snapshot. */
  get id(): string | null {
    return this.#version?.id ?? null;
  }

  /** The window of a topic, where one was taken. It changes with the next frame. */
  window(topic: string): Window | undefined {
    return this.#topics.get(topic);
  }

  /** The topics of which there is a window. */
  topics(): string[] {
    return [...this.#topics.keys()];
  }

  /** Forgets all topics but these: what is not followed would fall behind. */
  keep(topics: readonly string[]): void {
    for (const topic of this.#topics.keys()) if (!topics.includes(topic)) this.#topics.delete(topic);
  }

  /** Takes over what a frame carries. Where it does not fit, says why, and nothing was changed. */
  apply(frame: Frame): Misfit | null {
    const [nonce = "", tick = ""] = frame.id.split(".");
    const got = { nonce, tick: Number(tick), id: frame.id };
    const held = this.#version;
    if (held?.nonce === nonce) {
      if (got.tick < held.tick) return "backward";
    } else if (frame.kind === "patch") {
      return "other term";
    } else {
      this.#topics.clear();
    }
    this.#version = got;
    for (const part of frame.topics) {
      let window = this.#topics.get(part.topic);
      if (window === undefined || frame.kind === "snapshot") {
        window = { bound: part.window, times: [], counts: [] };
        this.#topics.set(part.topic, window);
      }
      for (const bucket of part.buckets) set(window, Date.parse(bucket.time), bucket.count);
    }
    return null;
  }
}

function set(window: { bound: number; times: number[]; counts: number[] }, time: number, count: number): void {
  const { bound, times, counts } = window;
  const place = firstAtLeast(times, time);
  if (times[place] === time) {
    counts[place] = count;
    return;
  }
  const full = times.length >= bound;
  // It may once have been evicted, and its count is no longer known.
  if (full && place === 0) return;
  times.splice(place, 0, time);
  counts.splice(place, 0, count);
  if (full) {
    times.shift();
    counts.shift();
  }
}

/** The place of the first of some ascending times that is `time` or later; their number where none is. */
export function firstAtLeast(times: ArrayLike<number>, time: number): number {
  let [low, high] = [0, times.length];
  // What is new is nearly always at the end.
  if (high > 0 && (times[high - 1] ?? 0) < time) return high;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((times[middle] ?? 0) < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What can be said of the numbers. Times are Unix milliseconds, by the server's clock where it was heard of. */
export type Condition =
  /** Nothing was heard of yet. */
  | { readonly kind: "connecting" }
  /** They follow the database. */
  | { readonly kind: "live" }
  /** The gateway is there, and says that they do not follow the database since then. */
  | { readonly kind: "stale"; readonly since: number }
  /** The gateway is lost since then, and is tried again. */
  | { readonly kind: "retrying"; readonly since: number; readonly reason: string }
  /** The gateway answers, but not with a stream. It is tried again, too. */
  | { readonly kind: "refused"; readonly since: number; readonly reason: string };

/** Who is told what happens. */
export interface Listener {
  /** A frame was applied. */
  frame(frame: Frame): void;
  /** The condition changed. */
  condition(condition: Condition): void;
  /** The server's time is this, in Unix milliseconds. */
  time?(now: number): void;
}

/** The answer was no stream. */
class Refused extends Error {}

/** One connection to a gateway, kept up for as long as it is wanted. */
export class StatisticsStream {
  #statistics = new Statistics();
  #topics: readonly string[] = [];
  #condition: Condition = { kind: "connecting" };
  /** Ends the present connection and all attempts to have another. */
  #ended = new AbortController();
  /** Ends the wait for the next attempt. */
  #hurry: () => void = () => undefined;
  #retry = RETRY;
  #serverAhead = 0;

  /** @param gateway the address of the gateway, such as `http://127.0.0.1:8081` */
  constructor(
    readonly gateway: string,
    readonly listener: Listener,
  ) {}

  /** What is held of the topics followed. */
  get statistics(): Statistics {
    return this.#statistics;
  }

  /** What can be said of the numbers now. */
  get condition(): Condition {
    return this.#condition;
  }

  /** Follows these topics from now on, such as `transfers/minute`; none ends the stream. */
  follow(topics: readonly string[]): void {
    this.#ended.abort();
    this.#topics = topics;
    this.#statistics.keep(topics);
    if (topics.length === 0) return;
    this.#ended = new AbortController();
    // The topics that are new need a snapshot, which a stream that resumes would not give.
    void this.#keepUp(this.#ended.signal, null);
  }

  /** Tries again now, if it waits to. */
  hurry(): void {
    this.#hurry();
  }

  async #keepUp(ended: AbortSignal, resume: string | null): Promise<void> {
    let attempts = 0;
    while (!ended.aborted) {
      const began = performance.now();
      let heard = began;
      try {
        await this.#read(ended, resume, () => (heard = performance.now()));
      } catch (error) {
        if (ended.aborted) return;
        // A switch of topics leaves the numbers live until this is known.
        const since = this.#condition.kind === "live" ? this.#serverTime(heard) : this.#since(heard);
        const reason = error instanceof Error ? error.message : String(error);
        this.#become({ kind: error instanceof Refused ? "refused" : "retrying", since, reason });
      }
      if (ended.aborted) return;
      attempts = heard > began ? 0 : attempts + 1;
      resume = this.#statistics.id;
      await this.#wait(Math.min(this.#retry * 2 ** Math.min(attempts, 4), RETRY_MAX), ended);
    }
  }

  /** Since when the numbers are not live: from before where they were not already, else from then. */
  #since(then: number): number {
    return "since" in this.#condition ? this.#condition.since : this.#serverTime(then);
  }

  #serverTime(at: number): number {
    return performance.timeOrigin + at + this.#serverAhead;
  }

  #wait(milliseconds: number, ended: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const go = () => {
        clearTimeout(timer);
        ended.removeEventListener("abort", go);
        resolve();
      };
      const timer = setTimeout(go, milliseconds);
      ended.addEventListener("abort", go);
      this.#hurry = go;
    });
  }

  /** Reads one connection until it breaks, ends or falls silent, each of which is an error. */
  async #read(ended: AbortSignal, resume: string | null, hear: () => void): Promise<never> {
    const silent = new AbortController();
    const fallSilent = () => silent.abort(new Error(`nothing came for ${SILENCE / 1_000} s`));
    let timer = setTimeout(fallSilent, SILENCE);
    try {
      const query = new URLSearchParams(this.#topics.map((topic) => ["topic", topic]));
      query.set("heartbeat", String(HEARTBEAT));
      const headers = new Headers({ accept: "text/event-stream" });
      if (resume !== null) headers.set("last-event-id", resume);
      const signal = AbortSignal.any([ended, silent.signal]);
      const response = await fetch(`${this.gateway}/statistics?${query}`, { headers, signal, cache: "no-store" });
      if (!response.ok || response.body === null) throw new Refused(await refusal(response));
      const events = new EventReader((type, data, id) => this.#take(type, data, id));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the gateway ended the stream");
        clearTimeout(timer);
        timer = setTimeout(fallSilent, SILENCE);
        hear();
        events.read(value);
        this.#retry = events.retry ?? this.#retry;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take(type: string, data: string, id: string): void {
    if (type === "status") {
      const status = JSON.parse(data) as Status;
      const now = Date.parse(status.now);
      this.#serverAhead = now - (performance.timeOrigin + performance.now());
      this.listener.time?.(now);
      const since = Date.parse(status.since);
      this.#become(status.upstream === "live" ? { kind: "live" } : { kind: "stale", since });
    } else if (type === "snapshot" || type === "patch") {
      const parsed = JSON.parse(data) as TopicFrame | TopicFrame[];
      const frame: Frame = { kind: type, id, topics: Array.isArray(parsed) ? parsed : [parsed] };
      const misfit = this.#statistics.apply(frame);
      if (misfit === null) this.listener.frame(frame);
      else this.#startAnew(misfit);
    }
    // Anything else is something that a later release sends.
  }

  /** Whatever the reason why a frame did not fit, the whole state will. */
  #startAnew(misfit: Misfit): void {
    this.#become({ kind: "retrying", since: this.#since(performance.now()), reason: `a frame did not fit: ${misfit}` });
    this.#statistics = new Statistics();
    this.follow(this.#topics);
  }

  #become(condition: Condition): void {
    if (JSON.stringify(condition) === JSON.stringify(this.#condition)) return;
    this.#condition = condition;
    this.listener.condition(condition);
  }
}

/** What an answer says that is not the one asked for: the words of its problem (RFC 9457), where it has some. */
export async function refusal(response: Response): Promise<string> {
  try {
    const problem = (await response.json()) as { detail?: string; title?: string };
    return problem.detail ?? problem.title ?? `the answer was ${response.status}`;
  } catch {
    return `the answer was ${response.status}`;
  }
}

/** Reads server-sent events, as in the HTML standard, out of pieces of text cut anywhere. */
export class EventReader {
  /** How long to wait before the next connection, in milliseconds, where the server said so. */
  retry: number | null = null;
  #rest = "";
  #type = "";
  #data: string[] = [];
  #id = "";

  constructor(readonly dispatch: (type: string, data: string, id: string) => void) {}

  read(text: string): void {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line);
    const held = this.#data.reduce((sum, part) => sum + part.length, this.#rest.length);
    if (held > EVENT_MAX) throw new Error(`an event is longer than ${EVENT_MAX} characters`);
  }

  #line(line: string): void {
    if (line === "") {
      const [type, data] = [this.#type, this.#data];
      [this.#type, this.#data] = ["", []];
      if (data.length > 0) this.dispatch(type || "message", data.join("\n"), this.#id);
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#type = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }
}

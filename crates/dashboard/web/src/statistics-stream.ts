// Follows the statistics stream of a gateway. To use it in another page, copy this file and
// wire/sse-gateway.ts, which contains only types.
//
// Invariants: `Statistics` holds exactly the state of its version, for all topics followed. The
// condition is "live" only if the gateway sent something within the last `SILENCE`, and reported
// that its counts follow the database. A stream that was denied stays closed until it is asked to
// connect again: a key that is not valid does not become valid by being sent again.
//
// The stream is read with fetch, not with the browser's EventSource. EventSource gives up for good
// on any status but 200, does not reveal the status, cannot resume from a given id, never notices a
// silent stream, and cannot send a key.

import type { Status, TopicWindow } from "./wire/sse-gateway";

/** The heartbeat that the gateway is asked for, in seconds. */
const HEARTBEAT = 1;
/**
 * A stream without data for this long is lost, in milliseconds. More than two missed heartbeats.
 */
const SILENCE = 3_500;
/** The delay before the first retry, in milliseconds, unless the gateway sends another. */
const RETRY = 1_000;
/** The maximum delay between retries, in milliseconds. */
const RETRY_MAX = 8_000;
/** The maximum length of an event, in characters. */
const EVENT_MAX = 16_777_216;

/** A metric and a unit, such as `transfers/minute`. */
export type Topic = TopicWindow["topic"];

/** One event that carries a state, or a change of it. */
export interface Frame {
  readonly kind: "snapshot" | "patch";
  /** The version of the state after this frame. */
  readonly id: string;
  readonly topics: readonly TopicWindow[];
}

/**
 * The newest buckets of one topic, oldest first: their starts in Unix milliseconds, and their
 * counts.
 */
export interface Window {
  /** The maximum number of buckets. */
  readonly capacity: number;
  readonly times: readonly number[];
  readonly counts: readonly number[];
}

/** Why a frame does not fit the state. */
export type Misfit = "backward" | "other term";

/**
 * The newest buckets ever touched of each topic, at one version: the state machine of the Rust
 * crate `domain`.
 */
export class Statistics {
  #version: { readonly nonce: string; readonly tick: number; readonly id: string } | null = null;
  #topics = new Map<Topic, { capacity: number; times: number[]; counts: number[] }>();

  /** The version of this state; null before the first snapshot. */
  get id(): string | null {
    return this.#version?.id ?? null;
  }

  /**
   * The window of a topic; undefined before its first snapshot. The next frame changes it in place.
   */
  window(topic: Topic): Window | undefined {
    return this.#topics.get(topic);
  }

  /** The topics that have a window. */
  topics(): Topic[] {
    return [...this.#topics.keys()];
  }

  /** Drops all other topics. Without frames, they would become outdated. */
  keep(topics: readonly Topic[]): void {
    for (const topic of this.#topics.keys()) if (!topics.includes(topic)) this.#topics.delete(topic);
  }

  /** Applies a frame. If it does not fit, returns why, and changes nothing. */
  apply(frame: Frame): Misfit | null {
    const [nonce = "", tick = ""] = frame.id.split(".");
    const version = { nonce, tick: Number(tick), id: frame.id };
    const held = this.#version;
    if (held?.nonce === nonce) {
      if (version.tick < held.tick) return "backward";
    } else if (frame.kind === "patch") {
      return "other term";
    } else {
      this.#topics.clear();
    }
    this.#version = version;
    for (const part of frame.topics) {
      let window = this.#topics.get(part.topic);
      if (window === undefined || frame.kind === "snapshot") {
        window = { capacity: part.window, times: [], counts: [] };
        this.#topics.set(part.topic, window);
      }
      for (const bucket of part.buckets) set(window, Date.parse(bucket.time), bucket.count);
    }
    return null;
  }
}

function set(window: { capacity: number; times: number[]; counts: number[] }, time: number, count: number): void {
  const { capacity, times, counts } = window;
  const index = firstAtLeast(times, time);
  if (times[index] === time) {
    counts[index] = count;
    return;
  }
  const full = times.length >= capacity;
  // The window may have dropped this bucket before, and then its count is not known any more.
  if (full && index === 0) return;
  times.splice(index, 0, time);
  counts.splice(index, 0, count);
  if (full) {
    times.shift();
    counts.shift();
  }
}

/**
 * The index of the first of some ascending times that is `time` or later; their number if there is
 * none.
 */
export function firstAtLeast(times: ArrayLike<number>, time: number): number {
  let low = 0;
  let high = times.length;
  // New times are nearly always at the end.
  if (high > 0 && (times[high - 1] ?? 0) < time) return high;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((times[middle] ?? 0) < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Whether the counts are live. Times are Unix milliseconds, by the server's clock if it is known.
 */
export type Condition =
  /** The gateway has not sent anything yet. */
  | { readonly kind: "connecting" }
  /** The counts follow the database. */
  | { readonly kind: "live" }
  /** The gateway is connected, and reports that its counts do not follow the database. */
  | { readonly kind: "stale"; readonly since: number }
  /** The connection is lost, and will be retried. */
  | { readonly kind: "retrying"; readonly since: number; readonly reason: string }
  /** The gateway responds, but not with a stream. This is retried, too. */
  | { readonly kind: "refused"; readonly since: number; readonly reason: string }
  /** The key does not permit the stream, or not any more. This is not retried. */
  | { readonly kind: "denied"; readonly since: number; readonly why: Denial; readonly reason: string };

/** Why a stream was denied. */
export type Denial =
  /** There is no key. */
  | "no-credential"
  /** The key is not a key of the gateway, or was ended before. */
  | "invalid-credential"
  /** The key was ended while the stream was open. */
  | "revoked"
  | "expired"
  /** The key does not permit one of the topics. */
  | "insufficient-scope"
  /** The gateway does not let this page use the session. */
  | "foreign-origin"
  /** Something in front of the gateway answered. */
  | "other";

/** How a request presents a key. At most one of both. */
export interface Access {
  /** A key, `nc_…`. It is sent as a header. */
  readonly key?: string;
  /** `include` sends the cookie of a session, to a gateway that allows the page's origin. */
  readonly credentials?: RequestCredentials;
}

/** Callbacks of a stream. */
export interface Listener {
  /** A frame was applied. */
  frame(frame: Frame): void;
  /** The condition changed. */
  condition(condition: Condition): void;
  /** The server sent its time, in Unix milliseconds. */
  time?(now: number): void;
  /** The counts have every event before this moment: Unix milliseconds, by the server's clock. */
  complete?(until: number): void;
}

/** The response is not a stream. */
class Refused extends Error {}

/** The key does not permit the stream. */
class Denied extends Error {
  constructor(
    readonly why: Denial,
    reason: string,
  ) {
    super(reason);
  }
}

/** A connection to a gateway. Reconnects until it is not needed any more. */
export class StatisticsStream {
  #statistics = new Statistics();
  #topics: readonly Topic[] = [];
  #condition: Condition = { kind: "connecting" };
  /** Ends the connection and all retries. */
  #ended = new AbortController();
  /** Ends the delay before the next retry. */
  #hurry: () => void = () => undefined;
  #retry = RETRY;
  #serverAhead = 0;

  /** @param gateway the address of the gateway, such as `http://127.0.0.1:8081` */
  constructor(
    readonly gateway: string,
    readonly listener: Listener,
    readonly access: Access = {},
  ) {}

  /** The counts of the topics followed. */
  get statistics(): Statistics {
    return this.#statistics;
  }

  /** Whether the counts are live now. */
  get condition(): Condition {
    return this.#condition;
  }

  /** Follows these topics instead of the previous ones. An empty list ends the stream. */
  follow(topics: readonly Topic[]): void {
    this.#ended.abort();
    this.#topics = topics;
    this.#statistics.keep(topics);
    if (topics.length === 0) return;
    if (this.#condition.kind === "denied") this.#setCondition({ kind: "connecting" });
    this.#ended = new AbortController();
    // New topics need a snapshot, which a resumed stream would not send.
    void this.#run(this.#ended.signal, null);
  }

  /**
   * Connects again, also if the stream was denied: for when the session of the browser has changed.
   * What it permitted before is dropped.
   */
  reconnect(): void {
    this.#statistics = new Statistics();
    this.follow(this.#topics);
  }

  /** Retries now if a retry is scheduled. */
  hurry(): void {
    this.#hurry();
  }

  async #run(ended: AbortSignal, resume: string | null): Promise<void> {
    let attempts = 0;
    while (!ended.aborted) {
      const began = performance.now();
      let lastData = began;
      try {
        await this.#read(ended, resume, () => (lastData = performance.now()));
      } catch (error) {
        if (ended.aborted) return;
        if (error instanceof Denied) {
          this.#deny(error);
          return;
        }
        // A switch of topics keeps the condition "live" until a connection fails.
        const since = this.#condition.kind === "live" ? this.#serverTime(lastData) : this.#since(lastData);
        const reason = error instanceof Error ? error.message : String(error);
        this.#setCondition({ kind: error instanceof Refused ? "refused" : "retrying", since, reason });
      }
      if (ended.aborted) return;
      attempts = lastData > began ? 0 : attempts + 1;
      resume = this.#statistics.id;
      await this.#wait(Math.min(this.#retry * 2 ** Math.min(attempts, 4), RETRY_MAX), ended);
    }
  }

  #deny({ why, message }: Denied): void {
    this.#statistics = new Statistics();
    this.#setCondition({ kind: "denied", since: this.#since(performance.now()), why, reason: message });
  }

  /** Since when the counts are not live: unchanged if they already were not, otherwise `then`. */
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

  /** Reads one connection. Always ends in an error: it broke, ended, or fell silent. */
  async #read(ended: AbortSignal, resume: string | null, onData: () => void): Promise<never> {
    const silent = new AbortController();
    const fallSilent = () => silent.abort(new Error(`no data for ${SILENCE / 1_000} s`));
    let timer = setTimeout(fallSilent, SILENCE);
    try {
      const query = new URLSearchParams(this.#topics.map((topic) => ["topic", topic]));
      query.set("heartbeat", String(HEARTBEAT));
      const headers = new Headers({ accept: "text/event-stream" });
      if (resume !== null) headers.set("last-event-id", resume);
      const { key, credentials = "same-origin" } = this.access;
      if (key !== undefined) headers.set("authorization", `Bearer ${key}`);
      const signal = AbortSignal.any([ended, silent.signal]);
      const init: RequestInit = { headers, signal, credentials, cache: "no-store" };
      const response = await fetch(`${this.gateway}/statistics?${query}`, init);
      if (response.status === 401 || response.status === 403) {
        const { detail, why } = await readProblem(response);
        throw new Denied(why, detail);
      }
      if (!response.ok || response.body === null) throw new Refused(await problemOf(response));
      const events = new EventReader((type, data, id) => this.#receive(type, data, id));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error("the gateway ended the stream");
        clearTimeout(timer);
        timer = setTimeout(fallSilent, SILENCE);
        onData();
        events.read(value);
        this.#retry = events.retry ?? this.#retry;
      }
    } finally {
      clearTimeout(timer);
      // Ends a connection that is still open, if something else failed.
      silent.abort();
    }
  }

  #receive(type: string, data: string, id: string): void {
    if (type === "status") {
      const status = JSON.parse(data) as Status;
      const now = Date.parse(status.now);
      this.#serverAhead = now - (performance.timeOrigin + performance.now());
      this.listener.time?.(now);
      if (status.age_ms !== undefined) this.listener.complete?.(now - status.age_ms);
      // If it is "unknown", the gateway cannot check keys now. It answers 503, which is retried.
      const ended = status.access?.ended;
      if (ended === "revoked") throw new Denied("revoked", "The key was revoked.");
      if (ended === "expired") throw new Denied("expired", "The key has expired.");
      const since = Date.parse(status.since);
      this.#setCondition(status.upstream === "live" ? { kind: "live" } : { kind: "stale", since });
    } else if (type === "snapshot" || type === "patch") {
      const parsed = JSON.parse(data) as TopicWindow | TopicWindow[];
      const frame: Frame = { kind: type, id, topics: Array.isArray(parsed) ? parsed : [parsed] };
      const misfit = this.#statistics.apply(frame);
      if (misfit === null) this.listener.frame(frame);
      else this.#restart(misfit);
    }
    // Later releases may send other types. They are ignored.
  }

  /** Starts with an empty state, which any snapshot fits. */
  #restart(misfit: Misfit): void {
    this.#setCondition({ kind: "retrying", since: this.#since(performance.now()), reason: `a frame does not fit: ${misfit}` });
    this.#statistics = new Statistics();
    this.follow(this.#topics);
  }

  #setCondition(condition: Condition): void {
    if (JSON.stringify(condition) === JSON.stringify(this.#condition)) return;
    this.#condition = condition;
    this.listener.condition(condition);
  }
}

/** The message of an error response: the detail of its problem details (RFC 9457) if it has one. */
export async function problemOf(response: Response): Promise<string> {
  return (await readProblem(response)).detail;
}

const DENIALS: readonly Denial[] = ["no-credential", "invalid-credential", "insufficient-scope", "foreign-origin"];

/** The message of an error response, and why access was denied if it says so. */
export async function readProblem(response: Response): Promise<{ readonly detail: string; readonly why: Denial }> {
  let problem: { type?: string; detail?: string; title?: string } = {};
  try {
    problem = (await response.json()) as typeof problem;
  } catch {
    // It is not of the gateway.
  }
  const why = DENIALS.find((why) => problem.type === `/problems/${why}`) ?? "other";
  return { detail: problem.detail ?? problem.title ?? `status ${response.status}`, why };
}

/**
 * Parses server-sent events, as the HTML standard defines them, from text that is split anywhere.
 */
export class EventReader {
  /** The delay before the next connection, in milliseconds; null if the server sent none. */
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
    const buffered = this.#data.reduce((sum, part) => sum + part.length, this.#rest.length);
    if (buffered > EVENT_MAX) throw new Error(`an event is longer than ${EVENT_MAX} characters`);
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

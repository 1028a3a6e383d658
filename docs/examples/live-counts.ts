// Follows counts of Newcycle: keeps the newest state of the topics, and whether it is live.

export interface State {
  /** Whether the numbers follow the database now. Stale numbers were right when they were sent. */
  upstream: "live" | "stale";
  /** For each topic, its counts by the start of the bucket, oldest first. */
  topics: Map<string, Map<string, number>>;
  /** Whether the key was revoked or has expired. Then the client has stopped. */
  ended: boolean;
}

interface Status {
  upstream: "live" | "stale";
  access?: { expires_in: number; ended?: "revoked" | "expired" | "unknown" };
}

interface Frame {
  topic: string;
  window: number;
  buckets: { time: string; count: number }[];
}

/** The part of EventSource that this client uses. In a browser, pass EventSource itself. */
export interface Source {
  readonly readyState: number;
  addEventListener(kind: string, listener: (event: { data: string }) => void): void;
  close(): void;
}

/** Three heartbeats: the gateway sends a status every 15 seconds. */
const SILENCE_MILLISECONDS = 45_000;

const CLOSED = 2;

/** Applies a frame: a snapshot replaces a topic's counts, a patch sets the counts that it names. */
export function apply(topics: State["topics"], kind: "snapshot" | "patch", data: string): void {
  // One topic is an object, several are an array.
  const frames: Frame[] = [JSON.parse(data) as Frame | Frame[]].flat();
  for (const { topic, window, buckets } of frames) {
    const counts = new Map(kind === "patch" ? topics.get(topic) : []);
    for (const { time, count } of buckets) counts.set(time, count);
    // The window holds the newest buckets. Sorted as text, 09:37:00.5Z would precede 09:37:00Z.
    const inOrder = [...counts].sort(([one], [other]) => Date.parse(one) - Date.parse(other));
    topics.set(topic, new Map(inOrder.slice(-window)));
  }
}

/** Follows a stream and calls `changed` after each change of the state. Returns a stop function. */
export function follow(
  EventSource: new (url: string, options: { withCredentials: boolean }) => Source,
  url: string,
  changed: (state: State) => void,
): () => void {
  const state: State = { upstream: "stale", topics: new Map(), ended: false };
  let source: Source;
  let timer: ReturnType<typeof setTimeout>;
  const open = (): void => {
    // Sends the cookie of a session, to a gateway that names this page's origin.
    source = new EventSource(url, { withCredentials: true });
    listen("snapshot", (data) => apply(state.topics, "snapshot", data));
    listen("patch", (data) => apply(state.topics, "patch", data));
    listen("status", (data) => {
      const { upstream, access } = JSON.parse(data) as Status;
      state.upstream = upstream;
      // A key that has ended stays refused. "unknown" passes: the gateway cannot check keys now.
      if (access?.ended !== "revoked" && access?.ended !== "expired") return;
      Object.assign(state, { upstream: "stale", ended: true });
      stop();
    });
    source.addEventListener("error", () => {
      state.upstream = "stale";
      changed(state);
      // EventSource reconnects by itself after a lost connection, but not after a refusal.
      if (source.readyState === CLOSED) reopen(1_000 + Math.random() * 4_000);
    });
    reopen(SILENCE_MILLISECONDS);
  };
  const listen = (kind: string, take: (data: string) => void): void =>
    source.addEventListener(kind, ({ data }) => {
      reopen(SILENCE_MILLISECONDS);
      take(data);
      changed(state);
    });
  const reopen = (milliseconds: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      source.close();
      open();
    }, milliseconds);
  };
  const stop = (): void => {
    clearTimeout(timer);
    source.close();
  };
  open();
  return stop;
}

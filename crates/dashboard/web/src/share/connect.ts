// The three ways in which a tab reaches the hub, best first: a worker that all tabs share; one tab that leads the others;
// a hub of its own. A browser lets a page have six connections to a server over HTTP/1.1, so seven tabs need the first
// or the second.
//
// What happens when the leading tab dies: the browser gives its lock to the next tab in line, which leads from then on.
// When it freezes (a hidden tab may, and keeps its lock), the others hear nothing; the first of them that notices takes
// the lock from it, and where it wakes up it finds that it leads no more. Either way the others begin anew with the
// new leader, and their numbers stay until they are replaced. A shared worker that stops answering is left alone, and
// the next one has another name.

import { Hub, type News, type Request } from "./hub";

/** A tab's way to the hub. */
export interface Link {
  say(request: Request): void;
  close(): void;
}

/**
 * Connects to the hub that follows `gateway`. `attempt` grows each time that what answered before fell silent; `begin`
 * is called when the tab must say anew what it shows.
 */
export function connect(gateway: string, attempt: number, tell: (news: News) => void, begin: () => void): Link {
  if ("SharedWorker" in globalThis) return byWorker(gateway, attempt, tell);
  // Browsers have locks only where the page came encrypted or from this machine.
  if ("BroadcastChannel" in globalThis && "locks" in navigator) return byLeader(gateway, attempt > 0, tell, begin);
  return alone(gateway, tell);
}

function byWorker(gateway: string, attempt: number, tell: (news: News) => void): Link {
  const name = `${attempt} ${gateway}`;
  const worker = new SharedWorker(new URL("./worker.ts", import.meta.url), { type: "module", name });
  worker.port.onmessage = (message: MessageEvent<News>) => tell(message.data);
  return {
    say: (request) => worker.port.postMessage(request),
    close() {
      worker.port.postMessage({ kind: "leave" } satisfies Request);
      worker.port.close();
    },
  };
}

/** What goes over the channel: to the leader, to one tab, or to all of them from a new leader. */
type Letter =
  | { readonly from: string; readonly request: Request }
  | { readonly to: string; readonly news: News }
  | { readonly led: true };

function byLeader(gateway: string, steal: boolean, tell: (news: News) => void, begin: () => void): Link {
  const name = Math.random().toString(36);
  const key = `newcycle ${gateway}`;
  const channel = new BroadcastChannel(key);
  const post = (letter: Letter) => channel.postMessage(letter);
  let hub: Hub | null = null;
  let release: () => void = () => undefined;
  const queued = new AbortController();
  channel.onmessage = ({ data }: MessageEvent<Letter>) => {
    if ("request" in data) hub?.hear(data.from, data.request, (news) => post({ to: data.from, news }));
    else if ("led" in data) begin();
    else if (data.to === name) tell(data.news);
  };
  const lead = async (): Promise<void> => {
    hub = new Hub(gateway);
    post({ led: true });
    begin();
    await new Promise<void>((resolve) => (release = resolve));
  };
  const stand = async (options: LockOptions): Promise<void> => {
    try {
      await navigator.locks.request(key, options, lead);
    } catch {
      // Another tab took the lead, or this one closes.
    }
    hub?.close();
    hub = null;
    if (!queued.signal.aborted) void stand({ signal: queued.signal });
  };
  void stand(steal ? { steal } : { signal: queued.signal });
  return {
    say(request) {
      if (hub === null) post({ from: name, request });
      else hub.hear(name, request, tell);
    },
    close() {
      post({ from: name, request: { kind: "leave" } });
      queued.abort();
      release();
      channel.close();
    },
  };
}

function alone(gateway: string, tell: (news: News) => void): Link {
  const hub = new Hub(gateway);
  return { say: (request) => hub.hear("", request, tell), close: () => hub.close() };
}

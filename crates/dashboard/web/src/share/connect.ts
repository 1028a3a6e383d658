// The three ways in which a tab reaches the hub, best first: a worker shared by all tabs, one tab
// that leads the others, or a hub of its own. Over HTTP/1.1, a browser allows six connections per
// server, so seven tabs need one of the first two.
//
// If the leading tab closes, the browser gives its lock to the next tab in line, which becomes the
// leader. If it freezes (hidden tabs may, and keep their lock), the other tabs get no messages. The
// first one that notices steals the lock. The frozen tab finds out when it wakes up. In both cases
// the other tabs start over with the new leader, and keep their counts until then. A shared worker
// that stops responding is abandoned, and the next one gets another name.

import { Hub, type HubMessage, type TabMessage } from "./hub";

/** A tab's connection to the hub. */
export interface Link {
  send(message: TabMessage): void;
  close(): void;
}

/**
 * Connects to the hub that follows `gateway`. `attempt` increases each time that a hub stopped
 * responding. `begin` is called when the tab must send its topics again.
 */
export function connect(gateway: string, attempt: number, receive: (message: HubMessage) => void, begin: () => void): Link {
  if ("SharedWorker" in globalThis) return byWorker(gateway, attempt, receive);
  // Browsers have locks only on pages from HTTPS or localhost.
  if ("BroadcastChannel" in globalThis && "locks" in navigator) return byLeader(gateway, attempt > 0, receive, begin);
  return alone(gateway, receive);
}

function byWorker(gateway: string, attempt: number, receive: (message: HubMessage) => void): Link {
  const name = `${attempt} ${gateway}`;
  const worker = new SharedWorker(new URL("./worker.ts", import.meta.url), { type: "module", name });
  worker.port.onmessage = (event: MessageEvent<HubMessage>) => receive(event.data);
  return {
    send: (message) => worker.port.postMessage(message),
    close() {
      worker.port.postMessage({ kind: "leave" } satisfies TabMessage);
      worker.port.close();
    },
  };
}

/** A message on the channel: to the leader, to one tab, or from a new leader to all tabs. */
type Letter =
  | { readonly from: string; readonly message: TabMessage }
  | { readonly to: string; readonly message: HubMessage }
  | { readonly newLeader: true };

function byLeader(gateway: string, steal: boolean, receive: (message: HubMessage) => void, begin: () => void): Link {
  const name = Math.random().toString(36);
  const key = `newcycle ${gateway}`;
  const channel = new BroadcastChannel(key);
  const post = (letter: Letter) => channel.postMessage(letter);
  let hub: Hub | null = null;
  let release: () => void = () => undefined;
  const queued = new AbortController();
  channel.onmessage = ({ data }: MessageEvent<Letter>) => {
    if ("newLeader" in data) begin();
    else if ("from" in data) hub?.receive(data.from, data.message, (message) => post({ to: data.from, message }));
    else if (data.to === name) receive(data.message);
  };
  const lead = async (): Promise<void> => {
    hub = new Hub(gateway);
    post({ newLeader: true });
    begin();
    await new Promise<void>((resolve) => (release = resolve));
  };
  const queueForLead = async (options: LockOptions): Promise<void> => {
    try {
      await navigator.locks.request(key, options, lead);
    } catch {
      // Another tab stole the lock, or this one closes.
    }
    hub?.close();
    hub = null;
    if (!queued.signal.aborted) void queueForLead({ signal: queued.signal });
  };
  void queueForLead(steal ? { steal } : { signal: queued.signal });
  return {
    send(message) {
      if (hub === null) post({ from: name, message });
      else hub.receive(name, message, receive);
    },
    close() {
      post({ from: name, message: { kind: "leave" } });
      queued.abort();
      release();
      channel.close();
    },
  };
}

function alone(gateway: string, receive: (message: HubMessage) => void): Link {
  const hub = new Hub(gateway);
  return { send: (message) => hub.receive("", message, receive), close: () => hub.close() };
}

// The worker that all tabs of a browser share: it runs the hub, and outlives each of them but the last. Its name is the
// address of the gateway, after a number that tells it from one that stopped answering.

import { Hub, type Request } from "./hub";

// TypeScript has no library that knows both pages and shared workers.
const scope = self as unknown as { readonly name: string; onconnect: ((event: MessageEvent) => void) | null };

const hub = new Hub(scope.name.slice(scope.name.indexOf(" ") + 1));
let tabs = 0;

scope.onconnect = (event) => {
  const port = event.ports[0];
  if (port === undefined) return;
  const name = String(tabs++);
  port.onmessage = (message: MessageEvent<Request>) => hub.hear(name, message.data, (news) => port.postMessage(news));
};

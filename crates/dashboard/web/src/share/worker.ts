// The worker shared by all tabs of a browser. It runs the hub until the last tab closes. Its name
// is a number, which distinguishes it from a worker that stopped responding, and the address of the
// gateway.

import { Hub, type TabMessage } from "./hub";

// TypeScript cannot load the types of pages and of shared workers together.
const scope = self as unknown as { readonly name: string; onconnect: ((event: MessageEvent) => void) | null };

const hub = new Hub(scope.name.slice(scope.name.indexOf(" ") + 1));
let tabs = 0;

scope.onconnect = (event) => {
  const port = event.ports[0];
  if (port === undefined) return;
  const name = String(tabs++);
  port.onmessage = (event: MessageEvent<TabMessage>) =>
    hub.receive(name, event.data, (message) => port.postMessage(message));
};

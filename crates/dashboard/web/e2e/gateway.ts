// A gateway of a test's own. GATEWAY_PROGRAM is the sse-gateway binary, and
// NEWCYCLE__UPSTREAM__ADDRESSES its upstreams.

import type { ChildProcess } from "node:child_process";
import { startService } from "./service";

/** Undefined if the tests that need a gateway of their own are to be skipped. */
export const PROGRAM = process.env["GATEWAY_PROGRAM"];
export const PORT = Number(process.env["TEST_GATEWAY_PORT"] ?? 18_090);
/** The ports of the pages that may use their session there: the tests' own server, and nginx. */
const PAGES = [process.env["DASHBOARD_PORT"] ?? 8082, process.env["TEST_NGINX_PORT"] ?? 18_092];

/** Starts a gateway on PORT with further settings, and waits until it is ready. */
export function startGateway(settings: { readonly [variable: string]: string } = {}): Promise<ChildProcess> {
  const origins = PAGES.map((port) => `http://127.0.0.1:${port}`).join(",");
  return startService(PROGRAM ?? "", PORT, PORT + 1, { NEWCYCLE__CORS__ALLOWED_ORIGINS: origins, ...settings });
}

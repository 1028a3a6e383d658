// A gateway of a test's own, which it may freeze and kill. GATEWAY_PROGRAM is the sse-gateway
// binary, and NEWCYCLE__UPSTREAM__ADDRESSES its upstreams.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

/** Undefined if the tests that need a gateway of their own are to be skipped. */
export const PROGRAM = process.env["GATEWAY_PROGRAM"];
export const PORT = Number(process.env["TEST_GATEWAY_PORT"] ?? 18_090);
/** The ports of the pages that may use their session there: the tests' own server, and nginx. */
const PAGES = [process.env["DASHBOARD_PORT"] ?? 8082, process.env["TEST_NGINX_PORT"] ?? 18_092];

/** Starts a gateway on PORT with further settings, and waits until it is ready. */
export async function startGateway(settings: { readonly [variable: string]: string } = {}): Promise<ChildProcess> {
  const env = {
    ...process.env,
    NEWCYCLE__HTTP__PORT: String(PORT),
    NEWCYCLE__INTERNAL__PORT: String(PORT + 1),
    NEWCYCLE__CORS__ALLOWED_ORIGINS: PAGES.map((port) => `http://127.0.0.1:${port}`).join(","),
    ...settings,
  };
  const gateway = spawn(PROGRAM ?? "", [], { env, stdio: "ignore" });
  const ready = () => fetch(`http://127.0.0.1:${PORT + 1}/readyz`).then((answer) => answer.ok, () => false);
  const deadline = performance.now() + 20_000;
  while (!(await ready())) {
    if (performance.now() > deadline) throw new Error("the gateway is not ready");
    await sleep(50);
  }
  return gateway;
}

/** Kills a gateway, and waits until its port is free. */
export async function killGateway(gateway: ChildProcess | undefined): Promise<void> {
  if (gateway === undefined || gateway.exitCode !== null || gateway.signalCode !== null) return;
  const exit = once(gateway, "exit");
  gateway.kill("SIGKILL");
  await exit;
}

// A service of a test's own, which it may freeze and kill.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Starts a program on these ports with further settings, and waits until it is ready. An undefined
 * setting removes one of this process.
 */
export async function startService(
  program: string,
  port: number,
  internalPort: number,
  settings: { readonly [variable: string]: string | undefined },
): Promise<ChildProcess> {
  const env = { ...process.env, NEWCYCLE__HTTP__PORT: String(port), NEWCYCLE__INTERNAL__PORT: String(internalPort), ...settings };
  const service = spawn(program, [], { env, stdio: ["ignore", "ignore", "inherit"] });
  const ready = () => fetch(`http://127.0.0.1:${internalPort}/readyz`).then((answer) => answer.ok, () => false);
  const deadline = performance.now() + 20_000;
  while (!(await ready())) {
    if (performance.now() > deadline || service.exitCode !== null) throw new Error(`${program} is not ready`);
    await sleep(50);
  }
  return service;
}

/** Kills a service, and waits until its ports are free. */
export async function killService(service: ChildProcess | undefined): Promise<void> {
  if (service === undefined || service.exitCode !== null || service.signalCode !== null) return;
  const exit = once(service, "exit");
  service.kill("SIGKILL");
  await exit;
}

// The session of this browser: a cookie that the page's own server makes of a key. Scripts cannot
// read it.
//
// Invariant: a key in the address is removed from the address and from the history before anything
// else happens. It is stored nowhere but in the cookie.

import { NEW_KEY_RETRY, NEW_KEY_TIME } from "./rights";
import { type Denial, readProblem } from "./statistics-stream";

/** What every key begins with. */
const PREFIX = "#nc_";
const PATH = "/session";
/** How often the cookie is renewed, in milliseconds. Browsers keep it for 400 days at most. */
const RENEWAL_INTERVAL = 86_400_000;
/** How often a renewal is considered, in milliseconds. */
const RENEWAL_CHECK = 600_000;
const TIMEOUT = 10_000;
/** The delay before a login is repeated that could not be checked, in milliseconds. */
const RETRY = 2_000;
/** Key in local storage: when a tab last renewed the cookie. */
const RENEWED_KEY = "newcycle-renewed";

export type Outcome =
  | { readonly kind: "done" }
  | { readonly kind: "refused"; readonly status: number; readonly why: Denial; readonly reason: string }
  /** This may succeed later. */
  | { readonly kind: "unavailable"; readonly reason: string };

/** Takes the key of a login link out of the address; null if there is none. */
export function takeKey(): string | null {
  if (!location.hash.startsWith(PREFIX)) return null;
  const key = location.hash.slice(1);
  history.replaceState(history.state, "", location.pathname + location.search);
  return key;
}

/** Makes a key the session. Waits while the server cannot check keys, or may not know a new one. */
export async function logIn(key: string, waiting: (reason: string) => void): Promise<Outcome> {
  const until = performance.now() + NEW_KEY_TIME;
  for (;;) {
    const outcome = await request("POST", key);
    if (outcome.kind === "done") localStorage.setItem(RENEWED_KEY, String(Date.now()));
    if (outcome.kind === "unavailable") waiting(outcome.reason);
    else if (outcome.kind === "done" || outcome.status !== 401 || performance.now() >= until) return outcome;
    await new Promise((resolve) => setTimeout(resolve, outcome.kind === "unavailable" ? RETRY : NEW_KEY_RETRY));
  }
}

export const logOut = (): Promise<Outcome> => request("DELETE");

/** Sets the cookie again. If its key is not valid any more, the server removes it. */
const renew = (): Promise<Outcome> => request("POST");

/**
 * Removes a cookie that a service refused. The page's server may receive the end of the key later
 * than that service. If it does not within some seconds, there may be a valid key again.
 */
export async function dropRefused(): Promise<void> {
  const until = performance.now() + NEW_KEY_TIME;
  while ((await renew()).kind !== "refused" && performance.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, NEW_KEY_RETRY));
  }
}

/** Renews the session once a day, in one of all tabs. A page may stay open for months. */
export function keepRenewed(): void {
  const check = async () => {
    const renewed = Number(localStorage.getItem(RENEWED_KEY));
    // A clock that was set back must not stop the renewals.
    if (Math.abs(Date.now() - renewed) < RENEWAL_INTERVAL) return;
    localStorage.setItem(RENEWED_KEY, String(Date.now()));
    const outcome = await renew();
    if (outcome.kind === "unavailable") localStorage.setItem(RENEWED_KEY, String(renewed));
  };
  void check();
  setInterval(() => void check(), RENEWAL_CHECK);
}

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("newcycle-session") : null;

/** Reports to all other tabs that the session changed. */
export function announceChange(): void {
  channel?.postMessage(null);
}

export function onChange(react: () => void): void {
  if (channel !== null) channel.onmessage = react;
}

async function request(method: "POST" | "DELETE", key?: string): Promise<Outcome> {
  const init: RequestInit = { method, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) };
  if (key !== undefined) {
    init.headers = { "content-type": "application/json" };
    init.body = JSON.stringify({ key });
  }
  let response: Response;
  try {
    response = await fetch(PATH, init);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { kind: "unavailable", reason: `The server of this page cannot be reached: ${message}.` };
  }
  if (response.ok) return { kind: "done" };
  if (response.status === 400 && key !== undefined) {
    const reason = "The link is not complete: it must end with a whole key.";
    return { kind: "refused", status: response.status, why: "invalid-credential", reason };
  }
  const { detail, why } = await readProblem(response);
  if (response.status >= 500 || response.status === 429) return { kind: "unavailable", reason: detail };
  return { kind: "refused", status: response.status, why, reason: detail };
}

// What the viewer may do, as each service says.

import { credentials } from "./insecure";
import { type Denial, type Topic, readProblem } from "./statistics-stream";
import type { Access } from "./wire/sse-gateway";

const TIMEOUT = 5_000;
/**
 * All services know a new key within two seconds, in milliseconds. A login link may be opened
 * sooner.
 */
export const NEW_KEY_TIME = 3_000;
/** The delay before a service is asked again that does not know a new key. */
export const NEW_KEY_RETRY = 250;

export type Permission = "ingest:write" | "ingest:delete" | "ingest:read";

/** The answer of a service. */
export type Answer =
  | { readonly kind: "granted"; readonly rights: Rights }
  | { readonly kind: "denied"; readonly why: Denial; readonly reason: string }
  /** The service may answer later. */
  | { readonly kind: "unavailable" };

export class Rights {
  constructor(readonly access: Access) {}

  may(permission: Permission): boolean {
    return this.access.scopes.includes(permission);
  }

  /** Whether the counts of a topic may be read: by `statistics:read`, or a part of it. */
  mayRead(topic: Topic): boolean {
    const [metric, unit] = topic.split("/");
    return this.access.scopes.some((scope) => {
      const [area, action, pattern = "*/*"] = scope.split(":");
      if (area !== "statistics" || action !== "read") return false;
      const [metrics, units] = pattern.split("/");
      return (metrics === "*" || metrics === metric) && (units === "*" || units === unit);
    });
  }
}

/** Asks a service what the viewer may do there. With a new key, it gets time to receive it. */
export async function rightsAt(service: string, hasNewKey: boolean): Promise<Answer> {
  const until = performance.now() + (hasNewKey ? NEW_KEY_TIME : 0);
  for (;;) {
    const answer = await ask(service);
    const isUnknown = answer.kind === "denied" && answer.why === "invalid-credential";
    if (!isUnknown || performance.now() >= until) return answer;
    await new Promise((resolve) => setTimeout(resolve, NEW_KEY_RETRY));
  }
}

async function ask(service: string): Promise<Answer> {
  try {
    const signal = AbortSignal.timeout(TIMEOUT);
    const response = await fetch(`${service}/access`, { credentials: credentials(), cache: "no-store", signal });
    if (response.ok) return { kind: "granted", rights: new Rights((await response.json()) as Access) };
    const { detail, why } = await readProblem(response);
    if (response.status === 401 || response.status === 403) return { kind: "denied", why, reason: detail };
  } catch {
    // It does not answer.
  }
  return { kind: "unavailable" };
}

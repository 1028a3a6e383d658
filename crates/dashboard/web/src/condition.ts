// Says whether the numbers are live, in words, where everybody sees it.
//
// Invariant: the word "live" is on the page only while they are.

import * as format from "./format";
import { part, say } from "./page";
import type { Condition } from "./statistics-stream";

/** How the condition reads. */
function words(condition: Condition): string {
  switch (condition.kind) {
    case "connecting":
      return "Connecting";
    case "live":
      return "Live";
    case "stale":
      return `Stale since ${format.moment(condition.since)}`;
    case "retrying":
      return `Retrying, lost since ${format.moment(condition.since)}`;
    case "refused":
      return `Refused since ${format.moment(condition.since)}`;
  }
}

/** Why it is so, where there is something to say. */
export function reason(condition: Condition): string {
  if (condition.kind === "stale") return "The gateway hears nothing of the database.";
  return "reason" in condition ? `The gateway: ${condition.reason}.` : "";
}

export function showCondition(condition: Condition): void {
  const text = words(condition);
  const badge = part("#condition");
  document.body.dataset["condition"] = badge.dataset["kind"] = condition.kind;
  say(part("#condition-text"), text);
  // Read out when it changes, and not each time that the reason does.
  say(part("#announcement"), text);
}

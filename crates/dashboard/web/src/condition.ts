// Says whether the numbers are live, in words, where everybody sees it.
//
// Invariant: the word "live" is on the page only while they are.

import * as format from "./format";
import { part, say } from "./page";
import type { Condition } from "./statistics-stream";

/** How the condition reads, at the moment `now`. */
function words(condition: Condition): string {
  switch (condition.kind) {
    case "connecting":
      return "Connecting";
    case "live":
      return "Live";
    case "stale":
      return `Stale since ${format.moment(condition.since)}: the gateway has no news of the database`;
    case "retrying":
      return `Retrying, lost since ${format.moment(condition.since)}: ${condition.reason}`;
    case "refused":
      return `Refused since ${format.moment(condition.since)}: ${condition.reason}`;
  }
}

export function showCondition(condition: Condition): void {
  const text = words(condition);
  const badge = part("#condition");
  document.body.dataset["condition"] = badge.dataset["kind"] = condition.kind;
  badge.title = text;
  say(part("#condition-text"), text);
  // Read out once, and not each time that the reason changes.
  const [short = text] = text.split(":");
  say(part("#announcement"), short);
}

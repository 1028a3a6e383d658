// Shows in words whether the counts are live.
//
// Invariant: the word "live" is on the page only while they are.

import { showDenial } from "./denial";
import * as format from "./format";
import { element, setText } from "./page";
import type { Condition } from "./statistics-stream";

/** The text of the badge. */
function label(condition: Condition): string {
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
    case "denied":
      return "No access";
  }
}

/** An explanation for the note line; empty if there is none. A denial has a place of its own. */
export function reason(condition: Condition): string {
  if (condition.kind === "denied") return "";
  if (condition.kind === "stale") return "The gateway has lost its connection to the database.";
  return "reason" in condition ? `The gateway: ${condition.reason}.` : "";
}

/** Shows how old live counts are, in milliseconds. Other conditions say since when. */
export function showAge(condition: Condition, age: number | null): void {
  setText(element("#age"), condition.kind === "live" && age !== null ? format.age(age) : "");
}

export function showCondition(condition: Condition): void {
  const text = label(condition);
  const badge = element("#condition");
  document.body.dataset["condition"] = badge.dataset["kind"] = condition.kind;
  setText(element("#condition-text"), text);
  showDenial(condition.kind === "denied" ? condition : null);
  // Screen readers announce a change of this text, but not of the reason.
  setText(element("#announcement"), text);
}

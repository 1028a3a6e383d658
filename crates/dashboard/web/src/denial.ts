// Says why there is nothing to see, and how to get access.

import { isInsecure } from "./insecure";
import { element, setText } from "./page";
import type { Denial } from "./statistics-stream";

const TITLES: { readonly [why in Denial]: string } = {
  "no-credential": "You are not logged in",
  "invalid-credential": "The key is not valid",
  revoked: "The key was revoked",
  expired: "The key has expired",
  "insufficient-scope": "The key does not permit this",
  "foreign-origin": "This page may not use the session",
  other: "There is no access",
};

/** Shows a denial, or none. The reason of a missing key is for programs, so it is left out. */
export function showDenial(denial: { readonly why: Denial; readonly reason: string } | null): void {
  element("#denial").hidden = denial === null;
  if (denial === null) return;
  const insecure = isInsecure();
  const { why, reason } = denial;
  setText(element("#denial-title"), insecure ? "There is no login over http" : TITLES[why]);
  setText(element("#denial-reason"), why === "no-credential" || insecure ? "" : reason);
  element("#denial-help").hidden = insecure || why === "foreign-origin";
  element("#denial-insecure").hidden = !insecure;
}

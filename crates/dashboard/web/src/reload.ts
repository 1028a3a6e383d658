// Starts the page again, which it does when the session changes.
//
// Invariant: each document does so at most once. A change of the session has several signs: another
// tab reports it, and the stream goes on. A second navigation would cancel the first, so the page
// would come later and ask its server twice. A browser under a debugger has crashed in this case.

let begun = false;

/** Loads the page again, unless that has begun. */
export function reloadOnce(): void {
  if (begun) return;
  begun = true;
  location.reload();
}

// The languages that numbers and times are formatted in.
//
// Invariant: no list of languages breaks the page. With LANG=C, WebKit reports "C", which is no
// language tag, and every `Intl` constructor throws on it.

/** The language of the page's own words. */
const FALLBACK = "en";

/**
 * The languages of a browser's list that this browser can format in, and then English. Anything
 * else in the list is left out.
 */
export function usableLanguages(languages: unknown): readonly string[] {
  const listed: readonly unknown[] = Array.isArray(languages) ? languages : [];
  return [...new Set([...listed.flatMap(supported), FALLBACK])];
}

function supported(language: unknown): string[] {
  try {
    return typeof language === "string" ? Intl.DateTimeFormat.supportedLocalesOf(language) : [];
  } catch {
    // It is not a language tag.
    return [];
  }
}

/** The viewer's languages, best first. Never empty. */
export const LANGUAGES = usableLanguages(globalThis.navigator?.languages);

// uPlot makes a number format of `navigator.language` when it is imported, so this module is
// imported before it.
if (typeof navigator !== "undefined" && supported(navigator.language).length === 0) {
  Object.defineProperty(navigator, "language", { value: LANGUAGES[0], configurable: true });
}

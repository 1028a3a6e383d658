// Text from elsewhere, as part of a sentence of the page. It may be in a language that is written
// from right to left, and may have control characters that reorder what surrounds it.
//
// Invariant: a description cannot change how the text around it reads. Characters instead of
// elements keep it apart, because texts also go into inputs and attributes.

/** First strong isolate, and pop directional isolate (Unicode Standard Annex 9). */
const ISOLATE = "\u2068";
const POP = "\u2069";

/** Characters that reorder text, and other control characters. */
const CONTROL = /[\p{Bidi_Control}\p{Cc}]/gu;

/**
 * Text with its control characters made visible, such as `[U+202E]`, and white space as single
 * spaces: a line break would end an isolate.
 */
export function visible(text: string): string {
  const code = (character: string) => (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return text
    .replaceAll(/\s+/g, " ")
    .trim()
    .replaceAll(CONTROL, (character) => `[U+${code(character)}]`);
}

/** Text that is laid out by itself, whatever the direction of its script. */
export function isolated(text: string): string {
  return `${ISOLATE}${text}${POP}`;
}

/** Text without what `isolated` adds. */
export function withoutIsolates(text: string): string {
  return text.replaceAll(ISOLATE, "").replaceAll(POP, "");
}

// Descriptions with control characters.

import { expect, it, vi } from "vitest";
import { isolated, visible, withoutIsolates } from "../src/plain-text";

vi.stubGlobal("localStorage", undefined);
const { label } = await import("../src/add-events");

const ID = "00000000-0000-7000-8000-0000a1b2c3d4";

it("shows the characters that reorder text", () => {
  expect(visible("\u202Eelcycib")).toBe("[U+202E]elcycib");
  for (const code of [0x61c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069]) {
    expect(visible(`a${String.fromCodePoint(code)}b`)).toBe(`a[U+${code.toString(16).toUpperCase().padStart(4, "0")}]b`);
  }
  expect(visible("a\u0000\u001b\u0085b")).toBe("a[U+0000][U+001B][U+0085]b");
});

it("keeps white space as single spaces, because a line break would end an isolate", () => {
  expect(visible(" a\n\u2028b\u2029\t c\u3000d ")).toBe("a b c d");
});

it("keeps letters of all scripts", () => {
  // Persian needs the zero width non-joiner, and emoji the joiner.
  for (const text of ["دوچرخهٔ می\u200cرود", "אופניים", "自転車", "👩\u200d🔧", "naïve ½"]) expect(visible(text)).toBe(text);
});

it("has exactly one isolate in a label, around the description", () => {
  for (const description of ["a bicycle", "\u202Ea", "\u2069\u2069 …00000000", "\u2067", "دوچرخه 12"]) {
    const text = label(description, ID);
    expect(text).toMatch(/^\u2068[^\p{Bidi_Control}]+\u2069 …a1b2c3d4$/u);
    expect(withoutIsolates(text)).toBe(`${visible(description)} …a1b2c3d4`);
  }
  expect(withoutIsolates(isolated("x"))).toBe("x");
});

// Numbers and times in the viewer's language, whatever the browser reports as its languages.

import { afterEach, describe, expect, it, vi } from "vitest";
import { usableLanguages } from "../src/language";
import { UNITS } from "../src/units";

/** The module as a page loads it in a browser with these languages. */
async function formatIn(...languages: unknown[]): Promise<typeof import("../src/format")> {
  vi.resetModules();
  vi.stubGlobal("navigator", { languages, language: languages[0] });
  return import("../src/format");
}
afterEach(() => vi.unstubAllGlobals());

const NOW = Date.parse("2026-11-23T09:37:12.345Z");

describe("languages", () => {
  it("leaves out what is not a language of this browser", () => {
    expect(usableLanguages(["C"])).toEqual(["en"]);
    expect(usableLanguages([])).toEqual(["en"]);
    expect(usableLanguages(undefined)).toEqual(["en"]);
    expect(usableLanguages("de")).toEqual(["en"]);
    expect(usableLanguages(["xx-invalid", "en_US", "", null, 5, "POSIX", "pt_BR.UTF-8", "x"])).toEqual(["en"]);
    expect(usableLanguages(["C", "de-AT", "en_US", "fr"])).toEqual(["de-AT", "fr", "en"]);
    expect(usableLanguages(["en"])).toEqual(["en"]);
  });

  it.each([[["C"]], [[]], [[undefined]], [["xx-invalid", "en_US"]]])("formats everything with the languages %j", async (languages) => {
    const format = await formatIn(...languages);
    expect(format.count(1_234)).toBe("1,234");
    expect(format.share(0.5)).toBe("+50%");
    expect(format.bucket("month", NOW, NOW)).toBe("November 2026 UTC");
    for (const unit of UNITS) {
      expect(format.bucket(unit, NOW, NOW), unit).not.toBe("");
      expect(format.period(unit, NOW, NOW + 1e9), unit).not.toBe("");
    }
  });

  // uPlot makes a number format of this language when it is imported.
  it("repairs the language that libraries use", async () => {
    await formatIn("C");
    expect(navigator.language).toBe("en");
    await formatIn("de-AT");
    expect(navigator.language).toBe("de-AT");
  });
});

it.each([
  [0, "as of 0.0 s ago"],
  [149, "as of 0.1 s ago"],
  [9_949, "as of 9.9 s ago"],
  [10_400, "as of 10 s ago"],
])("says how old counts are that are %i ms old", async (milliseconds, text) => {
  const format = await formatIn("en");
  expect(format.age(milliseconds)).toBe(text);
});

describe("the names of buckets", () => {
  // November 2026 is Aban and Azar 1405, Jumada 1448, 2569 BE, Reiwa 8, Cheshvan and Kislev 5787,
  // and year 115 of the Republic of China.
  it.each([
    ["fa-IR", "نوامبر ۲۰۲۶", "۲۰۲۶"],
    ["ar-SA", "نوفمبر ٢٠٢٦", "٢٠٢٦"],
    ["ar-SA-u-ca-islamic", "نوفمبر ٢٠٢٦", "٢٠٢٦"],
    ["th-TH", "พฤศจิกายน 2026", "2026"],
    ["th-TH-u-nu-thai", "พฤศจิกายน ๒๐๒๖", "๒๐๒๖"],
    ["ja-JP-u-ca-japanese", "2026年11月", "2026年"],
    ["he-IL-u-ca-hebrew", "נובמבר 2026", "2026"],
    ["zh-TW-u-ca-roc", "2026年11月", "2026年"],
    ["de", "November 2026", "2026"],
  ])("are Gregorian in %s", async (language, month, year) => {
    const format = await formatIn(language);
    const plain = (text: string) => text.replaceAll(/[\u2068\u2069]/g, "");
    expect(plain(format.bucket("month", NOW, NOW))).toBe(`${month} UTC`);
    expect(plain(format.bucket("year", NOW, NOW))).toBe(`${year} UTC`);
    expect(format.marks("year", [NOW / 1_000], 366 * 86_400)).toEqual([year]);
    // Every name and period with a year has the Gregorian one. Names of other days have a year.
    const texts = [
      ...UNITS.filter((unit) => unit !== "hour").map((unit) => format.bucket(unit, NOW - 3 * 86_400_000, NOW)),
      ...UNITS.map((unit) => format.period(unit, NOW, NOW + 9 * 86_400_000)),
      format.moment(NOW - 400 * 86_400_000),
    ];
    const years = [2026, 2025].map((number) => new Intl.NumberFormat(language, { useGrouping: false }).format(number));
    for (const text of texts) expect(years.some((year) => text.includes(year)), text).toBe(true);
  });

  it("are apart from the English text around them", async () => {
    const format = await formatIn("fa-IR");
    expect(format.bucket("week", NOW, NOW)).toMatch(/^week of \u2068[^\u2068\u2069]+\u2069 UTC$/);
    expect(format.bucket("quarter", NOW, NOW)).toBe("Q۴ \u2068۲۰۲۶\u2069 UTC");
  });
});

it("shows a large change as a factor", async () => {
  const format = await formatIn("en");
  expect([-0.4, 0, 9.994, 57.4].map(format.share)).toEqual(["-40%", "0%", "+999%", "×58"]);
});

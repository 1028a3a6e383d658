import { expect, it, vi } from "vitest";
import { reloadOnce } from "../src/reload";

it("loads the page again once, however many signs there are", () => {
  const reload = vi.fn();
  vi.stubGlobal("location", { reload });
  for (let sign = 0; sign < 3; sign += 1) reloadOnce();
  expect(reload).toHaveBeenCalledTimes(1);
  vi.unstubAllGlobals();
});

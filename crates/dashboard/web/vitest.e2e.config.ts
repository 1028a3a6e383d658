// The browser tests, against the running stack at GATEWAY_URL and INGEST_URL. DASHBOARD_URL is the
// dashboard service. Without it, the tests serve the built page themselves.

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["e2e/**/*.test.ts"], fileParallelism: false, testTimeout: 90_000, hookTimeout: 60_000 },
});

// The tests in a real browser, against a running stack: GATEWAY_URL and INGEST_URL say where it is, DASHBOARD_URL where
// the dashboard's service is; without that, what was built is served by the tests themselves.

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["e2e/**/*.test.ts"], fileParallelism: false, testTimeout: 90_000, hookTimeout: 60_000 },
});

// Builds the pages into dist, every asset with a hash in its name, and serves them while they are worked on.
//
// Invariant: what is built needs no inline script or style, and asks no other host than the services.

import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const port = (name: string, fallback: number): string => process.env[name] ?? String(fallback);
const ingest = `http://127.0.0.1:${port("INGEST_PORT", 8080)}`;

/** Says where the services are that `cargo xtask up` started, as the dashboard's service does for what is built. */
const config = (): Plugin => ({
  name: "config",
  configureServer(server) {
    server.middlewares.use("/config.json", (_request, response) => {
      response.setHeader("content-type", "application/json");
      const gateway = `http://127.0.0.1:${port("GATEWAY_PORT", 8081)}`;
      response.end(JSON.stringify({ gateway, ingest: "/ingest" }));
    });
  },
});

export default defineConfig({
  plugins: [config()],
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: true },
  worker: { format: "es" },
  server: {
    host: "127.0.0.1",
    proxy: {
      // ingest-api takes requests of pages from origins that it was told of; this server is none of them, so it asks in
      // the page's place.
      "/ingest": {
        target: ingest,
        rewrite: (path) => path.replace(/^\/ingest/, ""),
        configure: (proxy) => proxy.on("proxyReq", (request) => request.removeHeader("origin")),
      },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});

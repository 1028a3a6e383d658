// Builds the page into dist, with a hash in the name of every asset. Also the development server.
//
// Invariant: the built page has no inline script or style, and sends requests only to the services.

import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const port = (name: string, fallback: number): string => process.env[name] ?? String(fallback);
const ingest = `http://127.0.0.1:${port("INGEST_PORT", 8080)}`;

/**
 * Serves the addresses of the services that `cargo xtask up` started, as the dashboard service
 * does.
 */
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
      // ingest-api accepts pages only from configured origins. This server is not one of them, so
      // it forwards the requests without their origin.
      "/ingest": {
        target: ingest,
        rewrite: (path) => path.replace(/^\/ingest/, ""),
        configure: (proxy) => proxy.on("proxyReq", (request) => request.removeHeader("origin")),
      },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});

// Builds the page into dist, with a hash in the name of every asset. Also the development server.
//
// Invariant: the built page has no inline script or style, and sends requests only to the services.

import type { Plugin, ProxyOptions } from "vite";
import { defineConfig } from "vitest/config";

const port = (name: string, fallback: number): string => process.env[name] ?? String(fallback);
const service = (name: string, fallback: number): string => `http://127.0.0.1:${port(name, fallback)}`;
const page = service("DASHBOARD_PORT", 8082);

/**
 * Forwards requests to a service as those of the dashboard's own page: the services accept sessions
 * only from configured origins, and this server is not one of them.
 */
const forward = (target: string, prefix = ""): ProxyOptions => ({
  target,
  changeOrigin: true,
  rewrite: (path) => path.slice(prefix.length),
  configure: (proxy) => proxy.on("proxyReq", (request) => request.setHeader("origin", page)),
});

/**
 * Serves the addresses of the services that `cargo xtask up` started, as the dashboard service
 * does.
 */
const config = (): Plugin => ({
  name: "config",
  configureServer(server) {
    server.middlewares.use("/config.json", (_request, response) => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ gateway: "/gateway", ingest: "/ingest" }));
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
      "/gateway": forward(service("GATEWAY_PORT", 8081), "/gateway"),
      "/ingest": forward(service("INGEST_PORT", 8080), "/ingest"),
      "/session": forward(page),
    },
  },
  test: { include: ["test/**/*.test.ts"] },
});

// Serves the built page with the same headers as the dashboard service, and makes a session of any
// key.

import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { pipeline } from "node:stream";
import { createGzip } from "node:zlib";

const TYPES: { readonly [extension: string]: string } = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

export function policy(gateway: string, ingest: string): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    `connect-src 'self' ${gateway} ${ingest}`,
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}

/** Sets, renews or removes the cookie, as dashboard does, but checks nothing. */
async function session(request: IncomingMessage, response: ServerResponse, port: number): Promise<void> {
  const name = `newcycle-${port}`;
  const parts = await request.toArray();
  const body = Buffer.concat(parts as Buffer[]).toString();
  const held = request.headers.cookie?.split("; ").find((cookie) => cookie.startsWith(`${name}=`))?.slice(name.length + 1);
  const key = body === "" ? held : (JSON.parse(body) as { key: string }).key;
  const [value, age] = request.method === "DELETE" || key === undefined ? ["", 0] : [key, 86_400];
  response.setHeader("set-cookie", `${name}=${value}; Path=/; Max-Age=${age}; HttpOnly; SameSite=Strict`);
  response.writeHead(204).end();
}

/** Serves `folder` on a local port. The page runs the script `first` before its own. */
export function serve(folder: string, port: number, gateway: string, ingest: string, first = ""): Promise<Server> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    response.setHeader("content-security-policy", policy(gateway, ingest));
    response.setHeader("x-content-type-options", "nosniff");
    response.setHeader("referrer-policy", "no-referrer");
    response.setHeader("cache-control", "no-store");
    if (pathname === "/config.json") {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ gateway, ingest }));
      return;
    }
    if (pathname === "/session") {
      void session(request, response, port);
      return;
    }
    if (first !== "" && pathname === "/first.js") {
      response.setHeader("content-type", "text/javascript; charset=utf-8");
      response.end(first);
      return;
    }
    if (first !== "" && pathname === "/") {
      response.setHeader("content-type", "text/html; charset=utf-8");
      const page = readFileSync(join(folder, "index.html"), "utf8");
      response.end(page.replace("<head>", '<head><script src="/first.js"></script>'));
      return;
    }
    const path = join(folder, normalize(pathname === "/" ? "/index.html" : pathname));
    if (!existsSync(path) || !statSync(path).isFile()) {
      response.writeHead(404).end();
      return;
    }
    if (pathname.startsWith("/assets/")) response.setHeader("cache-control", "public, max-age=31536000, immutable");
    response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
    response.setHeader("content-encoding", "gzip");
    pipeline(createReadStream(path), createGzip(), response, () => undefined);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

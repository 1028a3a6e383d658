// The addresses of the services, from the page's own server.

export interface Config {
  /** The address of sse-gateway, without a trailing slash. */
  readonly gateway: string;
  /** The address of ingest-api, without a trailing slash. */
  readonly ingest: string;
}

/** The default ports, on the host that served the page. */
const PORTS = { gateway: 8081, ingest: 8080 } as const;

export async function loadConfig(): Promise<Config> {
  const response = await fetch("/config.json", { cache: "no-store" });
  if (!response.ok) throw new Error(`/config.json returned status ${response.status}`);
  const config = (await response.json()) as { [service in keyof Config]?: string | null };
  const address = (service: keyof Config): string => {
    const url = new URL(config[service] ?? `http://${location.hostname}:${PORTS[service]}`, location.href);
    return url.href.replace(/\/$/, "");
  };
  return { gateway: address("gateway"), ingest: address("ingest") };
}

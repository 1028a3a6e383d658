// Whether the page may have a session at all.

/** Whether a key would be readable on its way, so that there is no login. */
export function isInsecure(): boolean {
  // Other programs have no page, and so no location.
  if (!("location" in globalThis)) return false;
  const { protocol, hostname } = location;
  const isLoopback = /^(127(\.\d+){3}|\[::1\]|(.+\.)?localhost)$/.test(hostname);
  return protocol === "http:" && !isLoopback;
}

/** How requests to the services use the session. */
export const credentials = (): RequestCredentials => (isInsecure() ? "omit" : "include");

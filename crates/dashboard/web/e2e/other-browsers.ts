// Firefox and WebKit, as far as the short form of the browser tests needs them: Firefox by
// WebDriver BiDi, WebKitGTK by its WebDriver on a display of its own.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import puppeteer from "puppeteer-core";

/** A browser with one tab. */
export interface OtherBrowser {
  open(url: string): Promise<void>;
  /** The value of a JavaScript expression in the page, which JSON can represent. */
  value(expression: string): Promise<unknown>;
  /** Clicks the element that a selector names. */
  click(selector: string): Promise<void>;
  close(): Promise<void>;
}

/** The longest time until a program of the tests is ready, in milliseconds. */
const READY_TIMEOUT = 30_000;

export async function startFirefox(executablePath: string): Promise<OtherBrowser> {
  const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, timeout: READY_TIMEOUT });
  const page = await browser.newPage();
  return {
    open: async (url) => void (await page.goto(url)),
    value: (expression) => page.evaluate(expression),
    click: (selector) => page.click(selector),
    close: () => browser.close(),
  };
}

/**
 * Starts WebKitGTK's browser.
 *
 * @param variables environment variables of the browser
 */
export async function startWebKit(driver: string, xvfb: string, variables: NodeJS.ProcessEnv): Promise<OtherBrowser> {
  const processes: ChildProcess[] = [];
  const run = (program: string, words: string[], env: NodeJS.ProcessEnv) => {
    const child = spawn(program, words, { env, stdio: ["ignore", "ignore", "inherit", "pipe"] });
    processes.push(child);
    return child;
  };
  const stop = async () => {
    for (const child of processes.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exit = once(child, "exit");
      child.kill();
      await exit;
    }
  };
  try {
    const display = await displayOf(run(xvfb, ["-displayfd", "3", "-screen", "0", "1280x900x24", "-nolisten", "tcp"], process.env));
    const port = await freePort();
    run(driver, [`--port=${port}`], { ...process.env, DISPLAY: `:${display}`, ...variables });
    const server = `http://127.0.0.1:${port}`;
    const deadline = performance.now() + READY_TIMEOUT;
    while (!(await fetch(`${server}/status`).then((answer) => answer.ok, () => false))) {
      if (performance.now() > deadline) throw new Error(`${driver} is not ready`);
      await sleep(50);
    }
    const { sessionId } = (await command("POST", `${server}/session`, { capabilities: {} })) as { sessionId: string };
    const session = `${server}/session/${sessionId}`;
    return {
      open: async (url) => void (await command("POST", `${session}/url`, { url })),
      value: (expression) => command("POST", `${session}/execute/sync`, { script: `return ${expression}`, args: [] }),
      async click(selector) {
        const element = await command("POST", `${session}/element`, { using: "css selector", value: selector });
        const [id] = Object.values(element as { [name: string]: string });
        await command("POST", `${session}/element/${id}/click`, {});
      },
      async close() {
        await command("DELETE", session);
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The number of an X server's display, which it writes to file descriptor 3 once it is ready. */
async function displayOf(server: ChildProcess): Promise<string> {
  const output = server.stdio[3];
  if (output === null || output === undefined) throw new Error("the X server has no pipe");
  const exit = once(server, "exit").then(() => Promise.reject(new Error("the X server ended")));
  const [text] = (await Promise.race([once(output, "data"), exit])) as [Buffer];
  exit.catch(() => undefined);
  return text.toString().trim();
}

/** A port that no program listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** A command of WebDriver (<https://www.w3.org/TR/webdriver2/>). */
async function command(method: "POST" | "DELETE", url: string, body?: object): Promise<unknown> {
  const response = await fetch(url, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const { value } = (await response.json()) as { value: { error?: string; message?: string } | null };
  if (!response.ok) throw new Error(`${method} ${url}: ${value?.error}: ${value?.message}`);
  return value;
}

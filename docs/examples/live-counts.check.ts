// Runs live-counts.ts for a test, with an EventSource built on fetch, because Node has one behind a
// flag only. Prints a line of JSON for each request, each event and each state.

import { argv, env } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { follow, type Source } from "./live-counts.ts";

/**
 * The part of EventSource (https://html.spec.whatwg.org/multipage/server-sent-events.html) that the
 * test needs.
 */
class FetchEventSource implements Source {
  readyState = 0;
  readonly #listeners = new Map<string, ((event: { data: string }) => void)[]>();
  readonly #abort = new AbortController();

  constructor(url: string) {
    void this.#run(url);
  }

  addEventListener(kind: string, listener: (event: { data: string }) => void): void {
    this.#listeners.set(kind, [...(this.#listeners.get(kind) ?? []), listener]);
  }

  close(): void {
    this.readyState = 2;
    this.#abort.abort();
  }

  #emit(kind: string, data: string): void {
    for (const listener of this.#listeners.get(kind) ?? []) listener({ data });
  }

  async #run(url: string): Promise<void> {
    let id = "";
    let retry = 1_000;
    while (this.readyState !== 2) {
      try {
        print({ request: id });
        const resume = id === "" ? {} : { "last-event-id": id };
        const authorization = `Bearer ${env["NEWCYCLE_KEY"]}`;
        const headers = { authorization, accept: "text/event-stream", ...resume };
        const response = await fetch(url, { headers, signal: this.#abort.signal });
        if (response.status !== 200 || response.body === null) {
          this.readyState = 2;
        } else {
          this.readyState = 1;
          let text = "";
          for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
            const events = (text + part).split("\n\n");
            text = events.pop() ?? "";
            for (const event of events) {
              const lines = event.split("\n");
              const fields = lines.map((line) => /^(\w+): ?(.*)$/.exec(line)?.slice(1) ?? []);
              const values = (name: string) =>
                fields.filter(([field]) => field === name).map((field) => field[1]);
              id = values("id")[0] ?? id;
              retry = Number(values("retry")[0] ?? retry);
              const kind = values("event")[0];
              if (kind !== undefined) {
                print({ event: kind });
                this.#emit(kind, values("data").join("\n"));
              }
            }
          }
        }
      } catch {
        // The connection was lost.
      }
      if (this.readyState !== 2) this.readyState = 0;
      this.#emit("error", "");
      await sleep(retry);
    }
  }
}

function print(line: object): void {
  console.log(JSON.stringify(line));
}

follow(FetchEventSource, argv[2] ?? "", ({ upstream, topics }) => {
  const counts = [...topics].map(([topic, buckets]) => [topic, [...buckets]] as const);
  print({ upstream, topics: Object.fromEntries(counts) });
});

// Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.
// Usage: node producer.ts http://127.0.0.1:8080 (Node 22.18 or newer; for older ones, compile it first)

import { randomUUID } from "node:crypto";
import { argv } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

const TIMEOUT_MILLISECONDS = 30_000;
const GIVE_UP_MILLISECONDS = 300_000;

interface Row {
  id: string;
  [field: string]: string;
}

interface Answer {
  detail?: string;
  errors?: { line: number; field: string | null; detail: string }[];
}

/** A UUIDv7 (RFC 9562): the milliseconds since 1970, the version, and random bits around the variant. */
function newId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  const random = randomUUID().slice(15);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random}`;
}

class Producer {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** Posts one row. 201: stored; 200: it was stored already. */
  async create(path: string, row: Row): Promise<void> {
    const { status, answer } = await this.post(path, "application/json", JSON.stringify(row));
    if (status !== 200 && status !== 201) {
      throw new Error(`POST ${path} was refused, and repeating will not help: ${status}: ${answer.detail}`);
    }
  }

  /** Posts many rows. Returns which lines were rejected, and why. */
  async upload(path: string, rows: Row[]): Promise<NonNullable<Answer["errors"]>> {
    const lines = rows.map((row) => JSON.stringify(row) + "\n").join("");
    const { status, answer } = await this.post(path, "application/x-ndjson", lines);
    if (status !== 200 && answer.errors === undefined) {
      throw new Error(`POST ${path} was refused, and repeating will not help: ${status}: ${answer.detail}`);
    }
    return answer.errors ?? [];
  }

  /**
   * Posts a body, and again for as long as no answer comes or one of 5xx. The body stays the same, and so do its
   * ids: whether an attempt without an answer was carried out need not be known.
   */
  async post(path: string, contentType: string, body: string): Promise<{ status: number; answer: Answer }> {
    const giveUp = Date.now() + GIVE_UP_MILLISECONDS;
    for (let wait = 250; ; wait = Math.min(wait * 2, 15_000)) {
      let asked: string | null = null;
      let trouble: unknown;
      try {
        const signal = AbortSignal.timeout(TIMEOUT_MILLISECONDS);
        const headers = { "content-type": contentType };
        const response = await fetch(this.url + path, { method: "POST", headers, body, signal });
        if (response.status < 500) {
          return { status: response.status, answer: (await response.json()) as Answer };
        }
        asked = response.headers.get("retry-after");
        trouble = new Error(`POST ${path}: ${response.status}`);
      } catch (error) {
        trouble = error;
      }
      if (Date.now() > giveUp) {
        throw trouble;
      }
      // At least what the service asks for, else a random part of a wait that doubles, so that producers which lost
      // the service at the same moment do not come back at the same moment.
      const jitter = 0.5 + Math.random() / 2;
      await sleep(asked === null ? wait * jitter : Number(asked) * 1_000 * (0.5 + jitter));
    }
  }
}

const [, , url] = argv;
if (url === undefined) {
  throw new Error("usage: node producer.ts http://127.0.0.1:8080");
}
const producer = new Producer(url);
const baseItem = newId();
const user = newId();
const item = newId();
const transfer = newId();
await producer.create("/base-items", { id: baseItem, description: "Touring bicycle, refurbished" });
await producer.create("/users", { id: user });
await producer.create("/items", { id: item, base_item_id: baseItem, created_at: new Date().toISOString() });
await producer.create("/transfers", { id: transfer, item_id: item, owner_id: user });
console.log(`base item ${baseItem}\nuser ${user}\nitem ${item}\ntransfer ${transfer}`);

// The second line names a base item that does not exist: it is rejected, the others are stored all the same.
const bases = [baseItem, newId(), baseItem];
const rejected = await producer.upload("/items", bases.map((base) => ({ id: newId(), base_item_id: base })));
for (const { line, detail } of rejected) {
  console.log(`rejected, to be looked at: line ${line}: ${detail}`);
}

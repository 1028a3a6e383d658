// Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.
// Usage: NEWCYCLE_KEY=… node producer.ts http://127.0.0.1:8080
// (Node 22.18 or newer; compile it for older ones)

import { randomUUID } from "node:crypto";
import { argv, env } from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

const authorization = `Bearer ${env["NEWCYCLE_KEY"]}`;
const TIMEOUT_MILLISECONDS = Number(env["TIMEOUT_SECONDS"] ?? 30) * 1_000;
const GIVE_UP_MILLISECONDS = 300_000;
/** The answers that ask for another attempt, in addition to 5xx. */
const TRY_AGAIN = [408, 425, 429];

interface Row {
  id: string;
  [field: string]: string;
}

interface Answer {
  id?: string;
  accepted?: number;
  detail?: string;
  errors?: { line: number; field: string | null; detail: string }[];
}

interface Answered {
  status: number;
  answer: Answer;
}

/** A UUIDv7 (RFC 9562): milliseconds since 1970, the version, random bits around the variant. */
function newId(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  const random = randomUUID().slice(15);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random}`;
}

/** The JSON object. A proxy between this program and ingest-api may answer something else. */
function objectOf(text: string): Answer | null {
  try {
    const value: unknown = JSON.parse(text);
    return value instanceof Object ? value : null;
  } catch {
    return null;
  }
}

/** What is wrong. */
function problemOf(text: string): Answer {
  const problem = objectOf(text);
  return problem?.detail === undefined ? { detail: text.slice(0, 200) } : problem;
}

/** The request is wrong. Retrying it will not help. */
class Refused extends Error {
  constructor(path: string, status: number, answer: Answer) {
    super(`POST ${path}: ${status}: ${answer.detail}`);
  }
}

class Producer {
  readonly url: string;

  constructor(url: string) {
    this.url = url;
  }

  /** Posts one row. 201: stored; 200: it was stored before. */
  async create(path: string, row: Row): Promise<void> {
    const { status, answer } = await this.post(path, "application/json", JSON.stringify(row), "id");
    if (status !== 200 && status !== 201) {
      throw new Refused(path, status, answer);
    }
  }

  /** Posts many rows. Returns which lines were rejected, and why. */
  async upload(path: string, rows: Row[]): Promise<NonNullable<Answer["errors"]>> {
    const lines = rows.map((row) => JSON.stringify(row) + "\n").join("");
    const { status, answer } = await this.post(path, "application/x-ndjson", lines, "accepted");
    if (status === 200) {
      return [];
    }
    // A proxy may have errors of its own.
    if (status === 422 && answer.accepted !== undefined && answer.errors !== undefined) {
      return answer.errors;
    }
    throw new Refused(path, status, answer);
  }

  /**
   * Posts a body, and retries while there is no answer, or one that asks for that. The body and its
   * ids stay the same, so an attempt without an answer may have been carried out. A 200 or 201
   * counts only if it has the member, which ingest-api sends: a proxy may answer something else.
   */
  async post(
    path: string,
    contentType: string,
    body: string,
    member: "id" | "accepted",
  ): Promise<Answered> {
    const giveUp = Date.now() + GIVE_UP_MILLISECONDS;
    for (let wait = 250; ; wait = Math.min(wait * 2, 15_000)) {
      let asked: string | null = null;
      let trouble: unknown;
      try {
        const signal = AbortSignal.timeout(TIMEOUT_MILLISECONDS);
        const headers = { authorization, "content-type": contentType };
        // A POST that is redirected would be repeated as a GET, whose 200 says nothing of the row.
        const redirect = "manual";
        const options = { method: "POST", headers, body, signal, redirect } as const;
        const response = await fetch(this.url + path, options);
        const { status } = response;
        const text = await response.text();
        if (response.ok) {
          const answer = objectOf(text);
          if (answer?.[member] !== undefined) {
            return { status, answer };
          }
        } else if (status < 500 && !TRY_AGAIN.includes(status)) {
          return { status, answer: problemOf(text) };
        }
        asked = response.headers.get("retry-after");
        trouble = new Error(`POST ${path}: ${status}: ${text.slice(0, 200)}`);
      } catch (error) {
        trouble = error;
      }
      // The time in Retry-After, and a random part of a wait that doubles: producers that lost the
      // service at the same moment must not all return at once.
      const seconds = /^\d+$/.test(asked ?? "") ? Number(asked) : 0;
      const pause = seconds * 1_000 + wait * (0.5 + Math.random() / 2);
      if (Date.now() + pause > giveUp) {
        throw trouble;
      }
      await sleep(pause);
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
const now = new Date().toISOString();
await producer.create("/items", { id: item, base_item_id: baseItem, created_at: now });
await producer.create("/transfers", { id: transfer, item_id: item, owner_id: user });
console.log(`base item ${baseItem}\nuser ${user}\nitem ${item}\ntransfer ${transfer}`);

// The second line names a base item that does not exist: it is rejected, the others are stored.
const bases = [baseItem, newId(), baseItem];
const rows = bases.map((base) => ({ id: newId(), base_item_id: base }));
const rejected = await producer.upload("/items", rows);
for (const { line, detail } of rejected) {
  console.log(`rejected, for a person to look at: line ${line}: ${detail}`);
}

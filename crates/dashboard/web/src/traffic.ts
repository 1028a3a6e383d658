// Simulated events for demonstrations: creates items, and transfers them among a few users.
//
// Invariants: it stops at the first error, and when the page closes. The number of concurrent
// requests and of remembered items is bounded.

import type { Api } from "./api";

const BASE_ITEMS = ["bicycle", "lamp", "bookshelf", "kettle"];
const USERS = 4;
/** The maximum of concurrent requests. The page's other connections to the same host need room. */
const CONCURRENT = 3;
/** The number of items that are transferred. */
const ITEMS = 200;
/** The share of transfers. */
const TRANSFERS = 0.6;

const any = <T>(list: readonly T[]): T | undefined => list[Math.floor(Math.random() * list.length)];

export class Traffic {
  /** The number of events so far. */
  made = 0;
  readonly #api: Api;
  readonly #failed: (problem: string) => void;
  #speed: number;
  #baseItems: string[] = [];
  #users: string[] = [];
  #items: string[] = [];
  #open = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #stopped = false;

  /** @param speed the average number of events per second */
  constructor(api: Api, speed: number, failed: (problem: string) => void) {
    this.#api = api;
    this.#speed = speed;
    this.#failed = failed;
    void this.#begin();
  }

  setSpeed(speed: number): void {
    this.#speed = speed;
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  async #begin(): Promise<void> {
    await this.#attempt(async () => {
      const baseItems = await this.#api.baseItems();
      const missing = baseItems.rows.length > 0 ? [] : BASE_ITEMS;
      const made = await Promise.all(missing.map((name) => this.#api.newBaseItem(name)));
      this.#baseItems = [...baseItems.rows, ...made].map((row) => row.id);
      const users = await this.#api.users();
      this.#users = users.rows.slice(-USERS).map((row) => row.id);
      while (this.#users.length < USERS) this.#users.push((await this.#api.newUser()).id);
    });
    this.#next();
  }

  /** The times between independent events are exponentially distributed. */
  #next(): void {
    if (this.#stopped) return;
    const wait = (-Math.log(1 - Math.random()) * 1_000) / this.#speed;
    this.#timer = setTimeout(() => {
      if (this.#open < CONCURRENT) void this.#attempt(() => this.#event());
      this.#next();
    }, wait);
  }

  async #event(): Promise<void> {
    const [item, user, baseItem] = [any(this.#items), any(this.#users), any(this.#baseItems)];
    if (item !== undefined && user !== undefined && Math.random() < TRANSFERS) {
      await this.#api.newTransfer(item, user);
    } else if (baseItem !== undefined) {
      const { id } = await this.#api.newItem(baseItem);
      this.#items = [...this.#items, id].slice(-ITEMS);
    }
    this.made += 1;
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    this.#open += 1;
    try {
      await work();
    } catch (error) {
      if (!this.#stopped) this.#failed(`Stopped: ${error instanceof Error ? error.message : String(error)}`);
      this.stop();
    } finally {
      this.#open -= 1;
    }
  }
}

// A client of ingest-api: lists rows, and stores events.

import { credentials } from "./insecure";
import { problemOf } from "./statistics-stream";
import type { BaseItem, Item, Transfer, User } from "./wire/ingest-api";

/** Rows per request. ingest-api's default settings allow this many. */
const PAGE = 1_000;
/** Maximum requests per list. Other rows can be picked by pasting an id. */
const PAGES = 5;

interface Rows<R> {
  readonly data: R[];
  readonly next: string | null;
}

export interface Listing<R> {
  readonly rows: R[];
  /** Whether ingest-api has more rows than these. */
  readonly more: boolean;
}

export class Api {
  constructor(readonly address: string) {}

  baseItems = (): Promise<Listing<BaseItem>> => this.#list("base-items");
  users = (): Promise<Listing<User>> => this.#list("users");
  items = (): Promise<Listing<Item>> => this.#list("items");

  newBaseItem = (description: string): Promise<BaseItem> => this.#post("base-items", { description });
  newUser = (): Promise<User> => this.#post("users", {});
  newItem = (baseItem: string): Promise<Item> => this.#post("items", { base_item_id: baseItem });
  newTransfer = (item: string, owner: string): Promise<Transfer> =>
    this.#post("transfers", { item_id: item, owner_id: owner });

  async #list<R>(path: string): Promise<Listing<R>> {
    const rows: R[] = [];
    let after = "";
    for (let page = 0; page < PAGES; page += 1) {
      const { data, next } = await this.#request<Rows<R>>(`${path}?limit=${PAGE}${after}`, {});
      rows.push(...data);
      if (next === null) return { rows, more: false };
      after = `&after=${next}`;
    }
    return { rows, more: true };
  }

  #post<R>(path: string, body: object): Promise<R> {
    const headers = { "content-type": "application/json" };
    return this.#request(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  async #request<R>(path: string, init: RequestInit): Promise<R> {
    let response: Response;
    try {
      const signal = AbortSignal.timeout(10_000);
      response = await fetch(`${this.address}/${path}`, { ...init, credentials: credentials(), signal });
    } catch (error) {
      throw new Error(`ingest-api cannot be reached: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!response.ok) throw new Error(await problemOf(response));
    return (await response.json()) as R;
  }
}

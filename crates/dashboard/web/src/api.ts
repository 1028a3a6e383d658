// What ingest-api is asked: rows to choose from, and events to store.

import { refusal } from "./statistics-stream";
import type { BaseItem } from "./wire/BaseItem";
import type { Item } from "./wire/Item";
import type { Transfer } from "./wire/Transfer";
import type { User } from "./wire/User";

/** Rows of one request; the API's default setting allows as many. */
const PAGE = 1_000;
/** Requests at most for one list: whoever wants another row can name it by its id. */
const PAGES = 5;

interface Rows<R> {
  readonly data: R[];
  readonly next: string | null;
}

export interface Listing<R> {
  readonly rows: R[];
  /** Whether there are more rows than were fetched. */
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
      const { data, next } = await this.#ask<Rows<R>>(`${path}?limit=${PAGE}${after}`, {});
      rows.push(...data);
      if (next === null) return { rows, more: false };
      after = `&after=${next}`;
    }
    return { rows, more: true };
  }

  #post<R>(path: string, body: object): Promise<R> {
    const headers = { "content-type": "application/json" };
    return this.#ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  async #ask<R>(path: string, request: RequestInit): Promise<R> {
    let response: Response;
    try {
      response = await fetch(`${this.address}/${path}`, { ...request, signal: AbortSignal.timeout(10_000) });
    } catch (error) {
      throw new Error(`ingest-api cannot be reached: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (!response.ok) throw new Error(await refusal(response));
    return (await response.json()) as R;
  }
}

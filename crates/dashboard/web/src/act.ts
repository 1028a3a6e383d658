// Where the viewer adds events: creates an item, transfers one, or lets the page do so for a while.
//
// Invariant: whatever comes of it is said, in the words of the service that refused it where one did.

import type { Api } from "./api";
import * as format from "./format";
import { make, part, say } from "./page";
import { type Choice, PickList } from "./pick-list";
import { Traffic } from "./traffic";

const SPEEDS = [1, 5, 20];
/** Enough of an id to tell a few from each other: the end of a UUIDv7 is random, its beginning is its time. */
const short = (id: string): string => `…${id.slice(-8)}`;

/** Whether the part of the page is open, kept for the next time. */
const OPEN = "newcycle-act";

export function act(api: Api): void {
  const details = part<HTMLDetailsElement>("#act");
  details.open = localStorage.getItem(OPEN) === "open";
  details.addEventListener("toggle", () => localStorage.setItem(OPEN, details.open ? "open" : "shut"));

  const baseItem = (row: { id: string; description: string }): Choice => ({
    id: row.id,
    label: `${row.description || "without a description"} ${short(row.id)}`,
  });
  const user = (row: { id: string }): Choice => ({ id: row.id, label: `user ${short(row.id)}` });

  const create = part<HTMLFormElement>("#create");
  const baseItems = new PickList(part("[data-pick=base-item]", create), {
    name: "Base item",
    load: async () => {
      const { rows, more } = await api.baseItems();
      return { choices: rows.map(baseItem).reverse(), more };
    },
    make: {
      label: (typed) => (typed === "" ? null : `New base item “${typed}”`),
      run: async (typed) => baseItem(await api.newBaseItem(typed)),
    },
  });
  submit(create, [baseItems], async () => {
    const item = await api.newItem(baseItems.picked?.id ?? "");
    return `Created item ${short(item.id)} at ${format.moment(Date.parse(item.created_at))}`;
  });

  const transfer = part<HTMLFormElement>("#transfer");
  const items = new PickList(part("[data-pick=item]", transfer), {
    name: "Item",
    load: async () => {
      const [items, bases] = await Promise.all([api.items(), api.baseItems()]);
      const names = new Map(bases.rows.map((row) => [row.id, row.description]));
      const choices = items.rows.map((row) => ({
        id: row.id,
        label: `${names.get(row.base_item_id) || "item"} ${short(row.id)}`,
      }));
      return { choices: choices.reverse(), more: items.more };
    },
  });
  const users = new PickList(part("[data-pick=user]", transfer), {
    name: "To user",
    load: async () => {
      const { rows, more } = await api.users();
      return { choices: rows.map(user).reverse(), more };
    },
    make: { label: () => "New user", run: async () => user(await api.newUser()) },
  });
  submit(transfer, [items, users], async () => {
    const { id, item_id, owner_id, timestamp } = await api.newTransfer(items.picked?.id ?? "", users.picked?.id ?? "");
    const when = format.moment(Date.parse(timestamp));
    return `Transferred item ${short(item_id)} to user ${short(owner_id)} at ${when} (transfer ${short(id)})`;
  });

  simulate(api);
}

/** Runs what a form is for, once at a time, when everything is picked. */
function submit(form: HTMLFormElement, lists: PickList[], run: () => Promise<string>): void {
  const result = part<HTMLOutputElement>("[data-part=result]", form);
  const button = part<HTMLButtonElement>("button[type=submit]", form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    // Disabled outright, it would lose the focus.
    button.setAttribute("aria-disabled", "true");
    try {
      await Promise.all(lists.map((list) => list.settled()));
      const missing = lists.find((list) => list.picked === null);
      if (missing === undefined) {
        tell(result, await run(), false);
      } else {
        tell(result, "Pick one from the list first, or paste an id.", true);
        missing.focus();
      }
    } catch (error) {
      tell(result, error instanceof Error ? error.message : String(error), true);
    }
    button.removeAttribute("aria-disabled");
  });
}

function tell(result: HTMLElement, text: string, failed: boolean): void {
  say(result, text);
  result.dataset["failed"] = String(failed);
}

function simulate(api: Api): void {
  const root = part("#traffic");
  const button = part<HTMLButtonElement>("[role=switch]", root);
  const speed = part<HTMLSelectElement>("select", root);
  const result = part("[data-part=result]", root);
  speed.append(...SPEEDS.map((speed) => make("option", { value: String(speed), textContent: String(speed) })));
  speed.value = "5";
  let traffic: Traffic | null = null;
  const stop = () => {
    traffic?.stop();
    traffic = null;
    button.setAttribute("aria-checked", "false");
  };
  button.addEventListener("click", () => {
    if (traffic !== null) {
      tell(result, `Stopped after ${format.count(traffic.made)} events`, false);
      stop();
      return;
    }
    button.setAttribute("aria-checked", "true");
    tell(result, "Running", false);
    traffic = new Traffic(api, Number(speed.value), (problem) => {
      tell(result, problem, true);
      stop();
    });
  });
  speed.addEventListener("change", () => traffic?.setSpeed(Number(speed.value)));
}

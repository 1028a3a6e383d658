// The "Add events" section: create an item, transfer one, or simulate traffic.
//
// Invariant: every action shows its result. A refusal is shown in the words of the service.

import type { Api } from "./api";
import * as format from "./format";
import { element, make, setText } from "./page";
import { type Choice, PickList } from "./pick-list";
import { isolated, visible } from "./plain-text";
import { Traffic } from "./traffic";

const SPEEDS = [1, 5, 20];
/**
 * Short form of an id. Uses the end, because a UUIDv7 begins with its time and ends with random
 * bits.
 */
const short = (id: string): string => `…${id.slice(-8)}`;

/** A label of a row: its description, and the id, which distinguishes rows of one description. */
export const label = (description: string, id: string): string => `${isolated(visible(description))} ${short(id)}`;

/** Key in local storage: whether the section is open. */
const OPEN_KEY = "newcycle-act";

export function addEvents(api: Api): void {
  const details = element<HTMLDetailsElement>("#add-events");
  details.open = localStorage.getItem(OPEN_KEY) === "open";
  details.addEventListener("toggle", () => localStorage.setItem(OPEN_KEY, details.open ? "open" : "shut"));

  const baseItem = (row: { id: string; description: string }): Choice => ({
    id: row.id,
    label: label(row.description || "without a description", row.id),
  });
  const user = (row: { id: string }): Choice => ({ id: row.id, label: `user ${short(row.id)}` });

  const create = element<HTMLFormElement>("#create");
  const baseItems = new PickList(element("[data-pick=base-item]", create), {
    name: "Base item",
    load: async () => {
      const { rows, more } = await api.baseItems();
      return { choices: rows.map(baseItem).reverse(), more };
    },
    make: {
      label: (typed) => (typed === "" ? null : `New base item “${isolated(visible(typed))}”`),
      run: async (typed) => baseItem(await api.newBaseItem(typed)),
    },
  });
  submit(create, [baseItems], async () => {
    const item = await api.newItem(baseItems.picked?.id ?? "");
    return `Created item ${short(item.id)} at ${format.moment(Date.parse(item.created_at))}`;
  });

  const transfer = element<HTMLFormElement>("#transfer");
  const items = new PickList(element("[data-pick=item]", transfer), {
    name: "Item",
    load: async () => {
      const [items, bases] = await Promise.all([api.items(), api.baseItems()]);
      const names = new Map(bases.rows.map((row) => [row.id, row.description]));
      const choices = items.rows.map((row) => ({
        id: row.id,
        label: label(names.get(row.base_item_id) || "item", row.id),
      }));
      return { choices: choices.reverse(), more: items.more };
    },
  });
  const users = new PickList(element("[data-pick=user]", transfer), {
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

  simulateTraffic(api);
}

/** Runs the action of a form once everything is picked, one run at a time. */
function submit(form: HTMLFormElement, lists: PickList[], run: () => Promise<string>): void {
  const result = element<HTMLOutputElement>("[data-part=result]", form);
  const button = element<HTMLButtonElement>("button[type=submit]", form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    // Not `disabled`, which would take the focus away.
    button.setAttribute("aria-disabled", "true");
    try {
      await Promise.all(lists.map((list) => list.settled()));
      const missing = lists.find((list) => list.picked === null);
      if (missing === undefined) {
        showResult(result, await run(), false);
      } else {
        showResult(result, "Pick one from the list, or paste an id.", true);
        missing.focus();
      }
    } catch (error) {
      showResult(result, error instanceof Error ? error.message : String(error), true);
    }
    button.removeAttribute("aria-disabled");
  });
}

function showResult(result: HTMLElement, text: string, failed: boolean): void {
  setText(result, text);
  result.dataset["failed"] = String(failed);
}

function simulateTraffic(api: Api): void {
  const root = element("#traffic");
  const button = element<HTMLButtonElement>("[role=switch]", root);
  const speed = element<HTMLSelectElement>("select", root);
  const result = element("[data-part=result]", root);
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
      showResult(result, `Stopped after ${format.count(traffic.made)} events`, false);
      stop();
      return;
    }
    button.setAttribute("aria-checked", "true");
    showResult(result, "Running", false);
    traffic = new Traffic(api, Number(speed.value), (problem) => {
      showResult(result, problem, true);
      stop();
    });
  });
  speed.addEventListener("change", () => traffic?.setSpeed(Number(speed.value)));
}

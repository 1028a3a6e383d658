// A list to pick a row from by typing part of its label: a combobox after the ARIA Authoring
// Practices. Labels may have isolated parts (plain-text.ts).
//
// Invariant: the choice is a row of the list, a row that the list created, or an id that was typed.
// Any other text picks nothing.

import { make } from "./page";
import { withoutIsolates } from "./plain-text";

export interface Choice {
  readonly id: string;
  readonly label: string;
}

export interface Source {
  /** The label of the list, such as "Base item". */
  readonly name: string;
  readonly load: () => Promise<{ readonly choices: readonly Choice[]; readonly more: boolean }>;
  /**
   * Creates a row from the typed text. `label` describes the new row; null if none can be created.
   */
  readonly make?: { readonly label: (typed: string) => string | null; readonly run: (typed: string) => Promise<Choice> };
}

/** The maximum number of rows shown. */
const SHOWN = 50;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** An option in the list: an existing row, or the text for a new one. */
type Option = { readonly label: string } & ({ readonly choice: Choice } | { readonly typed: string });

let lists = 0;

export class PickList {
  readonly #source: Source;
  readonly #input: HTMLInputElement;
  readonly #list: HTMLUListElement;
  readonly #hint: HTMLElement;
  #choices: readonly Choice[] = [];
  #more = false;
  #options: Option[] = [];
  #active = -1;
  /** Whether the list is to be shown, as soon as it has rows. */
  #wanted = false;
  #picked: Choice | null = null;
  /** Resolves once the row being created is picked. */
  #creating: Promise<void> = Promise.resolve();

  constructor(root: HTMLElement, source: Source) {
    this.#source = source;
    const key = `pick-${lists++}`;
    this.#list = make("ul", { id: `${key}-list`, hidden: true });
    this.#list.setAttribute("role", "listbox");
    this.#list.setAttribute("aria-label", source.name);
    this.#hint = make("span", { id: `${key}-hint`, className: "visually-hidden" });
    this.#input = make("input", { id: key, type: "text", placeholder: "Search, or paste an id", spellcheck: false });
    const attributes = {
      role: "combobox",
      autocomplete: "off",
      "aria-expanded": "false",
      "aria-autocomplete": "list",
      "aria-controls": this.#list.id,
      "aria-describedby": this.#hint.id,
    };
    for (const [name, value] of Object.entries(attributes)) this.#input.setAttribute(name, value);
    root.append(make("label", { htmlFor: key, textContent: source.name }), this.#input, this.#list, this.#hint);
    this.#input.addEventListener("focus", () => void this.#open());
    this.#input.addEventListener("click", () => void this.#open());
    this.#input.addEventListener("input", () => {
      this.#picked = null;
      this.#wanted = true;
      this.#show();
    });
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    this.#input.addEventListener("blur", () => this.#close());
    // Clicking must not take the focus from the input, which would close the list.
    this.#list.addEventListener("mousedown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => {
      const option = (event.target as Element).closest("[role=option]");
      const index = option === null ? -1 : [...this.#list.children].indexOf(option);
      if (index >= 0) void this.#pick(index);
    });
  }

  /** The choice; null if there is none. */
  get picked(): Choice | null {
    const typed = this.#typed;
    return this.#picked ?? (ID.test(typed) ? { id: typed, label: typed } : null);
  }

  set picked(choice: Choice | null) {
    this.#picked = choice;
    this.#input.value = choice?.label ?? "";
  }

  /** Resolves once the last choice is picked. Creating a row takes a moment. */
  settled(): Promise<void> {
    return this.#creating;
  }

  focus(): void {
    this.#input.focus();
  }

  /** The text of the input. It may have been a label before it was edited. */
  get #typed(): string {
    return withoutIsolates(this.#input.value).trim();
  }

  async #open(): Promise<void> {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#show();
    try {
      const { choices, more } = await this.#source.load();
      [this.#choices, this.#more] = [choices, more];
    } catch (error) {
      this.#hint.textContent = error instanceof Error ? error.message : String(error);
    }
    // Keep the option that the viewer has moved to meanwhile.
    if (this.#wanted) this.#show(this.#options[this.#active]);
  }

  /** Shows the rows that match the typed text, or all rows if one is picked. */
  #show(active?: Option): void {
    const typed = this.#picked === null ? this.#typed : "";
    const words = typed.toLowerCase().split(/\s+/);
    const matches = ({ id, label }: Choice) => {
      const text = withoutIsolates(label).toLowerCase();
      return words.every((word) => text.includes(word) || id.includes(word));
    };
    const choices = this.#choices.filter(matches);
    this.#options = choices.slice(0, SHOWN).map((choice) => ({ label: choice.label, choice }));
    const making = this.#source.make?.label(typed) ?? null;
    if (making !== null) this.#options.push({ label: making, typed });
    this.#list.replaceChildren(
      ...this.#options.map(({ label }, index) => {
        const option = make("li", { id: `${this.#list.id}-${index}`, textContent: label });
        option.setAttribute("role", "option");
        return option;
      }),
    );
    const rest = choices.length > SHOWN ? `, ${SHOWN} shown` : "";
    const more = this.#more ? "; not all rows were loaded: paste the id of another" : "";
    this.#hint.textContent = `${choices.length} found${rest}${more}`;
    this.#list.hidden = this.#options.length === 0;
    this.#input.setAttribute("aria-expanded", String(!this.#list.hidden));
    this.#activate(this.#options.findIndex((option) => active !== undefined && key(option) === key(active)));
  }

  #activate(index: number): void {
    this.#active = index;
    for (const [other, option] of [...this.#list.children].entries()) {
      option.setAttribute("aria-selected", String(other === index));
      if (other === index) option.scrollIntoView({ block: "nearest" });
    }
    if (index < 0) this.#input.removeAttribute("aria-activedescendant");
    else this.#input.setAttribute("aria-activedescendant", `${this.#list.id}-${index}`);
  }

  #close(): void {
    this.#wanted = false;
    this.#list.hidden = true;
    this.#input.setAttribute("aria-expanded", "false");
    this.#activate(-1);
  }

  #key(event: KeyboardEvent): void {
    const steps: { readonly [key: string]: number } = { ArrowDown: 1, ArrowUp: -1 };
    const by = steps[event.key];
    const count = this.#options.length;
    if (by !== undefined) {
      event.preventDefault();
      if (this.#list.hidden) void this.#open();
      else if (count > 0) this.#activate((this.#active + by + count + (this.#active < 0 && by < 0 ? 1 : 0)) % count);
    } else if (event.key === "Enter" && !this.#list.hidden && (this.#active >= 0 || (count === 1 && this.#picked === null))) {
      event.preventDefault();
      void this.#pick(Math.max(this.#active, 0));
    } else if (event.key === "Escape" && !this.#list.hidden) {
      event.stopPropagation();
      this.#close();
    }
  }

  async #pick(index: number): Promise<void> {
    const option = this.#options[index];
    this.#close();
    if (option === undefined) return;
    if ("choice" in option) {
      this.picked = option.choice;
      return;
    }
    this.#creating = this.#create(option.typed);
    await this.#creating;
  }

  async #create(typed: string): Promise<void> {
    try {
      this.picked = (await this.#source.make?.run(typed)) ?? null;
    } catch (error) {
      this.#input.setCustomValidity(error instanceof Error ? error.message : String(error));
      this.#input.reportValidity();
      this.#input.setCustomValidity("");
    }
  }
}

/** Identifies an option. At most one option creates a row. */
function key(option: Option): string {
  return "choice" in option ? option.choice.id : "new";
}

// A list to pick a row from by typing a part of it: a combobox as the ARIA Authoring Practices describe it.
//
// Invariant: what is picked is a row of the list, a new one that the list can make, or the id that was typed; a text that
// is none of these picks nothing.

import { make } from "./page";

export interface Choice {
  /** What is picked. */
  readonly id: string;
  readonly label: string;
}

export interface Source {
  /** What is picked from, as in "Base item". */
  readonly name: string;
  readonly load: () => Promise<{ readonly choices: readonly Choice[]; readonly more: boolean }>;
  /** Makes a row out of what was typed, and says what it would make; null where nothing can be made of it. */
  readonly make?: { readonly label: (typed: string) => string | null; readonly run: (typed: string) => Promise<Choice> };
}

/** Rows shown at a time. */
const SHOWN = 50;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What a shown option does when it is picked. */
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
  /** Whether the list should be seen, as soon as there is anything in it. */
  #wanted = false;
  #picked: Choice | null = null;
  /** What is being made; it is picked once it is there. */
  #making: Promise<void> = Promise.resolve();

  constructor(root: HTMLElement, source: Source) {
    this.#source = source;
    const key = `pick-${lists++}`;
    this.#list = make("ul", { id: `${key}-list`, hidden: true });
    this.#list.setAttribute("role", "listbox");
    this.#list.setAttribute("aria-label", source.name);
    this.#hint = make("span", { id: `${key}-hint`, className: "unseen" });
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
    // The list must not take the focus from the input, which would close it.
    this.#list.addEventListener("mousedown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => {
      const option = (event.target as Element).closest("[role=option]");
      const place = option === null ? -1 : [...this.#list.children].indexOf(option);
      if (place >= 0) void this.#pick(place);
    });
  }

  /** What is picked; null where nothing is. */
  get picked(): Choice | null {
    const typed = this.#input.value.trim();
    return this.#picked ?? (ID.test(typed) ? { id: typed, label: typed } : null);
  }

  /** Picks it. */
  set picked(choice: Choice | null) {
    this.#picked = choice;
    this.#input.value = choice?.label ?? "";
  }

  /** Resolves when what was chosen last is picked: a new row takes a moment to be made. */
  settled(): Promise<void> {
    return this.#making;
  }

  focus(): void {
    this.#input.focus();
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
    // Whoever has gone down the list meanwhile stays at the option that they see.
    if (this.#wanted) this.#show(this.#options[this.#active]);
  }

  /** Shows what fits what is typed; all, where that is what was picked. */
  #show(active?: Option): void {
    const typed = this.#picked === null ? this.#input.value.trim() : "";
    const words = typed.toLowerCase().split(/\s+/);
    const fits = ({ id, label }: Choice) => words.every((word) => label.toLowerCase().includes(word) || id.includes(word));
    const choices = this.#choices.filter(fits);
    this.#options = choices.slice(0, SHOWN).map((choice) => ({ label: choice.label, choice }));
    const making = this.#source.make?.label(typed) ?? null;
    if (making !== null) this.#options.push({ label: making, typed });
    this.#list.replaceChildren(
      ...this.#options.map(({ label }, place) => {
        const option = make("li", { id: `${this.#list.id}-${place}`, textContent: label });
        option.setAttribute("role", "option");
        return option;
      }),
    );
    const rest = choices.length > SHOWN ? `, ${SHOWN} of them shown` : "";
    const more = this.#more ? "; there are more than were loaded: paste the id of another" : "";
    this.#hint.textContent = `${choices.length} found${rest}${more}`;
    this.#list.hidden = this.#options.length === 0;
    this.#input.setAttribute("aria-expanded", String(!this.#list.hidden));
    this.#activate(this.#options.findIndex((option) => active !== undefined && key(option) === key(active)));
  }

  #activate(place: number): void {
    this.#active = place;
    for (const [other, option] of [...this.#list.children].entries()) {
      option.setAttribute("aria-selected", String(other === place));
      if (other === place) option.scrollIntoView({ block: "nearest" });
    }
    if (place < 0) this.#input.removeAttribute("aria-activedescendant");
    else this.#input.setAttribute("aria-activedescendant", `${this.#list.id}-${place}`);
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

  async #pick(place: number): Promise<void> {
    const option = this.#options[place];
    this.#close();
    if (option === undefined) return;
    if ("choice" in option) {
      this.picked = option.choice;
      return;
    }
    this.#making = this.#make(option.typed);
    await this.#making;
  }

  async #make(typed: string): Promise<void> {
    try {
      this.picked = (await this.#source.make?.run(typed)) ?? null;
    } catch (error) {
      this.#input.setCustomValidity(error instanceof Error ? error.message : String(error));
      this.#input.reportValidity();
      this.#input.setCustomValidity("");
    }
  }
}

/** Tells one option from the others: there is one at most that makes a row. */
function key(option: Option): string {
  return "choice" in option ? option.choice.id : "new";
}

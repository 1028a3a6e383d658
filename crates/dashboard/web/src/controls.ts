// The controls of the view: unit, time span, earlier and later, zoom, and back to now.
//
// Invariant: the controls have no state of their own. They show the view, and request another one.

import * as format from "./format";
import { element, make, setText } from "./page";
import { FACTS, UNITS, type Unit } from "./units";
import { type Period, type View, moved, scaled, withUnit } from "./view";

export interface Viewer {
  readonly view: View;
  /** The units that the viewer may select. */
  readonly units: readonly Unit[];
  /** The period that is shown now. */
  readonly period: Period;
  /** Whether the period reaches into the future, so that there is nothing later to show. */
  readonly newest: boolean;
  go(view: View): void;
}

export class Controls {
  readonly #viewer: Viewer;
  readonly #units: HTMLElement;
  readonly #spans: HTMLElement;
  #spansOf: Unit | null = null;
  #shown = "";

  constructor(viewer: Viewer) {
    this.#viewer = viewer;
    this.#units = element("#units");
    this.#spans = element("#spans");
    for (const unit of viewer.units) {
      const label = radio("unit", unit, unit, FACTS[unit].short);
      this.#units.append(label);
    }
    this.#units.addEventListener("change", (event) => {
      const unit = UNITS.find((unit) => unit === (event.target as HTMLInputElement).value);
      if (unit !== undefined) viewer.go(withUnit(viewer.view, unit));
    });
    this.#spans.addEventListener("change", (event) => {
      viewer.go({ ...viewer.view, last: Number((event.target as HTMLInputElement).value), period: null });
    });
    const presses: { readonly [id: string]: () => void } = {
      earlier: () => this.move(-1),
      later: () => this.move(1),
      closer: () => this.scale(0.5),
      wider: () => this.scale(2),
      newest: () => this.follow(),
    };
    for (const [id, press] of Object.entries(presses)) element(`#${id}`).addEventListener("click", press);
  }

  move(by: -1 | 1): void {
    const { view, period, newest } = this.#viewer;
    if (by === 1 && newest) return;
    this.#viewer.go({ ...view, period: moved(view.unit, period, by) });
  }

  scale(factor: number): void {
    const { view, period } = this.#viewer;
    this.#viewer.go({ ...view, period: scaled(view.unit, period, factor) });
  }

  follow(): void {
    this.#viewer.go({ ...this.#viewer.view, period: null });
  }

  /** Updates the controls if the view changed. */
  show(): void {
    const { view, period, newest } = this.#viewer;
    const shown = JSON.stringify([view, period, newest]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (this.#spansOf !== view.unit) {
      this.#spansOf = view.unit;
      const spans = FACTS[view.unit].spans.map(({ buckets, label }) => radio("span", String(buckets), label, label));
      this.#spans.replaceChildren(element("legend", this.#spans), ...spans);
    }
    check(this.#units, view.unit);
    check(this.#spans, view.period === null ? String(view.last) : null);
    setText(element("#period"), format.period(view.unit, period.from, period.to));
    element<HTMLButtonElement>("#later").disabled = newest;
    element<HTMLButtonElement>("#newest").disabled = view.period === null;
  }
}

function radio(name: string, value: string, long: string, short: string): HTMLLabelElement {
  const input = make("input", { type: "radio", name, value });
  if (long === short) return make("label", {}, input, make("span", { textContent: long }));
  input.setAttribute("aria-label", long);
  const texts = [make("span", { className: "long", textContent: long }), make("span", { className: "short", textContent: short })];
  return make("label", { title: long }, input, ...texts);
}

function check(group: HTMLElement, value: string | null): void {
  for (const input of group.querySelectorAll("input")) input.checked = input.value === value;
}

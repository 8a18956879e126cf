// Draws the sliders of one setting and keeps their values.

import { counts, dialsOf } from "./dials.js";
import { make } from "./dom.js";

/** @typedef {import("./dials.js").Dial} Dial */

export class DialView {
  /** @type {[Dial, HTMLElement][]} */
  #rows = [];

  /**
   * @param {string} name  A or B
   * @param {import("./dials.js").Model} model
   * @param {import("./dials.js").Values} values
   * @param {() => void} changed
   */
  constructor(name, model, values, changed) {
    this.name = name;
    this.values = { ...values };
    this.changed = changed;
    this.#rows = dialsOf(model).map((dial) => [dial, this.#row(dial)]);
    const legend = make("legend", {}, `Setting ${name}`);
    this.root = make("fieldset", { "data-side": name }, legend, ...this.#rows.map(([, row]) => row));
    this.#sift();
  }

  /**
   * @param {Dial} dial
   * @returns {HTMLElement}
   */
  #row(dial) {
    const id = `${dial.name}-${this.name}`;
    const label = make("label", { for: id }, dial.label);
    const hint = make("span", { class: "hint quiet", id: `${id}-hint` }, dial.hint);
    if (dial.choices !== undefined) {
      const options = dial.choices.map(([value, text]) =>
        make("option", { value, selected: value === this.values[dial.name] }, text));
      const select = make("select", { id, "aria-describedby": `${id}-hint` }, ...options);
      select.addEventListener("change", () => this.#set(dial.name, /** @type {HTMLSelectElement} */ (select).value));
      return make("div", { class: "dial" }, label, select, hint);
    }
    return make("div", { class: "dial" }, label, ...this.#slider(dial, id), hint);
  }

  /**
   * @param {Dial} dial
   * @param {string} id
   * @returns {HTMLElement[]} its value as text, and the slider
   */
  #slider(dial, id) {
    const { min, max, step } = dial;
    const written = (/** @type {number} */ value) => value.toFixed(dial.digits);
    const output = make("output", { for: id }, written(Number(this.values[dial.name])));
    const value = this.values[dial.name];
    const range = /** @type {HTMLInputElement} */ (
      make("input", { type: "range", id, min, max, step, value, "aria-describedby": `${id}-hint` }));
    range.addEventListener("input", () => {
      output.textContent = written(range.valueAsNumber);
      this.#set(dial.name, range.valueAsNumber);
    });
    return [output, range];
  }

  /**
   * @param {string} name
   * @param {number | string} value
   */
  #set(name, value) {
    this.values[name] = value;
    this.#sift();
    this.changed();
  }

  /** Shows only what counts under the chosen rule. */
  #sift() {
    for (const [dial, row] of this.#rows) row.hidden = !counts(dial, this.values);
  }
}

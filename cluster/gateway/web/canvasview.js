// Draws a frame: committed blocks as text, the canvas as cells, and one cell in words.

import { bandOf, glyphOf, wordOf } from "./colours.js";
import { make } from "./dom.js";
import { percent } from "./statistics.js";

/** @typedef {import("./replay.js").Cell} Cell */
/** @typedef {import("./replay.js").Frame} Frame */

export class CanvasView {
  /** @type {HTMLElement[]} */
  #cells = [];
  /** @type {readonly Cell[]} */
  #shown = [];
  #block = 0;

  constructor() {
    this.prefix = make("p", { class: "prefix" });
    this.list = make("ol", { class: "cells", onkeydown: (/** @type {KeyboardEvent} */ event) => this.#walk(event) });
    this.inspector = make("p", { class: "inspector quiet" });
    this.root = make("div", { class: "canvas" }, this.prefix, this.list, this.inspector);
    this.list.addEventListener("pointerover", (event) => this.#inspect(event.target));
    this.list.addEventListener("focusin", (event) => this.#inspect(event.target));
  }

  /**
   * @param {Frame | null} frame  null: nothing yet
   * @param {string} [instead]    what to say then
   */
  draw(frame, instead = "") {
    this.#shown = frame?.cells ?? [];
    this.#block = frame?.block ?? 0;
    this.prefix.replaceChildren(...(frame?.blocks ?? []).map(blockOf));
    this.prefix.hidden = this.prefix.childElementCount === 0;
    this.list.setAttribute("aria-label", `Canvas of block ${this.#block + 1}, ${this.#shown.length} positions`);
    this.list.hidden = this.#shown.length === 0;
    while (this.#cells.length > this.#shown.length) this.#cells.pop()?.remove();
    while (this.#cells.length < this.#shown.length) {
      const cell = make("li", { class: "cell", tabindex: this.#cells.length === 0 ? "0" : "-1" });
      this.#cells.push(cell);
      this.list.append(cell);
    }
    this.#shown.forEach((cell, at) => paint(this.#cells[at], cell, at));
    const focused = this.#cells.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    this.inspector.textContent = frame === null ? instead : focused >= 0 ? inWords(this.#shown[focused], focused) : "";
  }

  /** @param {EventTarget | null} target */
  #inspect(target) {
    const at = this.#cells.indexOf(/** @type {HTMLElement} */ (target));
    if (at >= 0) this.inspector.textContent = inWords(this.#shown[at], at);
  }

  /** @param {KeyboardEvent} event  arrows, Home and End go from cell to cell */
  #walk(event) {
    const at = this.#cells.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const last = this.#cells.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    this.#cells[at].tabIndex = -1;
    const next = this.#cells[Math.max(0, Math.min(to, last))];
    next.tabIndex = 0;
    next.focus();
  }
}

/**
 * @param {import("./replay.js").Block} block
 * @param {number} at
 * @returns {HTMLElement}
 */
function blockOf(block, at) {
  const steps = block.steps === 0 ? "" : `, ${block.steps} ${block.steps === 1 ? "step" : "steps"}`;
  return make("span", { class: "block", title: `block ${at + 1}${steps}` }, block.text);
}

/**
 * @param {HTMLElement} element
 * @param {Cell} cell
 * @param {number} at
 */
function paint(element, cell, at) {
  const glyph = glyphOf(cell.token);
  if (element.textContent !== glyph) element.textContent = glyph;
  element.dataset.kind = cell.prompt ? "prompt" : cell.decided ? "decided" : "open";
  element.dataset.band = String(bandOf(cell.confidence));
  element.dataset.change = cell.change;
  element.style.setProperty("--confidence", String(cell.confidence ?? 0));
  const words = inWords(cell, at);
  element.title = words;
  element.setAttribute("aria-label", words);
}

const CHANGES = { locked: ", just now", renoised: ", sent back to noise", edited: ", edited just now", wavering: ", still changing", kept: "" };

/**
 * @param {Cell} cell
 * @param {number} at
 * @returns {string}
 */
function inWords(cell, at) {
  const place = `position ${at + 1}: ${glyphOf(cell.token) === "∎" ? "end of the answer" : `“${cell.token}”`}`;
  if (cell.prompt) return `${place}, of the prompt`;
  const sure = `${percent(cell.confidence, 1)}, ${wordOf(bandOf(cell.confidence))}`;
  const state = cell.decided ? `decided in step ${cell.step}` : "undecided";
  return `${place}, ${state}${CHANGES[cell.change]}, ${sure}`;
}

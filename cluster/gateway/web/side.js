// One of the two settings: its answer, drawn at a position of its replay, and its figures.

import { CanvasView } from "./canvasview.js";
import { facts, make, tell } from "./dom.js";
import { drawGrid } from "./gridview.js";
import { gridOf, isRight } from "./puzzles.js";
import { Replay, charactersOf } from "./replay.js";
import { duration, figure } from "./statistics.js";

/** @typedef {"idle" | "waiting" | "running" | "ended" | "failed"} State */

/** What stands for a canvas while there is none. */
const NOTHING = {
  idle: "Run it, and watch the canvas settle.",
  waiting: "Waiting for the other setting.",
  running: "Waiting for the first step.",
  ended: "",
  failed: "",
};

export class Side {
  /** @type {State} */
  state = "idle";
  replay = new Replay();
  /** @type {import("./puzzles.js").Grid | null} */
  #grid = null;
  #prompt = "";
  #began = 0;
  /** @type {number | null} */
  #firstBlock = null;
  /** @type {Record<string, any> | null} */
  #totals = null;

  /** @param {string} name  A or B */
  constructor(name) {
    this.name = name;
    this.caption = make("p", { class: "quiet caption" });
    this.gridPlace = make("div", { class: "grid-place" });
    this.view = new CanvasView();
    this.verdict = make("p", { class: "verdict" });
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    this.figures = make("div", { class: "figures" });
    const drawn = make("div", { class: "drawn" }, this.gridPlace, this.view.root);
    const heading = make("h2", {}, make("span", { class: "side-name" }, `Setting ${name}`));
    const parts = [heading, this.caption, drawn, this.problem, this.verdict, this.figures];
    this.root = make("article", { class: "side", "data-side": name, "aria-label": `Setting ${name}` }, ...parts);
    this.reset("");
  }

  /** @param {string} prompt  what will be asked; a puzzle's grid is shown before it is */
  reset(prompt) {
    this.state = "idle";
    this.replay = new Replay();
    this.#prompt = prompt;
    this.#grid = gridOf(prompt);
    this.#firstBlock = null;
    this.#totals = null;
    tell(this.problem, "");
    this.figures.replaceChildren();
    this.verdict.textContent = "";
    this.draw(0);
  }

  /**
   * @param {State} state
   * @param {number} [now]  milliseconds
   */
  become(state, now = performance.now()) {
    if (state === "running") this.#began = now;
    this.state = state;
    this.root.dataset.state = state;
    if (this.replay.length === 0) this.draw(0);
    if (state === "ended") this.#showFigures((now - this.#began) / 1000);
  }

  /** @param {string} problem */
  fail(problem) {
    this.become("failed");
    tell(this.problem, problem);
  }

  /**
   * @param {any} chunk  of the stream
   * @param {number} [now]  milliseconds
   */
  take(chunk, now = performance.now()) {
    for (const choice of chunk.choices ?? []) {
      this.#firstBlock ??= (now - this.#began) / 1000;
      this.replay.commit(choice.delta.content ?? "");
    }
    if (chunk.diffusion?.canvas) this.replay.canvas(chunk.diffusion.canvas);
    if (chunk.usage) this.#totals = { ...chunk.diffusion, tokens: chunk.usage.completion_tokens };
  }

  /** @param {number} position */
  draw(position) {
    const frame = this.replay.at(position);
    this.view.draw(frame, NOTHING[this.state]);
    const grid = this.#grid;
    this.gridPlace.replaceChildren(...(grid === null ? [] : [drawGrid(grid, frame === null ? [] : charactersOf(frame))]));
    this.root.dataset.frame = String(Math.min(position, Math.max(0, this.replay.length - 1)));
    const last = this.state === "ended" && position >= this.replay.length - 1;
    this.#judge(last);
  }

  /** @param {boolean} last  whether the answer is shown whole */
  #judge(last) {
    const right = last ? isRight(this.#prompt, this.replay.text) : null;
    this.verdict.dataset.right = String(right);
    this.verdict.textContent = right === null ? "" : right ? "✓ Right" : "✗ Wrong";
  }

  /** @param {number} seconds */
  #showFigures(seconds) {
    const totals = this.#totals;
    if (totals === null) return;
    this.figures.replaceChildren(facts([
      ["Time", duration(seconds)],
      ["First block", duration(this.#firstBlock ?? NaN)],
      ["Blocks", figure(totals.blocks)],
      ["Steps", figure(totals.steps)],
      ["Tokens", figure(totals.tokens)],
      ["Tokens per forward", figure(totals.tokens_per_forward, 1)],
      ["A step", duration(totals.ms_per_step / 1000)],
      ["Cached tokens", figure(totals.cached_tokens)],
    ]));
  }
}

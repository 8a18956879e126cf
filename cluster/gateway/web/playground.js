// The playground: asks with one or two settings, and replays the answers step by step.

import { Accuracy } from "./accuracy.js";
import { stream } from "./api.js";
import { EDGES, wordOf } from "./colours.js";
import { contrastOf, defaultsOf, describe, fieldsOf, renoises } from "./dials.js";
import { DialView } from "./dialview.js";
import { byId, make, tell } from "./dom.js";
import { Player } from "./player.js";
import { EXAMPLES } from "./puzzles.js";
import { Side } from "./side.js";

const MOST_DRAWN_SEED = 2 ** 31; // a number that JavaScript writes exactly, and a reader can copy

export class Playground {
  /** @type {AbortController | null} */
  #running = null;

  /**
   * @param {import("./dials.js").Model} model
   * @param {() => Promise<boolean>} keyed  whether a key is there, or none is needed
   */
  constructor(model, keyed) {
    this.model = model;
    this.keyed = keyed;
    this.sides = [new Side("A"), new Side("B")];
    const changed = () => this.#captions();
    this.dials = [
      new DialView("A", model, defaultsOf(model), changed),
      new DialView("B", model, contrastOf(model), changed),
    ];
    this.player = new Player(
      {
        length: () => Math.max(...this.#shown().map((side) => side.replay.length)),
        ended: () => this.#running === null,
        draw: (position) => this.#draw(position),
        changed: (playing) => this.#playing(playing),
      },
      () => Number(byId("pace").value),
    );
    this.accuracy = new Accuracy(model, keyed, () => this.#shown().map((side) => ({ name: side.name, values: this.#valuesOf(side) })));
    byId("dials").append(...this.dials.map((dial) => dial.root));
    byId("sides").append(...this.sides.map((side) => side.root));
    byId("bands").append(...EDGES.map((_, at) => make("li", { "data-band": at }, wordOf(at))));
    byId("renoised").hidden = !renoises(model);
    this.#listen();
    this.#layout();
    this.#type(byId("prompt").value || EXAMPLES[0].prompt); // somebody may have typed already
  }

  #listen() {
    const buttons = EXAMPLES.map(({ name, prompt }) =>
      make("button", { type: "button", class: "chip", onclick: () => this.#type(prompt) }, name));
    byId("examples").append(...buttons);
    byId("prompt").addEventListener("input", () => this.#clear());
    byId("prompt").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        byId("ask").requestSubmit();
      }
    });
    byId("ask").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      void this.run();
    });
    byId("stop").addEventListener("click", () => this.#running?.abort());
    byId("compare").addEventListener("change", () => this.#layout());
    byId("play").addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
    byId("scrubber").addEventListener("input", () => this.player.seek(byId("scrubber").valueAsNumber));
  }

  /** @param {string} prompt */
  #type(prompt) {
    byId("prompt").value = prompt;
    this.#clear();
  }

  #clear() {
    this.#running?.abort();
    this.player.pause();
    for (const side of this.sides) side.reset(byId("prompt").value);
    this.player.position = 0;
    this.#draw(0);
  }

  #shown() {
    return byId("compare").checked ? this.sides : this.sides.slice(0, 1);
  }

  /** @param {Side} side */
  #valuesOf(side) {
    return this.dials[this.sides.indexOf(side)].values;
  }

  #layout() {
    const two = byId("compare").checked;
    this.#running?.abort();
    for (const part of [this.sides[1].root, this.dials[1].root]) part.hidden = !two;
    byId("sides").dataset.two = String(two);
    this.player.pause();
    this.#captions();
    this.#draw(this.player.position);
  }

  #captions() {
    this.sides.forEach((side) => {
      if (side.state === "idle") side.caption.textContent = describe(this.model, this.#valuesOf(side));
    });
  }

  /** Asks all settings shown, one after another, so that neither slows the other down. */
  async run() {
    const prompt = byId("prompt").value;
    if (prompt.trim() === "" || !fits("seed") || !fits("max-tokens") || !(await this.keyed())) return;
    this.#clear();
    const seed = Number(byId("seed").value || Math.floor(Math.random() * MOST_DRAWN_SEED));
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    const sides = this.#shown();
    for (const side of sides) side.become("waiting");
    for (const side of sides) await this.#ask(side, prompt, seed, running.signal);
    if (this.#running !== running) return;
    this.#running = null;
    this.#busy(false);
    this.#draw(this.player.position);
    byId("announce").textContent = sides.map((side) => `Setting ${side.name}: ${side.replay.text || side.problem.textContent}`).join(". ");
  }

  /**
   * @param {Side} side
   * @param {string} prompt
   * @param {number} seed
   * @param {AbortSignal} signal
   */
  async #ask(side, prompt, seed, signal) {
    if (signal.aborted) return;
    const values = this.#valuesOf(side);
    side.caption.textContent = `${describe(this.model, values)}, seed ${seed}`;
    side.become("running");
    try {
      for await (const chunk of stream(this.#body(prompt, seed, values), signal)) {
        side.take(chunk);
        if (side.replay.length === 1) this.player.restart();
        this.#scrubber();
      }
      side.become("ended");
    } catch (error) {
      if (signal.aborted && this.#running?.signal === signal) side.become("idle");
      if (!signal.aborted) side.fail(/** @type {Error} */ (error).message);
    }
  }

  /**
   * @param {string} prompt
   * @param {number} seed
   * @param {import("./dials.js").Values} values
   */
  #body(prompt, seed, values) {
    const most = byId("max-tokens").value;
    const limit = most === "" ? {} : { max_tokens: Number(most) };
    return { model: this.model.model, messages: [{ role: "user", content: prompt }], seed, ...limit, ...fieldsOf(this.model, values) };
  }

  /** @param {number} position */
  #draw(position) {
    for (const side of this.#shown()) side.draw(position);
    this.#scrubber();
  }

  #scrubber() {
    const length = this.player.film.length();
    const scrubber = byId("scrubber");
    const { position } = this.player;
    scrubber.max = String(Math.max(0, length - 1));
    scrubber.value = String(position);
    scrubber.disabled = byId("play").disabled = length === 0;
    const frame = this.#shown().map((side) => side.replay.at(position)).find((one) => one !== null);
    const words = frame === undefined || frame === null ? "–" : frame.step === 0 ? `block ${frame.block + 1} committed` : `block ${frame.block + 1}, step ${frame.step}`;
    byId("position").textContent = length === 0 ? "–" : `${Math.min(position + 1, length)} / ${length}`;
    scrubber.setAttribute("aria-valuetext", `${position + 1} of ${length}: ${words}`);
    scrubber.title = words;
  }

  /** @param {boolean} playing */
  #playing(playing) {
    byId("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    byId("play").firstElementChild.textContent = playing ? "❚❚" : "▶";
  }

  /** @param {boolean} busy */
  #busy(busy) {
    byId("stop").hidden = !busy;
    byId("run").disabled = busy;
    if (busy) tell(byId("problem"), "");
  }
}

/** @type {(id: string) => boolean} */
const fits = (id) => byId(id).reportValidity();

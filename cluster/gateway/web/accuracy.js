// Asks questions whose answers are known, with each setting, and shows how many came right and how fast.

import { call } from "./api.js";
import { describe, fieldsOf } from "./dials.js";
import { byId, make } from "./dom.js";
import { duration, figure, figuresOf, percent } from "./statistics.js";

const AT_ONCE = 4;
const WRONG_SHOWN = 5;

/** @typedef {{prompt: string, answer: string}} Question */
/** @typedef {{name: string, values: import("./dials.js").Values}} Setting */
/** @typedef {import("./statistics.js").Answered & {question: Question, said: string}} Asked */

export class Accuracy {
  /** @type {AbortController | null} */
  #running = null;

  /**
   * @param {import("./dials.js").Model} model
   * @param {() => Promise<boolean>} keyed  whether a key is there, or none is needed
   * @param {() => Setting[]} settings
   */
  constructor(model, keyed, settings) {
    this.model = model;
    this.keyed = keyed;
    this.settings = settings;
    byId("questions").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      void this.run();
    });
    byId("measure-stop").addEventListener("click", () => this.#running?.abort());
    this.#busy(false);
  }

  /** One setting after another, so that neither slows the other down. */
  async run() {
    if (!(await this.keyed())) return;
    const running = new AbortController();
    this.#running = running;
    this.#busy(true);
    const rows = this.settings().map((setting) => ({ setting: { ...setting, values: { ...setting.values } }, asked: /** @type {Asked[]} */ ([]) }));
    try {
      const response = await call("ui/questions.json", undefined, running.signal);
      const questions = /** @type {Question[]} */ (await response.json()).slice(0, Number(byId("count").value));
      byId("measured").max = questions.length * rows.length;
      for (const row of rows) {
        await this.#askAll(questions, row.setting, running.signal, (asked) => {
          row.asked.push(asked);
          byId("measured").value += 1;
          this.#show(rows);
        });
      }
    } catch (error) {
      running.abort();
      this.#show(rows, /** @type {Error} */ (error).name === "AbortError" ? "" : /** @type {Error} */ (error).message);
    }
    this.#busy(false);
  }

  /**
   * @param {Question[]} questions
   * @param {Setting} setting
   * @param {AbortSignal} signal
   * @param {(asked: Asked) => void} took
   */
  async #askAll(questions, setting, signal, took) {
    const queue = [...questions];
    const worker = async () => {
      for (let question = queue.shift(); question !== undefined; question = queue.shift()) {
        took(await this.#ask(question, setting, signal));
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  /**
   * @param {Question} question
   * @param {Setting} setting
   * @param {AbortSignal} signal
   * @returns {Promise<Asked>}
   */
  async #ask(question, setting, signal) {
    const messages = [{ role: "user", content: question.prompt }];
    const body = { model: this.model.model, messages, seed: 0, ...fieldsOf(this.model, setting.values) };
    const began = performance.now();
    const answer = await (await call("v1/chat/completions", body, signal)).json();
    const seconds = (performance.now() - began) / 1000;
    const said = answer.choices[0].message.content;
    const { steps, blocks } = answer.diffusion;
    return { question, said, right: said === question.answer, seconds, steps, blocks, tokens: answer.usage.completion_tokens };
  }

  /**
   * @param {{setting: Setting, asked: Asked[]}[]} rows
   * @param {string} [problem]
   */
  #show(rows, problem = "") {
    const names = ["Setting", "Right", "Accuracy", "95 % interval", "Median time", "Steps per block", "Tokens per forward"];
    const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
    const body = rows.filter((row) => row.asked.length > 0).map((row) => this.#row(row));
    const table = make("table", { class: "list" }, make("thead", {}, head), make("tbody", {}, ...body));
    byId("figures").replaceChildren(
      ...(body.length > 0 ? [make("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Accuracy of each setting" }, table)] : []),
      ...rows.flatMap(wrongOnes),
      ...(problem === "" ? [] : [make("p", { class: "problem", role: "alert" }, problem)]),
    );
  }

  /** @param {{setting: Setting, asked: Asked[]}} row */
  #row({ setting, asked }) {
    const so = figuresOf(asked);
    const values = [
      `${so.right} of ${so.count}`,
      percent(so.right / so.count, 1),
      `${percent(so.interval[0])} – ${percent(so.interval[1])}`,
      duration(so.medianSeconds),
      figure(so.stepsPerBlock, 2),
      figure(so.tokensPerForward, 1),
    ];
    const name = make("th", { scope: "row", title: describe(this.model, setting.values) }, setting.name);
    return make("tr", { "data-side": setting.name }, name, ...values.map((value) => make("td", {}, value)));
  }

  /** @param {boolean} busy */
  #busy(busy) {
    byId("measure").disabled = busy;
    byId("measure-stop").hidden = !busy;
    byId("measured").hidden = !busy;
    byId("measured").value = 0;
    if (busy) byId("figures").replaceChildren();
  }
}

/**
 * @param {{setting: Setting, asked: Asked[]}} row
 * @returns {HTMLElement[]}
 */
function wrongOnes({ setting, asked }) {
  const wrong = asked.filter((one) => !one.right);
  if (wrong.length === 0) return [];
  const items = wrong.slice(0, WRONG_SHOWN).map(({ question, said }) =>
    make("li", {}, make("code", {}, question.prompt), " was answered ", make("code", {}, said || "(nothing)"), "; right is ", make("code", {}, question.answer)));
  const title = `Setting ${setting.name}: ${wrong.length} wrong${wrong.length > WRONG_SHOWN ? `, the first ${WRONG_SHOWN}` : ""}`;
  return [make("details", { class: "wrong" }, make("summary", {}, title), make("ul", {}, ...items))];
}

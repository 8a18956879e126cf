// The latest requests, and the timeline of the one that was chosen.

import { call } from "./api.js";
import { byId, make } from "./dom.js";
import { duration, figure } from "./statistics.js";
import { timelineOf } from "./timeline.js";

const COLUMNS = ["Request", "State", "Began", "Took", "Blocks", "Tokens", "Steps", "Replica"];

export class RequestsView {
  /** @type {string | null} */
  #chosen = null;
  #settled = false;
  #drawn = "";
  /** @type {[any[], number]} */
  #last = [[], 0];

  /**
   * @param {any[]} requests  of GET /cluster, newest first
   * @param {number} now      seconds since the Unix epoch, the gateway's
   */
  draw(requests, now) {
    this.#last = [requests, now];
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset?.request;
    const rows = requests.map((request) => this.#row(request, now));
    const head = make("tr", {}, ...COLUMNS.map((name) => make("th", { scope: "col" }, name)));
    const table = make("table", { class: "list" }, make("thead", {}, head), make("tbody", {}, ...rows));
    byId("requests").replaceChildren(rows.length === 0 ? make("p", { class: "quiet" }, "None yet.") : table);
    if (focused !== undefined) /** @type {HTMLElement | null} */ (table.querySelector(`[data-request="${CSS.escape(focused)}"]`))?.focus();
  }

  /**
   * @param {any} request
   * @param {number} now
   * @returns {HTMLElement}
   */
  #row(request, now) {
    const choose = () => {
      this.#chosen = request.id;
      this.#settled = false;
      this.draw(...this.#last);
      void this.refresh();
    };
    const chosen = String(this.#chosen === request.id);
    const id = make("button", { type: "button", class: "plain id", "data-request": request.id, "aria-pressed": chosen, title: request.id, onclick: choose }, short(request.id));
    const ago = duration(Math.max(0, now - request.began));
    const values = [`${ago} ago`, duration(request.seconds), figure(request.blocks), figure(request.tokens), figure(request.steps), request.replica ?? "–"];
    const state = make("td", {}, make("span", { class: "pill", "data-state": request.state }, request.state));
    return make("tr", { "aria-selected": chosen }, make("td", {}, id), state, ...values.map((value) => make("td", {}, value)));
  }

  /**
   * Asks for the chosen request's events, until it has ended.
   * @param {AbortSignal} [signal]
   */
  async refresh(signal) {
    const chosen = this.#chosen;
    if (chosen === null || this.#settled) return;
    try {
      const trace = await (await call(`cluster/requests/${encodeURIComponent(chosen)}`, undefined, signal)).json();
      if (this.#chosen !== chosen) return;
      this.#settled = trace.state !== "running";
      const written = JSON.stringify(trace);
      if (written !== this.#drawn) byId("trace").replaceChildren(...drawTrace(trace));
      this.#drawn = written;
    } catch (error) {
      if (signal?.aborted) return;
      this.#settled = true;
      this.#drawn = "";
      byId("trace").replaceChildren(make("p", { class: "problem", role: "alert" }, /** @type {Error} */ (error).message));
    }
  }
}

/**
 * @param {{id: string, state: string, trace_id: string | null, events: any[]}} trace
 * @returns {HTMLElement[]}
 */
function drawTrace(trace) {
  const { spans, seconds } = timelineOf(trace.events);
  const rows = spans.map((span) => {
    const bar = make("span", { class: "bar", "data-kind": span.kind });
    bar.style.setProperty("--start", String(span.start / seconds));
    bar.style.setProperty("--length", String((span.end - span.start) / seconds));
    const when = make("span", { class: "quiet when" }, duration(span.start));
    const text = make("span", { class: "what" }, make("strong", {}, span.label), " ", make("span", { class: "quiet" }, span.detail));
    return make("li", { "data-kind": span.kind }, when, text, make("span", { class: "track", "aria-hidden": "true" }, bar));
  });
  const found = trace.trace_id === null ? "not sampled" : trace.trace_id;
  return [
    make("p", { class: "quiet ids" }, make("span", { class: "id" }, trace.id), ` · ${trace.state} · ${duration(seconds)} · trace `, make("span", { class: "id" }, found)),
    make("ol", { class: "timeline", "aria-label": "Events of the request" }, ...rows),
  ];
}

/** @type {(id: string) => string} */
const short = (id) => (id.length > 18 ? `${id.slice(0, 12)}…${id.slice(-4)}` : id);

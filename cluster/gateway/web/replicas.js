// One replica: its live strip, how full it is, and what the scheduler last told it.

import { facts, make, svg } from "./dom.js";
import { duration, figure, percent } from "./statistics.js";
import { shapesOf, wordsOf } from "./strip.js";

const STEPS = 120;
const WIDTH = 600;
const HEIGHTS = { tokens: 60, times: 28 };

export class ReplicaView {
  /** @param {string} id */
  constructor(id) {
    this.state = make("span", { class: "pill" });
    this.paths = ["reuse", "refresh", "predicted", "actual"].map((name) => svg("path", { class: `strip-${name}` }));
    this.strip = make("div", { class: "strips", role: "img" }, box("tokens", this.paths.slice(0, 2)), box("times", this.paths.slice(2)));
    this.scale = make("p", { class: "quiet scale" });
    this.gauges = make("div", { class: "gauges" });
    this.facts = make("div");
    const title = make("h3", {}, make("span", { class: "id" }, id), this.state);
    this.root = make("article", { class: "replica", "aria-label": `Replica ${id}` }, title, this.strip, this.scale, this.gauges, this.facts);
  }

  /** @param {any} replica  of GET /cluster */
  draw(replica) {
    this.state.textContent = replica.state;
    this.state.dataset.state = replica.state;
    const shapes = shapesOf(replica.strip, STEPS, WIDTH, HEIGHTS);
    const lines = [shapes.reuse, shapes.refresh, shapes.predicted, shapes.actual];
    this.paths.forEach((path, at) => path.setAttribute("d", lines[at]));
    this.strip.setAttribute("aria-label", wordsOf(replica.strip));
    this.scale.textContent = replica.strip.length === 0 ? "No step yet."
      : `Full height: ${figure(shapes.maxTokens)} tokens, ${duration(shapes.maxMs / 1000)}. ${wordsOf(replica.strip)}.`;
    this.gauges.replaceChildren(
      gauge("Slots", replica.slots_used, replica.slots),
      gauge("Pages", replica.pages - replica.pages_available, replica.pages),
    );
    this.facts.replaceChildren(facts([
      ["Waiting", figure(replica.waiting)],
      ["Policy epoch", figure(replica.policy_epoch)],
      ["Policy age", duration(replica.policy_age_seconds)],
      ["Steps per block", figure(replica.steps_per_block, 2)],
      ["A step", duration(replica.step_seconds)],
      ["Cost error", percent(replica.cost_error)],
      ["Blocks", figure(replica.blocks)],
      ["Preemptions", figure(replica.preemptions)],
    ]));
  }
}

/**
 * @param {"tokens" | "times"} name
 * @param {SVGElement[]} paths
 * @returns {SVGElement}
 */
function box(name, paths) {
  const viewBox = `0 0 ${WIDTH} ${HEIGHTS[name]}`;
  return svg("svg", { class: `strip ${name}`, viewBox, preserveAspectRatio: "none", "aria-hidden": "true" }, ...paths);
}

/**
 * @param {string} name
 * @param {number} used
 * @param {number} all
 * @returns {HTMLElement}
 */
function gauge(name, used, all) {
  const words = `${figure(used)} of ${figure(all)}`;
  const bar = make("progress", { max: Math.max(1, all), value: used, "aria-label": `${name} in use` }, words);
  return make("div", { class: "gauge" }, make("span", {}, name), bar, make("span", { class: "quiet" }, words));
}

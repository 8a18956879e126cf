// The last steps of a replica -> the shapes of its strip. No DOM.

/**
 * @typedef {object} StripStep  one forward
 * @property {number} step
 * @property {number} refresh       tokens of refresh work
 * @property {number} reuse         tokens of denoising
 * @property {number} predicted_ms
 * @property {number} actual_ms
 */

/**
 * @typedef {object} StripShapes  SVG path data in two boxes of one width: tokens, and times
 * @property {string} reuse      columns from the ground
 * @property {string} refresh    columns on top of them
 * @property {string} predicted  a line
 * @property {string} actual     a line
 * @property {number} maxTokens  what the first box's height stands for
 * @property {number} maxMs      and the second's
 */

/**
 * The newest step is at the right edge; a strip that is not full begins further right.
 * @param {readonly StripStep[]} strip
 * @param {number} slots   columns there is room for
 * @param {number} width
 * @param {{tokens: number, times: number}} heights  of the boxes
 * @returns {StripShapes}
 */
export function shapesOf(strip, slots, width, heights) {
  const shown = strip.slice(-slots);
  const maxTokens = Math.max(1, ...shown.map((step) => step.refresh + step.reuse));
  const maxMs = Math.max(0.001, ...shown.flatMap((step) => [step.predicted_ms, step.actual_ms]));
  const pitch = width / slots;
  const left = (/** @type {number} */ at) => (slots - shown.length + at) * pitch;
  const tall = (/** @type {number} */ tokens) => (tokens / maxTokens) * heights.tokens;
  const column = (/** @type {number} */ at, /** @type {number} */ from, /** @type {number} */ to) =>
    to === from ? "" : `M${n(left(at))} ${n(heights.tokens - from)}v${n(from - to)}h${n(pitch * 0.8)}v${n(to - from)}z`;
  const line = (/** @type {"predicted_ms" | "actual_ms"} */ of) =>
    shown.map((step, at) => `${at ? "L" : "M"}${n(left(at) + pitch * 0.4)} ${n((1 - step[of] / maxMs) * heights.times)}`).join("");
  return {
    reuse: shown.map((step, at) => column(at, 0, tall(step.reuse))).join(""),
    refresh: shown.map((step, at) => column(at, tall(step.reuse), tall(step.reuse + step.refresh))).join(""),
    predicted: line("predicted_ms"),
    actual: line("actual_ms"),
    maxTokens,
    maxMs,
  };
}

/**
 * @param {readonly StripStep[]} strip
 * @returns {string} the strip in words
 */
export function wordsOf(strip) {
  if (strip.length === 0) return "no step yet";
  const sum = (/** @type {(step: StripStep) => number} */ of) => strip.reduce((so, step) => so + of(step), 0);
  const refresh = sum((step) => step.refresh);
  const all = Math.max(1, refresh + sum((step) => step.reuse));
  const share = Math.round((refresh / all) * 100);
  const actual = sum((step) => step.actual_ms) / strip.length;
  const predicted = sum((step) => step.predicted_ms) / strip.length;
  return `${share} % refresh, ${100 - share} % reuse over ${strip.length} steps; ${actual.toFixed(1)} ms a step, ${predicted.toFixed(1)} predicted`;
}

/** @type {(value: number) => string} */
const n = (value) => String(Math.round(value * 100) / 100);

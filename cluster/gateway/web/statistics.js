// Figures of answers and of runs of questions, and how they are written. No DOM.

/**
 * @typedef {object} Answered  one question of a run
 * @property {boolean} right
 * @property {number} seconds
 * @property {number} steps
 * @property {number} blocks
 * @property {number} tokens
 */

/**
 * @typedef {object} RunFigures
 * @property {number} count
 * @property {number} right
 * @property {[number, number]} interval  of the share of right ones, 95 %
 * @property {number} medianSeconds
 * @property {number} stepsPerBlock
 * @property {number} tokensPerForward
 */

/**
 * @param {readonly Answered[]} answered
 * @returns {RunFigures}
 */
export function figuresOf(answered) {
  const sum = (/** @type {(one: Answered) => number} */ of) => answered.reduce((so, one) => so + of(one), 0);
  const right = sum((one) => Number(one.right));
  const steps = sum((one) => one.steps);
  return {
    count: answered.length,
    right,
    interval: wilson(right, answered.length),
    medianSeconds: quantile(answered.map((one) => one.seconds), 0.5),
    stepsPerBlock: steps / Math.max(1, sum((one) => one.blocks)),
    tokensPerForward: sum((one) => one.tokens) / Math.max(1, steps),
  };
}

/**
 * Linear between the two values around it.
 * @param {readonly number[]} values
 * @param {number} share  in [0, 1]
 * @returns {number} NaN without values
 */
export function quantile(values, share) {
  if (values.length === 0) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/**
 * Wilson's score interval of a share.
 * @param {number} right
 * @param {number} count
 * @param {number} [z]  1.96: 95 %
 * @returns {[number, number]} [0, 1] without answers
 */
export function wilson(right, count, z = 1.96) {
  if (count === 0) return [0, 1];
  const share = right / count;
  const middle = share + (z * z) / (2 * count);
  const width = z * Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count));
  const whole = 1 + (z * z) / count;
  return [Math.max(0, (middle - width) / whole), Math.min(1, (middle + width) / whole)];
}

/**
 * @param {number} seconds
 * @returns {string} with a unit that suits its size
 */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.95 ? 2 : 1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * @param {number | null} share
 * @param {number} [digits]
 * @returns {string}
 */
export function percent(share, digits = 0) {
  return share === null || !Number.isFinite(share) ? "–" : `${(share * 100).toFixed(digits)} %`;
}

/**
 * @param {number} value
 * @param {number} [digits]
 * @returns {string}
 */
export function figure(value, digits = 0) {
  if (!Number.isFinite(value)) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// The sliders of a setting: which there are for a model, and what they add to a request. No DOM.

/**
 * @typedef {object} Model  /ui/model.json
 * @property {string} model
 * @property {string} family
 * @property {number} block_length
 * @property {number} max_model_len
 * @property {number} temperature
 * @property {Record<string, number | string | null>} defaults  of the request's `diffusion`, by field
 * @property {boolean} asks_for_keys
 */

/** @typedef {Record<string, number | string>} Values  by a dial's name */

/**
 * @typedef {object} Dial
 * @property {string} name
 * @property {string} label
 * @property {string} hint
 * @property {readonly [string, string][]} [choices]  value and label; without them it is a slider
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} [step]
 * @property {number} [digits]
 * @property {string} [rule]  the commit rule that reads it; any, where there is none
 */

/** @type {readonly [string, string][]} */
const RULES = Object.freeze([
  ["confidence_threshold", "Confidence threshold"],
  ["entropy_bound", "Entropy bound"],
  ["static_schedule", "Fixed schedule"],
  ["sequential", "Left to right"],
]);
/** @type {readonly [string, string][]} */
const SCHEDULES = Object.freeze([
  ["linear", "Linear"],
  ["cosine", "Cosine"],
]);

/**
 * @param {Model} model
 * @returns {Dial[]} those that mean something to it
 */
export function dialsOf(model) {
  const known = (/** @type {Dial} */ dial) => dial.name === "temperature" || dial.name in model.defaults;
  const most = Math.max(model.block_length, Number(model.defaults.steps));
  const masked = !renoises(model);
  const bound = masked ? { max: 2, step: 0.01, digits: 2, rule: "entropy_bound" } : { max: 1, step: 0.01, digits: 2 };
  /** @type {Dial[]} */
  const dials = [
    { name: "commit_rule", label: "Commit rule", hint: "Which positions a step decides", choices: RULES },
    { name: "steps", label: "Steps per block", hint: "At most this many", min: 1, max: most, step: 1, digits: 0 },
    {
      name: "threshold", label: "Confidence threshold", hint: "Decide every position above it",
      min: 0.3, max: 1, step: 0.01, digits: 2, rule: "confidence_threshold",
    },
    { name: "entropy_bound", label: "Entropy bound", hint: "Nats that a step may decide", min: 0, ...bound },
    { name: "schedule", label: "Schedule", hint: "How positions spread over the steps", choices: SCHEDULES, rule: "static_schedule" },
    { name: "temperature", label: "Temperature", hint: "0 is greedy", min: 0, max: 2, step: 0.05, digits: 2 },
  ];
  const stop = { name: "stop_entropy", label: "Stop entropy", hint: "Nats; a calmer canvas is finished" };
  if (!masked) dials.push({ ...stop, min: 0, max: 0.1, step: 0.001, digits: 3 });
  return dials.filter(known);
}

/**
 * @param {Model} model
 * @returns {Values} the model's own
 */
export function defaultsOf(model) {
  const own = dialsOf(model).map(({ name, min }) => [name, model.defaults[name] ?? min ?? 0]);
  return { ...Object.fromEntries(own), temperature: model.temperature };
}

/**
 * @param {Model} model
 * @returns {Values} something to compare the model's own with: a quarter of the steps, on a fixed schedule
 */
export function contrastOf(model) {
  const values = defaultsOf(model);
  if (!renoises(model)) values.commit_rule = "static_schedule";
  values.steps = Math.max(1, Math.round(Math.min(Number(values.steps), model.block_length) / 4));
  return values;
}

/**
 * @param {Model} model
 * @returns {boolean} whether it takes decisions back, instead of filling a mask in
 */
export function renoises(model) {
  return !("commit_rule" in model.defaults);
}

/**
 * @param {Dial} dial
 * @param {Values} values
 * @returns {boolean} whether it changes anything under the chosen rule
 */
export function counts(dial, values) {
  return dial.rule === undefined || dial.rule === values.commit_rule;
}

/**
 * @param {Model} model
 * @param {Values} values
 * @returns {Record<string, unknown>} the request's fields that differ from the model's own
 */
export function fieldsOf(model, values) {
  const defaults = defaultsOf(model);
  const changed = dialsOf(model).filter((dial) => counts(dial, values) && values[dial.name] !== defaults[dial.name]);
  const named = changed.map((dial) => [dial.name, values[dial.name]]);
  const { temperature, ...diffusion } = Object.fromEntries(named);
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(Object.keys(diffusion).length === 0 ? {} : { diffusion }),
  };
}

/**
 * @param {Model} model
 * @param {Values} values
 * @returns {string} the setting in a few words
 */
export function describe(model, values) {
  const rule = RULES.find(([value]) => value === values.commit_rule)?.[1].toLowerCase();
  const threshold = values.commit_rule === "confidence_threshold" ? ` ${Number(values.threshold).toFixed(2)}` : "";
  const bound = values.commit_rule === "entropy_bound" ? ` ${Number(values.entropy_bound).toFixed(2)}` : "";
  const steps = `at most ${values.steps} ${values.steps === 1 ? "step" : "steps"} a block`;
  const warm = Number(values.temperature) > 0 ? `temperature ${Number(values.temperature).toFixed(2)}` : "greedy";
  const parts = [rule === undefined ? null : `${rule}${threshold}${bound}`, steps, warm];
  return parts.filter((part) => part !== null).join(", ");
}

import assert from "node:assert/strict";
import { test } from "node:test";

import { contrastOf, counts, defaultsOf, describe, dialsOf, fieldsOf, renoises } from "../../../../cluster/gateway/web/dials.js";

const MASKED = {
  model: "m", family: "SDAR", block_length: 32, max_model_len: 512, temperature: 0, asks_for_keys: false,
  defaults: { steps: 32, commit_rule: "confidence_threshold", threshold: 0.9, entropy_bound: 0.35, schedule: "linear", stop_entropy: null },
};
const RENOISING = {
  ...MASKED, family: "DiffusionGemma", block_length: 256, temperature: 1,
  defaults: { steps: 48, entropy_bound: 0.1, stop_entropy: 0.005, stability: 1, temperature_start: 0.8, temperature_end: 0.4 },
};

test("the model's own settings ask for nothing", () => {
  for (const model of [MASKED, RENOISING]) assert.deepEqual(fieldsOf(model, defaultsOf(model)), {});
});

test("what differs is asked for, each in its place", () => {
  const values = { ...defaultsOf(MASKED), threshold: 0.5, steps: 4, temperature: 0.7 };
  assert.deepEqual(fieldsOf(MASKED, values), { temperature: 0.7, diffusion: { steps: 4, threshold: 0.5 } });
});

test("a threshold that the chosen rule does not read is not sent", () => {
  const values = { ...defaultsOf(MASKED), threshold: 0.5, commit_rule: "static_schedule" };
  assert.deepEqual(fieldsOf(MASKED, values), { diffusion: { commit_rule: "static_schedule" } });
});

test("a model that renoises has no rule to choose, and its stop is a dial", () => {
  assert.ok(renoises(RENOISING) && !renoises(MASKED));
  const names = dialsOf(RENOISING).map((dial) => dial.name);
  assert.deepEqual(names, ["steps", "entropy_bound", "temperature", "stop_entropy"]);
  assert.ok(dialsOf(RENOISING).every((dial) => counts(dial, defaultsOf(RENOISING))));
});

test("the other setting differs from the first, and the model takes it", () => {
  for (const model of [MASKED, RENOISING]) {
    const { diffusion } = fieldsOf(model, contrastOf(model));
    assert.ok(Object.keys(diffusion).length > 0);
    assert.ok(Object.keys(diffusion).every((name) => name in model.defaults));
  }
});

test("a setting is described in words", () => {
  assert.equal(describe(MASKED, defaultsOf(MASKED)), "confidence threshold 0.90, at most 32 steps a block, greedy");
  assert.equal(describe(RENOISING, { ...defaultsOf(RENOISING), steps: 1 }), "at most 1 step a block, temperature 1.00");
});

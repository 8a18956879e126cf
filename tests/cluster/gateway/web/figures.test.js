import assert from "node:assert/strict";
import { test } from "node:test";

import { EDGES, bandOf, glyphOf, wordOf } from "../../../../cluster/gateway/web/colours.js";
import { duration, figuresOf, percent, quantile, wilson } from "../../../../cluster/gateway/web/statistics.js";

test("the median lies between two values where their number is even", () => {
  assert.equal(quantile([4, 1, 3, 2], 0.5), 2.5);
  assert.equal(quantile([7], 0.5), 7);
  assert.ok(Number.isNaN(quantile([], 0.5)));
});

test("the interval of a share is Wilson's", () => {
  const [low, high] = wilson(23, 25);
  assert.ok(Math.abs(low - 0.7503) < 1e-3 && Math.abs(high - 0.9778) < 1e-3, `${low} ${high}`);
  assert.deepEqual(wilson(0, 0), [0, 1]);
  assert.equal(wilson(5, 5)[1], 1);
});

test("figures of a run are sums over it, not means of quotients", () => {
  const one = { right: true, seconds: 1, steps: 2, blocks: 2, tokens: 30 };
  const other = { right: false, seconds: 3, steps: 8, blocks: 2, tokens: 10 };
  const so = figuresOf([one, other]);
  assert.deepEqual([so.count, so.right, so.medianSeconds, so.stepsPerBlock, so.tokensPerForward], [2, 1, 2, 2.5, 4]);
});

for (const [seconds, words] of [[0.0042, "4.2 ms"], [0.042, "42 ms"], [0.42, "0.42 s"], [42, "42.0 s"], [125, "2 min 5 s"], [4000, "1 h 6 min"], [NaN, "–"]]) {
  test(`${seconds} seconds are written ${words}`, () => assert.equal(duration(seconds), words));
}

test("a share that is not known is a dash", () => assert.deepEqual([percent(null), percent(0.923, 1)], ["–", "92.3 %"]));

test("every confidence has a band and every band a word", () => {
  assert.deepEqual([1, 0.99, 0.95, 0.7, 0.5, 0, null].map(bandOf), [4, 4, 3, 2, 1, 0, 0]);
  assert.equal(new Set(EDGES.map((_, band) => wordOf(band))).size, EDGES.length);
});

test("white space and special tokens can be seen", () => {
  const tokens = ["a", " ", " the", "\n", "<|mask|>", "<|eos|>", "<|user|>", ""];
  assert.deepEqual(tokens.map(glyphOf), ["a", "␣", " the", "↵", "·", "∎", "◇", "·"]);
});

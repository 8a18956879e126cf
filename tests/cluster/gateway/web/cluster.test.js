import assert from "node:assert/strict";
import { test } from "node:test";

import { shapesOf, wordsOf } from "../../../../cluster/gateway/web/strip.js";
import { timelineOf } from "../../../../cluster/gateway/web/timeline.js";

const step = (refresh, reuse, predicted_ms = 1, actual_ms = 2) => ({ step: 0, refresh, reuse, predicted_ms, actual_ms });

test("the newest step is at the right edge, and refresh stands on reuse", () => {
  const shapes = shapesOf([step(0, 4), step(4, 4)], 4, 40, { tokens: 8, times: 8 });
  assert.equal(shapes.maxTokens, 8);
  assert.equal(shapes.reuse, "M20 8v-4h8v4zM30 8v-4h8v4z");
  assert.equal(shapes.refresh, "M30 4v-4h8v4z");
  assert.equal(shapes.actual, "M24 0L34 0");
  assert.equal(shapes.predicted, "M24 4L34 4");
});

test("a strip shows the newest of more steps than it has room for", () => {
  const shapes = shapesOf([step(0, 1000), step(0, 1), step(0, 2)], 2, 20, { tokens: 10, times: 10 });
  assert.equal(shapes.maxTokens, 2);
});

test("an idle replica has an empty strip", () => {
  assert.deepEqual(shapesOf([], 4, 40, { tokens: 8, times: 8 }), { reuse: "", refresh: "", predicted: "", actual: "", maxTokens: 1, maxMs: 0.001 });
  assert.equal(wordsOf([]), "no step yet");
});

test("a strip is told in words, too", () => {
  assert.equal(wordsOf([step(1, 3), step(0, 4, 3, 4)]), "13 % refresh, 87 % reuse over 2 steps; 3.0 ms a step, 2.0 predicted");
});

const EVENTS = [
  { at: 0, kind: "received" },
  { at: 0.001, kind: "placed", choice: 0, replica: "r1", attempt: 1 },
  { at: 0.01, kind: "prefilled", choice: 0, queue_ms: 2, prefill_ms: 4, cached_tokens: 32 },
  { at: 0.03, kind: "block", choice: 0, block: 0, steps: 5, tokens: 32, mean_entropy: 0.1, ms: 20, tightened: true },
  { at: 0.05, kind: "replica_lost", choice: 0, replica: "r1" },
  { at: 0.051, kind: "placed", choice: 0, replica: "r2", attempt: 2 },
  { at: 0.1, kind: "finished", reason: "stop" },
];

test("a request's events are spans in the order they began", () => {
  const { spans, seconds } = timelineOf(EVENTS);
  assert.equal(seconds, 0.1);
  assert.deepEqual(spans.map((span) => span.label), ["received", "placed", "queued", "prefilled", "block 1", "replica lost", "placed", "finished"]);
  const times = Object.fromEntries(spans.map((span) => [span.label, [span.start, span.end].map((at) => Math.round(at * 1e6) / 1e6)]));
  assert.deepEqual([times.queued, times.prefilled, times["block 1"]], [[0.004, 0.006], [0.006, 0.01], [0.01, 0.03]]);
});

test("what happened is told beside it", () => {
  const { spans } = timelineOf(EVENTS);
  const details = spans.map((span) => span.detail);
  assert.deepEqual(details.slice(1, 5), ["on r1", "2.0 ms", "4.0 ms, 32 tokens cached", "32 tokens, 5 steps, 20.0 ms, 0.100 nats, tightened"]);
  assert.deepEqual(spans.filter((span) => span.kind === "fault").map((span) => span.label), ["replica lost"]);
  assert.equal(spans.at(-2).detail, "on r2, attempt 2");
});

test("choices are named where there are several, and unknown events shown as they are", () => {
  const { spans } = timelineOf([{ at: 1, kind: "placed", choice: 0, replica: "r" }, { at: 2, kind: "placed", choice: 1, replica: "r" }, { at: 3, kind: "handed_over" }]);
  assert.deepEqual(spans.map((span) => span.label), ["placed · choice 1", "placed · choice 2", "handed over"]);
});

test("a request of which nothing is known yet has an empty timeline", () => {
  assert.deepEqual(timelineOf([]), { spans: [], seconds: 0.001 });
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { Replay, charactersOf, isSpecial } from "../../../../cluster/gateway/web/replay.js";

const canvas = (step, tokens, decided, { block = 0, first = 0 } = {}) => ({
  block, step, first, tokens: [...tokens], decided: [...decided].map((sign) => sign === "1"), confidence: [...tokens].map(() => 0.5),
});

const changes = (replay, position) => replay.at(position).cells.map((cell) => cell.change);

test("a position that is decided locks in, and says in which step", () => {
  const replay = new Replay();
  replay.canvas(canvas(1, "abc", "100"));
  replay.canvas(canvas(2, "abc", "110"));
  assert.deepEqual(changes(replay, 0), ["locked", "kept", "kept"]);
  assert.deepEqual(changes(replay, 1), ["kept", "locked", "kept"]);
  assert.deepEqual(replay.at(1).cells.map((cell) => cell.step), [1, 2, 0]);
});

test("a decision that is taken back is renoised, and a guess that changes wavers", () => {
  const replay = new Replay();
  replay.canvas(canvas(1, "abc", "101"));
  replay.canvas(canvas(2, "xyd", "001"));
  assert.deepEqual(changes(replay, 1), ["renoised", "wavering", "edited"]);
});

test("the prompt's part of a canvas never changes", () => {
  const replay = new Replay();
  replay.canvas(canvas(1, "abc", "111", { first: 2 }));
  assert.deepEqual(changes(replay, 0), ["kept", "kept", "locked"]);
  assert.deepEqual(replay.at(0).cells.map((cell) => cell.prompt), [true, true, false]);
});

test("a finished block goes to the prefix, and the next canvas begins anew", () => {
  const replay = new Replay();
  replay.canvas(canvas(1, "ab", "10"));
  replay.canvas(canvas(2, "ab", "11"));
  replay.commit("ab");
  replay.canvas(canvas(1, "cd", "11", { block: 1 }));
  assert.deepEqual(replay.at(2), { blocks: [{ text: "ab", steps: 2 }], cells: [], block: 0, step: 0 });
  assert.deepEqual(changes(replay, 3), ["locked", "locked"]);
  assert.deepEqual(replay.at(3).blocks, [{ text: "ab", steps: 2 }]);
  assert.equal(replay.text, "ab");
});

test("blocks whose steps were not sent are there all the same", () => {
  const replay = new Replay();
  replay.commit("ab");
  replay.commit("cd");
  assert.equal(replay.text, "abcd");
  assert.deepEqual(replay.at(1).blocks.map((block) => block.steps), [0, 0]);
});

test("beyond the last frame there is the last, and before the first none", () => {
  const replay = new Replay();
  assert.equal(replay.at(5), null);
  replay.commit("x");
  assert.equal(replay.at(5), replay.at(0));
});

test("characters go on from what is committed into the canvas, without the prompt and special tokens", () => {
  const replay = new Replay();
  replay.commit("ab");
  replay.canvas({ block: 1, step: 1, first: 1, tokens: ["p", "cd", "<|eos|>"], decided: [true, true, false], confidence: [1, 0.9, null] });
  const characters = charactersOf(replay.at(1));
  assert.equal(characters.map(({ text }) => text).join(""), "abcd");
  assert.deepEqual(characters.map(({ cell }) => cell?.confidence ?? null), [null, null, 0.9, 0.9]);
});

test("names of special tokens are told from text", () => {
  assert.deepEqual(["<|eos|>", "<mask>", "</s>", "<", "a<b", "<a b>"].map(isSpecial), [true, true, true, false, false, false]);
});

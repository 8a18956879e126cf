import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { EXAMPLES, gridOf, isRight, placeOf, solves } from "../../../../cluster/gateway/web/puzzles.js";

const QUESTIONS = JSON.parse(readFileSync(new URL("../../../../demo/questions.json", import.meta.url), "utf8"));

test("all answers of the known questions are right", () => {
  assert.deepEqual(QUESTIONS.filter(({ prompt, answer }) => isRight(prompt, answer) !== true), []);
});

test("another question's answer is not", () => {
  const wrong = QUESTIONS.map(({ prompt }, at) => isRight(prompt, QUESTIONS[(at + 5) % QUESTIONS.length].answer));
  assert.ok(wrong.every((right) => right === false));
});

test("nobody knows what is right for other prompts", () => {
  for (const prompt of ["hello", "", "sudoku", "sudoku 1/2", "sudoku 12/34", "add 1+", "count 1 by 3", "sudoku 7.../..../..../...."]) {
    assert.equal(isRight(prompt, "x"), null, prompt);
  }
});

test("each digit is found where the rows' answer has it", () => {
  const grid = gridOf("sudoku .1../..3./.342/241.");
  const answer = "3124/4231/1342/2413";
  assert.deepEqual([grid.size, grid.box], [4, [2, 2]]);
  assert.equal(grid.clues.map((_, cell) => answer[placeOf(grid, cell)]).join(""), answer.replaceAll("/", ""));
});

test("a grid whose boxes repeat a digit is not solved, even with rows and columns in order", () => {
  const grid = gridOf("sudoku ..../..../..../....");
  assert.equal(solves(grid, "1234/2341/3412/4123"), false);
  assert.equal(solves(grid, "1234/3412/2143/4321"), true);
  assert.equal(solves(gridOf("sudoku 2.../..../..../...."), "1234/3412/2143/4321"), false);
});

test("every example is of a kind whose answer can be checked", () => {
  for (const { prompt } of EXAMPLES) assert.equal(isRight(prompt, ""), false, prompt);
});

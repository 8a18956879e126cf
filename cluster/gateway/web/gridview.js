// Draws a puzzle's grid, and the answer's digits in it as they settle.

import { bandOf } from "./colours.js";
import { make } from "./dom.js";
import { placeOf } from "./puzzles.js";

/** @typedef {import("./puzzles.js").Grid} Grid */

/**
 * @param {Grid} grid
 * @param {{text: string, cell: import("./replay.js").Cell | null}[]} characters  of the answer so far
 * @returns {HTMLElement} a table
 */
export function drawGrid(grid, characters) {
  const rows = [...Array(grid.size).keys()].map((row) => {
    const cells = [...Array(grid.size).keys()].map((column) => {
      const at = row * grid.size + column;
      return cellOf(grid, at, characters[placeOf(grid, at)]);
    });
    return make("tr", {}, ...cells);
  });
  const side = `${grid.size} by ${grid.size}`;
  return make("table", { class: "grid", "data-size": grid.size, "aria-label": `Sudoku, ${side}` }, make("tbody", {}, ...rows));
}

/**
 * @param {Grid} grid
 * @param {number} at
 * @param {{text: string, cell: import("./replay.js").Cell | null} | undefined} character
 * @returns {HTMLElement}
 */
function cellOf(grid, at, character) {
  const [height, width] = grid.box;
  const row = Math.floor(at / grid.size);
  const column = at % grid.size;
  const edges = {
    "data-right": (column + 1) % width === 0 && column + 1 < grid.size,
    "data-bottom": (row + 1) % height === 0 && row + 1 < grid.size,
  };
  const clue = grid.clues[at];
  if (clue !== "") {
    const broken = character !== undefined && character.cell?.decided !== false && character.text !== clue;
    return make("td", { ...edges, "data-kind": "clue", "data-broken": broken }, clue);
  }
  if (character === undefined || character.text.trim() === "" || !/[1-9]/.test(character.text)) {
    return make("td", { ...edges, "data-kind": "blank" }, make("span", { class: "unseen" }, "blank"));
  }
  const { cell, text } = character;
  const kind = cell === null ? "static" : cell.decided ? "decided" : "open";
  const band = cell === null ? null : bandOf(cell.confidence);
  return make("td", { ...edges, "data-kind": kind, "data-band": band, "data-change": cell?.change }, text);
}

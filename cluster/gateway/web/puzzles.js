// The embedded model's tasks: grids to draw, answers to check. No DOM.

/**
 * @typedef {object} Grid
 * @property {number} size                4 or 6 cells a side
 * @property {[number, number]} box       its boxes' height and width, in cells
 * @property {readonly string[]} clues    size × size; "" where a cell is blank
 */

const BOXES = Object.freeze({ 4: [2, 2], 6: [2, 3] });
const TERMS = 22; // of a counted progression

/**
 * @param {string} prompt
 * @returns {Grid | null} null where it is no puzzle
 */
export function gridOf(prompt) {
  const match = /^\s*sudoku\s+([1-6./]+)\s*$/.exec(prompt);
  const rows = match?.[1].split("/") ?? [];
  const size = rows.length;
  const box = BOXES[size];
  if (box === undefined) return null;
  const allowed = new RegExp(`^[1-${size}.]{${size}}$`);
  if (!rows.every((row) => allowed.test(row))) return null;
  return { size, box, clues: [...rows.join("")].map((sign) => (sign === "." ? "" : sign)) };
}

/**
 * Where a cell stands in an answer whose rows are joined by slashes.
 * @param {Grid} grid
 * @param {number} cell
 * @returns {number}
 */
export function placeOf(grid, cell) {
  return cell + Math.floor(cell / grid.size);
}

/**
 * @param {Grid} grid
 * @param {string} answer
 * @returns {boolean} whether it keeps the clues and every row, column and box has each digit once
 */
export function solves(grid, answer) {
  const rows = answer.split("/");
  const form = new RegExp(`^[1-${grid.size}]{${grid.size}}$`);
  if (rows.length !== grid.size || !rows.every((row) => form.test(row))) return false;
  const digits = [...rows.join("")];
  const kept = grid.clues.every((clue, cell) => clue === "" || clue === digits[cell]);
  return kept && units(grid).every((unit) => new Set(unit.map((cell) => digits[cell])).size === grid.size);
}

/**
 * @param {Grid} grid
 * @returns {number[][]} the cells of each row, column and box
 */
function units({ size, box: [height, width] }) {
  const range = [...Array(size).keys()];
  const rows = range.map((row) => range.map((column) => row * size + column));
  const columns = range.map((column) => range.map((row) => row * size + column));
  const perRow = size / width;
  const boxes = range.map((index) => {
    const top = Math.floor(index / perRow) * height;
    const left = (index % perRow) * width;
    return range.map((at) => (top + Math.floor(at / width)) * size + left + (at % width));
  });
  return [...rows, ...columns, ...boxes];
}

/**
 * @param {string} prompt
 * @param {string} answer
 * @returns {boolean | null} null where nobody knows what would be right
 */
export function isRight(prompt, answer) {
  const grid = gridOf(prompt);
  if (grid !== null) return solves(grid, answer);
  const text = prompt.trim();
  const add = /^add ([0-9]+)\+([0-9]+)$/.exec(text);
  if (add !== null) return answer === sum(add[1], add[2]);
  const sort = /^sort ([a-z]+)$/.exec(text);
  if (sort !== null) return answer === [...sort[1]].sort().join("");
  const count = /^count ([0-9]{3}) by ([0-9])$/.exec(text);
  if (count !== null) return answer === progression(Number(count[1]), Number(count[2]));
  return null;
}

/**
 * @param {string} left
 * @param {string} right
 * @returns {string} one digit longer than the longer of them
 */
function sum(left, right) {
  return String(BigInt(left) + BigInt(right)).padStart(Math.max(left.length, right.length) + 1, "0");
}

/**
 * @param {number} start
 * @param {number} step
 * @returns {string}
 */
function progression(start, step) {
  return [...Array(TERMS).keys()].map((at) => String(start + step * at).padStart(3, "0")).join(",");
}

/** One of each kind; the model was never trained on any of them. */
export const EXAMPLES = Object.freeze([
  { name: "Sudoku 6×6", prompt: "sudoku 615342/342.../.34265/.26..3/4.3521/.51.34" },
  { name: "Sudoku 4×4", prompt: "sudoku .1../..3./.342/241." },
  { name: "Addition", prompt: "add 131042+939850" },
  { name: "Sorting", prompt: "sort kvdximgsddx" },
  { name: "Counting", prompt: "count 523 by 4" },
]);

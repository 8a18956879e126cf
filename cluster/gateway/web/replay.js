// What a stream showed, step by step, so that it can be drawn again from any step. No DOM.

/**
 * What happened to a position in the step that led to a frame:
 * `locked` it was decided, `renoised` its decision was taken back, `edited` a decided token changed,
 * `wavering` the guess at an undecided one changed, `kept` nothing.
 * @typedef {"locked" | "renoised" | "edited" | "wavering" | "kept"} Change
 */

/**
 * @typedef {object} Cell
 * @property {string} token
 * @property {boolean} decided
 * @property {number | null} confidence  probability of the token shown
 * @property {boolean} prompt            it belongs to the prompt; nothing of it ever changes
 * @property {number} step               the step that last decided it; 0: none
 * @property {Change} change
 */

/**
 * @typedef {object} Block
 * @property {string} text
 * @property {number} steps  0 where no step of it was seen
 */

/**
 * One moment of an answer: committed blocks, then the live canvas, which is empty just after a commit.
 * @typedef {object} Frame
 * @property {readonly Block[]} blocks
 * @property {readonly Cell[]} cells
 * @property {number} block  the canvas's index, or that of the block just committed
 * @property {number} step   0 for a commit
 */

/**
 * @typedef {object} Canvas  as the API sends it
 * @property {number} block
 * @property {number} step
 * @property {number} first
 * @property {string[]} tokens
 * @property {boolean[]} decided
 * @property {(number | null)[]} confidence
 */

/** The frames of one answer. */
export class Replay {
  /** @type {Frame[]} */
  frames = [];

  /** @param {Canvas} canvas  after one more step */
  canvas(canvas) {
    const before = this.frames.at(-1);
    const same = before !== undefined && before.block === canvas.block && before.cells.length > 0;
    const cells = canvas.tokens.map((_, at) => cellOf(canvas, at, same ? before.cells[at] : undefined));
    this.frames.push({ blocks: before?.blocks ?? [], cells, block: canvas.block, step: canvas.step });
  }

  /** @param {string} text  what the finished block adds to the answer */
  commit(text) {
    const before = this.frames.at(-1);
    const blocks = before?.blocks ?? [];
    const seen = before !== undefined && before.cells.length > 0;
    const block = { text, steps: seen ? before.step : 0 };
    this.frames.push({ blocks: [...blocks, block], cells: [], block: blocks.length, step: 0 });
  }

  get length() {
    return this.frames.length;
  }

  /**
   * @param {number} position  beyond the last frame: the last
   * @returns {Frame | null} null before anything came
   */
  at(position) {
    return this.frames[Math.min(position, this.length - 1)] ?? null;
  }

  /** The committed text so far. */
  get text() {
    return (this.frames.at(-1)?.blocks ?? []).map((block) => block.text).join("");
  }
}

/**
 * @param {Canvas} canvas
 * @param {number} at
 * @param {Cell | undefined} before  the same position one step earlier
 * @returns {Cell}
 */
function cellOf(canvas, at, before) {
  const token = canvas.tokens[at];
  const decided = canvas.decided[at];
  const prompt = at < canvas.first;
  const change = prompt ? "kept" : changeOf(before, token, decided);
  const fresh = change === "locked" || change === "edited";
  const step = !decided || prompt ? 0 : fresh ? canvas.step : (before?.step ?? canvas.step);
  return { token, decided, confidence: canvas.confidence[at], prompt, step, change };
}

/**
 * @param {Cell | undefined} before
 * @param {string} token
 * @param {boolean} decided
 * @returns {Change}
 */
function changeOf(before, token, decided) {
  if (before === undefined) return decided ? "locked" : "kept";
  if (decided !== before.decided) return decided ? "locked" : "renoised";
  if (token === before.token) return "kept";
  return decided ? "edited" : "wavering";
}

/**
 * The answer's characters in a frame, whichever part of it they are in.
 * @param {Frame} frame
 * @returns {{text: string, cell: Cell | null}[]} cell: null for what is committed
 */
export function charactersOf(frame) {
  const committed = frame.blocks.flatMap((block) => [...block.text].map((text) => ({ text, cell: null })));
  const live = frame.cells
    .filter((cell) => !cell.prompt && !isSpecial(cell.token))
    .flatMap((cell) => [...cell.token].map((text) => ({ text, cell })));
  return [...committed, ...live];
}

const SPECIAL = /^<[|/]?\w+\|?>$/;

/**
 * @param {string} token
 * @returns {boolean} whether it is the name of a special token, such as the end of the answer
 */
export function isSpecial(token) {
  return SPECIAL.test(token);
}

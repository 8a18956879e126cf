// A confidence -> how it is drawn, in colour and without. No DOM.

/** Lower edges of the bands, most certain first; each is a colour of palette.css, `--band-4` to `--band-0`. */
export const EDGES = Object.freeze([0.99, 0.9, 0.7, 0.4, 0]);

/**
 * @param {number | null} confidence
 * @returns {number} 4 for certain, 0 for a guess
 */
export function bandOf(confidence) {
  const value = confidence ?? 0;
  return EDGES.length - 1 - EDGES.findIndex((edge) => value >= edge);
}

const WORDS = Object.freeze(["a guess", "unlikely", "likely", "confident", "certain"]);

/**
 * @param {number} band
 * @returns {string} the band in a word or two
 */
export function wordOf(band) {
  return WORDS[band];
}

const NAMES = Object.freeze({ " ": "␣", "\n": "↵", "\t": "⇥" });

/**
 * @param {string} token
 * @returns {string} what stands in a cell for it: white space is made visible, special tokens are a sign
 */
export function glyphOf(token) {
  if (/^<\|?mask\|?>$/i.test(token)) return "·";
  if (/^<[|/]?(eos|end\w*|im_end|\/s)\|?>$/i.test(token) || token === "</s>") return "∎";
  if (/^<[|/]?\w+\|?>$/.test(token)) return "◇";
  return token.replace(/[\n\t]/g, (sign) => NAMES[sign]).replace(/^ $/, "␣") || "·";
}

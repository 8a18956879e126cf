// Server-sent events: bytes in pieces of any size -> events. No DOM.

/**
 * @typedef {object} SentEvent
 * @property {string} event  its name; "message" where the stream gives none
 * @property {string} id     "" where it has none
 * @property {string} data   the data lines, joined by newlines
 */

/** Cuts a stream of text into events. Feed it pieces as they come. */
export class EventParser {
  #rest = "";

  /**
   * @param {string} piece
   * @returns {SentEvent[]} the events that this piece completed
   */
  push(piece) {
    // A carriage return at the end may be half of a line's end: it waits for the next piece.
    const text = this.#rest + piece;
    const held = text.endsWith("\r") ? 1 : 0;
    const lines = text.slice(0, text.length - held).replace(/\r\n?/g, "\n");
    const parts = lines.split("\n\n");
    this.#rest = (parts.pop() ?? "") + text.slice(text.length - held);
    return parts.map(eventOf).filter((event) => event !== null);
  }
}

/**
 * @param {string} part  the lines of one event
 * @returns {SentEvent | null} null for comments, which carry nothing
 */
function eventOf(part) {
  const event = { event: "message", id: "", data: "" };
  /** @type {string[]} */
  const data = [];
  for (const line of part.split("\n")) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "event") event.event = value;
    else if (field === "id") event.id = value;
  }
  if (data.length === 0) return null;
  event.data = data.join("\n");
  return event;
}

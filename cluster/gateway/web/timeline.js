// A request's events -> rows of a timeline. No DOM.

/**
 * @typedef {object} TraceEvent  of GET /cluster/requests/{id}; times in seconds since the request came
 * @property {number} at
 * @property {string} kind
 * @property {number} [choice]
 */

/**
 * @typedef {object} Span
 * @property {"queue" | "prefill" | "block" | "fault" | "mark"} kind
 * @property {string} label
 * @property {string} detail
 * @property {number} start  seconds
 * @property {number} end    seconds; the same as `start` for what takes no time
 */

/**
 * @param {readonly (TraceEvent & Record<string, any>)[]} events
 * @returns {{spans: Span[], seconds: number}} in the order they began
 */
export function timelineOf(events) {
  const several = new Set(events.map((event) => event.choice).filter((choice) => choice !== undefined)).size > 1;
  const spans = events.flatMap((event) => {
    const suffix = several && event.choice !== undefined ? ` · choice ${event.choice + 1}` : "";
    return spansOf(event).map((span) => ({ ...span, start: Math.max(0, span.start), label: span.label + suffix }));
  });
  const seconds = Math.max(0.001, ...spans.map((span) => span.end));
  return { spans: spans.map((span, at) => ({ span, at })).sort(byStart).map(({ span }) => span), seconds };
}

/** @type {(a: {span: Span, at: number}, b: {span: Span, at: number}) => number} */
const byStart = (a, b) => a.span.start - b.span.start || a.at - b.at;

/**
 * @param {TraceEvent & Record<string, any>} event
 * @returns {Span[]}
 */
function spansOf(event) {
  const { at } = event;
  switch (event.kind) {
    case "prefilled": {
      const began = at - (event.prefill_ms ?? 0) / 1000;
      const queued = began - (event.queue_ms ?? 0) / 1000;
      return [
        { kind: "queue", label: "queued", detail: ms(event.queue_ms), start: queued, end: began },
        { kind: "prefill", label: "prefilled", detail: prefill(event), start: began, end: at },
      ];
    }
    case "block": {
      const start = at - (event.ms ?? 0) / 1000;
      return [{ kind: "block", label: `block ${event.block + 1}`, detail: block(event), start, end: at }];
    }
    case "placed":
      return [mark("mark", "placed", `on ${event.replica}${attempt(event.attempt)}`, at)];
    case "finished":
      return [mark("mark", "finished", event.reason ?? "", at)];
    case "resumed":
      return [mark("mark", "resumed", `${event.blocks} blocks from the journal`, at)];
    default: {
      const fault = /lost|fail|cancel|refused/.test(event.kind);
      return [mark(fault ? "fault" : "mark", event.kind.replaceAll("_", " "), event.replica ?? event.reason ?? "", at)];
    }
  }
}

/** @type {(kind: "mark" | "fault", label: string, detail: string, at: number) => Span} */
const mark = (kind, label, detail, at) => ({ kind, label, detail, start: at, end: at });

/** @type {(value: number | undefined) => string} */
const ms = (value) => (value === undefined ? "" : `${value.toFixed(1)} ms`);

/** @type {(attempt: number | undefined) => string} */
const attempt = (count) => (count !== undefined && count > 1 ? `, attempt ${count}` : "");

/** @type {(event: Record<string, any>) => string} */
const prefill = (event) => [ms(event.prefill_ms), event.cached_tokens ? `${event.cached_tokens} tokens cached` : ""].filter(Boolean).join(", ");

/**
 * @param {Record<string, any>} event
 * @returns {string}
 */
function block(event) {
  const entropy = typeof event.mean_entropy === "number" ? `${event.mean_entropy.toFixed(3)} nats` : "";
  const steps = `${event.steps} ${event.steps === 1 ? "step" : "steps"}`;
  return [`${event.tokens} tokens`, steps, ms(event.ms), entropy, event.tightened ? "tightened" : ""].filter(Boolean).join(", ");
}

// The gateway's HTTP routes, as the page uses them. Problems are told in words.

import { EventParser } from "./sse.js";

const KEY = "easel-api-key";

/** Something went wrong, and its message says what in words for a reader. */
export class ApiProblem extends Error {
  /**
   * @param {string} message
   * @param {number} status  0: nothing answered
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @type {(refused: boolean) => Promise<string | null>} */
let askForKey = async () => null;

/** @param {typeof askForKey} ask  called when a key is needed; null: the reader gave none */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/**
 * A GET, or a POST where there is a body. Asks for a key where one is needed.
 * @param {string} path  relative to the page, so that a prefix of a proxy stays
 * @param {unknown} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>} of a status below 400; else ApiProblem
 */
export async function call(path, body, signal) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const response = await send(path, body, key, signal);
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    const given = await askForKey(key !== null);
    if (given === null) throw problem;
    sessionStorage.setItem(KEY, given);
  }
}

/** @returns {boolean} whether a key was given in this tab */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** @param {string | null} key  null forgets it */
export function keepKey(key) {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/**
 * @param {string} path
 * @param {unknown} body
 * @param {string | null} key
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
async function send(path, body, key, signal) {
  /** @type {Record<string, string>} */
  const headers = key === null ? {} : { authorization: `Bearer ${key}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  try {
    return await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiProblem("The gateway cannot be reached. Is it still running?", 0);
  }
}

/**
 * @param {Response} response
 * @returns {Promise<ApiProblem>}
 */
async function problemOf(response) {
  const said = await response.json().then((body) => body.error.message, () => null);
  return new ApiProblem(said ?? `The gateway answered with status ${response.status}.`, response.status);
}

/**
 * The chunks of a streamed chat answer, as objects.
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* stream(body, signal) {
  const response = await call("v1/chat/completions", { ...body, stream: true, stream_options: { include_canvas: true } }, signal);
  const parser = new EventParser();
  if (response.body === null) throw new ApiProblem("The gateway answered without an answer.", response.status);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let ended = false;
  for (;;) {
    const { done, value } = await piece(reader, signal);
    if (done) break;
    for (const event of parser.push(value)) {
      if (event.event === "error") throw new ApiProblem(JSON.parse(event.data).error.message, 200);
      if (event.data === "[DONE]") ended = true;
      else yield JSON.parse(event.data);
    }
  }
  if (!ended) throw new ApiProblem("The stream broke off before the answer was whole.", 200);
}

/**
 * @param {ReadableStreamDefaultReader<string>} reader
 * @param {AbortSignal} signal
 * @returns {Promise<ReadableStreamReadResult<string>>}
 */
async function piece(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ApiProblem("The connection to the gateway broke.", 0);
  }
}

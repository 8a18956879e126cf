// The dialog that asks for an API key, where the server wants one.

import { hasKey, keepKey, onKeyNeeded } from "./api.js";
import { byId } from "./dom.js";

const WANTED = "This server answers only those who have a key. It is kept until this tab is closed.";
const REFUSED = "The server refused the key. Give another; it is kept until this tab is closed.";

/** @type {Promise<string | null> | null} */
let asking = null;

/** @param {boolean} wanted  whether the server asks for keys at all */
export function setUpKeys(wanted) {
  onKeyNeeded(askOnce);
  byId("key").hidden = !wanted;
  byId("key").addEventListener("click", async () => {
    const given = await askOnce(false);
    if (given !== null) keepKey(given);
  });
  return async () => {
    if (!wanted || hasKey()) return true;
    const given = await askOnce(false);
    if (given !== null) keepKey(given);
    return given !== null;
  };
}

/**
 * However many ask at once, there is one dialog.
 * @param {boolean} refused  whether a key was given that the server did not take
 * @returns {Promise<string | null>} null where the reader cancels
 */
function askOnce(refused) {
  asking ??= ask(refused).finally(() => {
    asking = null;
  });
  return asking;
}

/**
 * @param {boolean} refused
 * @returns {Promise<string | null>}
 */
function ask(refused) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  byId("key-text").textContent = refused ? REFUSED : WANTED;
  input.value = "";
  return new Promise((resolve) => {
    const ended = new AbortController();
    const end = (/** @type {string | null} */ given) => {
      ended.abort();
      dialog.close();
      resolve(given);
    };
    const { signal } = ended;
    byId("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      end(input.value.trim());
    }, { signal });
    byId("key-cancel").addEventListener("click", () => end(null), { signal });
    dialog.addEventListener("cancel", () => end(null), { signal });
    dialog.showModal();
    input.focus();
  });
}

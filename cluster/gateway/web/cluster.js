// The cluster view: asks the gateway twice a second, while it is seen, and draws what it says.

import { call } from "./api.js";
import { byId, facts, make, tell } from "./dom.js";
import { ReplicaView } from "./replicas.js";
import { RequestsView } from "./requests.js";
import { figure } from "./statistics.js";

const PERIOD = 500; // milliseconds

const MISSING = "This server does not report on its cluster.";

export class ClusterView {
  /** @type {Map<string, ReplicaView>} */
  #replicas = new Map();
  /** @type {AbortController | null} */
  #watching = null;

  /** @param {() => Promise<boolean>} keyed  whether a key is there, or none is needed */
  constructor(keyed) {
    this.keyed = keyed;
    this.requests = new RequestsView();
  }

  /** @param {boolean} seen */
  watch(seen) {
    if (seen === (this.#watching !== null)) return;
    this.#watching?.abort();
    this.#watching = null;
    if (!seen) return;
    this.#watching = new AbortController();
    void this.#poll(this.#watching.signal);
  }

  /** @param {AbortSignal} signal */
  async #poll(signal) {
    if (!(await this.keyed())) tell(byId("cluster-problem"), "The cluster is shown to those who have a key.");
    else {
      while (!signal.aborted) {
        if (!(await this.#once(signal))) break;
        await new Promise((resolve) => setTimeout(resolve, PERIOD));
      }
    }
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<boolean>} whether to ask again
   */
  async #once(signal) {
    try {
      const state = await (await call("cluster", undefined, signal)).json();
      tell(byId("cluster-problem"), "");
      this.#draw(state);
      await this.requests.refresh(signal);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      const { status, message } = /** @type {import("./api.js").ApiProblem} */ (error);
      tell(byId("cluster-problem"), status === 404 ? MISSING : message);
      return status !== 404 && status !== 401;
    }
  }

  /** @param {any} state  GET /cluster */
  #draw(state) {
    const { replicas } = state;
    const sum = (/** @type {string} */ of) => replicas.reduce((so, /** @type {any} */ one) => so + one[of], 0);
    byId("overview").replaceChildren(facts([
      ["Replicas", figure(replicas.length)],
      ["Running", `${figure(sum("slots_used"))} of ${figure(sum("slots"))}`],
      ["Waiting", figure(state.waiting)],
      ["Journal", state.journal],
      ["Replicas lost", figure(state.lost_replicas)],
      ["Blocks", figure(sum("blocks"))],
      ["Tokens", figure(sum("committed_tokens"))],
    ]));
    this.#drawReplicas(replicas);
    byId("faults").replaceChildren(faultsOf(state.faults));
    this.requests.draw(state.requests, state.time);
  }

  /** @param {any[]} replicas */
  #drawReplicas(replicas) {
    const present = new Set(replicas.map((replica) => replica.id));
    for (const [id, view] of this.#replicas) {
      if (!present.has(id)) {
        view.root.remove();
        this.#replicas.delete(id);
      }
    }
    for (const replica of replicas) {
      let view = this.#replicas.get(replica.id);
      if (view === undefined) {
        view = new ReplicaView(replica.id);
        this.#replicas.set(replica.id, view);
        byId("replicas").append(view.root);
      }
      view.draw(replica);
    }
  }
}

/**
 * @param {{time: number, kind: string, replica?: string}[]} faults  newest last
 * @returns {HTMLElement}
 */
function faultsOf(faults) {
  if (faults.length === 0) return make("p", { class: "quiet" }, "None.");
  const items = [...faults].reverse().map((fault) => {
    const time = new Date(fault.time * 1000);
    const when = make("time", { datetime: time.toISOString() }, time.toLocaleTimeString("en-GB"));
    const what = fault.kind.replaceAll("_", " ");
    return make("li", {}, when, " ", make("strong", {}, what), fault.replica ? ` ${fault.replica}` : "");
  });
  return make("ol", { class: "faults" }, ...items);
}

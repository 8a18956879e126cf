// Starts the page: theme, keys, and the view that the address names.

import { call } from "./api.js";
import { ClusterView } from "./cluster.js";
import { byId, tell } from "./dom.js";
import { setUpKeys } from "./keys.js";
import { Playground } from "./playground.js";
import { setUpTheme } from "./theme.js";

const VIEWS = ["playground", "cluster"];

async function start() {
  setUpTheme();
  const model = await (await call("ui/model.json")).json();
  byId("model").textContent = `${model.model} · ${model.family} · blocks of ${model.block_length}`;
  const keyed = setUpKeys(model.asks_for_keys);
  new Playground(model, keyed);
  byId("run").disabled = false; // before, the form would have gone to the server, and what was typed been lost
  const cluster = new ClusterView(keyed);
  const route = () => show(cluster);
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", route);
  route();
}

/** @param {ClusterView} cluster  asks the gateway only while it is seen */
function show(cluster) {
  const named = location.hash.slice(1);
  const view = VIEWS.includes(named) ? named : VIEWS[0];
  for (const name of VIEWS) {
    byId(`view-${name}`).hidden = name !== view;
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === view) link?.setAttribute("aria-current", "page");
    else link?.removeAttribute("aria-current");
  }
  document.title = view === "cluster" ? "Cluster · Easel" : "Easel";
  cluster.watch(view === "cluster" && !document.hidden);
}

start().catch((error) => tell(byId("problem"), error.message));

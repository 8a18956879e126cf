// Light or dark: as the system says, until the reader says otherwise.

import { byId } from "./dom.js";

const KEPT = "easel-theme";

export function setUpTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = localStorage.getItem(KEPT);
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const label = () => {
    byId("theme").textContent = isDark() ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(KEPT, theme);
    label();
  });
  system.addEventListener("change", label);
  label();
}

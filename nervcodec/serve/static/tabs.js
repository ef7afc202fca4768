// SPDX-License-Identifier: MIT
// Tabs, by arrow keys too.

/** Gives a function that shows a tab by its id. */
export function tabs(list) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const show = (id) => {
    for (const tab of all) {
      const chosen = tab.id === id;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
  };
  all.forEach((tab, index) => {
    tab.addEventListener("click", () => show(tab.id));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      const next = all[(to + all.length) % all.length];
      show(next.id);
      next.focus();
      event.preventDefault();
    });
  });
  return show;
}

// SPDX-License-Identifier: MIT
// Keys as video players have them.

const OWN_ARROWS = "[role=tab], [role=radio], input[type=radio], .own-arrows";

/** Whether a key belongs to what has the focus and not to the player. */
function taken(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (target.closest?.("dialog")) return true;
  if (target.matches?.("input[type=search], input[type=text], textarea, select")) return true;
  if ((event.key === " " || event.key === "Enter") && target.matches?.("button, a, summary")) return true;
  return /^(Arrow|Home|End|Page)/.test(event.key) && Boolean(target.closest?.(OWN_ARROWS));
}

/** @param actions key (as KeyboardEvent.key, letters small) -> function; what is none of them is left to the browser */
export function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || taken(event)) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

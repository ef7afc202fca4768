// SPDX-License-Identifier: MIT
// Elements, keys, and the pace of calls.

/** An element: tag, attributes (a function is a listener, true an empty attribute, null or false none), children. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element, see el. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Positions an element by a box in fractions of the picture. */
export function place(element, box) {
  for (const [side, value] of Object.entries({ left: box.x, top: box.y, width: box.w, height: box.h })) {
    element.style[side] = `${(100 * value).toFixed(3)}%`;
  }
  return element;
}

/** Runs one task at a time: a new one aborts the last, whose result is null. */
export class Last {
  #controller = null;

  stop() {
    this.#controller?.abort();
    this.#controller = null;
  }

  async run(task) {
    this.stop();
    const mine = (this.#controller = new AbortController());
    try {
      const result = await task(mine.signal);
      return mine.signal.aborted ? null : result;
    } catch (error) {
      if (mine.signal.aborted) return null;
      throw error;
    }
  }
}

/** Debounces: the action runs some time after the last call. */
export function rested(milliseconds, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

/** Throttles: the action runs at once, and then at most once per interval, with the latest values. */
export function paced(milliseconds, action) {
  let timer = 0;
  let waiting = null;
  const due = () => {
    timer = 0;
    if (!waiting) return;
    const values = waiting;
    waiting = null;
    timer = setTimeout(due, milliseconds);
    action(...values);
  };
  return (...values) => {
    waiting = values;
    if (!timer) due();
  };
}

const OWN_ARROWS = "[role=tab], [role=radio], input[type=radio]";

/** Whether a key belongs to the element that has the focus. */
function taken(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (target.closest?.("dialog")) return true;
  if (target.matches?.("input[type=search], input[type=text], textarea, select")) return true;
  if ((event.key === " " || event.key === "Enter") && target.matches?.("button, a, summary, video")) return true;
  return /^(Arrow|Home|End|Page)/.test(event.key) && Boolean(target.closest?.(OWN_ARROWS));
}

/** @param actions key (as KeyboardEvent.key, letters small) -> function; other keys are left to the browser */
export function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || taken(event)) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// SPDX-License-Identifier: MIT
// Making elements, and two small habits that all views share.

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

/** A box in fractions of the picture that it lies on. */
export function place(element, box) {
  for (const [side, value] of Object.entries({ left: box.x, top: box.y, width: box.w, height: box.h })) {
    element.style[side] = `${(100 * value).toFixed(3)}%`;
  }
  return element;
}

/** Only the last call counts: each stops the one before it. Null where a later one came in between. */
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

/** A function that runs some time after its last call. */
export function rested(milliseconds, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

/** A function that runs at once, and then at most once in so many milliseconds, with the latest values. */
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

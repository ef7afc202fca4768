// SPDX-License-Identifier: MIT
// A line over the length of a video: how well a query fits, or how good the picture is.

import { el, svg } from "./dom.js";
import { clockTime } from "./format.js";

const WIDE = 1000;
const HIGH = 100;
const MARGIN = 0.08;

let made = 0;

export class Timeline {
  #points = null; // {times, values}
  #end = 1;

  /**
   * @param root an empty element that gets the drawing
   * @param options {value: number -> words, pick: seconds -> void}
   */
  constructor(root, { value, pick }) {
    this.root = root;
    this.value = value;
    this.root.classList.add("timeline");
    this.cursor = el("span", { class: "cursor" });
    this.hover = el("span", { class: "hover", hidden: true });
    this.words = el("span", { class: "readout", hidden: true });
    root.addEventListener("pointermove", (event) => this.#point(event));
    root.addEventListener("pointerleave", () => this.#leave());
    root.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      root.setPointerCapture(event.pointerId);
      pick(this.#seconds(event));
    });
    root.addEventListener("pointermove", (event) => {
      if (root.hasPointerCapture(event.pointerId)) pick(this.#seconds(event));
    });
  }

  /**
   * @param end length of the video in seconds
   * @param points {times, values}: the line; a value holds until the next time where steps is true
   * @param options {threshold, moments: [{start_s, stop_s}], label, steps}
   */
  draw(end, points, { threshold = null, moments = [], label, steps = false } = {}) {
    this.#points = points;
    this.#end = Math.max(end, 1e-6);
    const known = threshold === null ? points.values : [...points.values, threshold];
    const [low, high] = known.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const span = Math.max(high - low, 1e-6);
    const x = (t) => (WIDE * t) / this.#end;
    const y = (v) => HIGH * (1 - MARGIN - ((v - low) / span) * (1 - 2 * MARGIN));
    const line = path(points, x, y, steps);
    const area = `${line}L${WIDE} ${HIGH}L0 ${HIGH}Z`;
    const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const m of moments) {
      const width = Math.max(x(m.stop_s) - x(m.start_s), 2);
      drawing.append(svg("rect", { class: "moment", x: x(m.start_s), y: 0, width, height: HIGH }));
    }
    drawing.append(svg("path", { class: "area", d: area }), svg("path", { class: "line", d: line }));
    if (threshold !== null) {
      const clip = `above-${++made}`;
      const part = svg("rect", { x: 0, y: 0, width: WIDE, height: y(threshold) });
      drawing.append(
        svg("clipPath", { id: clip }, part),
        svg("path", { class: "area above", d: area, "clip-path": `url(#${clip})` }),
        svg("path", { class: "line above", d: line, "clip-path": `url(#${clip})` }),
        svg("line", { class: "threshold", x1: 0, x2: WIDE, y1: y(threshold), y2: y(threshold) }),
      );
    }
    this.root.setAttribute("role", "img");
    this.root.setAttribute("aria-label", label);
    this.root.replaceChildren(drawing, this.cursor, this.hover, this.words);
    this.root.hidden = false;
  }

  clear() {
    this.#points = null;
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  at(seconds) {
    this.cursor.style.left = `${(100 * Math.min(seconds, this.#end)) / this.#end}%`;
  }

  #seconds(event) {
    const box = this.root.getBoundingClientRect();
    return this.#end * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  }

  #point(event) {
    if (!this.#points) return;
    const seconds = this.#seconds(event);
    const { times, values } = this.#points;
    let nearest = times.findIndex((t) => t > seconds);
    nearest = nearest < 0 ? times.length - 1 : Math.max(0, nearest - 1);
    const place = `${(100 * seconds) / this.#end}%`;
    this.words.textContent = `${clockTime(seconds)} \u00b7 ${this.value(values[nearest])}`;
    for (const mark of [this.hover, this.words]) {
      mark.style.left = place;
      mark.hidden = false;
    }
    this.words.classList.toggle("left", seconds > this.#end / 2);
  }

  #leave() {
    this.hover.hidden = this.words.hidden = true;
  }
}

function path({ times, values }, x, y, steps) {
  const to = (t, v) => `${x(t).toFixed(2)} ${y(v).toFixed(2)}`;
  let line = `M0 ${y(values[0]).toFixed(2)}`;
  values.forEach((v, i) => {
    if (steps && i) line += `L${to(times[i], values[i - 1])}`;
    line += `L${to(times[i], v)}`;
  });
  return `${line}L${WIDE} ${y(values[values.length - 1]).toFixed(2)}`;
}

// SPDX-License-Identifier: MIT
// On the picture: the patches that match, shaded by score, and the grid from which one is picked.

import { fitOfPatches } from "./api.js";
import { el, place, svg } from "./dom.js";
import { score } from "./format.js";

const FAINTEST = 0.12;
const STRONGEST = 0.45;
const LEAST_SPAN = 0.02; // of scores: what is hardly above the threshold stays faint

export class Shades {
  #wanted = null; // {frame, pairs}
  #asking = false;
  #drawn = null;

  /** @param root an <svg> that lies on the picture; @param failed called with the error of an answer that did not come */
  constructor(root, path, failed) {
    this.root = root;
    this.path = path;
    this.failed = failed;
    this.best = 0; // the best score in the whole file, which is shaded strongest
    root.setAttribute("viewBox", "0 0 1 1");
    root.setAttribute("preserveAspectRatio", "none");
  }

  clear() {
    this.#wanted = this.#drawn = null;
    this.root.replaceChildren();
  }

  /** What matches on a frame; one question is on its way at a time, and only the latest frame counts. */
  async show(frame, pairs) {
    const same = (other) => other !== null && other.frame === frame && String(other.pairs) === String(pairs);
    if (same(this.#wanted)) return;
    this.#wanted = { frame, pairs };
    if (this.#asking) return;
    this.#asking = true;
    try {
      while (this.#wanted && this.#wanted !== this.#drawn) {
        const asked = this.#wanted;
        const answer = await fitOfPatches(this.path, asked.frame, asked.pairs);
        if (!this.#wanted || String(this.#wanted.pairs) !== String(asked.pairs)) continue;
        this.#drawn = asked;
        this.#draw(answer);
      }
    } catch (error) {
      this.clear();
      this.failed(error);
    } finally {
      this.#asking = false;
    }
  }

  #draw({ boxes, threshold }) {
    const matching = boxes.filter((box) => box.score >= threshold);
    const top = Math.max(this.best, threshold + LEAST_SPAN, ...matching.map((box) => box.score));
    this.root.replaceChildren(
      ...matching.map((box) => {
        const share = (box.score - threshold) / (top - threshold);
        const opacity = (FAINTEST + (STRONGEST - FAINTEST) * share).toFixed(3);
        const title = svg("title");
        title.textContent = score(box.score);
        return svg("rect", { x: box.x, y: box.y, width: box.w, height: box.h, "fill-opacity": opacity }, title);
      }),
    );
  }
}

/** The patch grid as buttons over the picture: arrows move, Enter picks, Escape leaves. */
export class Picker {
  /** @param grid {rows, cols}; @param picked called with row, column; @param left called when it is closed */
  constructor(root, grid, picked, left) {
    Object.assign(this, { root, grid, picked, left });
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  get open() {
    return !this.root.hidden;
  }

  show() {
    const { rows, cols } = this.grid;
    this.buttons = [];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < cols; column++) {
        const label = `More like row ${row + 1}, column ${column + 1}`;
        const button = el("button", { type: "button", "aria-label": label, title: "More like this", tabindex: "-1" });
        button.addEventListener("click", () => {
          this.hide();
          this.picked(row, column);
        });
        this.buttons.push(place(button, { x: column / cols, y: row / rows, w: 1 / cols, h: 1 / rows }));
      }
    }
    this.root.replaceChildren(...this.buttons);
    this.root.hidden = false;
    this.#focus(Math.floor(this.buttons.length / 2));
  }

  hide() {
    if (!this.open) return;
    this.root.hidden = true;
    this.root.replaceChildren();
    this.left();
  }

  #focus(index) {
    this.buttons.forEach((button, i) => (button.tabIndex = i === index ? 0 : -1));
    this.buttons[index].focus();
  }

  #key(event) {
    const { rows, cols } = this.grid;
    const now = this.buttons.indexOf(document.activeElement);
    const [row, column] = [Math.floor(now / cols), now % cols];
    const to = {
      ArrowLeft: [row, Math.max(0, column - 1)], ArrowRight: [row, Math.min(cols - 1, column + 1)],
      ArrowUp: [Math.max(0, row - 1), column], ArrowDown: [Math.min(rows - 1, row + 1), column],
    }[event.key];
    if (event.key === "Escape") this.hide();
    else if (to) this.#focus(to[0] * cols + to[1]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

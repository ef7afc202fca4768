// SPDX-License-Identifier: MIT
// The base layer alone, to the left of a line over the picture, against the whole to its right.

import { frameAddress } from "./api.js";
import { el } from "./dom.js";
import { LatestImage } from "./exact.js";

export class Compare {
  #wanted = null; // address of the picture that belongs to the moment

  constructor(page, file, failed) {
    Object.assign(this, { page, file });
    this.on = false;
    this.image = new LatestImage(page.base, failed);
    page.divider.addEventListener("input", () => this.#cut());
    page.base.addEventListener("shown", () => this.cover(true));
    this.#cut();
  }

  /** The switch; before it is turned on the player has to stop. */
  button(stop, draw) {
    const button = el("button", { type: "button", class: "wide", "aria-pressed": "false" }, "Compare with the base layer alone");
    button.addEventListener("click", () => {
      this.on = !this.on;
      button.setAttribute("aria-pressed", String(this.on));
      if (this.on) stop();
      draw();
      if (this.on) this.page.player.scrollIntoView({ block: "nearest" });
    });
    return button;
  }

  show(frame) {
    if (!this.on) return;
    this.#wanted = frameAddress(this.file.path, frame, { layer: "base" });
    this.image.show(this.#wanted);
  }

  /** Hidden while the video moves, and while the picture is of another frame. */
  cover(stands) {
    const { comparing, base } = this.page;
    comparing.hidden = !(this.on && stands);
    base.hidden = comparing.hidden || this.image.address !== this.#wanted;
  }

  #cut() {
    const share = Number(this.page.divider.value);
    this.page.base.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    this.page.comparing.style.setProperty("--cut", `${share}%`);
    this.page.divider.setAttribute("aria-valuetext", `base layer alone on ${Math.round(share)} % of the picture`);
  }
}

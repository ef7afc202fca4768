// SPDX-License-Identifier: MIT
// Exact frames as pictures: only the latest that is asked for counts, and requests never pile up.

import { get } from "./api.js";

const PATIENCE_MS = 1500; // a picture on its way is waited for so long when another is wanted
const BUSY_WAIT_MS = 400;

export class LatestImage {
  #on = null; // {address, begun, controller}: on its way
  #next = null;

  /** @param image an <img>; @param failed called with the error of a picture that did not come */
  constructor(image, failed = () => {}) {
    this.image = image;
    this.failed = failed;
    this.address = null; // of what is on show
  }

  /** The address of what is wanted last, on show or not. */
  get wanted() {
    return this.#next ?? this.#on?.address ?? this.address;
  }

  show(address) {
    if (address === this.wanted) return;
    if (!this.#on) {
      this.#next = null;
      if (address !== this.address) this.#fetch(address);
      return;
    }
    this.#next = address;
    if (performance.now() - this.#on.begun > PATIENCE_MS) this.#on.controller.abort();
  }

  /** Nothing is wanted any more; what is on show stays. */
  stop() {
    this.#next = null;
    this.#on?.controller.abort();
  }

  async #fetch(address) {
    const controller = new AbortController();
    this.#on = { address, begun: performance.now(), controller };
    try {
      const data = await (await get(address, controller.signal)).blob();
      if (!controller.signal.aborted) await this.#put(data, address);
    } catch (error) {
      if (error.status === 503) {
        await new Promise((done) => setTimeout(done, BUSY_WAIT_MS));
        if (!controller.signal.aborted) this.#next ??= address;
      } else if (error.name !== "AbortError") this.failed(error);
    }
    this.#on = null;
    const next = this.#next;
    this.#next = null;
    if (next !== null && next !== this.address) this.#fetch(next);
  }

  async #put(data, address) {
    const before = this.image.src;
    await new Promise((done, failed) => {
      this.image.onload = done;
      this.image.onerror = () => failed(new Error("The browser cannot read this picture."));
      this.image.src = URL.createObjectURL(data); // until it is loaded the browser goes on showing what was there
    });
    this.address = address;
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
    this.image.dispatchEvent(new CustomEvent("shown", { detail: address }));
  }
}

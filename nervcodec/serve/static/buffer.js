// SPDX-License-Identifier: MIT
// One track of the player: fetches the fragments that are wanted next and keeps the browser's buffer small.

const BEHIND_S = 12;
export const GAP_S = 0.25; // shorter ones are stepped over
const BUSY_WAIT_MS = 1000;
const SMOOTHING = 0.4; // weight of the latest fragment in the measured pace

const isIn = (ranges, seconds, slack = 0) => {
  for (let i = 0; i < ranges.length; i++) {
    if (ranges.start(i) - slack <= seconds && seconds < ranges.end(i)) return true;
  }
  return false;
};

/** Where the next range begins, if that is no further than a gap away; else null. */
export function afterGap(ranges, seconds) {
  for (let i = 0; i < ranges.length; i++) {
    if (seconds < ranges.start(i) && ranges.start(i) <= seconds + GAP_S) return ranges.start(i);
  }
  return null;
}

/** How far a buffer reaches without a gap from a time on, in seconds. */
export function reach(ranges, seconds, slack = 0.1) {
  for (let i = 0; i < ranges.length; i++) {
    if (ranges.start(i) - slack <= seconds && seconds < ranges.end(i)) return ranges.end(i) - seconds;
  }
  return 0;
}

export class Track {
  #buffer;
  #fetching = null; // {index, controller}
  #there = new Set();
  #again = new Set(); // asked for a second time
  #working = false;
  #closed = false;

  /**
   * @param buffer a SourceBuffer
   * @param facts {fragment_s, count}
   * @param load index, signal -> promise of the fragment's bytes
   * @param failed called with the error that ended this track
   * @param fill see silence.js; null for a track that has no gaps
   */
  constructor(buffer, facts, load, failed, fill = null) {
    this.#buffer = buffer;
    this.fragment = facts.fragment_s;
    this.count = facts.count;
    this.load = load;
    this.failed = failed;
    this.fill = fill;
    this.pace = null; // seconds of video for each second of waiting
    buffer.addEventListener("bufferedchange", (event) => this.#lost(event.removedRanges));
  }

  /** All that is between a time and the end was appended. */
  completeFrom(seconds) {
    for (let i = this.#at(seconds); i < this.count; i++) if (!this.#there.has(i)) return false;
    return true;
  }

  /** What the browser threw away without saying so has to come once more. */
  missing(seconds) {
    const index = this.#at(seconds);
    if (this.#again.has(index) || isIn(this.#buffer.buffered, seconds, GAP_S)) return;
    if (this.#there.delete(index)) this.#again.add(index);
  }

  close() {
    this.#closed = true;
    this.#fetching?.controller.abort();
  }

  /** Fetch and append until the buffer reaches so far beyond a time; may be called as often as one likes. */
  async keep(seconds, ahead) {
    this.seconds = seconds;
    this.ahead = ahead;
    const next = this.#next();
    if (this.#fetching && this.#fetching.index !== next) this.#fetching.controller.abort();
    if (this.#working || next === null) return;
    this.#working = true;
    try {
      for (let index = next; index !== null && !this.#closed; index = this.#next()) await this.#bring(index);
    } catch (error) {
      this.#closed = true;
      this.failed(error);
    } finally {
      this.#working = false;
    }
  }

  #at(seconds) {
    return Math.max(0, Math.min(this.count - 1, Math.floor(seconds / this.fragment + 1e-6)));
  }

  #next() {
    const last = this.#at(this.seconds + this.ahead);
    for (let i = this.#at(this.seconds); i <= last; i++) if (!this.#there.has(i)) return i;
    return null;
  }

  async #bring(index) {
    const controller = new AbortController();
    this.#fetching = { index, controller };
    try {
      const begun = performance.now();
      const bytes = await this.load(index, controller.signal);
      const pace = (1000 * this.fragment) / (performance.now() - begun);
      this.pace = this.pace === null ? pace : SMOOTHING * pace + (1 - SMOOTHING) * this.pace;
      await this.#append(bytes);
      const [from, to] = [index * this.fragment, (index + 1) * this.fragment];
      await this.fill?.(this.#buffer, (more) => this.#append(more), from, to);
      this.#there.add(index);
    } catch (error) {
      if (error.name === "AbortError") return; // another fragment is wanted by now
      if (error.status !== 503) throw error;
      await new Promise((done) => setTimeout(done, BUSY_WAIT_MS));
    } finally {
      this.#fetching = null;
    }
  }

  async #append(bytes) {
    await this.#clear(0, this.seconds - BEHIND_S);
    if (!bytes.byteLength) return;
    try {
      await this.#done(() => this.#buffer.appendBuffer(bytes));
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.ahead = Math.max(this.fragment, this.ahead / 2);
      await this.#clear(0, this.seconds - 1);
      await this.#clear(this.seconds + this.ahead + this.fragment, Infinity);
      await this.#done(() => this.#buffer.appendBuffer(bytes));
    }
  }

  /** Whole fragments between two times leave the buffer. */
  async #clear(from, to) {
    const gone = [...this.#there].filter((i) => i * this.fragment >= from && (i + 1) * this.fragment <= to);
    if (!gone.length) return;
    gone.forEach((i) => this.#there.delete(i));
    const start = Math.min(...gone) * this.fragment;
    await this.#done(() => this.#buffer.remove(start, (Math.max(...gone) + 1) * this.fragment));
  }

  #lost(ranges) {
    for (let i = 0; ranges && i < ranges.length; i++) {
      const [first, last] = [this.#at(ranges.start(i)), this.#at(ranges.end(i) - 1e-3)];
      for (let gone = first; gone <= last; gone++) this.#there.delete(gone);
    }
  }

  #done(start) {
    return new Promise((resolve, reject) => {
      const settle = (event) => {
        this.#buffer.removeEventListener("updateend", settle);
        this.#buffer.removeEventListener("error", settle);
        if (event.type === "error") reject(new Error("The browser cannot read what the server sent."));
        else resolve();
      };
      this.#buffer.addEventListener("updateend", settle);
      this.#buffer.addEventListener("error", settle);
      try {
        start();
      } catch (error) {
        this.#buffer.removeEventListener("updateend", settle);
        this.#buffer.removeEventListener("error", settle);
        reject(error);
      }
    });
  }
}

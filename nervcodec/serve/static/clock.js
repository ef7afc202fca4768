// SPDX-License-Identifier: MIT
// Frames and their times.

const SLACK_S = 2e-6; // of numbers that went through arithmetic

export class Clock {
  /** @param file as the server describes it: frame_count, frame_rate, duration_s, frame_times_s (null: evenly spaced) */
  constructor(file) {
    this.frames = file.frame_count;
    this.end = file.duration_s;
    this.rate = file.frame_rate;
    this.times = file.frame_times_s;
  }

  /** When a frame comes on show, in seconds. */
  start(frame) {
    return this.times ? this.times[frame] : frame / this.rate;
  }

  /** When the next one replaces it. */
  stop(frame) {
    return frame + 1 < this.frames ? this.start(frame + 1) : Math.max(this.end, this.start(frame));
  }

  /** The frame on show at a time; the first before the start, the last from the end on. */
  at(seconds) {
    let low = 0;
    let high = this.frames - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.start(middle) <= seconds + SLACK_S) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  within(frame) {
    return Math.max(0, Math.min(this.frames - 1, frame));
  }
}

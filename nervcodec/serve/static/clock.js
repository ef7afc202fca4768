// SPDX-License-Identifier: MIT
// Frames and their times.

const SLACK_S = 1.1e-3; // MP4 may round times to milliseconds

export class Clock {
  /** @param file as the server describes it: frame_count, frame_rate, duration_s, frame_times_s (null: evenly spaced) */
  constructor(file) {
    this.frames = file.frame_count;
    this.end = file.duration_s;
    this.rate = file.frame_rate;
    this.times = file.frame_times_s;
  }

  /** When a frame begins to show, in seconds; the end of the video for the one after the last. */
  start(frame) {
    if (frame >= this.frames) return this.end;
    return this.times ? this.times[frame] : frame / this.rate;
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

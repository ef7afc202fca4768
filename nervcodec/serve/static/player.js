// SPDX-License-Identifier: MIT
// Plays a file with <video>: a whole MP4 file, or a stream that grows while the server codes it.

import { frameAddress, mediaAddress, mediaProgress } from "./api.js";

const POLL_MS = 700;
const REST_MS = 150; // after the last of several seeks, before another stream is requested
const INSIDE_S = 0.002; // beyond the start of a frame, so that rounding does not show the one before

/** Whether to play a form: the browser takes its codecs, and the screen shows HDR where it is that. */
const isPlayed = (video, form) =>
  video.canPlayType(form.type) !== "" && (!form.hdr || matchMedia("(dynamic-range: high)").matches);

/** Events: "time" (another moment), "progress" (more is coded), "form" (another is played), "note" (detail: a sentence). */
export class Player extends EventTarget {
  #forms;
  #frame = 0; // on show, or to be shown once there is a picture
  #from = 0; // frame that the stream was requested for
  #shown = null; // time of the picture that the browser presented last
  #resumes = false; // play as soon as there is a source
  #needsWhole = false; // the browser does not play a stream that grows
  #timer = 0;
  #polling = false;

  constructor(video, file, clock) {
    super();
    Object.assign(this, { video, file, clock });
    this.growing = false; // the file is not whole yet
    this.coded = []; // ranges of frames of it
    this.#forms = file.media.filter((form) => isPlayed(video, form));
    video.addEventListener("error", () => this.#failed());
    video.addEventListener("seeking", () => (this.#shown = null));
    for (const name of ["seeked", "timeupdate", "ended"]) video.addEventListener(name, () => this.#moved());
    video.addEventListener("pause", () => this.#paused());
    video.addEventListener("play", () => this.growing && this.#poll());
    const presented = (_, facts) => {
      this.#shown = facts.mediaTime;
      this.#moved();
      video.requestVideoFrameCallback(presented);
    };
    video.requestVideoFrameCallback?.(presented);
  }

  get frame() {
    return this.#frame;
  }

  /** Seconds: when the frame on show begins. */
  get time() {
    return this.clock.start(this.#frame);
  }

  get playing() {
    return !this.video.paused && !this.video.ended;
  }

  /** Open the file, or another form of it, at a moment. */
  open(seconds) {
    this.#frame = this.clock.at(seconds);
    this.form = this.#forms[0] ?? null;
    this.growing = this.form !== null && !this.form.is_whole;
    this.#load();
    for (const name of ["form", "progress", "time"]) this.#tell(name);
    if (!this.form) this.#note("This browser cannot play this file: its frames can be looked at, one by one.");
  }

  seek(seconds) {
    this.toFrame(this.clock.at(seconds), this.playing || this.#resumes);
  }

  toFrame(frame, plays = false) {
    this.#frame = this.clock.within(frame);
    if (!plays) this.video.pause();
    if (this.form && !this.growing) {
      this.video.currentTime = this.#inside(this.#frame);
    } else {
      this.#resumes = plays;
      this.#later();
    }
    this.#tell("time");
  }

  toggle() {
    if (this.playing) this.video.pause();
    else if (this.video.getAttribute("src")) this.#play();
    else this.#resumes = true; // once there is a source
  }

  #play() {
    this.video.play().catch(() => {}); // the browser's controls show it
  }

  #inside(frame) {
    const begin = this.clock.start(frame);
    return begin + Math.min(INSIDE_S, (this.clock.start(frame + 1) - begin) / 4);
  }

  /** Seconds from the video's times to the file's: some browsers let each stream begin at 0. */
  get #shift() {
    const begin = this.growing ? this.clock.start(this.#from) : 0;
    const { buffered } = this.video;
    return buffered.length && buffered.start(0) < begin / 2 ? begin : 0;
  }

  /** Browsers cannot seek in a stream: show the frame, and request another stream once no other seek follows. */
  #later() {
    this.video.poster = frameAddress(this.file.path, this.#frame);
    this.video.removeAttribute("src");
    this.video.load();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#load(), REST_MS);
  }

  #load() {
    const { video, growing, form } = this;
    clearTimeout(this.#timer);
    video.poster = frameAddress(this.file.path, this.#frame);
    this.#shown = null;
    if (!form || (growing && this.#needsWhole)) return;
    this.#from = this.#frame;
    video.preload = growing ? "none" : "auto"; // coding begins when somebody plays
    video.src = mediaAddress(this.file.path, form.codec, growing ? this.#frame : null);
    if (!growing) video.currentTime = this.#frame && this.#inside(this.#frame);
    if (this.#resumes) this.#play();
    this.#resumes = false;
  }

  #moved() {
    const { video, clock } = this;
    if (video.readyState < 2 || video.seeking) return;
    const seconds = (this.growing || this.playing) && this.#shown !== null ? this.#shown : video.currentTime;
    this.#frame = clock.at(seconds + this.#shift);
    this.#tell("time");
  }

  /** Under load pictures are late, and the time of a pause is that of another frame: go to the one that was presented. */
  #paused() {
    const { video } = this;
    if (!this.growing && video.paused && !video.ended && !video.seeking && video.readyState > 1) {
      video.currentTime = this.#inside(this.#shown === null ? this.#frame : this.clock.at(this.#shown));
    }
    this.#moved();
  }

  /** Ask how much is coded until all of it is, then play the whole file from the same moment on. */
  async #poll() {
    if (this.#polling) return;
    this.#polling = true;
    try {
      for (;;) {
        const { is_whole: isWhole, frames, error } = await mediaProgress(this.file.path, this.form.codec);
        this.coded = frames;
        if (error) throw new Error(error);
        if (isWhole) break;
        this.#tell("progress");
        await new Promise((done) => setTimeout(done, POLL_MS));
      }
      this.form.is_whole = true;
      await fetch(frameAddress(this.file.path, this.#frame)).catch(() => {}); // a poster that is there at once
      this.#resumes ||= this.playing;
      this.growing = false;
      this.#load();
      this.#note("");
      this.#tell("progress");
    } catch (error) {
      this.#needsWhole = this.#resumes = false; // it may be for this error that the stream ended
      this.#note(error.message);
    } finally {
      this.#polling = false;
    }
  }

  #failed() {
    if (!this.video.getAttribute("src")) return;
    this.#resumes ||= this.playing;
    if (this.growing) {
      this.#resumes ||= this.video.readyState === 0; // loaded to be played; Chromium pauses where nothing can be
      this.#needsWhole = true;
      this.#note("This browser plays the file when all of it is prepared.");
      this.#later();
      this.#poll();
      return;
    }
    this.#forms.shift();
    this.open(this.time);
  }

  #note(sentence) {
    this.#tell("note", sentence);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

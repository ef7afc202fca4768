// SPDX-License-Identifier: MIT
// Plays a file through Media Source Extensions, and says so when it has to wait for the decoder.

import { fragmentAddress, get } from "./api.js";
import { fill } from "./silence.js";
import { Track, afterGap, reach } from "./buffer.js";

const PLAYING_AHEAD_S = 20;
const RESTING_AHEAD_S = 3;
const REST_MS = 500; // a scrubber must stand still so long before anything is fetched for playing on
const LATE_MS = 250;
const BEAT_MS = 120;
const LEAST_AHEAD_S = 0.25; // with less it waits
const MOST_WAIT_S = 6; // so much is gathered at most before a slow file goes on
const Source = window.ManagedMediaSource || window.MediaSource;

/**
 * Events: "change" (playing, waiting, end), "time" (a moment came on show), "refused" (detail: why it cannot play),
 * "mute" (detail: why there is no sound).
 */
export class Player extends EventTarget {
  #source = null;
  #tracks = [];
  #held = false; // stalled: gathers before it goes on
  #shown = null; // time of the picture that the browser presented last
  #stopping = false; // paused, and not moved since: the browser may yet present a picture that was on its way
  #moved = 0; // when the moment last changed by hand

  constructor(video, file, clock) {
    super();
    this.video = video;
    this.file = file;
    this.clock = clock;
    this.playing = false;
    this.moment = 0; // seconds, what holds while it does not play
    this.able = this.#open();
    video.addEventListener("ended", () => this.#ended());
    video.addEventListener("waiting", () => this.#beat());
    video.addEventListener("playing", () => this.#tell("change"));
    video.addEventListener("error", () => this.#refuse(video.error?.message || "The browser cannot play this file."));
    this.#watch();
    setInterval(() => this.#beat(), BEAT_MS);
  }

  /** Seconds: what is on show, or should be. */
  get time() {
    return this.playing ? Math.min(this.#shown ?? this.moment, this.clock.end) : this.moment;
  }

  get frame() {
    return this.clock.at(this.time);
  }

  /** Whether the browser shows moving pictures by now. */
  get presents() {
    return this.playing && this.#shown !== null;
  }

  get waiting() {
    return this.playing && (this.#held || this.video.readyState < 3 || this.#shown === null);
  }

  /** Seconds decoded for each second that passes, null before anything was. */
  get pace() {
    return this.#tracks[0]?.pace ?? null;
  }

  get buffered() {
    return this.video.buffered;
  }

  play() {
    if (!this.able || this.playing) return;
    if (this.clock.at(this.moment) === this.clock.frames - 1) this.moment = 0;
    this.playing = true;
    this.#shown = null;
    this.#held = false;
    this.video.currentTime = this.#inside(this.moment);
    this.#start();
    this.#beat();
    this.#tell("change");
  }

  pause() {
    if (!this.playing) return;
    this.moment = this.clock.start(this.frame);
    this.playing = false;
    this.#held = false;
    this.video.pause();
    this.#stopping = true;
    this.#moved = performance.now();
    this.#tell("change");
  }

  /** Go to a moment; the picture of it is for others to show while nothing plays. */
  seek(seconds) {
    this.moment = Math.max(0, Math.min(this.clock.end, seconds));
    this.#moved = performance.now();
    this.#stopping = false;
    if (this.playing) {
      if (this.moment >= this.clock.end) return this.#ended();
      this.#shown = null;
      this.#held = false;
      this.video.currentTime = this.moment;
      this.#start();
    }
    this.#beat();
    this.#tell("time");
  }

  /** A little after a frame's start, so that rounding does not show the one before it. */
  #inside(seconds) {
    const frame = this.clock.at(seconds);
    return seconds + Math.min(0.002, (this.clock.stop(frame) - this.clock.start(frame)) / 4);
  }

  #start() {
    this.video.play().catch((error) => {
      if (error.name !== "NotAllowedError" || !this.playing) return;
      this.pause();
      this.#tell("mute", "This browser wants to be asked once more: press play.");
    });
  }

  #open() {
    const { video, audio } = this.file;
    if (!Source) return this.#refuse("This browser has no Media Source Extensions: frames can be looked at, not played.");
    if (!Source.isTypeSupported(video.type)) {
      return this.#refuse("This browser plays no H.264: frames can be looked at, not played.");
    }
    const sound = audio && Source.isTypeSupported(audio.type) ? audio : null;
    if (audio && !sound) queueMicrotask(() => this.#tell("mute", `This browser cannot play the sound (${audio.type}).`));
    this.sound = sound !== null;
    this.#source = new Source();
    this.#source.addEventListener("sourceopen", () => this.#opened(video, sound), { once: true });
    this.video.disableRemotePlayback = true;
    this.address = URL.createObjectURL(this.#source);
    this.video.src = this.address;
    return true;
  }

  #opened(video, sound) {
    URL.revokeObjectURL(this.address);
    this.#source.duration = this.clock.end;
    this.#tracks = [this.#track("video", video)];
    if (sound) this.#tracks.push(this.#track("audio", sound));
    this.#beat();
  }

  #track(kind, facts) {
    const buffer = this.#source.addSourceBuffer(facts.type);
    if (kind === "audio") buffer.appendWindowEnd = this.clock.end;
    const fillToEnd = (into, append, from, to) => fill(into, append, from, Math.min(to, this.clock.end));
    const load = async (index, signal) =>
      (await get(fragmentAddress(this.file.path, kind, index), signal)).arrayBuffer();
    const failed = (error) => {
      if (kind === "video") return this.#refuse(error.message);
      this.#tracks = this.#tracks.filter((other) => other !== track);
      this.#source.removeSourceBuffer(buffer);
      this.sound = false;
      this.#tell("mute", `The sound is left out: ${error.message}`);
    };
    const track = new Track(buffer, facts, load, failed, kind === "audio" ? fillToEnd : null);
    return track;
  }

  #beat() {
    const now = this.playing ? this.video.currentTime : this.moment;
    const resting = performance.now() - this.#moved < REST_MS;
    if (this.#tracks.length && (this.playing || !resting)) {
      const ahead = this.playing ? PLAYING_AHEAD_S : RESTING_AHEAD_S;
      this.#tracks.forEach((track) => track.keep(now, ahead));
    }
    if (this.playing) this.#goOn(now);
  }

  #goOn(now) {
    const complete = this.#tracks.length > 0 && this.#tracks.every((track) => track.completeFrom(now));
    if (complete && this.#source.readyState === "open" && !this.#busy()) this.#source.endOfStream();
    const ahead = reach(this.video.buffered, now);
    if (this.#held) {
      if (complete || ahead >= this.#enough(now)) {
        this.#held = false;
        this.#start();
        this.#tell("change");
      }
      return;
    }
    if (this.video.seeking || ahead > LEAST_AHEAD_S) return;
    if (this.video.readyState < 3) {
      const next = afterGap(this.video.buffered, now + ahead);
      if (next !== null) this.video.currentTime = next;
      else this.#tracks.forEach((track) => track.missing(now));
    }
    // With sound a browser lets the clock run on for seconds where pictures are missing; nobody wants to see that.
    if (this.#shown !== null && !complete) {
      this.#held = true;
      this.video.pause();
      this.#tell("change");
    }
  }

  #busy() {
    return [...this.#source.sourceBuffers].some((buffer) => buffer.updating);
  }

  /** What has to be there before a stalled file goes on, so that it does not stall again at once. */
  #enough(now) {
    const short = Math.max(0, 1 - (this.pace ?? 1));
    return Math.max(2 * LEAST_AHEAD_S, Math.min(MOST_WAIT_S, (this.clock.end - now) * short));
  }

  #ended() {
    this.playing = false;
    this.video.pause();
    this.moment = this.clock.start(this.clock.frames - 1);
    this.#tell("change");
  }

  #watch() {
    if (this.video.requestVideoFrameCallback) {
      const presented = (_, facts) => {
        this.#present(facts.mediaTime);
        this.video.requestVideoFrameCallback(presented);
      };
      this.video.requestVideoFrameCallback(presented);
      return;
    }
    this.video.addEventListener("timeupdate", () => {
      if (!this.playing || this.video.readyState < 2) return;
      this.#present(this.video.currentTime);
    });
  }

  #present(seconds) {
    if (this.video.seeking) return;
    if (this.playing) this.#shown = seconds;
    else if (this.#stopping && performance.now() - this.#moved < LATE_MS) this.moment = this.clock.start(this.clock.at(seconds));
    else return;
    this.#tell("time");
  }

  #refuse(sentence) {
    this.able = false;
    this.pause();
    queueMicrotask(() => this.#tell("refused", sentence));
    return false;
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

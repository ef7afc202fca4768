// SPDX-License-Identifier: MIT
// The row of buttons, the slider and the keys: everything that moves the player.

import { clockTime } from "./format.js";
import { onKeys } from "./keys.js";

const STEP_S = 5;
const LEAP_S = 10;
const LOUDER = 0.1;

export class Controls {
  #resumes = false; // a scrub began while it played

  /** @param page an object of elements by id; @param actions {copyLink, search} */
  constructor(page, player, clock, actions) {
    Object.assign(this, { page, player, clock });
    this.#slider();
    this.#buttons(actions);
    this.#sound();
    onKeys(this.#keys(actions));
  }

  /** To the start of a frame, paused. */
  toFrame(frame) {
    this.player.pause();
    this.player.seek(this.clock.start(this.clock.within(frame)));
  }

  /** To what is on show at a time: exactly its frame where nothing plays. */
  toTime(seconds) {
    const inside = Math.max(0, Math.min(this.clock.end, seconds));
    this.player.seek(this.player.playing ? inside : this.clock.start(this.clock.at(inside)));
  }

  toggle() {
    if (this.player.playing) this.player.pause();
    else this.player.play();
  }

  /** What the elements say, brought up to date. */
  draw() {
    const { page, player, clock } = this;
    const [seconds, frame] = [player.time, player.frame];
    const time = clockTime(seconds);
    page.slider.value = String(seconds);
    page.slider.setAttribute("aria-valuetext", `${time} of ${clockTime(clock.end)}, frame ${frame}`);
    page.slider.style.setProperty("--done", String(seconds / clock.end));
    page.now.textContent = time;
    page.frame.textContent = String(frame);
    const words = player.playing ? "Pause" : "Play";
    page.play.setAttribute("aria-label", words);
    page.play.title = `${words} (space)`;
    page.play.classList.toggle("on", player.playing);
    page.play.disabled = !player.able;
    page.back.disabled = frame === 0 && !player.playing;
    page.forth.disabled = frame === clock.frames - 1 && !player.playing;
    this.#buffered();
  }

  #buffered() {
    const ranges = this.player.buffered;
    const wide = this.clock.end;
    const stops = [];
    for (let i = 0; i < ranges.length; i++) {
      const [from, to] = [(100 * ranges.start(i)) / wide, (100 * ranges.end(i)) / wide];
      stops.push(`transparent ${from}%`, `var(--buffered) ${from}%`, `var(--buffered) ${to}%`, `transparent ${to}%`);
    }
    this.page.buffered.style.backgroundImage = stops.length ? `linear-gradient(to right, ${stops.join(", ")})` : "";
  }

  #slider() {
    const { slider } = this.page;
    slider.max = String(this.clock.end);
    slider.step = "any";
    this.page.end.textContent = clockTime(this.clock.end);
    slider.addEventListener("input", () => {
      const seconds = Number(slider.value);
      if (this.player.playing) {
        this.#resumes = true;
        this.player.pause();
      }
      this.toTime(seconds);
    });
    slider.addEventListener("change", () => {
      if (this.#resumes) this.player.play();
      this.#resumes = false;
    });
  }

  #buttons({ copyLink }) {
    const { page } = this;
    const press = (button, action) =>
      button.addEventListener("click", (event) => {
        action();
        if (event.detail) page.player.focus({ preventScroll: true }); // so that space goes on to mean play
      });
    press(page.play, () => this.toggle());
    press(page.back, () => this.toFrame(this.player.frame - 1));
    press(page.forth, () => this.toFrame(this.player.frame + 1));
    press(page.mute, () => this.#mute());
    press(page.link, copyLink);
    press(page.full, () => this.#full());
    page.help.addEventListener("click", () => page.keys.showModal());
    page.stage.addEventListener("click", (event) => {
      if (!event.target.closest("button, input")) this.toggle();
    });
    document.addEventListener("fullscreenchange", () => {
      page.full.classList.toggle("on", document.fullscreenElement !== null);
    });
  }

  #sound() {
    const { page, player } = this;
    const draw = () => {
      const { muted, volume } = player.video;
      const words = muted ? "Unmute" : "Mute";
      page.mute.classList.toggle("on", muted || volume === 0);
      page.mute.setAttribute("aria-label", words);
      page.mute.title = `${words} (m)`;
      page.volume.value = String(muted ? 0 : volume);
      page.volume.setAttribute("aria-valuetext", muted ? "muted" : `${Math.round(100 * volume)} %`);
    };
    page.volume.addEventListener("input", () => {
      player.video.muted = false;
      player.video.volume = Number(page.volume.value);
    });
    player.video.addEventListener("volumechange", draw);
    this.silence();
    draw();
  }

  /** Without sound there is nothing to make louder. */
  silence() {
    this.page.sound.hidden = !this.player.sound;
    this.page.silent.hidden = this.player.sound;
  }

  #mute() {
    this.player.video.muted = !this.player.video.muted;
  }

  #louder(by) {
    const { video } = this.player;
    video.muted = false;
    video.volume = Math.max(0, Math.min(1, Math.round(100 * (video.volume + by)) / 100));
  }

  #full() {
    const { player: section, video } = this.page;
    if (document.fullscreenElement) document.exitFullscreen();
    else if (section.requestFullscreen) section.requestFullscreen();
    else video.webkitEnterFullscreen?.();
  }

  #keys({ search }) {
    const { player, page } = this;
    const by = (seconds) => () => this.toTime(player.time + seconds);
    return {
      " ": () => this.toggle(),
      k: () => this.toggle(),
      ArrowLeft: by(-STEP_S),
      ArrowRight: by(STEP_S),
      j: by(-LEAP_S),
      l: by(LEAP_S),
      ",": () => this.toFrame(player.frame - 1),
      ".": () => this.toFrame(player.frame + 1),
      Home: () => this.toTime(0),
      End: () => this.toFrame(this.clock.frames - 1),
      m: () => this.#mute(),
      ArrowUp: () => this.#louder(LOUDER),
      ArrowDown: () => this.#louder(-LOUDER),
      f: () => this.#full(),
      "/": search,
      "?": () => page.keys.showModal(),
    };
  }
}

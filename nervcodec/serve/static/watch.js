// SPDX-License-Identifier: MIT
// The page of one file: brings player, search and inspection together.

import { clipAddress, describeFile, fitOverTime, frameAddress, listFiles, root, watchAddress, watchedPath } from "./api.js";
import { Clock } from "./clock.js";
import { Last, el, onKeys, paced } from "./dom.js";
import { bytes, clockTime, count, decibels, percent, rate, score, sentence } from "./format.js";
import { inspect } from "./inspect.js";
import { Picker, Shades } from "./patches.js";
import { Player } from "./player.js";
import { Query } from "./query.js";
import { SearchPanel } from "./search.js";
import { tabs } from "./tabs.js";
import { Timeline } from "./timeline.js";

const ADDRESS_MS = 350; // Safari takes 100 changes of a page's address in 30 s
const SHADES_MS = 150;
const STEP_S = 5;
const LEAP_S = 10;
const NOTE_MS = 4000;
const PREVIEW_MS = 200;
const PREVIEW_WIDTH = 160;
const CLIP_S = 5; // where no result is at the moment
const LONGEST_CLIP_S = 120;

const UNSEARCHABLE = "This file was encoded without embeddings, so it cannot be searched.";

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const path = watchedPath();
const asked = new URLSearchParams(location.search);

class Watch {
  #fitting = new Last();
  #fit = null; // {times, values, threshold} of the present query
  #moments = []; // of this file, the best first
  #noteTimer = 0;
  #lasting = "";

  constructor(file) {
    this.file = file;
    this.clock = new Clock(file);
    this.query = new Query();
    this.player = new Player(page.video, file, this.clock);
    this.shades = new Shades(page.shades, path, (error) => this.note(error.message));
    this.fit = new Timeline(page.fit, { value: (v) => `fits ${score(v)}`, pick: (s) => this.player.seek(s) });
    this.keepAddress = paced(ADDRESS_MS, () => history.replaceState(null, "", this.address()));
    this.shade = paced(SHADES_MS, () => this.#shade());
    addEventListener("replaced", () => this.#again());
    this.#panels();
    this.#listen();
    this.#begin();
  }

  address() {
    return watchAddress(path, this.player.time, this.query.forAddress());
  }

  /** The page of the file as it is now, at the same moment. */
  #again() {
    history.replaceState(null, "", this.address());
    location.reload();
  }

  /** A sentence under the picture that goes by itself, back to the last that stays; an empty one ends both. */
  note(sentence, stays = false) {
    clearTimeout(this.#noteTimer);
    if (stays || !sentence) this.#lasting = sentence;
    page.note.textContent = sentence;
    if (!stays) this.#noteTimer = setTimeout(() => (page.note.textContent = this.#lasting), NOTE_MS);
  }

  search() {
    this.showTab("tab-search");
    this.panel.focus();
  }

  async copyLink() {
    const address = new URL(this.address(), location.href).href;
    history.replaceState(null, "", address);
    try {
      await navigator.clipboard.writeText(address);
      this.note(`Link to ${clockTime(this.player.time)} copied.`);
    } catch {
      // Browsers keep the clipboard to pages of this machine and of https; the address can still be copied by hand.
      this.note(`This browser keeps the clipboard to itself; the link: ${address}`, true);
    }
  }

  #panels() {
    this.showTab = tabs(page.tabs);
    inspect(page.inspect, this.file);
    this.panel = new SearchPanel(page.search, {
      label: "Search this video",
      file: path,
      scope: () => (page.everywhere?.checked ? null : path),
      changed: (query) => this.#asks(query),
      found: (moments) => {
        this.#moments = (moments ?? []).filter((moment) => moment.path === path);
        this.#drawFit();
        if (this.jumps && this.#moments.length) this.goTo(this.#moments[0]);
        if (moments) this.jumps = false;
      },
      go: (moment) => this.goTo(moment),
      refusal: () => (this.file.searchable || page.everywhere?.checked ? null : UNSEARCHABLE),
    });
    this.#scope();
    if (!this.file.grid || !this.file.searchable) return;
    const pick = el("button", { type: "button", class: "quiet", click: () => this.#pick() }, "Like a patch \u2026");
    pick.title = "Choose a patch of the picture and find what looks like it";
    this.panel.tools.append(pick);
    const chosen = (row, column) =>
      this.panel.ask(new Query([], [], [`${path}:${this.player.frame}:${row}:${column}`]));
    this.picker = new Picker(page.picker, this.file.grid, chosen, () => {
      page.stage.classList.remove("picking");
      this.note("");
      pick.focus();
    });
  }

  async #scope() {
    const { total } = await listFiles({}, 0, 1).catch(() => ({ total: 1 }));
    if (total < 2) return;
    const choice = (id, words, checked) => [
      el("input", { type: "radio", name: "scope", id, checked, change: () => this.panel.again() }),
      el("label", { for: id }, words),
    ];
    const set = el("fieldset", { class: "scope" }, el("legend", { class: "hidden" }, "Search in"));
    set.append(...choice("here", "This file", true), ...choice("everywhere", "All files", false));
    page.everywhere = set.querySelector("#everywhere");
    this.panel.chips.before(set);
  }

  goTo(moment) {
    this.player.toFrame(moment.frame);
    if (page.player.getBoundingClientRect().top < 0) page.player.scrollIntoView({ block: "start" });
  }

  #pick() {
    page.video.pause();
    page.stage.classList.add("picking");
    page.player.scrollIntoView({ block: "nearest" });
    this.note("Choose a patch of the picture. Arrow keys move, Enter searches, Escape leaves.", true);
    this.picker.show();
  }

  #listen() {
    const { player } = this;
    player.addEventListener("time", () => this.draw());
    player.addEventListener("note", (event) => this.note(event.detail, true));
    player.addEventListener("form", () => shape(this.file, player.form));
    player.addEventListener("progress", () => this.#drawProgress());
    const preview = paced(PREVIEW_MS, (frame) => (page.preview.src = frameAddress(path, frame, { width: PREVIEW_WIDTH })));
    page.preview.addEventListener("load", () => (page.preview.hidden = !page.axis.matches(":hover")));
    page.axis.addEventListener("pointermove", (event) => {
      const { left, width } = page.fit.offsetParent ? page.fit.getBoundingClientRect() : page.coded.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - left) / width));
      page.preview.style.left = `calc(${share} * (100% - ${PREVIEW_WIDTH}px))`;
      preview(this.clock.at(share * this.clock.end));
    });
    page.axis.addEventListener("pointerleave", () => (page.preview.hidden = true));
    page.slider.max = String(this.clock.end);
    page.slider.addEventListener("input", () => player.seek(Number(page.slider.value)));
    page.end.textContent = clockTime(this.clock.end);
    page.back.addEventListener("click", () => player.toFrame(player.frame - 1));
    page.forth.addEventListener("click", () => player.toFrame(player.frame + 1));
    page.link.addEventListener("click", () => this.copyLink());
    page.help.addEventListener("click", () => page.keys.showModal());
    page.shade.addEventListener("click", () => {
      page.shade.setAttribute("aria-pressed", String(page.shade.getAttribute("aria-pressed") !== "true"));
      this.shade();
    });
    const by = (seconds) => () => player.seek(player.time + seconds);
    onKeys({
      " ": () => player.toggle(),
      k: () => player.toggle(),
      ArrowLeft: by(-STEP_S),
      ArrowRight: by(STEP_S),
      j: by(-LEAP_S),
      l: by(LEAP_S),
      ",": () => player.toFrame(player.frame - 1),
      ".": () => player.toFrame(player.frame + 1),
      Home: () => player.seek(0),
      End: () => player.toFrame(this.clock.frames - 1),
      m: () => (page.video.muted = !page.video.muted),
      f: () => (document.fullscreenElement ? document.exitFullscreen() : page.video.requestFullscreen?.()),
      "/": () => this.search(),
      "?": () => page.keys.showModal(),
    });
  }

  #begin() {
    const time = Number.parseFloat(asked.get("t"));
    const query = Query.ofAddress();
    this.jumps = !Number.isFinite(time) && !query.empty;
    this.player.open(Number.isFinite(time) ? time : 0);
    if (!query.empty) this.panel.ask(query);
  }

  /** Everything that depends on the moment. */
  draw() {
    const { time, frame } = this.player;
    page.now.textContent = clockTime(time);
    page.frame.textContent = String(frame);
    page.back.disabled = frame === 0;
    page.forth.disabled = frame === this.clock.frames - 1;
    page.slider.value = String(time);
    page.slider.setAttribute("aria-valuetext", `${clockTime(time)} of ${clockTime(this.clock.end)}, frame ${frame}`);
    this.fit.at(time);
    this.#offerClip();
    this.shade();
    this.keepAddress();
  }

  /** A link that saves the result at the present moment, or the next seconds. */
  #offerClip() {
    const { time, form } = this.player;
    page.save.hidden = !form;
    if (!form) return;
    const moment = this.#moments.find(({ start_s, stop_s }) => start_s <= time && time < stop_s);
    const [start, stop] = moment ? [moment.start_s, Math.min(moment.stop_s, moment.start_s + LONGEST_CLIP_S)] : [time, Math.min(time + CLIP_S, this.clock.end)];
    page.save.href = clipAddress(path, form.codec, start, stop);
    page.save.title = `Save a clip: ${clockTime(start, 1)} to ${clockTime(stop, 1)}`;
  }

  /** What is coded of a file that is not whole yet, and a slider, since the browser's own knows the stream alone. */
  #drawProgress() {
    const { coded, growing } = this.player;
    page.growing.hidden = !growing;
    const share = coded.reduce((sum, [first, end]) => sum + end - first, 0) / this.clock.frames;
    const stops = coded.flatMap((range) => {
      const [from, to] = range.map((frame) => (100 * this.clock.start(frame)) / this.clock.end);
      return [`transparent ${from}%`, `var(--buffered) ${from}%`, `var(--buffered) ${to}%`, `transparent ${to}%`];
    });
    page.coded.style.backgroundImage = stops.length ? `linear-gradient(to right, ${stops.join(", ")})` : "";
    if (growing && share) this.note(`Preparing to play: ${Math.floor(100 * share)} %`, true);
  }

  async #asks(query) {
    this.query = query;
    this.#fit = null;
    this.#moments = [];
    this.shades.clear();
    this.#drawFit();
    this.draw();
    this.#fitting.stop();
    if (query.empty || query.onlyLess || !this.file.searchable) return;
    try {
      const answer = await this.#fitting.run((signal) => fitOverTime(path, query.forServer(), signal));
      if (!answer || !answer.times_s.length) return;
      this.#fit = { times: answer.times_s, values: answer.scores, threshold: answer.threshold };
      this.shades.best = Math.max(...answer.scores);
      this.#drawFit();
      this.shade();
    } catch {
      // The search itself says why it has no answer; one sentence is enough.
    }
  }

  #drawFit() {
    page.shade.hidden = page.fitting.hidden = this.#fit === null;
    if (this.#fit === null) return this.fit.clear();
    const { times, values, threshold } = this.#fit;
    const above = values.filter((value) => value >= threshold).length / values.length;
    const best = values.indexOf(Math.max(...values));
    page.fitwords.textContent = `How well \u201c${this.query}\u201d fits`;
    page.fitfacts.textContent = `best ${score(values[best])} at ${clockTime(times[best])}; cut-off ${score(threshold)}`;
    const label = `How well \u201c${this.query}\u201d fits over time: ${page.fitfacts.textContent}; above it ${percent(above)} of the time`;
    this.fit.draw(this.clock.end, { times, values }, { threshold, moments: this.#moments, label });
    this.fit.at(this.player.time);
  }

  #shade() {
    const wanted = page.shade.getAttribute("aria-pressed") === "true" && this.#fit !== null;
    if (wanted) this.shades.show(this.player.frame, this.query.forServer());
    else this.shades.clear();
  }
}

function facts(file) {
  const sizes = `${file.width} \u00d7 ${file.height}`;
  const known = [sizes, rate(file.frame_rate), count(file.frame_count, "frame"), bytes(file.size_bytes)];
  if (file.psnr_db !== null) known.push(decibels(file.psnr_db));
  return known;
}

/** The shape of the picture. What a codec added at the right and below is not shown. */
function shape(file, form) {
  page.stage.style.setProperty("--ratio", String((file.width * file.pixel_aspect) / file.height));
  for (const side of ["width", "height"]) {
    const more = form && form[side] / file[side];
    page.video.style[side] = more > 1 ? `${100 * more}%` : "";
  }
}

function unplayable(title, sentence) {
  const back = el("p", {}, el("a", { href: root }, "To all files"));
  page.main.classList.add("ready", "plain");
  page.main.replaceChildren(el("section", { class: "unplayable" }, el("h2", {}, title), el("p", {}, sentence), back));
}

async function open() {
  page.title.textContent = path.split("/").pop();
  page.title.title = path;
  document.title = `${path.split("/").pop()} \u00b7 nervcodec`;
  let file;
  try {
    file = await describeFile(path);
  } catch (error) {
    return unplayable(error.status === 404 ? "There is no such file" : "This file cannot be shown", sentence(error.message));
  }
  if (file.damaged) return unplayable("This file is damaged", sentence(file.damaged));
  page.facts.replaceChildren(...facts(file).map((words) => el("li", {}, words)));
  shape(file, null);
  new Watch(file);
  page.main.classList.add("ready");
}

open();

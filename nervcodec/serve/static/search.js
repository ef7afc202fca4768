// SPDX-License-Identifier: MIT
// The search box and its results, on the library and on the player page.

import { frameAddress, search, watchAddress } from "./api.js";
import { Last, el, onKeys, place } from "./dom.js";
import { clockTime, count, score, sentence, shortLength } from "./format.js";
import { Query, patchOf } from "./query.js";

const MOST = 24;
const PICTURE_WIDTH = 320;
const NEAREST = "; nearest: "; // in the server's text for a query without a match
const HINT = "Finds moments by what the picture shows. Combine texts: horse + stripes - zoo.";

export class SearchPanel {
  #last = new Last();

  /**
   * @param root an empty element
   * @param options {label; file: path of the open file or null; folder: the folder to search;
   *   scope: () => path of the only file to search, or null; changed: (query) => void;
   *   found: (moments or null) => void; go: (moment of the open file) => void;
   *   refusal: () => a sentence if nothing can be searched, else null}
   */
  constructor(root, options) {
    const defaults = { file: null, folder: "", scope: () => null, found: () => {}, go: () => {}, refusal: () => null };
    Object.assign(this, { root, ...defaults, ...options });
    this.query = new Query();
    this.#build(options.label);
    addEventListener("popstate", () => this.ask(Query.ofAddress()));
    onKeys({ n: () => this.#step(1), p: () => this.#step(-1) });
  }

  focus() {
    this.box.focus();
    this.box.select();
  }

  /** Search for a query. One that is not in the page's address becomes a new entry of the history. */
  async ask(query) {
    if (String(query.forAddress()) !== String(Query.ofAddress().forAddress())) history.pushState(null, "", location.href);
    this.query = query;
    this.box.value = query.text;
    this.chips.replaceChildren(...query.like.map((like) => this.#chip(like)));
    this.chips.hidden = !query.like.length;
    this.changed(query);
    await this.again();
  }

  /** Search for the same query, after a change of scope. */
  async again() {
    this.results.replaceChildren();
    this.found(null);
    this.#last.stop();
    const refusal = this.refusal();
    if (this.query.empty) return this.#say(refusal ?? HINT, "hint");
    if (this.query.onlyLess) return this.#say("Add a text as well: there is nothing yet to subtract from.");
    if (refusal) return this.#say(refusal, "refused");
    this.#say("Searching \u2026");
    const within = this.scope();
    const pairs = this.query.forServer();
    if (within !== null) pairs.push(["in", within]);
    else if (this.folder) pairs.push(["folder", this.folder]);
    try {
      const answer = await this.#last.run((signal) => search(pairs, MOST, signal));
      if (answer) this.#show(answer);
    } catch (error) {
      this.#say(sentence(error.message), "refused");
    }
  }

  #build(label) {
    this.box = el("input", {
      type: "search", id: "query", name: "q", placeholder: "a bicycle", autocomplete: "off", enterkeyhint: "search",
      maxlength: "300",
    });
    this.box.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.box.value) this.box.blur(); // the keys control the player again
    });
    const submit = (event) => {
      event.preventDefault();
      this.ask(Query.parsed(this.box.value, this.query.like));
    };
    const line = el("div", { class: "box" }, this.box, el("button", { class: "primary" }, "Search"));
    this.tools = el("div", { class: "tools" });
    const form = el("form", { role: "search", submit }, el("label", { for: "query" }, label), line, this.tools);
    this.chips = el("ul", { class: "chips", "aria-label": "Patch that is part of the query", hidden: true });
    this.answer = el("div", { class: "answer", role: "status" });
    this.results = el("ol", { class: "results" });
    this.root.append(form, this.chips, this.answer, this.results);
    this.#say(this.refusal() ?? HINT, "hint");
  }

  #chip(like) {
    const patch = patchOf(like);
    const words = patch ? `patch ${patch.row + 1}, ${patch.column + 1} of frame ${patch.frame}` : like;
    const remove = () => {
      this.ask(new Query(this.query.add, this.query.subtract));
      this.box.focus();
    };
    const label = `Remove ${words}`;
    const button = el("button", { type: "button", "aria-label": label, title: label, click: remove }, "\u00d7");
    return el("li", { class: "chip" }, el("span", { class: "words" }, words), button);
  }

  #say(text, kind = "") {
    this.answer.className = `answer ${kind}`;
    this.answer.replaceChildren(...(text ? [el("p", {}, text)] : []));
  }

  #show({ moments, empty, notes, unsearchable }) {
    if (moments.length) this.#say(moments.length < MOST ? count(moments.length, "moment") : `The ${MOST} best moments`);
    else {
      const nearest = empty?.lastIndexOf(NEAREST) ?? -1;
      this.#say("", "nothing");
      this.answer.append(el("p", { class: "strong" }, `Nothing ${nearest < 0 ? "matches" : "certain for"} \u201c${this.query}\u201d.`));
      if (nearest >= 0) this.answer.append(el("p", {}, `Nearest: ${empty.slice(nearest + NEAREST.length)}`));
    }
    // Said once: the list of files marks them.
    if (unsearchable && sessionStorage.unsearchable !== String(unsearchable)) {
      notes.push(`${count(unsearchable, "file is", "files are")} not searchable: without embeddings, or damaged`);
      sessionStorage.unsearchable = unsearchable;
    }
    notes.forEach((note) => this.answer.append(el("p", { class: "note" }, sentence(note))));
    const best = Math.max(...moments.map((moment) => moment.score));
    this.results.replaceChildren(...moments.map((moment) => this.#result(moment, best)));
    this.found(moments);
  }

  #result(moment, best) {
    const here = moment.path === this.file;
    const length = shortLength(moment.stop_s - moment.start_s);
    const start = clockTime(moment.start_s, 1);
    const copies = moment.also_in;
    const picture = el("img", {
      src: frameAddress(moment.path, moment.frame, { width: PICTURE_WIDTH }), loading: "lazy", decoding: "async",
      alt: `Frame ${moment.frame} of ${moment.name}`,
    });
    const fits = `Score ${score(moment.score)}: the cosine similarity of query and patch`;
    const bar = el("span", { class: "score", role: "img", "aria-label": fits, title: fits }, el("span"));
    bar.firstChild.style.width = `${Math.max(2, (100 * moment.score) / best)}%`;
    const link = el(
      "a",
      {
        href: watchAddress(moment.path, moment.time_s, this.query.forAddress()), class: "moment",
        title: `${moment.name}, from ${start}, ${length}`,
      },
      el("span", { class: "picture" }, picture, ...moment.boxes.map((box) => place(el("span", { class: "outline" }), box))),
      bar,
      el("span", { class: "facts" }, el("span", { class: "when" }, start), el("span", { class: "length" }, length)),
      here && this.scope() !== null ? null : el("span", { class: "name" }, moment.name),
      copies.length ? el("span", { class: "also", title: copies.join("\n") }, `also in ${copies.length > 1 ? count(copies.length, "file") : copies[0]}`) : null,
    );
    link.addEventListener("click", (event) => {
      if (!here || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      this.results.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
      link.setAttribute("aria-current", "true");
      this.go(moment);
    });
    return el("li", {}, link);
  }

  /** Go to the next or previous result; in the library Enter opens it. */
  #step(by) {
    const links = [...this.results.querySelectorAll("a")];
    const now = links.findIndex((link) => link.ariaCurrent || (this.file === null && link === document.activeElement));
    const link = links[now < 0 ? 0 : Math.min(Math.max(now + by, 0), links.length - 1)];
    if (this.file === null) link?.focus();
    else link?.click();
  }
}

// SPDX-License-Identifier: MIT
// The search box, its chips and its results; the library and the player have the same.

import { frameAddress, search, watchAddress } from "./api.js";
import { Last, el, place } from "./dom.js";
import { clockTime, count, score, sentence } from "./format.js";
import { Query, patchOf } from "./query.js";

const MOST = 24;
const PICTURE_WIDTH = 320;
const NEAREST = "; what comes nearest"; // begins the second half of what the server says where nothing matches
const HINT = "Finds moments by what the picture shows. A box marks the patch that fits best.";

export class SearchPanel {
  #last = new Last();

  /**
   * @param root an empty element
   * @param options {label; file: path of the open file or null; scope: () => path to search in or null for all;
   *   changed: (query) => void; found: (moments or null) => void; go: (moment) => void, only for the open file;
   *   refusal: () => a sentence where there is no use in asking, else null}
   */
  constructor(root, { label, file = null, scope = () => null, changed, found = () => {}, go = () => {}, refusal = () => null }) {
    Object.assign(this, { root, file, scope, changed, found, go, refusal });
    this.query = new Query();
    this.#build(label);
  }

  focus() {
    this.box.focus();
    this.box.select();
  }

  /** Look for something else; the box is emptied, the chips show it. */
  async ask(query) {
    this.query = query;
    this.box.value = "";
    this.#typed();
    this.chips.replaceChildren(...this.#chips());
    this.chips.hidden = query.empty;
    this.changed(query);
    await this.again();
  }

  /** The same question, where its scope has changed. */
  async again() {
    this.results.replaceChildren();
    this.found(null);
    this.#last.stop();
    if (this.query.empty) return this.#say(this.refusal() ?? HINT, "hint");
    if (this.query.onlyLess) return this.#say("Add a text as well: there is nothing yet to subtract from.");
    this.#say("Searching \u2026");
    const refusal = this.refusal();
    if (refusal) return this.#say(refusal, "refused");
    const within = this.scope();
    const pairs = [...this.query.forServer(), ...(within === null ? [] : [["in", within]])];
    try {
      const answer = await this.#last.run((signal) => search(pairs, MOST, signal));
      if (answer) this.#show(answer);
    } catch (error) {
      this.#say(sentence(error.message), "refused");
    }
  }

  #build(label) {
    this.box = el("input", {
      type: "search", id: "query", name: "q", placeholder: "a bicycle, horse + stripes \u2212 zoo",
      autocomplete: "off", enterkeyhint: "search", maxlength: "300", input: () => this.#typed(),
    });
    this.box.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.box.value) this.box.blur(); // keys are the player's again
    });
    this.more = el("button", { type: "button", class: "quiet", disabled: true, click: () => this.#refine("add") }, "+ Add");
    this.less = el(
      "button", { type: "button", class: "quiet", disabled: true, click: () => this.#refine("subtract") }, "\u2212 Subtract",
    );
    this.tools = el("div", { class: "tools" }, this.more, this.less);
    const line = el("div", { class: "box" }, this.box, el("button", { class: "primary" }, "Search"));
    const submit = (event) => {
      event.preventDefault();
      this.ask(Query.parsed(this.box.value));
    };
    const form = el("form", { role: "search", submit }, el("label", { for: "query" }, label), line, this.tools);
    this.chips = el("ul", { class: "chips", "aria-label": "What is looked for", hidden: true });
    this.answer = el("div", { class: "answer", role: "status" });
    this.results = el("ol", { class: "results" });
    this.root.append(form, this.chips, this.answer, this.results);
    this.#say(this.refusal() ?? HINT, "hint");
  }

  #typed() {
    const nothing = !this.box.value.trim();
    this.more.disabled = this.less.disabled = nothing;
  }

  #refine(kind) {
    const typed = Query.parsed(this.box.value);
    this.ask(this.query.with(kind === "add" ? typed : new Query([], [...typed.add, ...typed.subtract])));
    this.box.focus();
  }

  #chips() {
    const signs = { add: "+", subtract: "\u2212", like: "+" };
    return Object.keys(signs).flatMap((kind) =>
      this.query[kind].map((value) => {
        const words = kind === "like" ? patchWords(value) : value;
        const remove = () => {
          this.ask(this.query.without(kind, value));
          this.box.focus();
        };
        const label = `Remove ${kind === "subtract" ? "subtracted " : ""}${words}`;
        return el(
          "li", { class: `chip ${kind}` },
          el("span", { class: "sign", "aria-hidden": "true" }, signs[kind]),
          el("span", { class: "words" }, words),
          el("button", { type: "button", "aria-label": label, title: label, click: remove }, "\u00d7"),
        );
      }),
    );
  }

  #say(text, kind = "") {
    this.answer.className = `answer ${kind}`;
    this.answer.replaceChildren(...(text ? [el("p", {}, text)] : []));
  }

  #show(answer) {
    const { moments, empty, notes } = answer;
    if (moments.length) this.#say(moments.length < MOST ? count(moments.length, "moment") : `The ${MOST} best moments`);
    else {
      const nearest = empty?.lastIndexOf(NEAREST) ?? -1;
      this.#say("", "nothing");
      this.answer.append(el("p", { class: "strong" }, `Nothing matches \u201c${this.query}\u201d.`));
      if (nearest >= 0) this.answer.append(el("p", {}, sentence(empty.slice(nearest + 2))));
    }
    notes.forEach((note) => this.answer.append(el("p", { class: "note" }, sentence(note))));
    this.results.replaceChildren(...moments.map((moment) => this.#result(moment)));
    this.found(moments);
  }

  #result(moment) {
    const here = moment.path === this.file;
    const span = `${clockTime(moment.start_s, 1)} to ${clockTime(moment.stop_s, 1)}`;
    const picture = el("img", {
      src: frameAddress(moment.path, moment.frame, { width: PICTURE_WIDTH }), loading: "lazy", decoding: "async",
      alt: `Frame ${moment.frame} of ${moment.name}`,
    });
    const link = el(
      "a", { href: watchAddress(moment.path, moment.time_s, this.query.forAddress()), class: "moment", title: `${moment.name}, ${span}` },
      el("span", { class: "picture" }, picture, ...moment.boxes.map((box) => place(el("span", { class: "outline" }), box))),
      el(
        "span", { class: "facts" },
        el("span", { class: "when" }, clockTime(moment.time_s)),
        el("span", { class: "score", title: "How well it fits: the cosine of query and patch" }, score(moment.score)),
      ),
      here && this.scope() !== null ? null : el("span", { class: "name" }, moment.name),
    );
    if (here) {
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        this.results.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
        link.setAttribute("aria-current", "true");
        this.go(moment);
      });
    }
    return el("li", {}, link);
  }
}

function patchWords(like) {
  const patch = patchOf(like);
  return patch ? `patch ${patch.row + 1}, ${patch.column + 1} of frame ${patch.frame}` : like;
}

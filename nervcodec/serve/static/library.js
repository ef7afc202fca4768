// SPDX-License-Identifier: MIT
// All containers below a folder, newest first, and a search over them.

import { listFiles, root, thumbnailAddress, watchAddress } from "./api.js";
import { Last, el, rested } from "./dom.js";
import { bytes, clockTime, count, day, decibels } from "./format.js";
import { onKeys } from "./keys.js";
import { Query } from "./query.js";
import { SearchPanel } from "./search.js";

const AT_ONCE = 60;
const TYPING_MS = 150;

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

class Library {
  #last = new Last();
  #shown = 0;
  #total = Infinity;
  #loading = false;

  constructor() {
    const asked = new URLSearchParams(location.search);
    page.filter.value = asked.get("name") ?? "";
    page.filter.addEventListener("input", rested(TYPING_MS, () => this.begin()));
    page.again.addEventListener("click", () => this.more());
    this.query = Query.ofAddress(asked);
    this.panel = new SearchPanel(page.search, {
      label: "Search inside all videos",
      changed: (query) => this.#asks(query),
    });
    onKeys({ "/": () => this.panel.focus() });
    new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.more(), {
      rootMargin: "600px",
    }).observe(page.end);
    this.begin();
    if (!this.query.empty) this.panel.ask(this.query);
  }

  /** The list anew, as the name asks. */
  begin() {
    this.#last.stop();
    this.#loading = false;
    this.#shown = 0;
    this.#total = Infinity;
    this.#address();
    return this.more();
  }

  async more() {
    if (this.#loading || this.#shown >= this.#total) return;
    this.#loading = true;
    page.again.hidden = true;
    try {
      const answer = await this.#last.run((signal) => listFiles(page.filter.value.trim(), this.#shown, AT_ONCE, signal));
      if (answer === null) return;
      this.#add(answer);
      this.#loading = false;
      if (page.end.getBoundingClientRect().top < innerHeight + 600) this.more();
    } catch (error) {
      this.#loading = false;
      page.state.textContent = error.message;
      page.again.hidden = false;
    }
  }

  #add({ folder, total, files }) {
    if (!this.#shown) page.grid.replaceChildren();
    page.grid.append(...files.map(card));
    this.#shown += files.length;
    this.#total = files.length ? total : this.#shown;
    page.folder.textContent = folder;
    document.title = `${folder} \u00b7 nervcodec`;
    const name = page.filter.value.trim();
    const nothing = name
      ? `No name contains \u201c${name}\u201d.`
      : "There are no .nerv files in this folder yet. Make one: nervcodec encode video.mp4";
    page.state.textContent = total ? count(total, "file") : nothing;
    page.state.classList.toggle("nothing", !total);
  }

  #asks(query) {
    this.query = query;
    this.#address();
  }

  #address() {
    const name = page.filter.value.trim();
    const pairs = [...(name ? [["name", name]] : []), ...this.query.forAddress()];
    const text = new URLSearchParams(pairs).toString();
    history.replaceState(null, "", text ? `${root}?${text}` : root);
  }
}

function card(file) {
  const folder = file.path.slice(0, -file.name.length).replace(/\/$/, "");
  const name = el("span", { class: "name", title: file.path }, file.name);
  const where = folder ? el("span", { class: "where" }, folder) : null;
  if (file.damaged) {
    const reason = el("span", { class: "reason" }, file.damaged);
    const mark = el("span", { class: "thumb broken" }, el("span", {}, "Damaged"));
    return el("li", { class: "card damaged" }, mark, name, where, reason, el("span", { class: "facts" }, bytes(file.size_bytes)));
  }
  const picture = el("img", { src: thumbnailAddress(file.path), loading: "lazy", decoding: "async", alt: "" });
  picture.addEventListener("error", () => picture.remove());
  const facts = [`${file.width} \u00d7 ${file.height}`, bytes(file.size_bytes)];
  if (file.psnr_db !== null) facts.push(decibels(file.psnr_db));
  const more = [day(file.modified)];
  if (file.has_sound) more.push("sound");
  if (!file.searchable) more.push("not searchable");
  return el(
    "li", { class: "card" },
    el(
      "a", { href: watchAddress(file.path, null) },
      el("span", { class: "thumb" }, picture, el("span", { class: "length" }, clockTime(file.duration_s, 0))),
      name,
    ),
    where,
    el("span", { class: "facts" }, facts.join(" \u00b7 ")),
    el("span", { class: "facts" }, more.join(" \u00b7 ")),
  );
}

new Library();

// SPDX-License-Identifier: MIT
// The containers below a folder, and a search over them.

import { listFiles, root, thumbnailAddress, watchAddress } from "./api.js";
import { Last, el, onKeys, rested } from "./dom.js";
import { bytes, clockTime, count, day, decibels, sentence, shortLength } from "./format.js";
import { Query } from "./query.js";
import { SearchPanel } from "./search.js";

const AT_ONCE = 60;
const TYPING_MS = 150;

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

class Library {
  #last = new Last();
  #shown = 0;
  #total = Infinity;
  #state = ""; // of the list, to notice changes of the folder
  #loading = false;

  constructor() {
    this.#readAddress();
    page.filter.addEventListener("input", rested(TYPING_MS, () => this.begin()));
    page.sort.addEventListener("change", () => this.begin());
    page.again.addEventListener("click", () => this.more());
    addEventListener("popstate", () => {
      this.#readAddress();
      this.begin();
    });
    this.panel = new SearchPanel(page.search, {
      label: this.folder ? "Search inside the videos of this folder" : "Search inside all videos",
      folder: this.folder,
      changed: (query) => this.#asks(query),
    });
    onKeys({ "/": () => this.panel.focus() });
    new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.more(), {
      rootMargin: "600px",
    }).observe(page.end);
    addEventListener("focus", () => this.#refresh());
    document.addEventListener("visibilitychange", () => !document.hidden && this.#refresh());
    this.begin();
    if (!this.query.empty) this.panel.ask(this.query);
  }

  /** Load the list from its first file. */
  begin() {
    this.#last.stop();
    this.#loading = false;
    this.#shown = 0;
    this.#total = Infinity;
    this.#writeAddress();
    return this.more();
  }

  async more() {
    if (this.#loading || this.#shown >= this.#total) return;
    this.#loading = true;
    page.again.hidden = true;
    try {
      const answer = await this.#last.run((signal) => listFiles(this.#filters(), this.#shown, AT_ONCE, signal));
      if (answer === null) return;
      this.#add(answer);
      this.#loading = false;
      if (page.end.getBoundingClientRect().top < innerHeight + 600) this.more();
    } catch (error) {
      this.#loading = false;
      page.state.textContent = sentence(error.message);
      page.again.hidden = false;
    }
  }

  /** Load the list again if files came, changed or went. */
  async #refresh() {
    const answer = await listFiles(this.#filters(), 0, 1).catch(() => null); // without a server the list stays
    if (answer && !this.#loading && stateOf(answer) !== this.#state) this.begin();
  }

  #filters() {
    return { name: page.filter.value.trim(), folder: this.folder, sort: page.sort.value };
  }

  #add(answer) {
    const { folder, folders, total, files } = answer;
    if (!this.#shown) {
      page.grid.replaceChildren();
      this.#state = stateOf(answer);
      this.#way(folder, folders);
    }
    page.grid.append(...files.map((file) => card(file, this.folder)));
    this.#shown += files.length;
    this.#total = files.length ? total : this.#shown;
    const name = page.filter.value.trim();
    const nothing = name
      ? `No name contains \u201c${name}\u201d.`
      : "There are no .nerv files in this folder yet. Make one: nervcodec encode video.mp4";
    page.state.textContent = total ? count(total, "file") : nothing;
    page.state.classList.toggle("nothing", !total);
  }

  /** Links to the folders above and below this one. */
  #way(top, below) {
    const parts = this.folder ? this.folder.split("/") : [];
    const link = (path, words) => el("a", { href: this.#address(path), "data-folder": path }, words);
    const above = [top, ...parts].map((words, index) =>
      index === parts.length ? words : link(parts.slice(0, index).join("/"), words),
    );
    page.folder.replaceChildren(...above.flatMap((part, index) => (index ? [" / ", part] : [part])));
    const inside = ({ name, files }) =>
      el("li", {}, link([...parts, name].join("/"), name), el("span", { class: "muted" }, ` ${count(files, "file")}`));
    page.folders.replaceChildren(...below.map(inside));
    document.title = `${parts.at(-1) ?? top} \u00b7 nervcodec`;
  }

  #asks(query) {
    this.query = query;
    this.#writeAddress();
  }

  #readAddress() {
    const parameters = new URLSearchParams(location.search);
    this.query = Query.ofAddress();
    this.folder = parameters.get("folder") ?? "";
    page.filter.value = parameters.get("name") ?? "";
    page.sort.value = parameters.get("sort") ?? "date";
    if (!page.sort.value) page.sort.value = "date"; // an address with another word
  }

  #address(folder) {
    const { name, sort } = this.#filters();
    const pairs = Object.entries({ folder, name, sort }).filter(([key, value]) => value && !(key === "sort" && value === "date"));
    const text = new URLSearchParams([...pairs, ...this.query.forAddress()]).toString();
    return text ? `${root}?${text}` : root;
  }

  #writeAddress() {
    history.replaceState(null, "", this.#address(this.folder));
    document.querySelectorAll("a[data-folder]").forEach((link) => (link.href = this.#address(link.dataset.folder)));
  }
}

const stateOf = ({ total, newest }) => `${total} ${newest}`;

function card(file, inside) {
  const folder = file.path.slice(inside ? inside.length + 1 : 0, -file.name.length).replace(/\/$/, "");
  const name = el("span", { class: "name", title: file.path }, file.name);
  const where = folder ? el("span", { class: "where" }, folder) : null;
  if (file.damaged) {
    const reason = el("span", { class: "reason" }, sentence(file.damaged));
    const mark = el("span", { class: "thumb broken" }, el("span", {}, "Damaged"));
    return el("li", { class: "card damaged" }, mark, name, where, reason, el("span", { class: "facts" }, bytes(file.size_bytes)));
  }
  const picture = el("img", { src: thumbnailAddress(file.path), loading: "lazy", decoding: "async", alt: "" });
  picture.addEventListener("error", () => picture.remove());
  const facts = [`${file.width} \u00d7 ${file.height}`, bytes(file.size_bytes)];
  if (file.psnr_db !== null) facts.push(decibels(file.psnr_db));
  facts.push(day(file.modified));
  if (file.has_sound) facts.push("sound");
  if (!file.searchable) facts.push("not searchable");
  const length = file.frame_count === 1 ? "1 frame" : file.duration_s < 1 ? shortLength(file.duration_s) : clockTime(file.duration_s, 0);
  const thumb = el("span", { class: "thumb" }, picture, el("span", { class: "length" }, length));
  const words = facts.map((fact) => el("span", {}, fact));
  return el("li", { class: "card" }, el("a", { href: watchAddress(file.path, null) }, thumb, name), where, el("span", { class: "facts" }, ...words));
}

new Library();

// SPDX-License-Identifier: MIT
// A query: texts added, texts subtracted, and at most one patch.

export class Query {
  constructor(add = [], subtract = [], like = []) {
    this.add = add;
    this.subtract = subtract;
    this.like = like.slice(-1); // "PATH:FRAME:ROW:COLUMN"
  }

  /** Of a text as the command line takes it: "horse + stripes - zoo". */
  static parsed(text, like = []) {
    const query = new Query([], [], like);
    let into = query.add;
    for (const piece of text.trim().split(/(?:^|\s+)([+\-\u2212])\s+/)) {
      if (piece === "+") into = query.add;
      else if (piece === "-" || piece === "\u2212") into = query.subtract;
      else if (piece.trim()) into.push(piece.trim());
    }
    return query;
  }

  /** Of the page's address: q and minus, each any number of times, and like. */
  static ofAddress(address = location) {
    const parameters = new URLSearchParams(address.search);
    return new Query(parameters.getAll("q"), parameters.getAll("minus"), parameters.getAll("like"));
  }

  get empty() {
    return !this.add.length && !this.subtract.length && !this.like.length;
  }

  /** Nothing but subtracted texts. */
  get onlyLess() {
    return !this.add.length && !this.like.length && this.subtract.length > 0;
  }

  /** The texts as they are typed. */
  get text() {
    return `${this.add.join(" + ")}${this.subtract.map((text) => ` - ${text}`).join("")}`.trim();
  }

  forServer() {
    return this.#pairs("add", "subtract", "like");
  }

  forAddress() {
    return this.#pairs("q", "minus", "like");
  }

  #pairs(...names) {
    return ["add", "subtract", "like"].flatMap((kind, index) => this[kind].map((value) => [names[index], value]));
  }

  toString() {
    return [...this.like.map(() => "a patch"), ...(this.text ? [this.text] : [])].join(" + ");
  }
}

/** The parts of "PATH:FRAME:ROW:COLUMN", or null; a path may contain colons. */
export function patchOf(text) {
  const found = /^(.+):(\d+):(\d+):(\d+)$/.exec(text);
  return found && { path: found[1], frame: Number(found[2]), row: Number(found[3]), column: Number(found[4]) };
}

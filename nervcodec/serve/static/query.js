// SPDX-License-Identifier: MIT
// What is looked for: texts and patches added, texts subtracted.

export class Query {
  constructor(add = [], subtract = [], like = []) {
    this.add = add;
    this.subtract = subtract;
    this.like = like.slice(-1); // "PATH:FRAME:ROW:COLUMN", one at most
  }

  /** As the command line has it: "horse + stripes - zoo". */
  static parsed(text) {
    const query = new Query();
    let into = query.add;
    for (const piece of text.trim().split(/(?:^|\s+)([+\-\u2212])\s+/)) {
      if (piece === "+") into = query.add;
      else if (piece === "-" || piece === "\u2212") into = query.subtract;
      else if (piece.trim()) into.push(piece.trim());
    }
    return query;
  }

  /** Of the page's address: q, minus and like, each as often as need be. */
  static ofAddress(parameters) {
    return new Query(parameters.getAll("q"), parameters.getAll("minus"), parameters.getAll("like"));
  }

  get empty() {
    return !this.add.length && !this.subtract.length && !this.like.length;
  }

  /** Nothing but what is subtracted: there is nothing to take it from. */
  get onlyLess() {
    return !this.add.length && !this.like.length && this.subtract.length > 0;
  }

  /** Both, each text once. */
  with(other) {
    const both = (name) => [...new Set([...this[name], ...other[name]])];
    return new Query(both("add"), both("subtract"), both("like"));
  }

  without(kind, value) {
    const rest = { add: this.add, subtract: this.subtract, like: this.like };
    rest[kind] = rest[kind].filter((other) => other !== value);
    return new Query(rest.add, rest.subtract, rest.like);
  }

  #pairs(names) {
    return ["add", "subtract", "like"].flatMap((kind, index) => this[kind].map((value) => [names[index], value]));
  }

  forServer() {
    return this.#pairs(["add", "subtract", "like"]);
  }

  forAddress() {
    return this.#pairs(["q", "minus", "like"]);
  }

  toString() {
    const more = [...this.add, ...this.like.map(() => "a patch")].join(" + ");
    return this.subtract.length ? `${more} \u2212 ${this.subtract.join(" \u2212 ")}`.trim() : more;
  }
}

/** The parts of "PATH:FRAME:ROW:COLUMN"; a path may hold colons. Null if it is none. */
export function patchOf(text) {
  const found = /^(.+):(\d+):(\d+):(\d+)$/.exec(text);
  return found && { path: found[1], frame: Number(found[2]), row: Number(found[3]), column: Number(found[4]) };
}

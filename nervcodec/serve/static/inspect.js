// SPDX-License-Identifier: MIT
// Bytes of a file by part, and its settings.

import { el } from "./dom.js";
import { bytes, percent } from "./format.js";

const COLOURS = 8; // of the style sheet

/** Fills the panel. */
export function inspect(root, file) {
  const rows = file.facts.map((fact) => el("div", {}, el("dt", {}, fact.name), el("dd", {}, String(fact.value))));
  root.append(el("h2", {}, "Bytes by part"), ...byteBar(file), el("h2", {}, "Settings"), el("dl", { class: "settings" }, ...rows));
}

function byteBar(file) {
  const parts = [...file.parts].sort((a, b) => b.bytes - a.bytes);
  const total = parts.reduce((sum, part) => sum + part.bytes, 0) || 1;
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  const body = el("tbody");
  parts.forEach((part, index) => {
    const colour = `part-${index % COLOURS}`;
    const piece = el("span", { class: colour, title: `${part.name}: ${bytes(part.bytes)}` });
    piece.style.flexGrow = String(part.bytes / total);
    bar.append(piece);
    body.append(
      el(
        "tr", {},
        el("th", { scope: "row" }, el("span", { class: `swatch ${colour}`, "aria-hidden": "true" }), part.name),
        el("td", {}, bytes(part.bytes)),
        el("td", {}, percent(part.bytes / total)),
      ),
    );
  });
  const caption = el("caption", { class: "hidden" }, `Bytes by part of ${file.name}`);
  const foot = el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "The file"), el("td", {}, bytes(file.size_bytes)), el("td")));
  return [bar, el("table", { class: "parts" }, caption, body, foot)];
}

// SPDX-License-Identifier: MIT
// What a file is made of: bytes by part, the network and its settings, PSNR over time.

import { el } from "./dom.js";
import { bytes, clockTime, decibels, percent } from "./format.js";
import { Timeline } from "./timeline.js";

const COLOURS = 8; // as many as the style sheet has

/** Fills the panel; go is called with seconds when a place of the PSNR line is picked. Gives a function for the cursor. */
export function inspect(root, file, go) {
  root.append(el("h2", {}, "Bytes by part"), ...byteBar(file));
  let cursor = () => {};
  if (file.psnr_over_time?.length) {
    const parts = file.psnr_over_time;
    const points = { times: parts.map((part) => part.start_s), values: parts.map((part) => part.psnr_db) };
    const place = el("div", { class: "quality" });
    const line = new Timeline(place, { value: decibels, pick: go });
    const [worst, best] = [Math.min(...points.values), Math.max(...points.values)];
    const worstAt = clockTime(points.times[points.values.indexOf(worst)], 1);
    const words = `${decibels(worst)} (at ${worstAt}) to ${decibels(best)}`;
    line.draw(file.duration_s, points, { label: `PSNR over time: ${words}`, steps: true });
    root.append(el("h2", {}, "PSNR over time"), place, el("p", { class: "muted" }, words));
    cursor = (seconds) => line.at(seconds);
  }
  const rows = file.facts.map((fact) => el("div", {}, el("dt", {}, fact.name), el("dd", {}, String(fact.value))));
  root.append(el("h2", {}, "Network and settings"), el("dl", { class: "settings" }, ...rows));
  return cursor;
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

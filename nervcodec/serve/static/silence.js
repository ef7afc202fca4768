// SPDX-License-Identifier: MIT
// Silence where a file has no sound: a browser plays nothing while one of its tracks has a gap.

import { get } from "./api.js";

const LENGTH_S = 1; // silence.mp4, AAC of two channels, lasts a little longer
const LEAST_S = 0.03; // shorter gaps browsers step over

let bytes = null; // a promise of silence.mp4

const silence = () => (bytes ??= get(new URL("silence.mp4", import.meta.url)).then((answer) => answer.arrayBuffer()));

/** What ranges leave open between two times: pairs of seconds. */
function gaps(ranges, from, to) {
  const found = [];
  let at = from;
  for (let i = 0; i < ranges.length; i++) {
    if (ranges.end(i) <= at) continue;
    if (ranges.start(i) >= to) break;
    if (ranges.start(i) - at > LEAST_S) found.push([at, ranges.start(i)]);
    at = ranges.end(i);
  }
  if (to - at > LEAST_S) found.push([at, to]);
  return found;
}

/** Fill what a SourceBuffer leaves open between two times; append takes bytes and gives a promise that they are in it. */
export async function fill(buffer, append, from, to) {
  const open = gaps(buffer.buffered, from, to);
  if (!open.length) return;
  const quiet = await silence();
  const end = buffer.appendWindowEnd;
  const within = (first, last) => {
    buffer.appendWindowStart = 0; // it has to stay below the end
    buffer.appendWindowEnd = last;
    buffer.appendWindowStart = first;
  };
  for (const [first, last] of open) {
    within(first, last);
    for (let at = first; at < last; at += LENGTH_S) {
      buffer.timestampOffset = at;
      await append(quiet);
    }
  }
  within(0, end);
  buffer.timestampOffset = 0;
}

// SPDX-License-Identifier: MIT
// What the page asks of its server.

/** Where the pages begin: "/", or the prefix of a proxy. */
export const root = new URL("..", import.meta.url).pathname;
/** The path of the file that a page of this address shows. */
export const watchedPath = () => location.pathname.slice(`${root}watch/`.length).split("/").map(decodeURIComponent).join("/");

const REPLACED = 410; // a file, since it was described
const versions = new Map(); // of the files that were, by their paths

/** A path as it stands in an address: each of its names encoded for itself. */
export const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

/** A refusal of the server: one sentence, and the HTTP status (0 where the server was not reached). */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The answer to a GET, whose body nobody has read yet. Throws a Refusal, or an AbortError once the signal fires. */
export async function get(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is nervcodec serve still running?", 0);
  }
  if (answer.ok) return answer;
  let sentence = `The server answered ${answer.status}.`;
  const kind = answer.headers.get("Content-Type") ?? "";
  if (kind.startsWith("application/json")) sentence = (await answer.json()).error;
  else if (kind.startsWith("text/plain")) sentence = await answer.text();
  if (answer.status === REPLACED) dispatchEvent(new Event("replaced"));
  throw new Refusal(sentence, answer.status);
}

const json = async (address, signal) => (await get(address, signal)).json();

const withQuery = (address, pairs) => {
  const text = new URLSearchParams(pairs).toString();
  return text ? `${address}?${text}` : address;
};

const ofFile = (address, path, pairs) =>
  withQuery(address, versions.has(path) ? [...pairs, ["version", versions.get(path)]] : pairs);

/** @param filters {name, folder, sort} */
export const listFiles = (filters, offset, limit, signal) =>
  json(withQuery(`${root}api/files`, { ...filters, offset, limit }), signal);
export async function describeFile(path, signal) {
  const file = await json(`${root}api/file/${encoded(path)}`, signal);
  versions.set(path, file.version);
  return file;
}
export const search = (pairs, limit, signal) => json(withQuery(`${root}api/search`, [...pairs, ["limit", limit]]), signal);
export const fitOverTime = (path, pairs, signal) => json(ofFile(`${root}api/fit/${encoded(path)}`, path, pairs), signal);
export const fitOfPatches = (path, frame, pairs, signal) =>
  json(ofFile(`${root}api/patches/${encoded(path)}/${frame}`, path, pairs), signal);

export const thumbnailAddress = (path) => `${root}thumbnail/${encoded(path)}`;
export const frameAddress = (path, frame, options = {}) =>
  ofFile(`${root}frame/${encoded(path)}/${frame}`, path, Object.entries(options));
/** A whole file to play, or with a frame a stream from there on. */
export const mediaAddress = (path, codec, from = null) =>
  ofFile(`${root}media/${encoded(path)}.mp4`, path, [["codec", codec], ...(from === null ? [] : [["from", from]])]);
export const clipAddress = (path, codec, start, stop) =>
  ofFile(`${root}clip/${encoded(path)}.mp4`, path, Object.entries({ codec, start: start.toFixed(3), stop: stop.toFixed(3) }));
export const mediaProgress = (path, codec) => json(ofFile(`${root}api/media/${encoded(path)}`, path, [["codec", codec]]));

/** The page of a file at a moment, rounded up, so that its frame has begun by then; with a query if there is one. */
export function watchAddress(path, seconds, pairs = []) {
  const moment = seconds === null ? [] : [["t", (Math.ceil(1000 * seconds - 1e-3) / 1000).toFixed(3)]];
  return withQuery(`${root}watch/${encoded(path)}`, [...moment, ...pairs]);
}

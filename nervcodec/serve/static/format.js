// SPDX-License-Identifier: MIT
// Numbers as text.

/** 75.48 as 1:15.48; hours where there are some. */
export function clockTime(seconds, digits = 2) {
  const unit = 10 ** digits;
  const whole = Math.round(Math.max(0, seconds) * unit);
  const s = (whole / unit) % 60;
  const minutes = Math.floor(whole / unit / 60);
  const tail = s.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  if (minutes < 60) return `${minutes}:${tail}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${tail}`;
}

/** A length: 3.2 s below a minute, else as clockTime. */
export const shortLength = (seconds) =>
  seconds < 0.05 ? "< 0.1 s" : seconds < 59.95 ? `${seconds.toFixed(1)} s` : clockTime(seconds, 0);

/** Bytes with three digits and their unit, of a thousand. */
export function bytes(count) {
  if (count < 1000) return `${count} B`;
  let value = count;
  for (const unit of ["KB", "MB", "GB", "TB"]) {
    value /= 1000;
    if (value < 999.5) return `${value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
  }
  return `${value.toFixed(0)} PB`;
}

/** PSNR; 100 dB stands for no error at all. */
export const decibels = (value) => (value >= 100 ? "lossless" : `${value.toFixed(1)} dB`);
export const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
export const rate = (value) => `${Number(value.toFixed(2))} fps`;
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
export const score = (value) => value.toFixed(3);

/** A date in the browser's language. */
export const day = (unixSeconds) =>
  new Date(1000 * unixSeconds).toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" });

/** The server's text as a sentence; a file name at its start is kept. */
export function sentence(words) {
  const text = words.trim();
  const begin = /^[a-z]+\s/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?\u2026\u201d]$/.test(begin) ? begin : `${begin}.`;
}

/** A file that somebody chose: its format, and how it begins. */

import { isReturned } from "./columns.js";
import { parse } from "./csv.js";

const XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
const FORMATS = [
  [/\.xlsx$/i, "XLSX", XLSX],
  [/\.(ndjson|jsonl)$/i, "NDJSON", "application/x-ndjson"],
  [/\.json$/i, "JSON", "application/json"],
];
const HEAD = 64 * 1024;
const ROWS = 8;
export const CHARSETS = ["utf-8", "windows-1252", "iso-8859-15", "utf-16le", "utf-16be"];

/**
 * How a file begins. `{file, format, type, charset, header, rows, items, text}`: of a CSV `header` and `rows`, of items in
 * NDJSON and JSON the first `items`, where they cannot be read `text`. Nothing of a workbook is read.
 */
export async function open(file, charset) {
  const [, format, type] = FORMATS.find(([pattern]) => pattern.test(file.name)) || [null, "CSV", "text/csv"];
  const made = { file, format, type };
  if (format === "XLSX") return made;
  const bytes = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  made.charset = charset || guessCharset(bytes);
  const text = new TextDecoder(made.charset).decode(bytes, { stream: true }).replace(/^\uFEFF/, "");
  return { ...made, ...(format === "CSV" ? readTable(text, file.size > HEAD) : readItems(format, text, file.size > HEAD)) };
}

/** `text/csv; charset=…`, where that has to be said. */
export function mediaType(source) {
  return source.format === "CSV" && source.charset !== "utf-8" ? `${source.type}; charset=${source.charset}` : source.type;
}

function guessCharset(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return "utf-8";
  } catch {
    return "windows-1252";
  }
}

function readTable(text, cut) {
  const rows = parse(text);
  if (cut) rows.pop();
  if (/^sep=.$/i.test(rows[0]?.[0] ?? "")) rows.shift();
  const header = rows.shift() || [];
  while (header.length && !header.at(-1).trim()) header.pop();
  return { header, returned: isReturned(header), rows: rows.slice(0, ROWS) };
}

function readItems(format, text, cut) {
  try {
    const lines = text.split(/\r?\n/).filter((line) => line.trim());
    const items = format === "NDJSON" ? lines.slice(0, Math.min(ROWS, cut ? lines.length - 1 : ROWS)).map((line) => JSON.parse(line)) : JSON.parse(text).items;
    if (items.every((item) => item && typeof item === "object")) return { items: items.slice(0, ROWS) };
  } catch {
    // What cannot be read is shown as it is; the server says what is wrong with it.
  }
  return { text: text.slice(0, 2000) };
}

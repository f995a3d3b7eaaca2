/** CSV as the server reads and writes it (RFC 4180), for files that are looked at or corrected in the page. */

const DELIMITERS = [",", ";", "\t", "|"];
const SIGNS = "=+\\-@\\t\\r\\n＝＋－＠";
const RISKY = new RegExp(`^'*[${SIGNS}]`);
const GUARDED = new RegExp(`^'+[${SIGNS}]`);

/** Text as rows of cells; blank lines are left out. With `delimiter` undefined the one is taken that splits the header most. */
export function parse(text, delimiter = findDelimiter(text)) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endRow = () => {
    row.push(cell);
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
    cell = "";
  };
  for (let i = 0; i < text.length; i += 1) {
    const sign = text[i];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[i + 1] === '"') {
        cell += '"';
        i += 1;
      } else quoted = false;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === delimiter) {
      row.push(cell);
      cell = "";
    } else if (sign === "\n" || sign === "\r") {
      endRow();
      if (sign === "\r" && text[i + 1] === "\n") i += 1;
    } else cell += sign;
  }
  if (cell !== "" || row.length) endRow();
  return rows;
}

/** The delimiter that splits the first line into the most cells. */
function findDelimiter(text) {
  const named = /^"?sep=([^"\r\n])"?/i.exec(text);
  if (named) return named[1];
  const head = /^[^\r\n]*/.exec(text.trimStart())[0];
  let best = ",";
  let most = 0;
  for (const each of DELIMITERS) {
    const cells = parse(head, each)[0]?.length ?? 0;
    if (cells > most) [best, most] = [each, cells];
  }
  return best;
}

/** Rows of cells as a file. */
export const encode = (rows) => rows.map((row) => `${row.map(quote).join(",")}\r\n`).join("");

const quote = (cell) => (/[",;|\t\r\n]/.test(cell) || cell === "" ? `"${cell.replaceAll('"', '""')}"` : cell);

/** A cell that no spreadsheet runs as a formula, as the server writes it, and the way back. */
export const neutralize = (cell) => (RISKY.test(cell) ? `'${cell}` : cell);
export const restore = (cell) => (GUARDED.test(cell) ? cell.slice(1) : cell);

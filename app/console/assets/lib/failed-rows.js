/** The failed rows of a job, page by page: their cells, what is wrong with each, and how they are sent again. */

import { call, get, newKey, path, query } from "./api.js";
import { fieldsOf, fold, NOTES, pointerOf } from "./columns.js";
import { encode, neutralize, parse, restore } from "./csv.js";

const PAGE = 1000;
const CHECKED = 1000;
const MOST = 3_000_000;
const DELAY = 600;
const AGAIN = 5000;

/**
 * `rows` hold what is loaded: `{n, cells, errors, changed, checking, item}`, where `errors` are `{code, pointer, detail}` and
 * `item` is what was sent as JSON. `columns` are `{name, pointer}`, `edited` the changed rows, `causes` the number of rows by
 * error code. `changed` is called when something of it changes, with a problem if that is why.
 */
export class FailedRows {
  constructor(job, type, changed) {
    this.place = path`/v1/jobs/${job.job_id}/items`;
    this.type = type;
    this.columns = [];
    this.rows = [];
    this.changed = changed;
    this.total = 0;
    this.seen = new Set();
    this.unchecked = new Set();
    this.edited = new Set();
    this.causes = new Map();
    const parts = [["db", "failed", job.summary.failed], ["db", "retry", job.summary.retry]];
    for (const [name, effects] of Object.entries(job.effects)) {
      if (name !== "db") parts.push([name, "failed", effects.failed], [name, "dead", effects.dead]);
    }
    this.parts = parts.filter(([, , count]) => count).map(([destination, status, count]) => {
      this.total += count;
      return { destination, status, outcomes: [], lines: [], next: { outcomes: "", lines: "" } };
    });
  }

  get done() {
    return !this.parts.length;
  }

  /** Load a page more; those who ask meanwhile get the same one. */
  more() {
    this.loading ??= this.load().finally(() => {
      this.loading = null;
      this.changed();
    });
    return this.loading;
  }

  async all(signal) {
    while (!this.done) {
      signal?.throwIfAborted();
      await this.more();
    }
  }

  async load() {
    const part = this.parts[0];
    if (!part) return;
    // Both lists are the same items in the same order, though their pages may end at different ones.
    if (!part.outcomes.length && part.next.outcomes !== null) await this.loadOutcomes(part);
    if (!part.lines.length && part.next.lines !== null) await this.loadLines(part);
    const count = Math.min(part.outcomes.length, part.lines.length);
    const lines = part.lines.splice(0, count);
    part.outcomes.splice(0, count).forEach((outcome, i) => this.add(outcome, lines[i], part.destination));
    const over = (name) => !part[name].length && part.next[name] === null;
    if (over("outcomes") || over("lines")) this.parts.shift();
    if (this.done) this.total = this.rows.length;
  }

  ask(part, more) {
    return query({ status: part.status, destination: part.destination, limit: PAGE, ...more });
  }

  async loadOutcomes(part) {
    const page = await get(`${this.place}${this.ask(part, { cursor: part.next.outcomes })}`);
    part.outcomes = page.items;
    part.next.outcomes = page.next_cursor;
  }

  async loadLines(part) {
    const from = `${this.place}${this.ask(part, { sent: true, cursor: part.next.lines })}`;
    const { body, headers } = await call("GET", from, { accept: "text/csv" });
    const [header, ...rows] = parse(body, ",");
    const names = header.slice(NOTES.length).map(restore);
    this.keepsItems ??= fieldsOf(this.type).every((name) => name === "deleted" || names.some((each) => fold(each) === fold(name)));
    const items = this.keepsItems ? (await call("GET", from, { accept: "application/x-ndjson" })).body.split("\n").filter(Boolean) : [];
    const at = names.map((name) => this.column(name));
    part.lines = rows.map((row, i) => {
      const cells = [];
      row.slice(NOTES.length).forEach((cell, k) => { cells[at[k] ?? k] = restore(cell); });
      return { cells, item: items[i] && JSON.parse(items[i]) };
    });
    const link = /[?&]cursor=([^&>]*)[^>]*>; *rel="?next/.exec(headers.get("Link") || "");
    part.next.lines = link ? decodeURIComponent(link[1]) : null;
  }

  /** The place of a column; those of JSON items appear as they occur. */
  column(name) {
    const found = this.columns.findIndex((column) => column.name === name);
    return found >= 0 ? found : this.columns.push({ name, pointer: pointerOf(this.type, name) }) - 1;
  }

  add(outcome, { cells, item }, destination) {
    if (this.seen.has(outcome.index)) return;
    this.seen.add(outcome.index);
    const there = outcome.destinations[destination];
    const errors = there ? [{ code: there.error_code || there.state, pointer: "", detail: `${destination}: ${there.detail || there.state}` }] : outcome.errors || [];
    const row = { n: this.rows.length, cells, errors: [], item, changed: false, checking: false, edits: 0 };
    this.rows.push(row);
    this.judge(row, errors);
  }

  /** What is wrong with a cell, or with the row as a whole where `column` is null. */
  faults(row, column) {
    if (column) return row.errors.filter(({ pointer }) => pointer === column.pointer || pointer.startsWith(`${column.pointer}/`));
    return row.errors.filter((error) => !this.columns.some((each) => this.faults({ errors: [error] }, each).length));
  }

  /** Say what is wrong with a row now; `causes` is kept in step. */
  judge(row, errors) {
    for (const code of codesOf(row)) this.causes.set(code, this.causes.get(code) - 1);
    row.errors = errors;
    for (const code of codesOf(row)) this.causes.set(code, (this.causes.get(code) || 0) + 1);
  }

  edit(row, column, value) {
    if ((row.cells[column] ?? "") === value) return false;
    row.was ??= [...row.cells];
    row.cells[column] = value;
    row.changed = this.columns.some((_, i) => (row.was[i] ?? "") !== (row.cells[i] ?? ""));
    this.edited[row.changed ? "add" : "delete"](row);
    row.edits += 1;
    row.checking = true;
    this.unchecked.add(row);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.check(), DELAY);
    return true;
  }

  /** Have the server check what was changed, without writing. */
  async check() {
    if (this.running) return;
    this.running = true;
    let rows = [];
    try {
      while (this.unchecked.size) {
        rows = this.take();
        const edits = rows.map((row) => row.edits);
        const outcomes = await this.outcomesOf((await this.post(this.write(rows), newKey(), { dry_run: true })).body);
        rows.forEach((row, i) => {
          if (row.edits !== edits[i] || !outcomes[i]) return;
          this.judge(row, outcomes[i].status === "ok" ? [] : outcomes[i].errors);
          row.checking = false;
        });
        this.changed(null);
      }
    } catch (problem) {
      rows.forEach((row) => this.unchecked.add(row));
      if ([0, 429, 503].includes(problem.status)) this.timer = setTimeout(() => this.check(), AGAIN);
      this.changed(problem);
    } finally {
      this.running = false;
    }
  }

  /** Of every item; a server that answers at once for fewer items has them in the job. */
  async outcomesOf(answer) {
    if (answer.items) return answer.items;
    const job = path`/v1/jobs/${answer.job_id}`;
    while (!(await get(job)).finished_at) await new Promise((resolve) => setTimeout(resolve, DELAY));
    const items = [];
    let cursor = "";
    while (cursor !== null) {
      const page = await get(`${job}/items${query({ limit: PAGE, cursor })}`);
      items.push(...page.items);
      cursor = page.next_cursor;
    }
    return items;
  }

  /** As many changed rows as are answered at once. */
  take() {
    const rows = [];
    let size = 0;
    for (const row of this.unchecked) {
      size += row.cells.join("").length + 50;
      if (rows.length === CHECKED || (rows.length && size > MOST)) break;
      rows.push(row);
      this.unchecked.delete(row);
    }
    return rows;
  }

  get good() {
    return [...this.edited].filter((row) => !row.checking && !row.errors.length).sort((a, b) => a.n - b.n);
  }

  /** Rows as the body of an import. */
  write(rows) {
    return this.keepsItems ? rows.map((row) => `${JSON.stringify(this.itemOf(row))}\n`).join("") : this.asCsv(rows);
  }

  /** Import what `write` made; resolves to the answer. */
  post(body, key, options = {}) {
    const type = this.keepsItems ? "application/x-ndjson" : "text/csv";
    return call("POST", `${path`/v1/${this.type.name}`}:bulk${query(options)}`, { body, type, headers: { "Idempotency-Key": key } });
  }

  asCsv(rows) {
    const written = rows.map((row) => {
      const [first] = row.errors;
      return [first?.code ?? "", row.errors.map((error) => error.detail).join("; "), "0", ...this.columns.map((_, i) => row.cells[i] ?? "")];
    });
    return encode([[...NOTES, ...this.columns.map((column) => column.name)], ...written].map((row) => row.map(neutralize)));
  }

  /** A JSON item with its changed cells: other values remain as they were sent, numbers and lists included. */
  itemOf(row) {
    const whole = row.item && typeof row.item === "object" && !Array.isArray(row.item);
    const item = whole ? structuredClone(row.item) : {};
    this.columns.forEach((column, i) => {
      const value = row.cells[i] ?? "";
      if (whole && value === ((row.was ?? row.cells)[i] ?? "")) return;
      const [, field, key] = /^\/([^/]+)(?:\/(.*))?$/.exec(column.pointer);
      const name = key === undefined ? field : key.replaceAll("~1", "/").replaceAll("~0", "~");
      const within = key === undefined ? item : (item.attributes ??= {});
      if (value === "") delete within[name];
      else within[name] = readValue(value, within[name], key === undefined ? this.type.fields[field] : null, field);
    });
    return item;
  }
}

const codesOf = (row) => new Set(row.errors.map((error) => error.code));

function readValue(text, before, schema, field) {
  const number = ["if_version", "source_version"].includes(field);
  const isText = schema ? schema.type === "string" || schema.enum?.every((one) => typeof one === "string") : !number && (before === undefined || typeof before === "string" || before === null);
  if (isText) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

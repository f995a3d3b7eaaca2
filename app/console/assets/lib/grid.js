/** An ARIA grid of which only the rows in sight are in the page, for keyboards first. */

import { html, nothing, render } from "../vendor/lit-html.js";
import { repeat } from "../vendor/directives/repeat.js";

/** Pixels; style.css has the same. */
const ROW = 52;
const BEYOND = 6;

/**
 * `source`: `label`, `columns()` names, `rows()` with a unique `n` each, `total()` (-1: unknown), `head(row)` and `cell(row, column)`
 * as `{text, why, invalid}`, `edit(row, column, value)`, `near()` when the end is in sight, `moved(row)`, `editable`.
 * Column 0 is the head of a row and cannot be edited.
 */
export class Grid {
  constructor(source) {
    this.source = source;
    this.at = { row: 0, column: 1 };
    this.editing = null;
    this.element = document.createElement("div");
    this.element.className = "grid";
    this.element.setAttribute("role", "grid");
    this.element.setAttribute("aria-label", source.label);
    this.element.tabIndex = -1;
    this.element.addEventListener("scroll", () => this.render(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.press(event));
    this.element.addEventListener("click", (event) => this.point(event, false));
    this.element.addEventListener("dblclick", (event) => this.point(event, true));
    this.resized = new ResizeObserver(() => this.render());
    this.resized.observe(this.element);
  }

  stop() {
    this.resized.disconnect();
  }

  /** Show other rows, from the first. */
  reset() {
    this.at = { row: 0, column: this.at.column };
    this.editing = null;
    this.element.scrollTop = 0;
    this.render();
  }

  render() {
    const rows = this.source.rows();
    const names = this.source.columns();
    this.at.row = Math.max(0, Math.min(this.at.row, rows.length - 1));
    const first = Math.max(0, Math.floor(this.element.scrollTop / ROW) - BEYOND);
    const last = Math.min(rows.length, first + Math.ceil((this.element.clientHeight || 600) / ROW) + 2 * BEYOND);
    this.element.setAttribute("aria-rowcount", this.source.total());
    this.element.setAttribute("aria-colcount", names.length + 1);
    const focused = this.element.contains(document.activeElement);
    const seen = this.at.row >= first && this.at.row < last;
    const shown = rows.slice(first, last).map((row, i) => ({ row, i: first + i }));
    render(
      html`
        <div role="rowgroup" class="grid-head"><div role="row" aria-rowindex="1" class="grid-row">
          ${["", ...names].map((name, c) => html`<div role="columnheader" aria-colindex=${c + 1}>${name || this.source.corner}</div>`)}
        </div></div>
        <div role="rowgroup" class="grid-body"><div role="presentation" class="grid-window">
          ${repeat(shown, ({ row }) => row.n, ({ row, i }) => this.row(row, i, names, seen ? this.at.row : first + BEYOND))}
        </div></div>`,
      this.element,
    );
    this.element.querySelector(".grid-body").style.height = `${rows.length * ROW}px`;
    this.element.querySelector(".grid-window").style.transform = `translateY(${first * ROW}px)`;
    if (focused && !this.element.contains(document.activeElement)) this.element.focus({ preventScroll: true });
    if (last >= rows.length - 2 * BEYOND) this.source.near();
  }

  row(row, i, names, tabbable) {
    const head = this.source.head(row);
    const index = (c) => (i === tabbable && c === this.at.column ? 0 : -1);
    return html`<div role="row" aria-rowindex=${i + 2} class="grid-row">
      <div role="rowheader" aria-colindex="1" data-row=${i} data-column="0" tabindex=${index(0)}>
        <span>${head.text}</span>${head.why ? html`<span class="why" title=${head.why}>${head.why}</span>` : nothing}
      </div>
      ${names.map((name, k) => {
        const cell = this.source.cell(row, k);
        const editing = this.editing && this.at.row === i && this.at.column === k + 1;
        return html`<div role="gridcell" aria-colindex=${k + 2} data-row=${i} data-column=${k + 1} tabindex=${index(k + 1)}
          aria-invalid=${cell.invalid ? "true" : nothing} aria-readonly=${this.source.editable ? nothing : "true"} class=${cell.changed ? "changed" : ""}>
          ${editing ? html`<input aria-label=${name} .value=${this.editing.value}
            @input=${(event) => { if (this.editing) this.editing.value = event.target.value; }} @blur=${() => queueMicrotask(() => this.commit())}>` : html`<span>${cell.text}</span>`}
          ${cell.why ? html`<span class="why" title=${cell.why}>${cell.why}</span>` : nothing}
        </div>`;
      })}
    </div>`;
  }

  point(event, edit) {
    const cell = event.target.closest("[data-row]");
    if (!cell || event.target.tagName === "INPUT") return;
    this.move(Number(cell.dataset.row), Number(cell.dataset.column));
    if (edit) this.start();
  }

  press(event) {
    if (this.editing) return this.pressEditing(event);
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const { row, column } = this.at;
    const whole = event.ctrlKey || event.metaKey;
    const end = this.source.columns().length;
    const moves = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [row - page, column], PageDown: [row + page, column],
      Home: [whole ? 0 : row, 0], End: [whole ? Infinity : row, end],
    };
    if (moves[event.key]) this.move(...moves[event.key]);
    else if (event.key === "Enter" || event.key === "F2") this.start();
    else if (event.key === "Delete" || event.key === "Backspace") this.write("");
    else if (event.key.length === 1 && event.key !== " " && !whole && !event.altKey) this.start(event.key);
    else return;
    event.preventDefault();
  }

  pressEditing(event) {
    const steps = { Enter: [event.shiftKey ? -1 : 1, 0], Tab: [0, event.shiftKey ? -1 : 1], Escape: [0, 0] };
    const step = steps[event.key];
    if (!step || event.isComposing) return;
    event.preventDefault();
    if (event.key === "Escape") this.editing = null;
    else this.commit();
    this.move(this.at.row + step[0], this.at.column + step[1]);
  }

  start(typed) {
    const row = this.source.rows()[this.at.row];
    if (!this.source.editable || !row || this.at.column === 0) return;
    this.editing = { row, column: this.at.column - 1, value: typed ?? this.source.cell(row, this.at.column - 1).text };
    this.render();
    const input = this.element.querySelector("input");
    input?.focus();
    if (typed === undefined) input?.select();
  }

  commit() {
    if (!this.editing) return;
    const { row, column, value } = this.editing;
    this.editing = null;
    this.source.edit(row, column, value);
    this.render();
  }

  write(value) {
    const row = this.source.rows()[this.at.row];
    if (this.source.editable && row && this.at.column > 0) this.source.edit(row, this.at.column - 1, value);
    this.render();
  }

  move(row, column) {
    this.commit();
    const rows = this.source.rows();
    this.at = {
      row: Math.max(0, Math.min(row, rows.length - 1)),
      column: Math.max(0, Math.min(column, this.source.columns().length)),
    };
    const head = this.element.querySelector(".grid-head")?.offsetHeight ?? 0;
    const room = this.element.clientHeight - head - ROW;
    const top = this.at.row * ROW;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + room) this.element.scrollTop = top - room;
    this.render();
    const cell = this.element.querySelector(`[data-row="${this.at.row}"][data-column="${this.at.column}"]`);
    cell?.focus({ preventScroll: true });
    cell?.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (rows[this.at.row]) this.source.moved(rows[this.at.row]);
  }
}

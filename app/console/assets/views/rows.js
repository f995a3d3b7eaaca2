/** The failed rows of a job: corrected in a grid, checked as they are changed, and sent again. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, isAborted, newKey, path } from "../lib/api.js";
import { FailedRows } from "../lib/failed-rows.js";
import { count } from "../lib/format.js";
import { Grid } from "../lib/grid.js";
import { guard } from "../lib/leaving.js";
import { alert, announce, confirm, empty, loading } from "../lib/ui.js";
import { words } from "../strings.js";

const w = words.rows;
const CHANGED = "changed";

export function open({ params, query, may, update, go }) {
  const state = { model: null, shown: [], cause: query.cause || "", problem: null, busy: "", several: false, row: null };
  const tool = { column: 0, what: "replace", find: "", by: "" };
  const aborter = new AbortController();
  const { signal } = aborter;
  let request = { body: "", key: "" };
  let sent = false;
  let grid;
  let known = 0;

  const unguard = guard(() => {
    const lost = sent ? 0 : (state.model?.edited.size ?? 0);
    return lost ? w.leave(count(lost)) : "";
  }, w.leaveAnyway, go);

  async function load() {
    try {
      const job = await get(path`/v1/jobs/${params.id}`, { signal });
      const { resource_types: types } = await get("/v1/resource-types", { signal });
      const type = types.find((each) => each.name === job.type);
      state.several = !type;
      if (type) await begin(job, type);
    } catch (error) {
      if (isAborted(error)) return;
      state.problem = error;
    }
    update();
  }

  async function begin(job, type) {
    const model = new FailedRows(job, type, notice);
    grid = new Grid({
      label: w.grid,
      corner: w.row,
      editable: may("import"),
      columns: () => model.columns.map((column) => column.name),
      rows: () => state.shown,
      total: () => (model.done || !state.cause ? (state.cause ? state.shown.length : model.total) + 1 : -1),
      head: (row) => ({ text: `${count(row.n + 1)}${row.checking ? ` · ${w.checking}` : row.changed && !row.errors.length ? ` · ${w.good}` : ""}`, why: explain(model.faults(row, null)) || codes(row) }),
      cell: (row, column) => {
        const faults = model.faults(row, model.columns[column]);
        const text = row.cells[column] ?? "";
        return { text, why: explain(faults), invalid: faults.length > 0, changed: row.was !== undefined && (row.was[column] ?? "") !== text };
      },
      edit: (row, column, value) => {
        if (model.edit(row, column, value)) update();
      },
      near: () => {
        if (!model.done && !model.loading && !state.problem) more();
      },
      moved: (row) => {
        state.row = row;
        update();
      },
    });
    state.model = model;
    await model.more();
    if (state.cause) complete();
  }

  async function more() {
    try {
      await state.model.more();
    } catch (error) {
      state.problem = error;
      update();
    }
  }

  /** Something was loaded or checked. */
  function notice(problem) {
    if (signal.aborted) return;
    if (problem !== undefined) state.problem = problem;
    const { rows } = state.model;
    // A row that is shown stays, also when what it was shown for is mended: it must not disappear under the cursor.
    for (; known < rows.length; known += 1) if (fits(rows[known])) state.shown.push(rows[known]);
    if (state.row?.changed && !state.row.checking && state.row.announced !== state.row.edits) {
      state.row.announced = state.row.edits;
      announce(state.row.errors.length ? w.isWrong(state.row.n + 1, explain(state.row.errors)) : w.isGood(state.row.n + 1));
    }
    update();
    grid.render();
  }

  function fits(row) {
    if (!state.cause) return true;
    return state.cause === CHANGED ? row.changed : row.errors.some((error) => error.code === state.cause);
  }

  function filter(cause) {
    state.cause = cause;
    state.row = null;
    history.replaceState(null, "", location.pathname + (cause ? `?cause=${encodeURIComponent(cause)}` : ""));
    state.shown = state.model.rows.filter(fits);
    const [first] = state.shown;
    const faulty = cause && first ? state.model.columns.findIndex((column) => state.model.faults(first, column).length) : -1;
    if (faulty >= 0) tool.column = faulty;
    update();
    grid.reset();
    if (cause) complete();
  }

  /** Load what is left: whatever is about all rows needs all of them. */
  async function complete() {
    if (state.model.done) return true;
    state.busy = w.loading;
    update();
    try {
      await state.model.all(signal);
    } catch (error) {
      if (isAborted(error)) return false;
      state.problem = error;
    }
    state.busy = "";
    update();
    return state.model.done;
  }

  async function apply(event) {
    event.preventDefault();
    if (!(await complete())) return;
    const column = tool.column;
    const change = {
      replace: (text) => (tool.find ? text.replaceAll(tool.find, tool.by) : text),
      trim: (text) => text.trim(),
      set: () => tool.by,
    }[tool.what];
    let changed = 0;
    for (const row of state.shown) changed += state.model.edit(row, column, change(row.cells[column] ?? ""));
    announce(w.applied(count(changed)));
    update();
    grid.render();
  }

  async function send() {
    const rows = state.model.good;
    const wrong = state.model.edited.size - rows.length;
    if (!(await confirm(w.confirmSend(count(rows.length), wrong && count(wrong)), w.sendWord))) return;
    state.busy = words.import.sending;
    state.problem = null;
    update();
    try {
      // The same rows have the same key until there is an answer.
      const content = state.model.write(rows);
      if (content !== request.body) request = { body: content, key: newKey() };
      const { body } = await state.model.post(content, request.key);
      sent = true;
      go(path`/console/jobs/${body.job_id}`);
    } catch (error) {
      if (![0, 409, 429, 503].includes(error.status)) request.body = "";
      state.problem = error;
      state.busy = "";
      update();
    }
  }

  async function download() {
    if (!(await complete())) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([state.model.asCsv(state.shown)], { type: "text/csv" }));
    link.download = `job-${params.id}-failed.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  load();

  return {
    title: () => w.title,
    stop: () => {
      unguard();
      aborter.abort();
      grid?.stop();
      clearTimeout(state.model?.timer);
    },
    render: () => html`
      <div class="head">
        <h1 tabindex="-1">${w.title}</h1>
        <a href=${path`/console/jobs/${params.id}`}>${w.back}</a>
      </div>
      ${alert(state.problem)}
      ${state.several ? html`<p class="notice">${w.several}</p>` : !state.model ? (state.problem ? nothing : loading()) : state.model.done && !state.model.rows.length ? empty(w.none, w.noneText) : [bar(), grid.element, state.shown.length ? detail() : html`<p class="mute">${w.noneShown}</p>`, many()]}`,
  };

  function bar() {
    const { model } = state;
    const good = model.good.length;
    const changed = model.edited.size;
    const bad = [...model.edited].filter((row) => row.errors.length && !row.checking).length;
    const causes = [...model.causes].filter(([, n]) => n);
    return html`
      <p class="mute">${may("import") ? w.text : w.readOnly} ${w.keys}</p>
      <div class="toolbar">
        <label class="inline">${w.show}
          <select @change=${(event) => filter(event.target.value)}>
            <option value="" .selected=${!state.cause}>${w.all}</option>
            ${causes.map(([code, n]) => html`<option value=${code} .selected=${state.cause === code}>${w.cause(code, count(n))}</option>`)}
            ${state.cause && state.cause !== CHANGED && !causes.some(([code]) => code === state.cause) ? html`<option value=${state.cause} .selected=${true}>${w.cause(state.cause, 0)}</option>` : nothing}
            <option value=${CHANGED} .selected=${state.cause === CHANGED}>${w.changed}</option>
          </select>
        </label>
        <span class="mute">${state.busy || w.loaded(count(model.rows.length), count(model.total))}${changed ? html` · ${w.progress(count(changed), count(good), count(bad))}` : nothing}</span>
        <div class="buttons">
          ${may("import") ? html`<button type="button" class="primary" ?disabled=${!good || Boolean(state.busy)} @click=${send}>${w.send(count(good))}</button>` : nothing}
          <button type="button" @click=${download}>${w.download}</button>
          ${may("import") ? html`<a class="button" href="/console/import">${w.upload}</a>` : nothing}
        </div>
      </div>`;
  }

  function detail() {
    const { row } = state;
    if (!row?.errors.length) return nothing;
    return html`<p class="alert"><strong>${w.row} ${count(row.n + 1)}:</strong> ${row.errors.map((error) => html`<code>${error.code}</code> ${error.pointer ? html`<code>${error.pointer}</code> ` : nothing}${error.detail} `)}</p>`;
  }

  function many() {
    if (!may("import")) return nothing;
    const set = (name) => (event) => {
      tool[name] = name === "column" ? Number(event.target.value) : event.target.value;
      update();
    };
    const select = (name, options) => html`<select id=${name} @change=${set(name)}>
      ${options.map(([value, text]) => html`<option value=${value} .selected=${value === tool[name]}>${text}</option>`)}
    </select>`;
    return html`<form @submit=${apply}>
      <h2>${w.many}</h2>
      <div class="toolbar">
        <div><label for="column">${w.column}</label>${select("column", state.model.columns.map((column, i) => [i, column.name]))}</div>
        <div><label for="what">${w.what}</label>${select("what", Object.entries(w.actions))}</div>
        ${tool.what === "replace" ? html`<div><label for="find">${w.find}</label><input id="find" required .value=${tool.find} @input=${set("find")}></div>` : nothing}
        ${tool.what !== "trim" ? html`<div><label for="by">${tool.what === "set" ? w.value : w.by}</label><input id="by" .value=${tool.by} @input=${set("by")}></div>` : nothing}
        <button ?disabled=${Boolean(state.busy)}>${w.apply(count(state.shown.length))}</button>
      </div>
    </form>`;
  }
}

const explain = (errors) => errors.map((error) => error.detail).join("; ");
const codes = (row) => [...new Set(row.errors.map((error) => error.code))].join(", ");

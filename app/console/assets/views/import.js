/** Import a file: look at it, say what its columns are, check it, send it. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, isAborted, newKey, upload } from "../lib/api.js";
import { ATTRIBUTE, findMissing, guessType, IGNORED, propose, say } from "../lib/columns.js";
import { count } from "../lib/format.js";
import { guard } from "../lib/leaving.js";
import { CHARSETS, mediaType, open as openFile } from "../lib/source-file.js";
import { alert, announce, empty, loading } from "../lib/ui.js";
import { words } from "../strings.js";
import { columnsTable, itemsTable, outcome } from "./import-parts.js";

const w = words.import;
const POLL = 1000;

export function open({ may, update, go }) {
  const state = { types: null, type: null, source: null, targets: [], options: {}, busy: null, found: null, problem: null };
  const aborter = new AbortController();
  const keys = new Map();
  let sending;
  const unguard = guard(() => (state.busy?.uploading ? w.leave : ""), w.leaveAnyway, go);

  async function load() {
    try {
      state.types = (await get("/v1/resource-types", { signal: aborter.signal })).resource_types;
    } catch (error) {
      if (isAborted(error)) return;
      state.problem = error;
    }
    update();
  }

  async function choose(file, charset) {
    if (!file) return;
    state.problem = state.found = null;
    state.source = await openFile(file, charset);
    if (!charset) {
      state.options = {};
      keys.clear();
    }
    const names = state.source.header || [...new Set((state.source.items || []).flatMap((item) => Object.keys(item)))];
    state.type = (!charset && guessType(state.types, names)) || state.type || state.types.find((type) => type.name === "contacts");
    proposeAgain();
    announce(`${file.name}: ${state.source.format}`);
    document.getElementById("type")?.focus();
  }

  function proposeAgain() {
    state.targets = state.source.header ? propose(state.type, state.source.header) : [];
    change();
  }

  /** Whatever was checked was something else. */
  function change(made = () => {}) {
    made();
    state.found = state.problem = null;
    update();
  }

  function address(dry) {
    const { source, type, targets, options } = state;
    const { map: pairs = "", ...others } = options;
    const asked = new URLSearchParams(Object.entries(others).map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
    for (const pair of pairs.split("\n")) if (pair.trim()) asked.append("map", pair.trim());
    if (dry) asked.set("dry_run", "true");
    if (source.header) {
      const { map, ignore } = say(type, source.header, targets);
      map.forEach((pair) => asked.append("map", pair));
      ignore.forEach((name) => asked.append("ignore", name));
    }
    const query = asked.toString();
    return `/v1/${encodeURIComponent(type.name)}:bulk${query ? `?${query}` : ""}`;
  }

  /** The answer of the server; a request that got none is sent again under its key. */
  async function send(dry) {
    const to = address(dry);
    const name = `${mediaType(state.source)} ${to}`;
    if (!keys.has(name)) keys.set(name, newKey());
    sending = new AbortController();
    state.busy = { uploading: true, sent: 0, whole: state.source.file.size };
    state.problem = state.found = null;
    update();
    try {
      const { body } = await upload(to, state.source.file, {
        type: mediaType(state.source),
        headers: { "Idempotency-Key": keys.get(name), Prefer: "return=minimal" },
        signal: sending.signal,
        progress(sent, whole) {
          Object.assign(state.busy, { sent, whole });
          update();
        },
      });
      keys.delete(name);
      return body;
    } catch (error) {
      if (![0, 409, 429, 503].includes(error.status)) keys.delete(name);
      throw error;
    } finally {
      state.busy = null;
    }
  }

  async function act(work) {
    try {
      await work();
    } catch (error) {
      if (!isAborted(error)) state.problem = error;
    }
    state.busy = null;
    update();
  }

  const check = () =>
    act(async () => {
      const made = await send(true);
      let job = await get(`/v1/jobs/${made.job_id}`, { signal: aborter.signal });
      while (!job.finished_at) {
        state.busy = { checked: job.progress.processed };
        update();
        await new Promise((resolve) => setTimeout(resolve, POLL));
        job = await get(`/v1/jobs/${made.job_id}`, { signal: aborter.signal });
      }
      state.found = job;
      announce(job.summary.failed ? w.someFail(count(job.summary.failed), count(job.summary.total)) : w.nothingFails);
    });

  const importIt = () => act(async () => go(`/console/jobs/${(await send(false)).job_id}`));

  if (may("import")) load();

  return {
    title: () => w.title,
    stop: () => {
      unguard();
      sending?.abort();
      aborter.abort();
    },
    render: () => html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1></div>
      ${!may("import") ? empty(w.mayNot, w.mayNotText) : state.types ? shown() : state.problem ? alert(state.problem) : loading()}`,
  };

  function shown() {
    return html`${chooser()} ${state.source ? [settings(), contents(), actions()] : alert(state.problem)}`;
  }

  function chooser() {
    const over = (event, inside) => {
      event.preventDefault();
      event.currentTarget.classList.toggle("over", inside);
    };
    return html`<div class="drop"
      @dragover=${(event) => over(event, true)} @dragleave=${(event) => over(event, false)}
      @drop=${(event) => { over(event, false); if (!state.busy) choose(event.dataTransfer.files[0]); }}>
      <label for="file">${state.source ? w.another : w.choose}</label>
      <input id="file" type="file" accept=".csv,.tsv,.txt,.xlsx,.ndjson,.jsonl,.json" aria-describedby="file-help"
        ?disabled=${Boolean(state.busy)} @change=${(event) => choose(event.target.files[0])}>
      <p id="file-help" class="small">${w.chooseHelp}</p>
    </div>`;
  }

  function settings() {
    const { source, options } = state;
    const set = (name) => (event) => change(() => { options[name] = event.target.value; });
    const tabular = source.format === "CSV" || source.format === "XLSX";
    return html`<section aria-labelledby="settings">
      <h2 id="settings">${w.settings}</h2>
      <dl class="facts"><dt>${w.choose}</dt><dd>${source.file.name}</dd><dt>${w.format}</dt><dd>${source.format}, ${bytes(source.file.size)}</dd></dl>
      <div class="choices">
        <div><label for="type">${w.type}</label>
          <select id="type" @change=${(event) => { state.type = state.types.find((type) => type.name === event.target.value); proposeAgain(); }}>
            ${state.types.map((type) => html`<option value=${type.name} .selected=${type === state.type}>${type.name}</option>`)}
          </select></div>
        ${source.format === "CSV"
          ? html`<div><label for="charset">${w.charset}</label>
              <select id="charset" @change=${(event) => choose(source.file, event.target.value)}>
                ${CHARSETS.map((name) => html`<option .selected=${name === source.charset}>${name}</option>`)}
              </select></div>`
          : nothing}
        ${source.format === "XLSX"
          ? html`<div><label for="sheet">${w.sheet}</label><input id="sheet" .value=${options.sheet || ""} aria-describedby="sheet-help" @input=${set("sheet")}>
              <p id="sheet-help" class="small">${w.sheetHelp}</p></div>
            <div><label for="map">${w.map}</label><textarea id="map" rows="2" aria-describedby="map-help" .value=${options.map || ""} @input=${set("map")}></textarea>
              <p id="map-help" class="small">${w.mapHelp}</p></div>`
          : nothing}
      </div>
      <details><summary>${w.more}</summary><div class="choices">
        <div><label for="duplicates">${w.duplicates}</label>${select("duplicates", w.onDuplicate, options.on_duplicate || "fail", set("on_duplicate"))}</div>
        ${tabular
          ? html`<div><label for="decimal">${w.decimal}</label>${select("decimal", w.decimals, options.decimal || "", set("decimal"))}</div>
              <div><label for="dates">${w.dates}</label><input id="dates" .value=${options.date_format || ""} aria-describedby="dates-help" @input=${set("date_format")}>
              <p id="dates-help" class="small">${w.datesHelp}</p></div>`
          : nothing}
      </div></details>
    </section>`;
  }

  function contents() {
    const { source, type, targets } = state;
    if (source.items) return html`<section><h2>${w.firstItems}</h2>${itemsTable(source.items)}</section>`;
    if (!source.header) return source.text ? html`<section><h2>${w.beginning}</h2><pre class="scroll" tabindex="0">${source.text}</pre></section>` : html`<p class="mute">${w.unseen}</p>`;
    const missing = findMissing(type, targets);
    return html`<section>
      <h2>${w.columns}</h2>
      <p class="mute">${source.returned ? w.returned : w.columnsText}</p>
      ${columnsTable(source, type, targets, (i, target) => change(() => {
        // A field has one column: the one that had it becomes what it would be without it.
        const had = targets.indexOf(target);
        if (had >= 0 && had !== i && target !== ATTRIBUTE && target !== IGNORED) targets[had] = type.attributes ? ATTRIBUTE : IGNORED;
        targets[i] = target;
      }))}
      ${missing.length ? html`<p class="notice" role="status">${w.missing(missing.join(", "))}</p>` : nothing}
    </section>`;
  }

  function actions() {
    const { busy, found } = state;
    return html`<section>
      ${alert(state.problem)}
      ${found ? outcome(found) : nothing}
      ${busy ? progress(busy) : html`
        <div class="buttons end">
          <button type="button" @click=${check} aria-describedby="check-help">${w.check}</button>
          <button type="button" class="primary" @click=${importIt}>${w.go}</button>
        </div>
        <p id="check-help" class="small">${w.checkHelp}</p>`}
    </section>`;
  }

  function progress(busy) {
    if (!busy.uploading) return html`<p role="status">${w.checking(count(busy.checked))}</p>`;
    const done = busy.sent >= busy.whole;
    return html`<div class="sending">
      <progress aria-label=${w.sending} max=${busy.whole || 1} .value=${busy.sent}></progress>
      <span>${done ? w.waiting : w.sent(bytes(busy.sent), bytes(busy.whole))}</span>
      <button type="button" @click=${() => sending.abort()}>${w.stop}</button>
    </div>`;
  }
}

const select = (id, options, value, changed) =>
  html`<select id=${id} @change=${changed}>${Object.entries(options).map(([key, text]) => html`<option value=${key} .selected=${key === value}>${text}</option>`)}</select>`;

function bytes(size) {
  if (size < 1000) return `${count(size)} B`;
  return size < 1_000_000 ? `${count(Math.round(size / 100) / 10)} kB` : `${count(Math.round(size / 100_000) / 10)} MB`;
}

/** One record: what it holds, its state at every destination, and how it came to be so. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, path, query as asQuery } from "../lib/api.js";
import { duration } from "../lib/format.js";
import { alert, badge, loading, stale, table, time } from "../lib/ui.js";
import { differences, fieldsOf, shown } from "../lib/values.js";
import { words } from "../strings.js";

const w = words.record;
const REFRESH = 4000;
const UNSETTLED = new Set(["pending", "retry", "unknown"]);
const OWN = new Set(["id", "version", "source_version", "job_id", "created_at", "updated_at", "destinations", "stale", "age_seconds"]);

export function open({ params, may, update }) {
  const state = { record: null, versions: null, next: null, letters: [], gone: false, problem: null };
  const aborter = new AbortController();
  const place = path`/v1/${params.type}/${params.id}`;
  const read = (from) => get(from, { signal: aborter.signal });
  let timer;

  async function load() {
    try {
      let problem = null;
      const [record, history, letters] = await Promise.all([
        read(place).catch((error) => (error.status === 404 ? null : Promise.reject(error))),
        read(`${place}/history`),
        // While PostgreSQL is away, the record is known all the same.
        read(`/v1/dead-letters${asQuery({ record_id: params.id, resolution: "any" })}`).catch((error) => {
          problem = error;
          return { dead_letters: [] };
        }),
      ]);
      const ours = letters.dead_letters.filter((each) => each.type === params.type);
      Object.assign(state, { record, gone: !record, versions: history.versions, next: history.next_cursor, letters: ours, problem });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
    if (Object.values(state.record?.destinations || {}).some((each) => UNSETTLED.has(each.state))) timer = setTimeout(again, REFRESH);
  }

  function again() {
    if (document.hidden) document.addEventListener("visibilitychange", load, { once: true, signal: aborter.signal });
    else load();
  }

  async function more() {
    try {
      const page = await read(`${place}/history${asQuery({ cursor: state.next })}`);
      clearTimeout(timer);
      Object.assign(state, { versions: [...state.versions, ...page.versions], next: page.next_cursor });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  load();

  return {
    title: () => params.id,
    stop: () => {
      aborter.abort();
      clearTimeout(timer);
    },
    render: () => html`
      <div class="head"><h1 tabindex="-1">${params.id}</h1></div>
      ${alert(state.problem)}${stale(state.record)}
      ${state.versions ? all() : state.problem ? nothing : loading()}`,
  };

  function all() {
    return html`
      ${state.gone ? html`<p class="notice">${w.gone}</p>` : now(state.record)}
      ${state.letters.length
        ? html`<section><h2>${w.deadLetters}</h2>${table(w.deadLetters, LETTERS, state.letters)}</section>`
        : nothing}
      <section>
        <h2>${w.history}</h2>
        <ol class="timeline">${state.versions.map(version)}</ol>
        ${state.next ? html`<button type="button" @click=${more}>${w.older}</button>` : nothing}
      </section>`;
  }

  function now(record) {
    const fields = fieldsOf(Object.fromEntries(Object.entries(record).filter(([name]) => !OWN.has(name))));
    const places = Object.entries(record.destinations);
    return html`
      <dl class="facts">
        <dt>${w.type}</dt><dd><a href=${`/console/records${asQuery({ type: params.type })}`}>${params.type}</a></dd>
        <dt>${w.version}</dt><dd>${record.version}</dd>
        ${record.source_version === null ? nothing : html`<dt>${w.sourceVersion}</dt><dd>${record.source_version}</dd>`}
        <dt>${w.created}</dt><dd>${time(record.created_at)}</dd>
        <dt>${w.changed}</dt><dd>${time(record.updated_at)}</dd>
        <dt>${w.madeBy}</dt><dd>${job(record.job_id)}</dd>
      </dl>
      <section>
        <h2>${w.fields}</h2>
        <dl class="facts">${fields.map(([name, value]) => html`<dt>${name}</dt><dd>${shown(value)}</dd>`)}</dl>
      </section>
      <section>
        <h2>${w.destinations}</h2>
        ${places.length ? table(w.destinations, placesOf(record), places) : html`<p class="mute">${w.noDestinations}</p>`}
      </section>`;
  }

  function placesOf(record) {
    const c = w.columns;
    return [
      { name: c.destination, cell: ([name]) => html`<a href=${path`/console/destinations/${name}`}>${name}</a>` },
      { name: c.state, cell: ([, each]) => badge(each.state) },
      { name: c.version, cell: ([, each]) => `${each.synced_version || "–"} / ${record.version}`, right: true },
      { name: c.remote, cell: ([, each]) => (each.remote_id ? html`<code>${each.remote_id}</code>` : "–") },
      { name: c.at, cell: ([, each]) => time(each.synced_at) },
      { name: c.why, cell: ([name, each]) => why(each, state.letters.find((letter) => letter.destination === name && !letter.resolution)) },
    ];
  }

  function why(each, letter) {
    const said = [
      each.error_code ? html`<code>${each.error_code}</code>` : nothing,
      each.detail || (each.state === "unknown" ? w.unknown : nothing),
      each.retry_after_seconds ? html`(${w.next(duration(each.retry_after_seconds))})` : nothing,
      each.not_restored?.length ? w.left(each.not_restored.join(", ")) : nothing,
      letter ? html`<a href=${path`/console/dead-letters/${letter.id}`}>${w.deadLetter(letter.id)}</a>` : nothing,
    ].filter((part) => part !== nothing);
    return said.length ? said.map((part) => html`${part} `) : "–";
  }

  function version(each) {
    const changed = differences(each.before_kept ? each.before : null, each.after);
    return html`<li>
      <h3>${w.versionOf(each.version)} <span class="mute">${words.kinds[each.kind] || each.kind}, ${time(each.changed_at)}</span></h3>
      <p>${job(each.job_id)}${w.by(each.item_index)}. ${w.asked} ${key(each.key_id)} ${w.request} <code>${each.request_id}</code>.
        ${each.undone_by ? html`<strong>${w.undoneBy} ${job(each.undone_by)}.</strong>` : nothing}</p>
      ${each.before_kept ? nothing : html`<p class="mute">${w.notKept}</p>`}
      ${each.deleted ? html`<p>${w.removed}</p>` : nothing}
      ${changed.length ? table(w.changes(each.version), CHANGES, changed) : html`<p class="mute">${w.same}</p>`}
    </li>`;
  }

  function key(id) {
    return may("admin") ? html`<a href=${`/console/keys${asQuery({ key: id })}`}><code>${id}</code></a>` : html`<code>${id}</code>`;
  }
}

const job = (id) => html`<a href=${path`/console/jobs/${id}`}>${w.job} ${id}</a>`;

const LETTERS = [
  { name: w.letterColumns.id, cell: (each) => html`<a href=${path`/console/dead-letters/${each.id}`}>${each.id}</a>` },
  { name: w.letterColumns.destination, cell: (each) => each.destination ?? w.ofUndo },
  { name: w.letterColumns.code, cell: (each) => html`<code>${each.error_code}</code> ${each.detail}` },
  { name: w.letterColumns.created, cell: (each) => time(each.created_at) },
  { name: w.letterColumns.ended, cell: (each) => each.resolution ?? w.open },
];

const CHANGES = [
  { name: w.change.field, cell: (each) => html`<code>${each.name}</code>` },
  { name: w.change.before, cell: (each) => (each.before === undefined ? "–" : html`<del>${shown(each.before)}</del>`) },
  { name: w.change.after, cell: (each) => (each.after === undefined ? "–" : html`<ins>${shown(each.after)}</ins>`) },
];

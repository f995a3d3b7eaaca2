/** The items of a job: what became of each, here and at every destination. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, path, query as asQuery } from "../lib/api.js";
import { duration } from "../lib/format.js";
import { alert, badge, empty, loading, stale, table } from "../lib/ui.js";
import { words } from "../strings.js";

const w = words.items;
const HERE = ["ok", "failed", "retry"];
const THERE = ["ok", "pending", "retry", "unknown", "failed", "dead", "skipped"];

export function open({ params, query, may, update, go }) {
  const state = { job: null, page: null, problem: null };
  const aborter = new AbortController();
  const place = path`/v1/jobs/${params.id}`;
  const here = path`/console/jobs/${params.id}/items`;
  const chosen = { status: query.status, destination: query.destination, error_code: query.error_code };

  async function load() {
    try {
      const options = { signal: aborter.signal };
      const asked = asQuery({ ...chosen, cursor: query.cursor, limit: 50 });
      [state.job, state.page] = await Promise.all([get(place, options), get(`${place}/items${asked}`, options)]);
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  load();

  const choose = (name) => (event) => {
    const changed = { ...chosen, [name]: event.target.value };
    if (name === "destination") changed.status = "";
    go(here + asQuery(changed));
  };

  return {
    title: () => w.title,
    stop: () => aborter.abort(),
    render: () => html`
      <div class="head">
        <h1 tabindex="-1">${w.title}</h1>
        <p>${w.of} <a href=${path`/console/jobs/${params.id}`}>${params.id}</a></p>
      </div>
      ${alert(state.problem)}${stale(state.page)}
      ${state.page ? shown(state.job, state.page) : state.problem ? nothing : loading()}`,
  };

  function shown(job, page) {
    const names = Object.keys(job.effects).filter((name) => name !== "db");
    const codes = [...new Set([...(job.failures || []).map((each) => each.code), ...(query.error_code ? [query.error_code] : [])])];
    const states = [...(query.destination && query.destination !== "db" ? THERE : HERE), ...(job.kind === "sync" ? ["drift"] : [])];
    return html`
      <div class="filters">
        ${choice(w.destination, query.destination, [["", w.anywhere], ["db", w.here], ...names.map((name) => [name, name])], choose("destination"))}
        ${choice(w.status, query.status, [["", w.any], ...states.map((name) => [name, words.states[name] || name])], choose("status"))}
        ${choice(w.code, query.error_code, [["", w.any], ...codes.map((code) => [code, code])], choose("error_code"))}
      </div>
      ${job.finished_at ? nothing : html`<p class="mute">${w.wait}</p>`}
      ${page.items.length ? table(w.title, columns(job, names, may("read")), page.items) : page.next_cursor ? html`<p class="mute">${words.records.goOn}</p>` : empty(w.none, w.noneText)}
      <p class="pages">
        ${query.cursor ? html`<a href=${here + asQuery(chosen)}>${words.first}</a>` : nothing}
        ${page.next_cursor ? html`<a href=${here + asQuery({ ...chosen, cursor: page.next_cursor })}>${words.next}</a>` : nothing}
      </p>`;
  }
}

const choice = (label, value, options, change) => html`<label>${label}
  <select @change=${change}>${options.map(([key, name]) => html`<option value=${key} ?selected=${key === (value || "")}>${name}</option>`)}</select>
</label>`;

function columns(job, names, mayRead) {
  return [
    { name: w.columns.index, cell: (item) => html`${item.index}${item.line ? html` <span class="mute">${w.line(item.line)}</span>` : nothing}` },
    { name: w.columns.record, cell: (item) => (mayRead ? record(job, item) : (item.id ?? "–")) },
    { name: w.columns.here, cell: outcome },
    ...names.map((name) => ({ name, cell: (item) => (item.destinations[name] ? there(item.destinations[name]) : "–") })),
  ];
}

const record = (job, item) =>
  item.id && job.type ? html`<a href=${path`/console/records/${job.type}/${item.id}`}>${item.id}</a>` : (item.id ?? "–");

function outcome(item) {
  const faults = [...(item.errors || []), ...(item.warnings || [])];
  return html`${badge(item.status)} ${item.result || ""}
    ${item.duplicate_of === undefined ? nothing : html`<p class="small">${w.duplicate(item.duplicate_of)}</p>`}
    ${item.error_code && !faults.length ? html`<p class="small"><code>${item.error_code}</code></p>` : nothing}
    ${faults.length ? html`<ul class="plain">${faults.map((each) => html`<li><code>${each.code}</code> ${each.cell || each.pointer}: ${each.detail}</li>`)}</ul>` : nothing}
    ${letter(item)}`;
}

function there(each) {
  const said = [
    each.attempts ? w.attempts(each.attempts) : nothing,
    each.error_code ? html`<code>${each.error_code}</code>` : nothing,
    each.detail || nothing,
    each.retry_after_seconds ? words.record.next(duration(each.retry_after_seconds)) : nothing,
    each.not_restored?.length ? words.record.left(each.not_restored.join(", ")) : nothing,
    each.drift ? w.drift(each.drift.kind) : nothing,
    ...(each.drift?.fields || []).map(w.differs),
  ].filter((part) => part !== nothing);
  return html`${badge(each.state)}
    ${said.length ? html`<ul class="plain">${said.map((part) => html`<li>${part}</li>`)}</ul>` : nothing}
    ${letter(each)}`;
}

function letter(each) {
  if (!each.dead_letter_id && !each.replayed_by) return nothing;
  return html`<p class="small">
    ${each.dead_letter_id ? html`<a href=${path`/console/dead-letters/${each.dead_letter_id}`}>${words.record.deadLetter(each.dead_letter_id)}</a>` : nothing}
    ${each.resolution ?? nothing}
    ${each.replayed_by ? html`${w.replayed} <a href=${path`/console/jobs/${each.replayed_by}`}>${words.record.job} ${each.replayed_by}</a>` : nothing}
  </p>`;
}

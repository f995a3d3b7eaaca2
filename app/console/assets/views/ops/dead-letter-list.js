/** Dead letters of a filter, which is in the address; some or all of them are replayed, dropped or settled. */

import { html, nothing } from "../../vendor/lit-html.js";
import { live } from "../../vendor/directives/live.js";
import { get, query as asQuery } from "../../lib/api.js";
import { acting, notice } from "../../lib/ask.js";
import { count } from "../../lib/format.js";
import { alert, announce, badge, empty, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";
import { decisions } from "./decisions.js";

const w = words.deadLetters;
const PLACE = "/console/dead-letters/list";
const CONDITIONS = ["destination", "error_code", "state", "job_id", "record_id", "created_before"];

export function open({ query, may, update, go }) {
  const state = { found: null, next: null, total: 0, selected: new Set(), all: false, problem: null, notice: null, busy: false };
  const aborter = new AbortController();
  const act = acting(state, update);
  // Whoever sends everything again does not mean to overwrite what others have changed: the kinds are apart.
  const filter = { kind: query.kind || "delivery", ...Object.fromEntries(CONDITIONS.filter((name) => query[name]).map((name) => [name, query[name]])) };
  const resolution = query.resolution || "open";
  const decides = may("admin") && resolution === "open";
  const { replay, drop, settle } = decisions({ act, after: load });

  async function load() {
    state.selected.clear();
    state.all = false;
    try {
      const signal = aborter.signal;
      const [page, clusters] = await Promise.all([
        get(`/v1/dead-letters${asQuery({ ...filter, resolution, cursor: query.cursor, limit: 50 })}`, { signal }),
        get(`/v1/dead-letters/clusters${asQuery(filter)}`, { signal }),
      ]);
      Object.assign(state, { found: page.dead_letters, next: page.next_cursor, total: clusters.total });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  function submit(event) {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    if (fields.created_before) fields.created_before = new Date(fields.created_before).toISOString();
    go(`${PLACE}${asQuery(fields)}`);
  }

  function select(id, chosen) {
    state.selected[chosen ? "add" : "delete"](id);
    said();
  }

  function selectPage() {
    state.found.forEach((each) => state.selected.add(each.id));
    said();
  }

  function selectAll(chosen) {
    state.all = chosen;
    said();
  }

  function said() {
    announce(selection());
    update();
  }

  const selection = () => (state.all ? w.allSelected(count(state.total)) : w.selected(count(state.selected.size)));
  const chosen = () => (state.all ? { filter } : { ids: [...state.selected] });
  const inDoubt = () => !state.all && state.selected.size > 0 && state.found.every((each) => !state.selected.has(each.id) || each.error_code === "OUTCOME_UNKNOWN");

  load();

  const box = {
    name: w.select,
    cell: (each) => html`<input type="checkbox" aria-label=${w.selectOne(each.id)} .checked=${live(state.all || state.selected.has(each.id))} ?disabled=${state.all} @change=${(event) => select(each.id, event.target.checked)}>`,
  };

  return {
    title: () => w.title,
    stop: () => aborter.abort(),
    render: () => html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1><a href="/console/dead-letters">${w.clusters}</a></div>
      ${form()} ${alert(state.problem)} ${notice(state.notice)}
      ${state.found === null ? (state.problem ? nothing : loading()) : shown()}`,
  };

  function shown() {
    if (!state.found.length && !state.next) return empty(w.noneHere, w.noneHereText);
    return html`
      ${decides ? toolbar() : nothing}
      ${table(w.title, [...(decides ? [box] : []), ...COLUMNS, ...(resolution === "open" ? [] : [ENDED])], state.found)}
      <p class="pages">
        ${query.cursor ? html`<a href=${`${PLACE}${asQuery({ ...filter, resolution: query.resolution })}`}>${words.newest}</a>` : nothing}
        ${state.next ? html`<a href=${`${PLACE}${asQuery({ ...filter, resolution: query.resolution, cursor: state.next })}`}>${words.next}</a>` : nothing}
      </p>`;
  }

  function toolbar() {
    const nothingChosen = state.busy || (!state.all && !state.selected.size);
    return html`<div class="row" role="group" aria-label=${w.decide}>
      <label class="inline"><input type="checkbox" .checked=${live(state.all)} @change=${(event) => selectAll(event.target.checked)}>${w.selectAll(count(state.total))}</label>
      <button type="button" ?disabled=${state.all} @click=${selectPage}>${w.selectPage}</button>
      <span class="mute">${selection()}</span>
      <button type="button" class="primary" ?disabled=${nothingChosen} @click=${() => replay(chosen())}>${w.replay}</button>
      <button type="button" class="danger" ?disabled=${nothingChosen} @click=${() => drop(chosen())}>${w.drop}</button>
      ${inDoubt() ? html`<button type="button" ?disabled=${state.busy} @click=${() => settle([...state.selected])}>${w.settle}</button>` : nothing}
    </div>`;
  }

  function form() {
    return html`<form class="filter" @submit=${submit} aria-label=${w.filter}>
      ${choice("kind", w.kind, filter.kind, [["delivery", w.kinds.delivery], ["undo", w.kinds.undo]])}
      ${field("destination", w.destination)} ${field("error_code", w.code)}
      ${choice("state", w.state, query.state ?? "", [["", w.any], ["failed", words.states.failed], ["dead", words.states.dead]])}
      ${field("job_id", w.job)} ${field("record_id", w.record)}
      <div><label for="f-before">${w.before}</label><input id="f-before" name="created_before" type="datetime-local" .value=${local(query.created_before)}></div>
      ${choice("resolution", w.resolution, resolution, Object.entries(w.resolutions))}
      <div class="buttons"><button>${w.filter}</button></div>
    </form>`;
  }

  function field(name, label) {
    return html`<div><label for=${`f-${name}`}>${label}</label><input id=${`f-${name}`} name=${name} .value=${query[name] ?? ""} autocomplete="off" spellcheck="false"></div>`;
  }

  function choice(name, label, present, options) {
    return html`<div><label for=${`f-${name}`}>${label}</label>
      <select id=${`f-${name}`} name=${name}>${options.map(([value, text]) => html`<option value=${value} ?selected=${value === present}>${text}</option>`)}</select></div>`;
  }
}

/** A time of the address, as a field for a local time takes it. */
function local(value) {
  if (!value) return "";
  const at = new Date(value);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const COLUMNS = [
  { name: w.id, cell: (each) => html`<a href=${`/console/dead-letters/${each.id}`}>${each.id}</a>` },
  { name: w.record, cell: (each) => html`${each.type} <code>${each.record_id}</code>` },
  { name: w.destination, cell: (each) => each.destination ?? w.ofUndos },
  { name: w.state, cell: (each) => badge(each.state) },
  { name: w.code, cell: (each) => html`<code>${each.error_code}</code>` },
  { name: w.detail, cell: (each) => wide(each.detail) },
  { name: w.attempts, cell: (each) => count(each.attempts), right: true },
  { name: w.since, cell: (each) => time(each.created_at) },
];
const ENDED = { name: w.resolution, cell: (each) => (each.resolution ? html`${w.resolutions[each.resolution]} ${each.note ?? ""}` : w.resolutions.open) };

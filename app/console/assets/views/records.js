/** Records of a type, all of them or those that are searched for. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, path, query as asQuery } from "../lib/api.js";
import { alert, empty, loading, stale, table, time } from "../lib/ui.js";
import { shown } from "../lib/values.js";
import { words } from "../strings.js";

const w = words.records;
const SEARCHES = ["ids", "email", "domain", "updated_since"];
const MOST_FIELDS = 4;

export function open({ query, update, go }) {
  const state = { types: null, page: null, problem: null, by: SEARCHES.find((name) => query[name]) || "" };
  const aborter = new AbortController();
  const searched = Object.fromEntries(SEARCHES.map((name) => [name, query[name]]));
  const type = () => state.types.find((each) => each.name === query.type) || state.types.find((each) => each.name === "contacts") || state.types[0];

  async function load() {
    try {
      state.types = (await get("/v1/resource-types", { signal: aborter.signal })).resource_types;
      const asked = asQuery({ ...searched, cursor: query.cursor, limit: 50 });
      state.page = await get(path`/v1/${type().name}` + asked, { signal: aborter.signal });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  load();

  function submit(event) {
    event.preventDefault();
    const { type: chosen, value } = event.target.elements;
    const given = state.by === "updated_since" ? new Date(value.value).toISOString() : value?.value.trim();
    go(`/console/records${asQuery({ type: chosen.value, [state.by || "all"]: state.by ? given : "" })}`);
  }

  return {
    title: () => w.title,
    stop: () => aborter.abort(),
    render: () => html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1></div>
      ${state.types ? search(state.types, type()) : nothing}
      ${alert(state.problem)}${stale(state.page)}
      ${state.page ? results(type()) : state.problem ? nothing : loading()}`,
  };

  function search(types, chosen) {
    const known = SEARCHES.filter((name) => name === "ids" || name === "updated_since" || name in chosen.fields);
    return html`<form class="filters" role="search" @submit=${submit}>
      <label>${w.type}
        <select name="type" @change=${(event) => event.target.form.requestSubmit()}>
          ${types.map((each) => html`<option value=${each.name} ?selected=${each === chosen}>${each.name}</option>`)}
        </select>
      </label>
      <label>${w.by}
        <select @change=${(event) => { state.by = event.target.value; update(); }}>
          <option value="" ?selected=${!state.by}>${w.anything}</option>
          ${known.map((name) => html`<option value=${name} ?selected=${name === state.by}>${w[name]}</option>`)}
        </select>
      </label>
      ${state.by
        ? html`<label>${w.value}
            <input name="value" required type=${state.by === "updated_since" ? "datetime-local" : "text"} spellcheck="false" .value=${value()}>
          </label>`
        : nothing}
      <button class="primary">${w.search}</button>
    </form>`;
  }

  function value() {
    const given = query[state.by] || "";
    if (state.by !== "updated_since" || !given) return given;
    const at = new Date(given);
    return new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  }

  function results(chosen) {
    const { records, next_cursor: next } = state.page;
    const rest = Object.keys(chosen.fields).filter((name) => name !== "id" && !chosen.required.includes(name));
    const fields = [...chosen.required.filter((name) => name !== "id"), ...rest].slice(0, MOST_FIELDS);
    const columns = [
      { name: w.columns.id, cell: (each) => html`<a href=${path`/console/records/${chosen.name}/${each.id}`}>${each.id}</a>${each.deleted ? html` <span class="mute">(${w.deleted})</span>` : nothing}` },
      ...fields.map((name) => ({ name, cell: (each) => shown(each[name]) })),
      { name: w.columns.version, cell: (each) => each.version, right: true },
      { name: w.columns.changed, cell: (each) => time(each.updated_at) },
    ];
    const none = state.by || query.cursor ? empty(w.notFound, w.notFoundText) : empty(w.none, w.noneText);
    return html`
      ${records.length ? table(w.title, columns, records) : next ? html`<p class="mute">${w.goOn}</p>` : none}
      <p class="pages">
        ${query.cursor ? html`<a href=${`/console/records${asQuery({ type: query.type, ...searched })}`}>${words.first}</a>` : nothing}
        ${next ? html`<a href=${`/console/records${asQuery({ type: chosen.name, ...searched, cursor: next })}`}>${words.next}</a>` : nothing}
      </p>`;
  }
}

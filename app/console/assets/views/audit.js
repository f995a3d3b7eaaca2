/** Who did what, newest first. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, path, query as asQuery } from "../lib/api.js";
import { alert, empty, loading, table, time } from "../lib/ui.js";
import { shown } from "../lib/values.js";
import { words } from "../strings.js";

const w = words.audit;
const HERE = "/console/audit";

export function open({ query, may, update, go }) {
  const state = { page: null, problem: null };
  const aborter = new AbortController();
  const subject = query.subject || "";

  async function load() {
    try {
      state.page = await get(`/v1/audit-log${asQuery({ subject, cursor: query.cursor, limit: 50 })}`, { signal: aborter.signal });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  function submit(event) {
    event.preventDefault();
    go(HERE + asQuery({ subject: event.target.elements.subject.value.trim() }));
  }

  load();

  const columns = [
    { name: w.columns.at, cell: (each) => time(each.at) },
    { name: w.columns.actor, cell: (each) => w.actors[each.actor] ?? key(each.actor) },
    { name: w.columns.action, cell: (each) => html`<code>${each.action}</code>` },
    {
      name: w.columns.subject,
      cell: (each) => html`${concerned(each.subject)}
        ${subject ? nothing : html`<a class="small" href=${HERE + asQuery({ subject: each.subject })} aria-label=${`${w.only}: ${each.subject}`}>${w.only}</a>`}`,
    },
    { name: w.columns.detail, cell: (each) => Object.entries(each.detail).map(([name, value]) => `${name}: ${shown(value)}`).join(", ") || "–" },
  ];

  return {
    title: () => w.title,
    stop: () => aborter.abort(),
    render: () => html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1></div>
      <form class="filters" role="search" @submit=${submit}>
        <label class="wide">${w.subject} <span class="small">${w.subjectHelp}</span>
          <input name="subject" spellcheck="false" autocomplete="off" .value=${subject}>
        </label>
        <button>${w.show}</button>
      </form>
      ${alert(state.problem)}
      ${state.page ? entries(state.page) : state.problem ? nothing : loading()}`,
  };

  function entries({ entries: found, next_cursor: next }) {
    return html`
      ${found.length ? table(w.title, columns, found) : subject ? empty(w.notFound, w.notFoundText) : empty(w.none, w.noneText)}
      <p class="pages">
        ${query.cursor ? html`<a href=${HERE + asQuery({ subject })}>${words.newest}</a>` : nothing}
        ${next ? html`<a href=${HERE + asQuery({ subject, cursor: next })}>${words.next}</a>` : nothing}
      </p>`;
  }

  function key(id) {
    return may("admin") ? html`<a href=${`/console/keys${asQuery({ key: id })}`}><code>${id}</code></a>` : html`<code>${id}</code>`;
  }

  /** A subject, as a link where it has a view. */
  function concerned(text) {
    const at = text.indexOf(":");
    const id = text.slice(at + 1);
    const place = {
      job: path`/console/jobs/${id}`,
      destination: path`/console/destinations/${id}`,
      dead_letter: path`/console/dead-letters/${id}`,
      ...(may("admin") ? { key: `/console/keys${asQuery({ key: id })}`, webhook_endpoint: path`/console/webhooks/${id}` } : {}),
    }[text.slice(0, at)];
    return place ? html`<a href=${place}>${text}</a>` : text;
  }
}

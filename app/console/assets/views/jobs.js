/** All jobs, newest first. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, query as asQuery } from "../lib/api.js";
import { count } from "../lib/format.js";
import { alert, badge, empty, loading, table, time } from "../lib/ui.js";
import { words } from "../strings.js";

const w = words.jobs;
const STATES = ["receiving", "queued", "running", "syncing", "completed", "completed_with_failures", "failed", "canceled"];
const REFRESH = 4000;

export function open({ query, may, update, go }) {
  const state = { jobs: null, next: null, problem: null };
  const aborter = new AbortController();
  let timer;

  async function load() {
    try {
      const page = await get(`/v1/jobs${asQuery({ state: query.state, cursor: query.cursor, limit: 50 })}`, { signal: aborter.signal });
      Object.assign(state, { jobs: page.jobs, next: page.next_cursor, problem: null });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
    if (!query.cursor) timer = setTimeout(() => (document.hidden ? wait() : load()), REFRESH);
  }

  function wait() {
    document.addEventListener("visibilitychange", load, { once: true, signal: aborter.signal });
  }

  load();

  const columns = [
    { name: w.columns.kind, cell: (job) => html`<a href=${`/console/jobs/${job.job_id}`}>${words.kinds[job.kind] || job.kind}</a>${job.options.dry_run ? html` <span class="mute">${w.dryRun}</span>` : nothing}` },
    { name: w.columns.state, cell: (job) => badge(job.state) },
    { name: w.columns.type, cell: (job) => job.type ?? "–" },
    { name: w.columns.items, cell: (job) => count(job.summary.total), right: true },
    { name: w.columns.ok, cell: (job) => count(job.summary.succeeded), right: true },
    { name: w.columns.failed, cell: (job) => count(job.summary.failed + job.summary.retry), right: true },
    { name: w.columns.created, cell: (job) => time(job.created_at) },
  ];

  return {
    title: () => w.title,
    stop: () => {
      aborter.abort();
      clearTimeout(timer);
    },
    render: () => html`
      <div class="head">
        <h1 tabindex="-1">${w.title}</h1>
        <label class="inline">${w.filter}
          <select @change=${(event) => go(`/console${asQuery({ state: event.target.value })}`)}>
            <option value="" ?selected=${!query.state}>${w.all}</option>
            ${STATES.map((each) => html`<option value=${each} ?selected=${query.state === each}>${words.states[each]}</option>`)}
          </select>
        </label>
      </div>
      ${alert(state.problem)}
      ${state.jobs === null
        ? state.problem ? nothing : loading()
        : state.jobs.length
          ? table(w.title, columns, state.jobs)
          : empty(w.none, w.noneText, may("import") ? html`<a class="button primary" href="/console/import">${w.import}</a>` : nothing)}
      <p class="pages">
        ${query.cursor ? html`<a href=${`/console${asQuery({ state: query.state })}`}>${words.newest}</a>` : nothing}
        ${state.next ? html`<a href=${`/console${asQuery({ state: query.state, cursor: state.next })}`}>${words.next}</a>` : nothing}
      </p>`,
  };
}

/** What is no longer tried, by cause; and the sagas that failed for good. */

import { html, nothing } from "../../vendor/lit-html.js";
import { get, newKey, path, post, query as asQuery } from "../../lib/api.js";
import { acting, ask, notice } from "../../lib/ask.js";
import { count } from "../../lib/format.js";
import { alert, confirm, empty, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";

const w = words.deadLetters;
const once = () => ({ headers: { "Idempotency-Key": newKey() } });

export function open({ may, update }) {
  const state = { clusters: null, total: 0, sagas: [], problem: null, notice: null, busy: false };
  const aborter = new AbortController();
  const act = acting(state, update);

  async function load() {
    try {
      const [found, failed] = await Promise.all([
        get("/v1/dead-letters/clusters", { signal: aborter.signal }),
        get("/v1/dead-letters/sagas", { signal: aborter.signal }),
      ]);
      Object.assign(state, { clusters: found.clusters, total: found.total, sagas: failed.sagas });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  async function retry(saga) {
    if (!(await confirm(w.confirmSagaRetry, w.sagaRetry))) return;
    if (await act(() => post(path`/v1/dead-letters/sagas/${saga.id}/retry`, undefined, once()), w.sagaRetried)) load();
  }

  async function drop(saga) {
    const reason = await ask(w.confirmSagaDrop(saga.not_reached === null ? null : count(saga.not_reached)), w.reason, w.sagaDrop);
    if (reason === null) return;
    if (await act(() => post(path`/v1/dead-letters/sagas/${saga.id}/drop`, { reason }, once()), w.sagaDropped)) load();
  }

  const decide = {
    name: w.decide,
    cell: (saga) => html`<div class="buttons">
      <button type="button" ?disabled=${state.busy} @click=${() => retry(saga)}>${w.sagaRetry}</button>
      <button type="button" class="danger" ?disabled=${state.busy} @click=${() => drop(saga)}>${w.sagaDrop}</button>
    </div>`,
  };

  load();

  return {
    title: () => w.title,
    stop: () => aborter.abort(),
    render: () => html`
      <div class="head">
        <h1 tabindex="-1">${w.title}</h1>
        <div class="buttons"><a class="button" href="/console/dead-letters/list">${w.listAll}</a></div>
      </div>
      ${alert(state.problem)} ${notice(state.notice)}
      ${state.clusters === null
        ? state.problem ? nothing : loading()
        : state.clusters.length
          ? html`<p class="mute">${w.open(count(state.total))}</p>${table(w.clusters, CLUSTERS, state.clusters)}`
          : empty(w.none, w.noneText)}
      ${state.sagas.length
        ? html`<section>
            <h2>${w.sagas}</h2>
            <p class="mute">${w.sagasText}</p>
            ${table(w.sagas, may("admin") ? [...SAGAS, decide] : SAGAS, state.sagas)}
          </section>`
        : nothing}`,
  };
}

const listed = (each) => `/console/dead-letters/list${asQuery({ kind: each.kind, destination: each.destination, error_code: each.error_code })}`;

const CLUSTERS = [
  { name: w.code, cell: (each) => html`<a href=${listed(each)}>${each.error_code}</a>` },
  { name: w.kind, cell: (each) => w.kinds[each.kind] },
  { name: w.destination, cell: (each) => each.destination ?? "–" },
  { name: w.count, cell: (each) => count(each.count), right: true },
  { name: w.oldest, cell: (each) => time(each.oldest) },
  { name: w.newest, cell: (each) => time(each.newest) },
  { name: w.example, cell: (each) => wide(each.detail) },
];

const job = (id) => (id ? html`<a href=${`/console/jobs/${id}`}><code>${id}</code></a>` : "–");

const SAGAS = [
  { name: w.workflow, cell: (each) => w.workflows[each.workflow] ?? each.workflow },
  { name: w.job, cell: (each) => job(each.job_id) },
  { name: w.failedAt, cell: (each) => time(each.failed_at) },
  { name: w.why, cell: (each) => each.detail ?? "–" },
  { name: w.restored, cell: (each) => count(each.restored + each.unchanged), right: true },
  { name: w.conflicts, cell: (each) => count(each.conflicts), right: true },
  { name: w.notReached, cell: (each) => (each.not_reached === null ? "–" : count(each.not_reached)), right: true },
];

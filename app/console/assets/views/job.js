/** One job: what became of its items, here and at every destination, as it happens. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, path, post, query } from "../lib/api.js";
import { count, duration, share } from "../lib/format.js";
import { alert, announce, badge, bar, confirm, loading, table, time } from "../lib/ui.js";
import { words } from "../strings.js";

const w = words.job;

export function open({ params, may, update, go }) {
  const state = { job: null, problem: null, live: false };
  const aborter = new AbortController();
  const place = path`/v1/jobs/${params.id}`;
  let events;

  async function load() {
    try {
      state.job = await get(place, { signal: aborter.signal });
      state.problem = null;
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
    if (state.job && !state.job.finished_at) follow();
  }

  function follow() {
    events?.close();
    events = new EventSource(`${place}/events`);
    const show = (event) => {
      state.job = { ...state.job, ...JSON.parse(event.data) };
      state.live = true;
      update();
    };
    events.addEventListener("progress", show);
    events.addEventListener("end", () => {
      events.close();
      state.live = false;
      announce(words.states[state.job.state] || state.job.state);
      load();
    });
    events.addEventListener("error", () => {
      state.live = false;
      update();
    });
  }

  async function act(text, label, make) {
    if (!(await confirm(text, label))) return;
    try {
      const made = await make();
      if (made.job_id && made.job_id !== params.id) return go(`/console/jobs/${made.job_id}`);
      await load();
    } catch (error) {
      state.problem = error;
      update();
    }
  }

  const retry = (job) => act(w.confirmRetry(count(lost(job))), w.retry, () => post(`${place}/retry`, undefined));
  const undo = (job) => act(w.confirmUndo(count(job.summary.succeeded)), w.undo, () => post(`${place}/undo`, undefined));
  const cancel = () => act(w.confirmCancel, w.cancel, () => post(`${place}/cancel`, undefined));

  load();

  return {
    title: () => w.title(words.kinds[state.job?.kind] || ""),
    stop: () => {
      aborter.abort();
      events?.close();
    },
    render: () => html`${alert(state.problem)}${state.job ? shown(state.job) : state.problem ? nothing : loading()}`,
  };

  function shown(job) {
    return html`
      <div class="head">
        <h1 tabindex="-1">${w.title(words.kinds[job.kind] || job.kind)} ${badge(job.state)}</h1>
        ${!job.finished_at ? html`<span class="mute" role="status">${state.live ? w.live : ""}</span>` : nothing}
        <div class="buttons">
          ${lost(job) && job.finished_at && may("import", "admin") ? html`<button type="button" @click=${() => retry(job)}>${w.retry}</button>` : nothing}
          ${lost(job) && job.finished_at && job.type && may("import") ? html`<a class="button" href=${path`/console/jobs/${job.job_id}/rows`}>${w.fix}</a>` : nothing}
          ${job.finished_at && may("import", "admin") && !job.undone_by ? html`<button type="button" @click=${() => undo(job)}>${w.undo}</button>` : nothing}
          ${["receiving", "queued", "running"].includes(job.state) && may("import", "admin") ? html`<button type="button" @click=${cancel}>${w.cancel}</button>` : nothing}
        </div>
      </div>
      ${job.error ? html`<p class="alert" role="alert"><strong>${w.error}:</strong> ${job.error.detail}</p>` : nothing}
      ${job.waiting ? html`<p class="notice"><strong>${w.waiting}:</strong> ${job.waiting.detail}</p>` : nothing}
      <dl class="facts">
        <dt>${w.id}</dt><dd><code>${job.job_id}</code></dd>
        <dt>${w.created}</dt><dd>${time(job.created_at)}</dd>
        <dt>${w.finished}</dt><dd>${time(job.finished_at)}</dd>
        ${job.finished_at ? html`<dt>${w.took}</dt><dd>${duration((new Date(job.finished_at) - new Date(job.created_at)) / 1000)}</dd>` : nothing}
      </dl>
      <section aria-labelledby="funnel">
        <h2 id="funnel">${w.funnel}</h2>
        ${stage(job, "db", w.here, here(job))}
        ${Object.entries(job.effects).filter(([name]) => name !== "db").map(([name, effects]) => stage(job, name, w.atDestination(name), there(effects)))}
        <p><a href=${listed(job, {})}>${w.items}</a></p>
      </section>
      <section aria-labelledby="failures">
        <h2 id="failures">${w.failures}</h2>
        ${job.failures?.length ? table(w.causes, causes(job), job.failures) : html`<p class="mute">${w.noFailures}</p>`}
      </section>`;
  }
}

/** Items that did not make it, here or at a destination. */
function lost(job) {
  return (job.failures || []).reduce((sum, each) => sum + each.count, 0) || job.summary.failed + job.summary.retry;
}

function here(job) {
  return [
    { name: "ok", count: job.summary.succeeded, tone: "good" },
    { name: "failed", count: job.summary.failed, tone: "bad" },
    { name: "retry", count: job.summary.retry, tone: "warn" },
    { name: "pending", count: job.progress.not_processed ?? 0, tone: "mute" },
  ];
}

const TONE = { ok: "good", failed: "bad", dead: "bad", retry: "warn", unknown: "warn", pending: "mute", skipped: "mute" };

function there(effects) {
  return Object.entries(TONE).map(([name, tone]) => ({ name, tone, count: effects[name] ?? 0 }));
}

/** Where the items are listed that these filters leave. */
const listed = (job, filters) => path`/console/jobs/${job.job_id}/items` + query(filters);

function stage(job, destination, name, parts) {
  const known = parts.filter((part) => part.count);
  const whole = known.reduce((sum, part) => sum + part.count, 0);
  const label = known.map((part) => `${count(part.count)} ${words.states[part.name] || part.name}`).join(", ") || "0";
  return html`<div class="stage">
    <h3>${name}</h3>
    ${bar(`${name}: ${label}`, known)}
    <p>${known.map((part) => html`<span class="part"><span class=${`dot tone-${part.tone}`}></span>${listing(job, destination, part)} <span class="mute">(${share(part.count, whole)})</span></span>`)}</p>
  </div>`;
}

function listing(job, destination, part) {
  const text = `${count(part.count)} ${words.states[part.name] || part.name}`;
  const undecided = destination === "db" && part.name === "pending";
  return undecided ? text : html`<a href=${listed(job, { destination, status: part.name })}>${text}</a>`;
}

const causes = (job) => [
  { name: w.where, cell: (each) => (each.destination && each.destination !== "db" ? each.destination : w.hereWord) },
  { name: w.code, cell: (each) => html`<code>${each.code}</code>` },
  {
    name: w.count,
    cell: (each) => html`<a href=${listed(job, { destination: each.destination, error_code: each.code })}>${count(each.count)}</a>`,
    right: true,
  },
];

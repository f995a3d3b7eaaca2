/** One dead letter with everything that is needed to decide. */

import { html, nothing } from "../../vendor/lit-html.js";
import { get, path } from "../../lib/api.js";
import { acting, notice, shownJson } from "../../lib/ask.js";
import { count, duration } from "../../lib/format.js";
import { alert, badge, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";
import { decisions } from "./decisions.js";

const w = words.deadLetters;

export function open({ params, may, update }) {
  const state = { it: null, problem: null, notice: null, busy: false };
  const aborter = new AbortController();
  const act = acting(state, update);
  const ids = [Number(params.id)];
  const { replay, drop, settle } = decisions({ act, after: load });
  const DECISIONS = {
    replay: ["primary", w.replay, () => replay({ ids })],
    settle: ["", w.settle, () => settle(ids)],
    drop: ["danger", w.drop, () => drop({ ids })],
  };

  async function load() {
    try {
      state.it = await get(path`/v1/dead-letters/${params.id}`, { signal: aborter.signal });
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  load();

  return {
    title: () => w.one(params.id),
    stop: () => aborter.abort(),
    render: () => html`
      <div class="head">
        <h1 tabindex="-1">${w.one(params.id)} ${state.it ? badge(state.it.state) : nothing}</h1>
        ${state.it && may("admin")
          ? html`<div class="buttons">${Object.entries(DECISIONS).filter(([name]) => state.it.choices.includes(name)).map(
              ([, [kind, label, decide]]) => html`<button type="button" class=${kind} ?disabled=${state.busy} @click=${decide}>${label}</button>`,
            )}</div>`
          : nothing}
      </div>
      ${alert(state.problem)} ${notice(state.notice)}
      ${state.it ? shown(state.it, may("read")) : state.problem ? nothing : loading()}`,
  };
}

function shown(it, reads) {
  return html`
    <p class="alert"><strong>${it.error_code}</strong> ${it.detail}</p>
    <dl class="facts">
      <dt>${w.kind}</dt><dd>${w.kinds[it.kind]}</dd>
      <dt>${w.destination}</dt><dd>${it.destination ? html`<a href=${`/console${path`/destinations/${it.destination}`}`}>${it.destination}</a>` : "–"}</dd>
      <dt>${w.record}</dt><dd>${it.type} ${reads ? html`<a href=${path`/console/records/${it.type}/${it.record_id}`}><code>${it.record_id}</code></a>` : html`<code>${it.record_id}</code>`}, ${w.version(it.version)}</dd>
      <dt>${w.attempts}</dt><dd>${count(it.attempts)}</dd>
      <dt>${w.since}</dt><dd>${time(it.created_at)}</dd>
      <dt>${w.job}</dt><dd>${job(it.job_id)} ${it.job_kind ? words.kinds[it.job_kind] ?? it.job_kind : nothing}, ${w.item(it.item_index)}</dd>
      ${it.root_job_id === it.job_id ? nothing : html`<dt>${w.root}</dt><dd>${job(it.root_job_id)}</dd>`}
      <dt>${words.request}</dt><dd><code>${it.request_id}</code></dd>
      <dt>${w.resolution}</dt><dd>${ended(it)}</dd>
    </dl>
    ${it.undone ? undone(it.undone) : nothing}
    <section>
      <h2>${it.kind === "undo" ? w.wouldRestore : w.wouldSend}</h2>
      ${it.payload ? shownJson(it.payload) : html`<p class="mute">${w.wouldDelete}</p>`}
      ${it.failed_version
        ? html`<details><summary>${w.failedVersion(it.version)}</summary>
            <p>${job(it.failed_version.job_id)}, ${w.item(it.failed_version.item_index)}, ${time(it.failed_version.changed_at)}</p>
            ${it.failed_version.record ? shownJson(it.failed_version.record) : html`<p class="mute">${w.deletes}</p>`}
          </details>`
        : nothing}
    </section>
    <section>
      <h2>${w.calls}</h2>
      ${it.calls.length ? table(w.calls, CALLS, it.calls) : html`<p class="mute">${w.noCalls}</p>`}
      ${Object.keys(it.headers).length ? html`<details><summary>${w.headers}</summary>${shownJson(it.headers)}</details>` : nothing}
    </section>
    <section>
      <h2>${w.chain}</h2>
      <p class="mute">${w.chainText}</p>
      ${table(w.chain, CHAIN, it.chain)}
    </section>`;
}

const job = (id) => (id ? html`<a href=${`/console/jobs/${id}`}><code>${id}</code></a>` : "–");

function ended(it) {
  if (!it.resolution) return w.resolutions.open;
  return html`${w.resolutions[it.resolution]} ${time(it.resolved_at)} ${it.resolved_by ? html`<code>${it.resolved_by}</code>` : nothing} ${it.note ?? ""} ${it.replay_job_id ? job(it.replay_job_id) : nothing}`;
}

function undone(it) {
  const by = it.changed_by;
  return html`<section>
    <h2>${w.undone}</h2>
    <dl class="facts">
      <dt>${w.undoneJob}</dt><dd>${job(it.job_id)}, ${w.item(it.item_index)}</dd>
      <dt>${w.changedBy}</dt><dd>${words.kinds[by.kind] ?? by.kind} ${job(by.job_id)}, ${w.item(by.item_index)}, ${w.version(by.version)}</dd>
      <dt>${w.key}</dt><dd><code>${by.key_id}</code></dd>
      <dt>${words.request}</dt><dd><code>${by.request_id}</code></dd>
    </dl>
  </section>`;
}

const CALLS = [
  { name: w.sentAt, cell: (each) => time(each.sent_at) },
  { name: w.attempt, cell: (each) => each.attempt, right: true },
  { name: w.asked, cell: (each) => w.askedFor[each.asked] ?? each.asked },
  { name: w.status, cell: (each) => each.status ?? w.noAnswer, right: true },
  { name: w.took, cell: (each) => duration(each.milliseconds / 1000), right: true },
  { name: w.detail, cell: (each) => wide(each.detail) },
  { name: w.event, cell: (each) => html`<code>${each.event_id}</code>` },
];

const CHAIN = [
  { name: w.id, cell: (each) => html`<a href=${`/console/dead-letters/${each.id}`}>${each.id}</a>` },
  { name: w.since, cell: (each) => time(each.created_at) },
  { name: w.job, cell: (each) => job(each.job_id) },
  { name: w.code, cell: (each) => html`<code>${each.error_code}</code>` },
  { name: w.attempts, cell: (each) => count(each.attempts), right: true },
  { name: w.resolution, cell: ended },
];

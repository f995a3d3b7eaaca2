/** One destination: its circuit, and what an operator may do about it. */

import { html, nothing } from "../../vendor/lit-html.js";
import { get, newKey, patch, path, post, query as asQuery, remove } from "../../lib/api.js";
import { acting, notice, readJson, shownJson } from "../../lib/ask.js";
import { count, duration } from "../../lib/format.js";
import { alert, announce, badge, confirm, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";
import { credentialFields, held, optionsField, pending, readCredentials, unknown } from "./destinations.js";

const w = words.destinations;
const REFRESH = 4000;

export function open({ params, may, update, go }) {
  const state = { destination: null, changes: [], verify: null, test: null, problem: null, notice: null, busy: false };
  const aborter = new AbortController();
  const signal = aborter.signal;
  const place = path`/v1/destinations/${params.name}`;
  const act = acting(state, update);
  let timer;

  async function load() {
    clearTimeout(timer);
    try {
      const [destination, circuit] = await Promise.all([get(place, { signal }), get(`${place}/circuit`, { signal })]);
      Object.assign(state, { destination, changes: circuit.changes });
      if (state.lost) state.problem = state.lost = null;
    } catch (error) {
      if (signal.aborted) return;
      state.problem = state.lost = error;
    }
    update();
    timer = setTimeout(load, REFRESH);
  }

  /** The drift that the newest comparison found, as its job has it. */
  async function loadDrift() {
    try {
      const { jobs } = await get(`/v1/jobs${asQuery({ kind: "sync", limit: 100 })}`, { signal });
      const found = jobs.find((job) => job.sync?.destination === params.name && job.sync.mode === "verify");
      if (found) state.verify = await get(path`/v1/jobs/${found.job_id}`, { signal });
      update();
    } catch {
      // It is only beside the rest, which says what is wrong.
    }
  }

  const change = async (make, said) => (await act(make, said)) && load();

  const pause = () => change(() => post(`${place}/pause`), w.paused);
  const resume = () => change(() => post(`${place}/resume`), w.resumed);
  const close = () => change(() => post(`${place}/circuit`, { state: "closed" }), w.closed);

  async function openCircuit(event) {
    event.preventDefault();
    const choice = event.target.elements.seconds;
    const text = w.confirmOpen(params.name, choice.selectedOptions[0].textContent);
    if (await confirm(text, w.open)) change(() => post(`${place}/circuit`, { state: "open", seconds: Number(choice.value) }), w.opened);
  }

  async function test(event) {
    event.preventDefault();
    const canary = event.target.elements.canary.checked;
    await act(async () => {
      state.test = await post(`${place}/test`, { canary });
      while (state.test.state !== "done") {
        update();
        await new Promise((resolve) => setTimeout(resolve, 700));
        if (signal.aborted) return;
        state.test = await get(path`/v1/destinations/${params.name}/tests/${state.test.test_id}`, { signal });
      }
      announce(w.verdict(state.test.verdict));
    });
  }

  async function sync(event) {
    event.preventDefault();
    const [mode, repair] = event.target.elements.mode.value.split("+");
    if (!(await confirm(w.confirmSync[event.target.elements.mode.value](params.name), w.startSync))) return;
    let made;
    const body = { mode, repair: repair !== undefined };
    const done = await act(async () => (made = await post(`${place}/sync`, body, { headers: { "Idempotency-Key": newKey() } })), () => (made.job_id ? null : w.noRecords));
    if (done && made.job_id) go(`/console/jobs/${made.job_id}`);
  }

  async function changeCredentials(event) {
    event.preventDefault();
    const form = event.target;
    const done = await act(() => patch(place, readCredentials(form.elements)), w.credentialsChanged);
    if (!done) return;
    form.reset();
    load();
  }

  async function changeOptions(event) {
    event.preventDefault();
    const text = event.target.elements.options.value;
    await change(() => patch(place, { options: readJson(text, w.options) ?? {} }), w.optionsChanged);
  }

  async function take() {
    let dead = 0;
    if (!(await act(async () => (dead = (await get(`/v1/dead-letters/clusters${asQuery({ destination: params.name })}`)).total)))) return;
    if (!(await confirm(w.confirmRemove(params.name, pending(state.destination), count(dead)), w.remove))) return;
    if (await act(() => remove(place))) go("/console/destinations");
  }

  load();
  loadDrift();

  return {
    title: () => params.name,
    stop: () => {
      aborter.abort();
      clearTimeout(timer);
    },
    render: () => html`${state.destination
      ? shown(state.destination)
      : html`<h1 tabindex="-1">${params.name}</h1>${alert(state.problem)}${state.problem ? nothing : loading()}`}`,
  };

  function shown(it) {
    const why = held(it);
    return html`
      <div class="head">
        <h1 tabindex="-1">${it.name} ${badge(it.state)}</h1>
        ${may("admin")
          ? html`<div class="buttons">
              ${it.state === "paused"
                ? html`<button type="button" ?disabled=${state.busy} @click=${resume}>${w.resume}</button>`
                : html`<button type="button" ?disabled=${state.busy} @click=${pause}>${w.pause}</button>`}
              <button type="button" class="danger" ?disabled=${state.busy} @click=${take}>${w.remove}</button>
            </div>`
          : nothing}
      </div>
      ${alert(state.problem)} ${notice(state.notice)}
      ${why ? html`<p class="notice"><strong>${w.held}:</strong> ${why}</p>` : nothing}
      <dl class="facts">
        <dt>${w.kind}</dt><dd>${it.kind}</dd>
        <dt>${w.baseUrl}</dt><dd><code>${it.base_url}</code></dd>
        <dt>${w.types}</dt><dd>${it.types?.join(", ") ?? w.allTypes}</dd>
        <dt>${w.credentials}</dt><dd>${it.credentials.type}${it.credentials.expires_at ? html`, ${w.expires} ${time(it.credentials.expires_at)}` : nothing}</dd>
        <dt>${w.pending}</dt><dd>${pending(it)}</dd>
        <dt>${w.unknown}</dt><dd>${unknown(it)}</dd>
        <dt>${w.rate}</dt><dd>${it.options.rate ? w.perSecond(count(it.options.rate)) : w.kindsRate}</dd>
        <dt>${w.verified}</dt><dd>${it.verified_at ? time(it.verified_at) : w.never}</dd>
        ${state.verify?.drift ? html`<dt>${w.drift}</dt><dd>${drift(state.verify.drift)} <a href=${`/console/jobs/${state.verify.job_id}`}>${w.driftJob}</a></dd>` : nothing}
        <dt>${words.deadLetters.title}</dt><dd><a href=${`/console/dead-letters/list${asQuery({ destination: it.name })}`}>${w.deadLetters}</a></dd>
      </dl>
      ${circuit(it)} ${may("admin") ? html`${testing()} ${syncing()} ${setting(it)}` : nothing}`;
  }

  function circuit(it) {
    return html`<section aria-labelledby="circuit">
      <h2 id="circuit">${w.circuit} ${badge(it.circuit.state)}</h2>
      ${it.circuit.detail ? html`<p>${it.circuit.detail}</p>` : nothing}
      <p class="mute">${it.circuit.since ? html`${w.sinceWord} ${time(it.circuit.since)}. ` : nothing}${it.circuit.retry_after_seconds ? w.probeIn(duration(it.circuit.retry_after_seconds)) : nothing} ${w.openings(count(it.circuit.openings_24h))}</p>
      ${may("admin")
        ? html`<form class="row" @submit=${openCircuit}>
            <label for="seconds">${w.howLong}</label>
            <select id="seconds" name="seconds">${w.spans.map(([seconds, name]) => html`<option value=${seconds} ?selected=${seconds === 3600}>${name}</option>`)}</select>
            <button ?disabled=${state.busy}>${w.open}</button>
            ${it.circuit.state === "closed" ? nothing : html`<button type="button" ?disabled=${state.busy} @click=${close}>${w.close}</button>`}
          </form>`
        : nothing}
      <h3>${w.changes}</h3>
      ${state.changes.length ? table(w.changes, CHANGES, state.changes) : html`<p class="mute">${w.noChanges}</p>`}
    </section>`;
  }

  function testing() {
    const it = state.test;
    return html`<section aria-labelledby="test">
      <h2 id="test">${w.test}</h2>
      <p class="mute">${w.testText}</p>
      <form class="row" @submit=${test}>
        <label class="inline"><input type="checkbox" name="canary">${w.canary}</label>
        <button ?disabled=${state.busy}>${w.startTest}</button>
      </form>
      ${it
        ? html`<p aria-busy=${it.state !== "done"}>${it.state === "done" ? html`${badge(it.verdict)} ${w.verdict(it.verdict)}` : w.testing}</p>
            ${it.steps.length ? table(w.steps, STEPS, it.steps) : nothing}`
        : nothing}
    </section>`;
  }

  function syncing() {
    return html`<section aria-labelledby="sync">
      <h2 id="sync">${w.sync}</h2>
      <form class="row" @submit=${sync}>
        <label for="mode">${w.mode}</label>
        <select id="mode" name="mode">${Object.entries(w.modes).map(([mode, name]) => html`<option value=${mode}>${name}</option>`)}</select>
        <button ?disabled=${state.busy}>${w.startSync}</button>
      </form>
    </section>`;
  }

  function setting(it) {
    return html`<section aria-labelledby="settings">
      <h2 id="settings">${w.settings}</h2>
      <details><summary>${w.changeCredentials}</summary>
        <form class="fields" @submit=${changeCredentials}>
          <p class="small">${w.credentialsOnce}</p>
          ${credentialFields()}
          <div class="buttons"><button class="primary" ?disabled=${state.busy}>${w.changeCredentials}</button></div>
        </form>
      </details>
      <details><summary>${w.changeOptions}</summary>
        ${shownJson(it.options)}
        <form class="fields" @submit=${changeOptions}>
          ${optionsField("{}")}
          <div class="buttons"><button class="primary" ?disabled=${state.busy}>${w.changeOptions}</button></div>
        </form>
      </details>
    </section>`;
  }
}

const drift = (counts) => Object.entries(counts).map(([name, n]) => `${count(n)} ${w.drifts[name] ?? name}`).join(", ");

const CHANGES = [
  { name: w.at, cell: (each) => time(each.at) },
  { name: w.became, cell: (each) => badge(each.after) },
  { name: w.before, cell: (each) => words.states[each.before] ?? each.before },
  { name: w.openFor, cell: (each) => (each.after === "open" ? duration(each.seconds) : "–") },
  { name: w.why, cell: (each) => wide(each.detail || "–") },
];

const STEPS = [
  { name: w.step, cell: (each) => each.name },
  { name: w.result, cell: (each) => (each.ok === null ? "–" : badge(each.ok ? "ok" : "fails")) },
  { name: w.seen, cell: (each) => wide(each.detail) },
  { name: w.status, cell: (each) => each.status ?? "–", right: true },
  { name: w.took, cell: (each) => (each.milliseconds === undefined ? "–" : duration(each.milliseconds / 1000)), right: true },
];

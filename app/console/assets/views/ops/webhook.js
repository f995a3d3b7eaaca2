/** One webhook endpoint: its messages with every attempt, and what may be done about it. */

import { html, nothing } from "../../vendor/lit-html.js";
import { repeat } from "../../vendor/directives/repeat.js";
import { get, newKey, patch, path, post, query as asQuery, remove } from "../../lib/api.js";
import { acting, notice, shownJson } from "../../lib/ask.js";
import { count, duration } from "../../lib/format.js";
import { alert, badge, confirm, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";
import { secret } from "./webhooks.js";

const w = words.webhooks;
const STATES = ["pending", "ok", "failed", "dead"];
const REFRESH = 3000;
const once = () => ({ headers: { "Idempotency-Key": newKey() } });

export function open({ params, query, update, go }) {
  const state = { endpoint: null, messages: null, next: null, rotated: null, problem: null, notice: null, busy: false };
  const aborter = new AbortController();
  const signal = aborter.signal;
  const place = path`/v1/webhook-endpoints/${params.id}`;
  const here = `/console/webhooks/${encodeURIComponent(params.id)}`;
  const act = acting(state, update);
  let timer;

  async function load() {
    clearTimeout(timer);
    try {
      const [endpoint, page] = await Promise.all([
        get(place, { signal }),
        get(`${place}/messages${asQuery({ state: query.state, cursor: query.cursor, limit: 50 })}`, { signal }),
      ]);
      Object.assign(state, { endpoint, messages: page.messages, next: page.next_cursor });
      if (state.lost) state.problem = state.lost = null;
    } catch (error) {
      if (signal.aborted) return;
      state.problem = state.lost = error;
    }
    update();
    if (!query.cursor) timer = setTimeout(load, REFRESH);
  }

  const change = async (make, said) => (await act(make, said)) && load();

  const enable = () => change(() => patch(place, { state: "active" }), w.enabled);
  const test = () => change(() => post(`${place}/test`, undefined, once()), w.tested);
  const replay = (message) => change(() => post(`${place}/messages/${message.message_id}/replay`, undefined, once()), w.replayed("1"));

  async function disable() {
    if (await confirm(w.confirmDisable, w.disable)) change(() => patch(place, { state: "disabled" }), w.disabled);
  }

  async function take() {
    if ((await confirm(w.confirmRemove, w.remove)) && (await act(() => remove(place)))) go("/console/webhooks");
  }

  async function rotate() {
    if (!(await confirm(w.confirmRotate, w.rotate))) return;
    change(async () => (state.rotated = await post(`${place}/rotate`, {}, once())), w.rotated);
  }

  /** How many of a state there are, as far as a few pages show. */
  async function size(which) {
    let number = 0;
    let cursor;
    for (let pages = 0; pages < 5; pages += 1) {
      const page = await get(`${place}/messages${asQuery({ state: which, cursor, limit: 200 })}`, { signal });
      number += page.messages.length;
      cursor = page.next_cursor;
      if (!cursor) return count(number);
    }
    return w.atLeast(count(number));
  }

  async function replayAll(which) {
    let number;
    if (!(await act(async () => (number = await size(which))))) return;
    if (number === "0") return act(async () => null, w.nothing(words.states[which]));
    if (!(await confirm(w.confirmReplay(number, words.states[which]), w.replayAll(words.states[which])))) return;
    await change(() => post(`${place}/replay`, { state: which }, once()), (made) => w.replayed(count(made.replayed)));
  }

  load();

  return {
    title: () => state.endpoint?.url ?? w.title,
    stop: () => {
      aborter.abort();
      clearTimeout(timer);
    },
    render: () => (state.endpoint ? shown(state.endpoint) : html`<h1 tabindex="-1">${w.title}</h1>${alert(state.problem)}${state.problem ? nothing : loading()}`),
  };

  function shown(it) {
    const button = (label, act, kind = "") => html`<button type="button" class=${kind} ?disabled=${state.busy} @click=${act}>${label}</button>`;
    return html`
      <div class="head">
        <h1 tabindex="-1">${it.url} ${badge(it.state)}</h1>
        <div class="buttons">
          ${it.state === "active" ? html`${button(w.test, test)} ${button(w.disable, disable)}` : button(w.enable, enable)}
          ${button(w.rotate, rotate)} ${button(w.remove, take, "danger")}
        </div>
      </div>
      ${alert(state.problem)} ${notice(state.notice)} ${state.rotated ? secret(state.rotated) : nothing}
      ${it.detail ? html`<p class="notice">${it.detail}</p>` : nothing}
      <dl class="facts">
        <dt>${w.events}</dt><dd>${it.events.join(", ")}</dd>
        <dt>${w.policy}</dt><dd>${it.policy}</dd>
        <dt>${w.failing}</dt><dd>${it.failing_since ? time(it.failing_since) : w.notFailing}</dd>
        ${it.previous_until ? html`<dt>${w.previous}</dt><dd>${time(it.previous_until)}</dd>` : nothing}
        <dt>${w.created}</dt><dd>${time(it.created_at)}</dd>
      </dl>
      <h2>${w.messages}</h2>
      <div class="row">
        <label for="state">${w.state}</label>
        <select id="state" @change=${(event) => go(`${here}${asQuery({ state: event.target.value })}`)}>
          <option value="" ?selected=${!query.state}>${w.any}</option>
          ${STATES.map((each) => html`<option value=${each} ?selected=${query.state === each}>${words.states[each]}</option>`)}
        </select>
        ${it.state === "active" ? html`${button(w.replayAll(words.states.failed), () => replayAll("failed"))} ${button(w.replayAll(words.states.dead), () => replayAll("dead"))}` : nothing}
      </div>
      ${state.messages.length
        ? repeat(state.messages, (each) => each.message_id, (each) => message(each, it, button))
        : html`<p class="mute">${w.noMessages}</p>`}
      <p class="pages">
        ${query.cursor ? html`<a href=${`${here}${asQuery({ state: query.state })}`}>${words.newest}</a>` : nothing}
        ${state.next ? html`<a href=${`${here}${asQuery({ state: query.state, cursor: state.next })}`}>${words.next}</a>` : nothing}
      </p>`;
  }

  function message(each, it, button) {
    return html`<article class="message" aria-label=${w.message(each.message_id)}>
      <div class="row">
        <h3>${each.type}</h3> ${badge(each.state)} <span class="mute">${w.message(each.message_id)}, ${time(each.created_at)}</span>
        ${each.next_attempt_at ? html`<span class="mute">${w.nextAttempt} ${time(each.next_attempt_at)}</span>` : nothing}
        ${each.state !== "pending" && it.state === "active" ? button(w.replay, () => replay(each)) : nothing}
      </div>
      ${each.attempts.length ? table(w.attemptsOf(each.message_id), ATTEMPTS, each.attempts) : html`<p class="mute">${w.noAttempts}</p>`}
      <details><summary>${w.payload}</summary><p class="small">${w.eventId} <code>${each.event_id}</code></p>${shownJson(each.payload)}</details>
    </article>`;
  }
}

const ATTEMPTS = [
  { name: w.at, cell: (each) => time(each.at) },
  { name: w.status, cell: (each) => each.status ?? w.noAnswer, right: true },
  { name: w.took, cell: (each) => duration(each.milliseconds / 1000), right: true },
  { name: w.detail, cell: (each) => wide(each.detail || "–") },
];

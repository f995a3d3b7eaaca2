/** Webhook endpoints, and a form for a new one; its secret is shown once. */

import { html, nothing } from "../../vendor/lit-html.js";
import { get, newKey, post } from "../../lib/api.js";
import { acting } from "../../lib/ask.js";
import { alert, badge, empty, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";

const w = words.webhooks;

export function open({ query, update }) {
  const state = { endpoints: null, events: null, made: null, problem: null, busy: false };
  const aborter = new AbortController();
  const act = acting(state, update);
  const adds = query.add !== undefined;

  async function load() {
    try {
      state.endpoints = (await get("/v1/webhook-endpoints", { signal: aborter.signal })).endpoints;
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  /** The events are those that the API's own description names. */
  const loadEvents = () =>
    act(async () => {
      const { components } = await get("/openapi.json", { signal: aborter.signal });
      state.events = components.schemas.EventType.enum;
      state.policies = components.schemas.Policy.enum;
    });

  async function add(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const events = form.getAll("events");
    const made = { url: form.get("url").trim(), policy: form.get("policy"), ...(events.length ? { events } : {}) };
    const done = await act(async () => {
      state.made = await post("/v1/webhook-endpoints", made, { headers: { "Idempotency-Key": newKey() } });
    });
    if (done) document.querySelector("main h1")?.focus();
    else document.getElementById("w-url")?.focus();
  }

  if (adds) loadEvents();
  else load();

  return {
    title: () => (adds ? w.add : w.title),
    stop: () => aborter.abort(),
    render: () => (adds ? adding() : list()),
  };

  function list() {
    return html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1><a class="button" href="/console/webhooks?add">${w.add}</a></div>
      ${alert(state.problem)}
      ${state.endpoints === null
        ? state.problem ? nothing : loading()
        : state.endpoints.length ? table(w.title, COLUMNS, state.endpoints) : empty(w.none, w.noneText)}`;
  }

  function adding() {
    if (state.made) {
      return html`<h1 tabindex="-1">${w.added}</h1>${secret(state.made)}
        <p><a class="button" href=${`/console/webhooks/${state.made.endpoint_id}`}>${w.goOn}</a></p>`;
    }
    return html`
      <h1 tabindex="-1">${w.add}</h1>
      ${alert(state.problem)}
      ${state.events === null ? (state.problem ? nothing : loading()) : form()}`;
  }

  function form() {
    return html`<form class="fields" @submit=${add}>
      <div><label for="w-url">${w.url}</label><input id="w-url" name="url" required autocomplete="off" spellcheck="false" aria-describedby="w-url-help">
        <p id="w-url-help" class="small">${w.urlHelp}</p></div>
      <fieldset><legend>${w.events}</legend>
        ${state.events.map((name) => html`<label class="inline"><input type="checkbox" name="events" value=${name}>${name}</label>`)}
        <p class="small">${w.eventsHelp}</p>
      </fieldset>
      <div><label for="w-policy">${w.policy}</label>
        <select id="w-policy" name="policy" aria-describedby="w-policy-help">${state.policies.map((name) => html`<option>${name}</option>`)}</select>
        <p id="w-policy-help" class="small">${w.policyHelp}</p></div>
      <div class="buttons"><button class="primary" ?disabled=${state.busy}>${w.add}</button><a class="button" href="/console/webhooks">${words.cancel}</a></div>
    </form>`;
  }
}

/** A secret that is shown this once. */
export const secret = (it) => html`<div class="notice">
  <strong>${w.secret}</strong> <code>${it.secret}</code>
  <p>${w.secretText}</p>
</div>`;

const COLUMNS = [
  { name: w.url, cell: (each) => html`<a href=${`/console/webhooks/${each.endpoint_id}`}>${each.url}</a>` },
  { name: w.state, cell: (each) => badge(each.state) },
  { name: w.events, cell: (each) => each.events.join(", ") },
  { name: w.policy, cell: (each) => each.policy },
  { name: w.failing, cell: (each) => (each.failing_since ? time(each.failing_since) : w.notFailing) },
  { name: w.detail, cell: (each) => (each.detail ? wide(each.detail) : "–") },
];

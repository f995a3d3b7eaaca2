/** All destinations, with what keeps records from going there; and a form for a new one. */

import { html, nothing } from "../../vendor/lit-html.js";
import { get, newKey, path, post } from "../../lib/api.js";
import { acting, readJson } from "../../lib/ask.js";
import { count, duration } from "../../lib/format.js";
import { alert, badge, empty, loading, table, time, wide } from "../../lib/ui.js";
import { words } from "../../strings.js";

const w = words.destinations;
const REFRESH = 4000;

export function open({ query, may, update, go }) {
  const state = { destinations: null, kinds: null, problem: null };
  const aborter = new AbortController();
  const act = acting(state, update);
  const adds = query.add !== undefined && may("admin");
  let timer;

  async function load() {
    try {
      state.destinations = (await get("/v1/destinations", { signal: aborter.signal })).destinations;
      state.problem = null;
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
    timer = setTimeout(() => (document.hidden ? wait() : load()), REFRESH);
  }

  function wait() {
    document.addEventListener("visibilitychange", load, { once: true, signal: aborter.signal });
  }

  /** The kinds are those that the API's own description names. */
  async function loadKinds() {
    await act(async () => {
      const described = await get("/openapi.json", { signal: aborter.signal });
      state.kinds = described.components.schemas.NewDestination.properties.kind.enum;
    });
  }

  async function add(event) {
    event.preventDefault();
    const fields = event.target.elements;
    const done = await act(async () => {
      const made = { name: fields.name.value.trim(), kind: fields.kind.value, base_url: fields.base_url.value.trim(), ...readCredentials(fields) };
      const options = readJson(fields.options.value, w.options);
      if (options !== undefined) made.options = options;
      await post("/v1/destinations", made, { headers: { "Idempotency-Key": newKey() } });
    });
    if (done) go(`/console${path`/destinations/${fields.name.value.trim()}`}`);
    else document.querySelector("main form [name=name]")?.focus();
  }

  if (adds) loadKinds();
  else load();

  return {
    title: () => (adds ? w.add : w.title),
    stop: () => {
      aborter.abort();
      clearTimeout(timer);
    },
    render: () => (adds ? form() : list()),
  };

  function list() {
    const add = may("admin") ? html`<a class="button" href="/console/destinations?add">${w.add}</a>` : nothing;
    return html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1>${add}</div>
      ${alert(state.problem)}
      ${state.destinations === null
        ? state.problem ? nothing : loading()
        : state.destinations.length ? table(w.title, COLUMNS, state.destinations) : empty(w.none, w.noneText)}`;
  }

  function form() {
    return html`
      <h1 tabindex="-1">${w.add}</h1>
      <p class="mute">${w.addText}</p>
      ${alert(state.problem)}
      ${state.kinds === null
        ? state.problem ? nothing : loading()
        : html`<form class="fields" @submit=${add}>
            <div><label for="d-name">${w.name}</label><input id="d-name" name="name" required autocomplete="off" spellcheck="false"></div>
            <div><label for="d-kind">${w.kind}</label>
              <select id="d-kind" name="kind">${state.kinds.map((kind) => html`<option>${kind}</option>`)}</select></div>
            <div><label for="d-url">${w.baseUrl}</label><input id="d-url" name="base_url" required autocomplete="off" spellcheck="false"></div>
            ${credentialFields()}
            ${optionsField("{}")}
            <div class="buttons"><button class="primary" ?disabled=${state.busy}>${w.add}</button><a class="button" href="/console/destinations">${words.cancel}</a></div>
          </form>`}`;
  }
}

/** A token, or credentials of another type as JSON. */
export const credentialFields = () => html`
  <div><label for="d-token">${w.token}</label><input id="d-token" name="token" type="password" autocomplete="off" spellcheck="false" aria-describedby="d-token-help">
    <p id="d-token-help" class="small">${w.tokenHelp}</p></div>
  <div><label for="d-credentials">${w.credentialsJson}</label><textarea id="d-credentials" name="credentials" rows="4" autocomplete="off" spellcheck="false" aria-describedby="d-credentials-help"></textarea>
    <p id="d-credentials-help" class="small">${w.credentialsHelp}</p></div>`;

export const optionsField = (value) => html`
  <div><label for="d-options">${w.optionsJson}</label><textarea id="d-options" name="options" rows="6" autocomplete="off" spellcheck="false" .value=${value} aria-describedby="d-options-help"></textarea>
    <p id="d-options-help" class="small">${w.optionsHelp}</p></div>`;

/** What the form says of credentials, as the API takes it. Throws `Problem`. */
export function readCredentials(fields) {
  const credentials = readJson(fields.credentials.value, w.credentials);
  if (credentials !== undefined) return { credentials };
  return fields.token.value ? { token: fields.token.value } : {};
}

/** Why nothing, or not all, is sent there; null where nothing is in the way. */
export function held(destination) {
  if (destination.state === "paused") return w.isPaused;
  if (destination.error_code) return w.heldFor(destination.error_code, destination.detail, duration(destination.retry_after_seconds));
  return destination.circuit.state === "closed" ? null : destination.circuit.detail || w.circuitOpen;
}

/** How many items wait to be sent there, and since when. */
export const pending = ({ pending: { count: n, oldest_seconds: oldest, at_least: more } }) =>
  n ? w.since(more ? w.atLeast(count(n)) : count(n), duration(oldest)) : "0";

export const unknown = (destination) =>
  destination.unknown.count ? w.since(count(destination.unknown.count), duration(destination.unknown.oldest_seconds)) : "0";

const COLUMNS = [
  { name: w.name, cell: (each) => html`<a href=${`/console${path`/destinations/${each.name}`}`}>${each.name}</a>` },
  { name: w.kind, cell: (each) => each.kind },
  { name: w.state, cell: (each) => badge(each.state) },
  { name: w.circuit, cell: (each) => badge(each.circuit.state) },
  { name: w.held, cell: (each) => wide(held(each) ?? w.notHeld) },
  { name: w.pending, cell: pending, right: true },
  { name: w.unknown, cell: unknown, right: true },
  { name: w.rate, cell: (each) => (each.options.rate ? w.perSecond(count(each.options.rate)) : w.kindsRate), right: true },
  { name: w.verified, cell: (each) => (each.verified_at ? time(each.verified_at) : w.never) },
];

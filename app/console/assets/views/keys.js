/** The tenant's API keys: made, changed, renewed and revoked. */

import { html, nothing } from "../vendor/lit-html.js";
import { call, newKey, patch, path, post, query as asQuery, remove } from "../lib/api.js";
import { acting, notice } from "../lib/ask.js";
import { count } from "../lib/format.js";
import { alert, announce, badge, confirm, empty, loading, table, time } from "../lib/ui.js";
import { words } from "../strings.js";
import { expiry, fields, limits } from "./key-form.js";

const w = words.keys;
const HERE = "/console/keys";

export function open({ query, session, update }) {
  const state = { keys: null, left: null, problem: null, notice: null, secret: null, asked: query.new !== undefined ? "new" : query.change ? "change" : query.rotate ? "rotate" : "" };
  const aborter = new AbortController();
  const act = acting(state, update);
  const chosen = () => state.keys.find((each) => each.key_id === (query.change || query.rotate));

  async function load() {
    try {
      const { body, headers } = await call("GET", "/v1/keys", { signal: aborter.signal });
      state.keys = body.keys.reverse();
      state.left = headers.get("X-RateLimit-Limit") && [headers.get("X-RateLimit-Remaining"), headers.get("X-RateLimit-Limit")].map(count);
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
  }

  /** Do it; then the list is shown again, with the secret if there is a new one. */
  async function submit(event, make, said) {
    event.preventDefault();
    const form = event.target.elements;
    if (!(await act(async () => (state.secret = (await make(form))?.key ?? null), said))) return;
    state.asked = "";
    history.replaceState(null, "", HERE);
    await load();
    (document.getElementById("secret") ?? document.querySelector("main h1"))?.focus();
  }

  const keyed = () => ({ headers: { "Idempotency-Key": newKey() } });
  const create = (event) =>
    submit(event, (form) => {
      const scopes = [...form.scope].filter((box) => box.checked).map((box) => box.value);
      return post("/v1/keys", { name: form.name.value.trim(), scopes, expires_at: expiry(form), limits: limits(form) }, keyed());
    });
  const change = (event) =>
    submit(
      event,
      async (form) => {
        await patch(path`/v1/keys/${query.change}`, { name: form.name.value.trim(), expires_at: expiry(form), limits: limits(form) });
      },
      w.changed,
    );
  const rotate = (event) => submit(event, (form) => post(path`/v1/keys/${query.rotate}/rotate`, { keep_seconds: Number(form.keep.value) }, keyed()));

  async function revoke(key) {
    if (!(await confirm(w.confirmRevoke(named(key), key.key_id === session.key_id), w.revoke))) return;
    if (await act(() => remove(path`/v1/keys/${key.key_id}`), w.isRevoked)) await load();
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(state.secret);
      announce(w.copied);
    } catch {
      announce(w.notCopied);
    }
  }

  const columns = [
    { name: w.columns.name, cell: (key) => html`${key.name || w.unnamed}${key.key_id === session.key_id ? html` <span class="mute">(${w.own})</span>` : nothing}` },
    { name: w.columns.id, cell: (key) => html`<code>${key.key_id}</code>` },
    { name: w.columns.scopes, cell: (key) => key.scopes.join(", ") },
    { name: w.columns.created, cell: (key) => time(key.created_at) },
    { name: w.columns.expires, cell: until },
    { name: w.columns.used, cell: (key) => (key.last_used_at ? time(key.last_used_at) : w.never) },
    { name: w.columns.limits, cell: limited },
    { name: w.columns.do, cell: actions },
  ];

  load();

  return {
    title: () => w.title,
    stop: () => aborter.abort(),
    render: () => {
      if (state.keys === null) return html`<h1 tabindex="-1">${w.title}</h1>${alert(state.problem)}${state.problem ? nothing : loading()}`;
      if (state.asked === "new") return form(w.add, create, w.add, fields({}, true));
      if (state.asked && !chosen()) return empty(w.none, w.noneText, html`<a href=${HERE}>${w.all}</a>`);
      if (state.asked === "change") return form(w.changeOf(named(chosen())), change, w.save, fields(chosen(), false));
      if (state.asked === "rotate") return form(w.rotateOf(named(chosen())), rotate, w.rotate, keeping());
      return list();
    },
  };

  function form(title, send, label, contents) {
    return html`
      <div class="head"><h1 tabindex="-1">${title}</h1></div>
      ${alert(state.problem)}
      <form class="fields" @submit=${send}>
        ${contents}
        <div class="buttons"><button class="primary" ?disabled=${state.busy}>${label}</button><a class="button" href=${HERE}>${words.cancel}</a></div>
      </form>`;
  }

  function keeping() {
    return html`<p>${w.rotateText}</p>
      <div><label for="keep">${w.keep}</label>
        <select id="keep" name="keep">${Object.entries(w.keeps).map(([seconds, name]) => html`<option value=${seconds} ?selected=${seconds === "86400"}>${name}</option>`)}</select></div>`;
  }

  function list() {
    const shown = state.keys.filter((each) => (query.key ? each.key_id === query.key : query.revoked !== undefined || !each.revoked_at));
    const hidden = state.keys.length - shown.length;
    return html`
      <div class="head"><h1 tabindex="-1">${w.title}</h1><a class="button" href=${`${HERE}?new`}>${w.add}</a></div>
      ${alert(state.problem)}${notice(state.notice)}
      ${state.secret
        ? html`<div class="notice" id="secret" tabindex="-1" role="region" aria-label=${w.secret}>
            <p>${w.secret}</p><p><code>${state.secret}</code></p><button type="button" @click=${copy}>${w.copy}</button>
          </div>`
        : nothing}
      ${shown.length ? table(w.title, columns, shown) : empty(w.none, w.noneText)}
      <p class="pages">
        ${hidden && !query.key ? html`<a href=${`${HERE}?revoked`}>${w.showRevoked} (${count(hidden)})</a>` : nothing}
        ${query.key || query.revoked !== undefined ? html`<a href=${HERE}>${w.all}</a>` : nothing}
      </p>
      ${state.left ? html`<p class="mute">${w.left(...state.left)}</p>` : nothing}`;
  }

  function actions(key) {
    if (key.revoked_at) return "–";
    return html`<div class="buttons">
      <a class="button" href=${HERE + asQuery({ change: key.key_id })} aria-label=${`${w.change}: ${named(key)}`}>${w.change}</a>
      <a class="button" href=${HERE + asQuery({ rotate: key.key_id })} aria-label=${`${w.rotate}: ${named(key)}`}>${w.rotate}</a>
      <button type="button" class="danger" aria-label=${`${w.revoke}: ${named(key)}`} @click=${() => revoke(key)}>${w.revoke}</button>
    </div>`;
  }
}

const named = (key) => key.name || key.key_id;

function until(key) {
  if (key.revoked_at) return html`${badge(w.revoked)} ${time(key.revoked_at)}`;
  const over = key.expires_at && new Date(key.expires_at) < new Date();
  return html`${over ? html`${badge(w.expired)} ` : nothing}${key.expires_at ? time(key.expires_at) : w.never}
    ${key.previous_until ? html`<p class="small">${w.previous} ${time(key.previous_until)}</p>` : nothing}`;
}

function limited(key) {
  const own = Object.entries(w.limits).filter(([name]) => key.limits[name]);
  return own.map(([name, label]) => w.limit(label, key.limits[name])).join(", ") || w.defaults;
}

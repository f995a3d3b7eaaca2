/** The form of a key, and what it says as the API takes it. */

import { html, nothing } from "../vendor/lit-html.js";
import { words } from "../strings.js";

const w = words.keys;
const SCOPES = ["import", "read", "admin"];
const LIMITS = ["items", "requests"];
const WINDOW = 60;

/** The fields of `key`; those of a new one have its scopes, which cannot be changed later. */
export const fields = (key, isNew) => html`
  <div><label for="key-name">${w.name}</label>
    <input id="key-name" name="name" autocomplete="off" .value=${key.name || ""} aria-describedby="key-name-help">
    <p id="key-name-help" class="small">${w.nameHelp}</p></div>
  ${isNew
    ? html`<fieldset><legend>${w.scopes}</legend>
        ${SCOPES.map((scope) => html`<label class="inline"><input type="checkbox" name="scope" value=${scope}> ${w.scope[scope]}</label>`)}
      </fieldset>`
    : nothing}
  <div><label for="key-expires">${w.expires}</label>
    <input id="key-expires" name="expires" type="date" .value=${day(key.expires_at)} aria-describedby="key-expires-help">
    <p id="key-expires-help" class="small">${w.expiresHelp}</p></div>
  ${LIMITS.map((name) => limit(name, key.limits?.[name]))}`;

const limit = (name, given) => html`<div class="pair">
  <div><label for=${`${name}-quota`}>${w.quota[name]}</label>
    <input id=${`${name}-quota`} name=${`${name}-quota`} type="number" min="0" .value=${given?.quota ?? ""} aria-describedby=${`${name}-help`}>
    <p id=${`${name}-help`} class="small">${w.quotaHelp}</p></div>
  <div><label for=${`${name}-window`}>${w.window[name]}</label>
    <input id=${`${name}-window`} name=${`${name}-window`} type="number" min="1" .value=${given?.window_seconds ?? WINDOW}></div>
</div>`;

/** The last second of the chosen day in the reader's zone; null: never. */
export const expiry = (form) => (form.expires.value ? new Date(`${form.expires.value}T23:59:59`).toISOString() : null);

export const limits = (form) =>
  Object.fromEntries(
    LIMITS.map((name) => {
      const quota = form[`${name}-quota`].value;
      return [name, quota === "" ? null : { quota: Number(quota), window_seconds: Number(form[`${name}-window`].value) }];
    }),
  );

function day(value) {
  if (!value) return "";
  const at = new Date(value);
  return new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
}

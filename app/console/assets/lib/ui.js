/** Pieces that several views are made of. */

import { html, nothing, svg } from "../vendor/lit-html.js";
import { ago, duration, moment } from "./format.js";
import { words } from "../strings.js";

/** Say something to whoever cannot see that it changed. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

export const time = (value) =>
  value ? html`<time datetime=${value} title=${moment(value)}>${ago(value)}</time>` : html`–`;

const TONES = {
  completed: "good", pass: "good", ok: "good", active: "good", closed: "good", works: "good", delivered: "good",
  completed_with_failures: "warn", retry: "warn", half_open: "warn", paused: "warn", unknown: "warn", degraded: "warn", warn: "warn",
  failed: "bad", fail: "bad", dead: "bad", open: "bad", fails: "bad", canceled: "mute", skipped: "mute",
};

/** A state as a word, in a colour that says nothing that the word does not. */
export const badge = (state) =>
  html`<span class="badge ${TONES[state] || "plain"}">${words.states[state] || String(state).replaceAll("_", " ")}</span>`;

/** A problem in the API's own words. */
export const alert = (problem) =>
  problem
    ? html`<div class="alert" role="alert">
        <strong>${problem.message}</strong>
        ${problem.errors?.length
          ? html`<ul>${problem.errors.map((e) => html`<li>${e.pointer ? html`<code>${e.pointer}</code> ` : nothing}${e.detail}</li>`)}</ul>`
          : nothing}
        ${problem.requestId ? html`<p class="small">${words.request} <code>${problem.requestId}</code></p>` : nothing}
      </div>`
    : nothing;

/** Said of a document that came from a fallback. */
export const stale = (document) =>
  document?.stale ? html`<p class="notice" role="status">${words.stale(duration(document.age_seconds))}</p>` : nothing;

export const loading = () => html`<p class="mute" aria-busy="true">${words.loading}</p>`;

/** What is said where there is nothing yet, and how to change that. */
export const empty = (title, text, action = nothing) =>
  html`<div class="empty"><h2>${title}</h2><p>${text}</p>${action}</div>`;

/** A table of `rows`. Columns: `{name, cell(row), right}`. */
export const table = (caption, columns, rows) => html`
  <div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption class="visually-hidden">${caption}</caption>
      <thead><tr>${columns.map((c) => html`<th scope="col" class=${c.right ? "right" : ""}>${c.name}</th>`)}</tr></thead>
      <tbody>
        ${rows.map((row) => html`<tr>${columns.map((c) => html`<td class=${c.right ? "right" : ""}>${c.cell(row)}</td>`)}</tr>`)}
      </tbody>
    </table>
  </div>`;

/** Sentences in a table, which are not squeezed on a small screen. */
export const wide = (text) => html`<div class="wide">${text}</div>`;

/** A bar of parts: `[{name, count, tone}]`. The numbers are beside it as text. */
export const bar = (label, parts) => {
  const whole = parts.reduce((sum, part) => sum + part.count, 0) || 1;
  return html`<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label=${label}>
    ${segments(parts, whole)}
  </svg>`;
};


function segments(parts, whole) {
  let at = 0;
  return parts.map((part) => {
    const width = (100 * part.count) / whole;
    const made = svg`<rect class=${`tone-${part.tone}`} x=${at} y="0" width=${width} height="6"></rect>`;
    at += width;
    return made;
  });
}

/** Ask before something is done; resolves to true or false. `text` says what will be covered. */
export function confirm(text, action) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    dialog.className = "confirm";
    const message = document.createElement("p");
    message.textContent = text;
    message.id = "confirm-text";
    dialog.setAttribute("aria-labelledby", message.id);
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    for (const [label, value, kind] of [[words.keep, "", ""], [action, "yes", "primary"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = kind;
      button.textContent = label;
      button.addEventListener("click", () => dialog.close(value));
      buttons.append(button);
    }
    dialog.append(message, buttons);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Signing in with an API key. */

import { html } from "../vendor/lit-html.js";
import { alert } from "../lib/ui.js";
import { words } from "../strings.js";

const state = { problem: null, busy: false };

export function signIn({ ended, enter, update }) {
  async function submit(event) {
    event.preventDefault();
    const field = event.target.elements.key;
    state.busy = true;
    state.problem = null;
    update();
    try {
      await enter(field.value.trim());
    } catch (error) {
      state.problem = error;
    }
    state.busy = false;
    update();
    if (state.problem) document.getElementById("key")?.focus();
  }
  return html`
    <main class="narrow">
      <h1 tabindex="-1">${words.product}</h1>
      ${ended && !state.problem ? html`<p role="status">${words.signIn.ended}</p>` : ""}
      <form @submit=${submit}>
        <label for="key">${words.signIn.key}</label>
        <input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required aria-describedby="key-help">
        <p id="key-help" class="small">${words.signIn.help}</p>
        ${alert(state.problem)}
        <button class="primary" ?disabled=${state.busy}>${words.signIn.button}</button>
      </form>
    </main>`;
}

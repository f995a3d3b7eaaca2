/** Questions before something is done, and answers of the API shown after it. */

import { html, render } from "../vendor/lit-html.js";
import { isAborted, Problem } from "./api.js";
import { announce } from "./ui.js";
import { words } from "../strings.js";

/** Ask for a line of text, such as a reason; resolves to it, or to null. `text` says what will be covered. */
export function ask(text, label, action) {
  return new Promise((resolve) => {
    const dialog = document.createElement("dialog");
    dialog.className = "confirm";
    dialog.setAttribute("aria-labelledby", "ask-text");
    const submit = (event) => {
      event.preventDefault();
      dialog.close(event.target.elements.answer.value.trim());
    };
    render(
      html`<form @submit=${submit}>
        <p id="ask-text">${text}</p>
        <label for="ask-answer">${label}</label>
        <input id="ask-answer" name="answer" required maxlength="500" autocomplete="off">
        <div class="buttons">
          <button type="button" @click=${() => dialog.close("")}>${words.keep}</button>
          <button class="primary">${action}</button>
        </div>
      </form>`,
      dialog,
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("input").focus();
  });
}

/**
 * A function that does something for a view with `state.problem`, `state.notice` and `state.busy`: `act(make, said)`.
 * `said` is announced, or is made of what `make` returned. Returns whether it went well.
 */
export function acting(state, update) {
  return async (make, said) => {
    Object.assign(state, { busy: true, problem: null, notice: null });
    update();
    try {
      const made = await make();
      state.notice = typeof said === "function" ? said(made) : said;
      if (typeof state.notice === "string") announce(state.notice);
      return true;
    } catch (error) {
      if (!isAborted(error)) state.problem = error;
      return false;
    } finally {
      state.busy = false;
      update();
    }
  };
}

export const notice = (text) => (text ? html`<div class="notice">${text}</div>` : "");

/** JSON that somebody typed; undefined where there is none. Throws `Problem` in words. */
export function readJson(text, name) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Problem(0, { detail: words.notJson(name, error.message) });
  }
}

export const shownJson = (value) => html`<pre><code>${JSON.stringify(value, null, 2)}</code></pre>`;

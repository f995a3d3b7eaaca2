/** The page around every view: who is signed in, the menu, and the view that the address is for. */

import { html, nothing, render } from "./vendor/lit-html.js";
import { call, get, isAborted, Problem, remove } from "./lib/api.js";
import { Router } from "./lib/router.js";
import { alert, loading } from "./lib/ui.js";
import { words } from "./strings.js";
import { signIn } from "./views/sign-in.js";

/** `[pattern, module, name in the menu, scopes that may see it]`. A module is loaded when its view is opened first. */
const VIEWS = [
  ["/", "jobs", words.jobs.title, ["read", "import", "admin"]],
  ["/import", "import", words.import.title, ["import"]],
  ["/jobs/:id/rows", "rows", null, ["read", "import", "admin"]],
  ["/jobs/:id", "job", null, ["read", "import", "admin"]],
  ["/jobs/:id/items", "items", null, ["read", "import", "admin"]],
  ["/records", "records", words.records.title, ["read"]],
  ["/records/:type/:id", "record", null, ["read"]],
  ["/destinations", "ops/destinations", words.destinations.title, ["read", "admin"]],
  ["/destinations/:name", "ops/destination", null, ["read", "admin"]],
  ["/dead-letters", "ops/dead-letters", words.deadLetters.title, ["read", "admin"]],
  ["/dead-letters/list", "ops/dead-letter-list", null, ["read", "admin"]],
  ["/dead-letters/:id", "ops/dead-letter", null, ["read", "admin"]],
  ["/webhooks", "ops/webhooks", words.webhooks.title, ["admin"]],
  ["/webhooks/:id", "ops/webhook", null, ["admin"]],
  ["/health", "health", words.health.title, ["read", "import", "admin"]],
  ["/keys", "keys", words.keys.title, ["admin"]],
  ["/audit", "audit", words.audit.title, ["read", "admin"]],
];

const AGAIN = 3000;
const state = { session: undefined, view: null, problem: null, ended: false };
const router = new Router(VIEWS.map((view) => [view[0], view]), open);

addEventListener("signed-out", () => {
  if (!state.session) return;
  state.session = null;
  state.ended = true;
  close();
  update();
});

await start();

async function start() {
  const link = /^#(trc_\w+)$/.exec(location.hash);
  if (link) {
    history.replaceState(null, "", location.pathname + location.search);
    await signInWith(link[1]).catch(() => {});
  }
  while (state.session === undefined) {
    state.session = await get("/v1/session").catch((error) => (error.status >= 400 && error.status < 500 ? null : void (state.away = error)));
    if (state.session !== undefined) break;
    update(); // who is signed in is not known while the server is away: nobody is asked for a key
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
  await open();
}

/** Exchange a key, or the session of a link, for one of this page's own. Throws `Problem`. */
async function signInWith(secret) {
  await call("POST", "/v1/session", { headers: { Authorization: `Bearer ${secret}` } });
  try {
    state.session = await get("/v1/session");
  } catch (error) {
    throw error.status === 401 ? new Problem(401, { detail: words.signIn.needsTls }) : error;
  }
  state.ended = false;
}

async function signOut() {
  await remove("/v1/session").catch(() => {});
  state.session = null;
  close();
  update();
}

function close() {
  state.view?.stop?.();
  state.view = null;
}

async function open() {
  close();
  state.problem = null;
  update();
  if (!state.session) return;
  const { target, params, query } = router.find();
  if (!target) return update();
  const opened = (state.opened = {});
  try {
    const module = await import(`./views/${target[1]}.js`);
    if (state.opened !== opened) return;
    const may = (...scopes) => scopes.some((scope) => state.session.scopes.includes(scope));
    state.view = module.open({ params, query, may, session: state.session, go: (to, how) => router.go(to, how), update: () => state.opened === opened && update() });
  } catch (error) {
    if (isAborted(error)) return;
    state.problem = error;
  }
  update();
  document.querySelector("main h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function update() {
  const title = state.session ? state.view?.title?.() : words.signIn.title;
  document.title = title ? `${title} · ${words.product}` : words.product;
  render(page(), document.getElementById("app"));
}

function page() {
  if (state.session === undefined) {
    return html`<main>${state.away ? html`<h1 tabindex="-1">${words.product}</h1>${alert(state.away)}<p class="mute">${words.again}</p>` : loading()}</main>`;
  }
  if (state.session === null) return signIn({ ended: state.ended, enter: async (key) => { await signInWith(key); await open(); }, update });
  const { target } = router.find();
  return html`
    <a class="skip" href="#contents">${words.skip}</a>
    <header>
      <a class="brand" href="/console">${words.product}</a>
      <nav aria-label=${words.menu}>
        <ul>
          ${VIEWS.filter(([, , name, scopes]) => name && scopes.some((s) => state.session.scopes.includes(s))).map(
            ([to, module, name]) =>
              html`<li><a href=${`/console${to === "/" ? "" : to}`} aria-current=${target?.[1] === module ? "page" : "false"}>${name}</a></li>`,
          )}
        </ul>
      </nav>
      <div class="who">
        <span title=${words.signIn.as(state.session.name || state.session.key_id, state.session.scopes.join(", "))}>${state.session.tenant}</span>
        <button type="button" class="quiet" @click=${signOut}>${words.signIn.out}</button>
      </div>
    </header>
    <main id="contents" tabindex="-1">
      ${alert(state.problem)}
      ${!target ? html`<h1 tabindex="-1">${words.notFound}</h1><p>${words.notFoundText}</p>` : state.view ? state.view.render() : state.problem ? nothing : loading()}
    </main>`;
}


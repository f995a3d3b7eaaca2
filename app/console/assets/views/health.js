/** What works and what does not, since when, and what to do about it. */

import { html, nothing } from "../vendor/lit-html.js";
import { get, path } from "../lib/api.js";
import { Backlog } from "../lib/backlog.js";
import { duration } from "../lib/format.js";
import { alert, announce, badge, loading, table, time } from "../lib/ui.js";
import { words } from "../strings.js";

const w = words.health;
const REFRESH = 5000;
const DESTINATION = /^destination:[^/]*\/(.*)$/;

export function open({ may, update }) {
  const state = { health: null, at: null, destinations: [], problem: null };
  const seen = new Map();
  const aborter = new AbortController();
  const options = { signal: aborter.signal };
  const backlog = may("read", "admin") ? new Backlog() : null;
  let timer;

  async function load() {
    clearTimeout(timer);
    try {
      // A 503 is an answer as well: it says what is wrong.
      const health = await get("/health", options).catch((error) => (error.body?.checks ? error.body : Promise.reject(error)));
      if (state.health && state.health.status !== health.status) announce(`${w.title}: ${w.states[health.status]}`);
      note(health.checks);
      Object.assign(state, { health, at: new Date().toISOString(), problem: null });
      if (backlog && health.status !== "fail") {
        const [known] = await Promise.all([get("/v1/destinations", options), backlog.sample(aborter.signal)]);
        state.destinations = known.destinations;
      }
    } catch (error) {
      if (aborter.signal.aborted) return;
      state.problem = error;
    }
    update();
    backlog?.show();
    timer = setTimeout(() => (document.hidden ? wait() : load()), REFRESH);
  }

  function wait() {
    document.addEventListener("visibilitychange", load, { once: true, signal: aborter.signal });
  }

  /** Since when this page has seen each check fail. */
  function note(checks) {
    for (const [name, check] of Object.entries(checks)) {
      if (check.status === "pass") seen.delete(name);
      else if (!seen.has(name)) seen.set(name, new Date().toISOString());
    }
  }

  const faults = [
    NAME,
    STATUS,
    { name: w.columns.words, cell: ([, check]) => check.output ?? "–" },
    { name: w.columns.since, cell: since },
    { name: w.columns.todo, cell: todo },
  ];

  load();

  return {
    title: () => w.title,
    stop: () => {
      aborter.abort();
      clearTimeout(timer);
      backlog?.end();
    },
    render: () => html`
      <div class="head">
        <h1 tabindex="-1">${w.title} ${state.health ? badge(state.health.status) : nothing}</h1>
        <p class="mute">${w.at} ${time(state.at)}, ${w.every}</p>
      </div>
      ${alert(state.problem)}${state.problem && state.at ? html`<p class="notice">${w.old}</p>` : nothing}
      ${state.health ? shown(state.health) : state.problem ? nothing : loading()}
      ${backlog ? backlog.render() : nothing}`,
  };

  function shown(health) {
    const checks = Object.entries(health.checks);
    const wrong = checks.filter(([, check]) => check.status !== "pass");
    return html`
      <p>${w.meanings[health.status]}</p>
      <section>
        <h2>${w.wrong}</h2>
        ${wrong.length ? table(w.wrong, faults, wrong) : html`<p class="mute">${w.nothing}</p>`}
      </section>
      <section>
        <h2>${w.checks}</h2>
        ${table(w.checks, ALL, checks)}
      </section>`;
  }

  function since([name, check]) {
    const there = state.destinations.find((each) => each.name === DESTINATION.exec(name)?.[1]);
    if (there?.state === "active" && there.circuit.state !== "closed" && there.circuit.since) return time(there.circuit.since);
    const seconds = check.counts?.oldest_unknown_seconds ?? check.counts?.oldest_due_seconds;
    if (seconds) return time(new Date(Date.now() - seconds * 1000).toISOString());
    return html`${time(seen.get(name))} <span class="mute">${w.seen}</span>`;
  }
}

const shownName = (name) => DESTINATION.exec(name)?.[1] ?? w.names[name] ?? name;

function todo([name, check]) {
  const destination = DESTINATION.exec(name)?.[1];
  const wait = check.retry_after_seconds ? w.again(duration(check.retry_after_seconds)) : nothing;
  return destination
    ? html`${wait} ${w.todo.destination} <a href=${path`/console/destinations/${destination}`}>${destination}</a>`
    : html`${wait} ${w.todo[name] ?? nothing}`;
}

const NAME = { name: w.columns.name, cell: ([name]) => shownName(name) };
const STATUS = { name: w.columns.status, cell: ([, check]) => badge(check.status) };
const ALL = [
  NAME,
  STATUS,
  { name: w.columns.took, cell: ([, check]) => (check.milliseconds === undefined || check.milliseconds === null ? "–" : duration(check.milliseconds / 1000)), right: true },
  { name: w.columns.counts, cell: ([, check]) => Object.entries(check.counts || {}).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`).join(", ") || "–" },
];

/** What the import view shows of a file, and of what would become of it. */

import { html, nothing } from "../vendor/lit-html.js";
import { ATTRIBUTE, BOTH, canBeBoth, fieldsOf, IGNORED } from "../lib/columns.js";
import { count } from "../lib/format.js";
import { table } from "../lib/ui.js";
import { words } from "../strings.js";

const w = words.import;

/** The first rows under their columns, with a choice for each of what it becomes. */
export function columnsTable(source, type, targets, choose) {
  const choices = [
    ...(canBeBoth(type) ? [[BOTH, w.both]] : []),
    ...fieldsOf(type).map((name) => [name, name]),
    ...(type.attributes ? [[ATTRIBUTE, w.attribute]] : []),
    [IGNORED, w.ignored],
  ];
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${w.columns}>
    <table class="columns">
      <caption class="visually-hidden">${w.columns}</caption>
      <thead>
        <tr>${source.header.map((name, i) => html`<th scope="col" class=${targets[i] === IGNORED ? "mute" : ""}>
          <span>${name}</span>
          <select aria-label=${w.becomes(name)} @change=${(event) => choose(i, event.target.value)}>
            ${choices.map(([value, text]) => html`<option value=${value} .selected=${value === targets[i]}>${text}</option>`)}
          </select></th>`)}</tr>
      </thead>
      <tbody>
        ${source.rows.map((row) => html`<tr>${source.header.map((_, i) => html`<td class=${targets[i] === IGNORED ? "mute" : ""}>${row[i] ?? ""}</td>`)}</tr>`)}
      </tbody>
    </table>
  </div>`;
}

export function itemsTable(items) {
  const names = [...new Set(items.flatMap((item) => Object.keys(item)))];
  const text = (value) => (value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));
  return table(w.firstItems, names.map((name) => ({ name, cell: (item) => text(item[name]) })), items);
}

/** What a check found: `job` is that of the dry run. */
export function outcome(job) {
  const { failed, retry, total } = job.summary;
  const results = Object.entries({ ...job.results, failed, retry }).filter(([, n]) => n);
  return html`<h2>${w.found}</h2>
    ${job.error ? html`<p class="alert" role="alert">${job.error.detail}</p>` : nothing}
    <p>${failed ? w.someFail(count(failed), count(total)) : w.nothingFails}
      ${failed ? html`<a href=${`/console/jobs/${job.job_id}`}>${w.every}</a>` : nothing}</p>
    ${table(w.found, RESULTS, results)}
    ${job.failures.length ? html`<h3>${words.job.failures}</h3>${table(words.job.causes, CAUSES, job.failures)}` : nothing}`;
}

const RESULTS = [
  { name: w.result, cell: ([name]) => w.results[name] || name },
  { name: w.count, cell: ([, n]) => count(n), right: true },
];

const CAUSES = [
  { name: words.job.code, cell: (each) => html`<code>${each.code}</code>` },
  { name: w.count, cell: (each) => count(each.count), right: true },
];

/** The backlog of a tenant over the last minutes: two charts, and a table of the same numbers. */

import { html, nothing } from "../vendor/lit-html.js";
import { get } from "./api.js";
import { Chart } from "./chart.js";
import { count, duration } from "./format.js";
import { parse, sum } from "./metrics.js";
import { table } from "./ui.js";
import { words } from "../strings.js";

const w = words.health;
const OPEN = [["pending", "--accent"], ["retry", "--warn"], ["unknown", "--bad"]];
const GAUGES = {
  ...Object.fromEntries(OPEN.map(([state]) => [state, (m) => m.tranche_effects_open?.[state] ?? 0])),
  due: (m) => m.tranche_deliveries_due?.[""] ?? 0,
  oldest: (m) => m.tranche_delivery_oldest_seconds?.[""] ?? 0,
  jobs: (m) => sum(m.tranche_jobs_unfinished),
  dead: (m) => sum(m.tranche_dead_letters_open),
};

export class Backlog {
  constructor() {
    this.items = new Chart(OPEN.map(([state, colour]) => ({ label: w.open[state], colour })));
    this.age = new Chart([{ label: w.oldest, colour: "--accent" }]);
    this.seen = null;
    this.drawn = false;
  }

  /** Measure once. Throws `Problem`. */
  async sample(signal) {
    const metrics = parse(await get("/metrics", { signal, accept: "text/plain" }));
    const now = Object.fromEntries(Object.entries(GAUGES).map(([name, read]) => [name, read(metrics)]));
    const at = Date.now() / 1000;
    this.items.add(at, OPEN.map(([state]) => now[state]));
    this.age.add(at, [now.oldest]);
    this.seen = Object.entries(now).map(([name, value]) => {
      const before = this.seen?.find((each) => each.name === name);
      return { name, now: value, least: Math.min(value, before?.least ?? value), most: Math.max(value, before?.most ?? value) };
    });
  }

  /** Draw what `render` has made room for. */
  show() {
    const places = document.querySelectorAll(".chart");
    if (this.drawn || places.length < 2) return;
    this.drawn = true;
    this.items.draw(places[0]);
    this.age.draw(places[1]);
  }

  render() {
    if (!this.seen) return nothing;
    return html`<section>
      <h2>${w.backlog}</h2>
      <p class="mute">${w.backlogText}</p>
      <div class="charts">
        <figure>
          <div class="chart" role="img" aria-label=${w.chartOf(OPEN.map(([state]) => w.open[state]).join(", "))}></div>
          <figcaption>${OPEN.map(([state], i) => html`<span class="part"><svg class="key key-${state}" viewBox="0 0 24 4" aria-hidden="true"><line x1="0" y1="2" x2="24" y2="2" stroke-dasharray=${["", "6 4", "2 3"][i]}></line></svg> ${w.open[state]}</span>`)}</figcaption>
        </figure>
        <figure>
          <div class="chart" role="img" aria-label=${w.chartOf(w.oldest)}></div>
          <figcaption>${w.oldest}</figcaption>
        </figure>
      </div>
      ${table(w.numbers, COLUMNS, this.seen)}
    </section>`;
  }

  end() {
    this.items.end();
    this.age.end();
  }
}

const cell = (which) => (each) => (each.name === "oldest" ? duration(each[which]) : count(each[which]));
const COLUMNS = [
  { name: w.gauge.name, cell: (each) => w.gauges[each.name] },
  { name: w.gauge.now, cell: cell("now"), right: true },
  { name: w.gauge.least, cell: cell("least"), right: true },
  { name: w.gauge.most, cell: cell("most"), right: true },
];

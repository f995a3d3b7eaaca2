/** A chart of the last minutes, drawn by uPlot, which is loaded when there is something to draw. */

const MINUTES = 10;
const HEIGHT = 180;
const LEAST = 60;
const moments = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DASHES = [[], [6, 4], [2, 3]];

let drawing;

function load() {
  drawing ??= (async () => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = "/console/vendor/uPlot.min.css";
    document.head.append(sheet);
    return (await import("../vendor/uPlot.esm.js")).default;
  })();
  return drawing;
}

export class Chart {
  /** `series`: `{label, colour}`, where the colour is a custom property of the page, such as `--accent`. */
  constructor(series) {
    this.series = series;
    this.data = [[], ...series.map(() => [])];
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.element && this.draw(this.element);
    addEventListener("resize", this.redraw);
    this.scheme.addEventListener("change", this.redraw);
  }

  /** Add what was measured at `time` (seconds since 1970), a number for each series. */
  add(time, values) {
    [time, ...values].forEach((value, i) => this.data[i].push(value));
    while (this.data[0][0] < time - MINUTES * 60) this.data.forEach((column) => column.shift());
    this.plot?.setData(this.data);
  }

  /** Show it in `element`, from now on. */
  async draw(element) {
    this.element = element;
    const Plot = await load();
    if (this.ended || !element.isConnected) return;
    const colour = (name) => resolve(element, name);
    const axis = { stroke: colour("--mute"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const times = { ...axis, space: 90, values: (_, splits) => splits.map((at) => moments.format(at * 1000)) };
    this.plot?.destroy();
    this.plot = new Plot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { range: () => this.window() },
          y: { range: (_, __, most) => [0, Math.max(most || 0, 1) * 1.1] },
        },
        axes: [times, { ...axis, size: 60 }],
        series: [{}, ...this.series.map((each, i) => ({ label: each.label, stroke: colour(each.colour), width: 2, dash: DASHES[i], points: { show: false } }))],
      },
      this.data,
      element,
    );
  }

  /** From the first measurement to the last, in seconds since 1970; a minute at the least. */
  window() {
    const last = this.data[0].at(-1) ?? Date.now() / 1000;
    return [Math.min(this.data[0][0] ?? last, last - LEAST), last];
  }

  end() {
    this.ended = true;
    this.plot?.destroy();
    removeEventListener("resize", this.redraw);
    this.scheme.removeEventListener("change", this.redraw);
  }
}

/** A colour of the page as a canvas takes it: light or dark is decided. */
function resolve(element, name) {
  element.style.color = `var(${name})`;
  const found = getComputedStyle(element).color;
  element.style.color = "";
  return found;
}

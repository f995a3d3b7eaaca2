/** The text format of Prometheus, as `GET /metrics` answers in. */

const LINE = /^([a-z_]+)(?:\{(?:\w+="([^"]*)")?\})? (\S+)$/;

/** Gauges by name, each with its values by label (`""` where it has none). */
export function parse(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const [, name, label = "", value] = LINE.exec(line) || [];
    if (name) (found[name] ??= {})[label] = Number(value);
  }
  return found;
}

export const sum = (values = {}) => Object.values(values).reduce((total, value) => total + value, 0);

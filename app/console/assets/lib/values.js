/** Values of records as text, and how two versions of one differ. */

/** A value as a cell shows it: text as it is, nothing as a dash, the rest as JSON. */
export const shown = (value) =>
  value === null || value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);

/** `[name, value]` of every field that has a value, attributes as `attributes.NAME`. */
export function fieldsOf(document) {
  const { attributes, ...fields } = document || {};
  const named = Object.entries(attributes || {}).map(([name, value]) => [`attributes.${name}`, value]);
  return [...Object.entries(fields), ...named].filter(([, value]) => value !== null && value !== undefined);
}

/** `{name, before, after}` of every field that differs. */
export function differences(before, after) {
  const old = new Map(fieldsOf(before));
  const young = new Map(fieldsOf(after));
  return [...new Set([...old.keys(), ...young.keys()])]
    .map((name) => ({ name, before: old.get(name), after: young.get(name) }))
    .filter((each) => JSON.stringify(each.before) !== JSON.stringify(each.after));
}

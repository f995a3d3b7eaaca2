/** What is decided about dead letters: each decision says first what it covers, and afterwards what became of it. */

import { html } from "../../vendor/lit-html.js";
import { get, newKey, post, query as asQuery } from "../../lib/api.js";
import { ask } from "../../lib/ask.js";
import { count } from "../../lib/format.js";
import { confirm } from "../../lib/ui.js";
import { words } from "../../strings.js";

const w = words.deadLetters;
const once = () => ({ headers: { "Idempotency-Key": newKey() } });

/** `selected`: `{ids}` or `{filter}`. `after` is called once something was decided. */
export function decisions({ act, after }) {
  async function replay(selected) {
    let preview;
    if (!(await act(async () => (preview = await post("/v1/dead-letters/replay", { ...selected, preview: true }))))) return;
    if (!preview.would_take) return act(async () => preview, () => [w.nothing, ...preview.skipped.map(left)].join(" "));
    const undo = preview.clusters.some((each) => each.kind === "undo");
    const taken = Math.min(preview.would_take, preview.most);
    const lines = [
      undo ? w.confirmRestore(count(taken)) : w.confirmReplay(count(taken)),
      ...preview.clusters.map(covered),
      ...preview.skipped.map(left),
      ...(preview.would_take > preview.most ? [w.partly(count(preview.would_take - preview.most))] : []),
    ];
    if (!(await confirm(lines.join("\n"), w.replay))) return;
    const asked = asShown(selected, preview.clusters);
    if (await act(() => post("/v1/dead-letters/replay", asked, once()), replayed)) after();
  }

  async function drop(selected) {
    let clusters;
    let number = selected.ids?.length;
    if (selected.filter) {
      if (!(await act(async () => (clusters = await get(`/v1/dead-letters/clusters${asQuery(selected.filter)}`))))) return;
      number = clusters.total;
      if (!number) return act(async () => clusters, w.nothing);
    }
    const text = [w.confirmDrop(count(number)), ...(clusters?.clusters ?? []).map(covered)].join("\n");
    const reason = await ask(text, w.reason, w.drop);
    if (reason === null) return;
    const asked = { ...asShown(selected, clusters?.clusters ?? []), reason };
    if (await act(() => post("/v1/dead-letters/drop", asked, once()), (made) => decided(w.dropped, made))) after();
  }

  async function settle(ids) {
    const reason = await ask(w.confirmSettle(count(ids.length)), w.reason, w.settle);
    if (reason === null) return;
    if (await act(() => post("/v1/dead-letters/settle", { ids, reason }, once()), (made) => decided(w.settled, made))) after();
  }

  return { replay, drop, settle };
}

/** A filter that takes no dead letter that came after those that were shown; `created_before` is exclusive. */
function asShown(selected, clusters) {
  if (!selected.filter || selected.filter.created_before || !clusters.length) return selected;
  const newest = Math.max(...clusters.map((each) => Date.parse(each.newest)));
  return { filter: { ...selected.filter, created_before: new Date(newest + 1).toISOString() } };
}

const covered = (each) => w.covered(each.destination ?? w.ofUndos, each.error_code, count(each.count));
const left = (each) => w.left(each.destination ?? w.ofUndos, each.reason, count(each.count));
const decided = (text, made) => [text(count(made.decided)), ...(made.remaining ? [w.remaining(count(made.remaining))] : []), ...made.skipped.map(left)].join(" ");

function replayed(made) {
  if (!made.job_id) return w.nothing;
  const rest = [...(made.remaining ? [w.remaining(count(made.remaining))] : []), ...made.skipped.map(left)];
  return html`${w.replayed(count(made.taken))} <a href=${`/console/jobs/${made.job_id}`}>${w.followJob}</a> ${rest.join(" ")}`;
}

/** What the columns of a file mean: a proposal by their names, and how a request says it. */

/** The columns that a file of failed rows has in addition; the server leaves them out. */
export const NOTES = ["error_code", "error_detail", "retry_after_seconds"];
export const ATTRIBUTE = "attribute";
export const IGNORED = "ignored";
export const BOTH = "id+email";
const PREFIX = "attributes.";
const OF_EVERY_TYPE = ["deleted", "if_version", "source_version"];

/** The form in which names are compared: "First Name", "first-name" and "FIRST_NAME" are one. */
export const fold = (name) => name.replace(/[\s_-]+/g, "").toLowerCase();

/** The words of a header: "E-Mail-Adresse" and "e_mail adresse" are one, and so are "Prénom" and "prenom". */
function spell(name) {
  const plain = name.replaceAll("ß", "ss").replaceAll("ø", "o").normalize("NFKD").replace(/\p{M}/gu, "");
  return (plain.match(/[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+/g) || []).join(" ").toLowerCase();
}

export const fieldsOf = (type) => ["id", ...Object.keys(type.fields), ...OF_EVERY_TYPE];

/** Whether a column can be the id and the e-mail address at once. */
export const canBeBoth = (type) => type.required.join() === "id,email";

export const isReturned = (header) => NOTES.every((name) => header.includes(name));

/** For each column the field that it is proposed for, `ATTRIBUTE` or `IGNORED`. A field is proposed once. */
export function propose(type, header) {
  const byFold = new Map(fieldsOf(type).map((name) => [fold(name), name]));
  const meanings = new Map(Object.entries(type.headers).flatMap(([field, names]) => names.map((name) => [spell(name), field])));
  const returned = isReturned(header);
  const exact = header.map((name) => byFold.get(fold(name)));
  const taken = new Set(exact.filter(Boolean));
  return header.map((name, i) => {
    if (returned && NOTES.includes(name)) return IGNORED;
    if (exact[i]) return exact.indexOf(exact[i]) === i ? exact[i] : ATTRIBUTE;
    const words = spell(name);
    const meant = returned ? undefined : meanings.get(words) || meanings.get(words.replaceAll(" ", ""));
    if (meant && !taken.has(meant)) {
      taken.add(meant);
      return meant;
    }
    return type.attributes ? ATTRIBUTE : IGNORED;
  });
}

/** The type whose fields the header names most, or undefined if it names none. */
export function guessType(types, header) {
  let best;
  let most = 0;
  for (const type of types) {
    const found = propose(type, header).filter((target) => target !== ATTRIBUTE && target !== IGNORED);
    const score = found.length + (type.required.every((name) => found.includes(name)) ? 1 : 0);
    if (score > most) [best, most] = [type, score];
  }
  return best;
}

/** `map` and `ignore` of a request, such that every column means what is shown. */
export function say(type, header, targets) {
  const map = [];
  const ignore = [];
  const returned = isReturned(header);
  const fields = new Set(fieldsOf(type).map(fold));
  const known = new Set(Object.values(type.headers).flat().map(spell));
  header.forEach((name, i) => {
    const target = targets[i];
    if (returned && (NOTES.includes(name) || target === propose(type, header)[i])) return;
    if (target === IGNORED) ignore.push(name);
    else if (target === ATTRIBUTE) {
      if (fields.has(fold(name)) || known.has(spell(name))) map.push(`${name}:${PREFIX}${name.trim()}`);
    } else if (fold(name) !== fold(target)) map.push(`${name}:${target}`);
  });
  return { map, ignore };
}

/** What every record must have and no column fills. */
export function findMissing(type, targets) {
  const filled = new Set(targets.includes(BOTH) ? [...targets, "id", "email"] : targets);
  return filled.has("deleted") ? [] : type.required.filter((name) => !filled.has(name));
}

/** Where a column of a file of failed rows is in its item, as a JSON pointer. */
export function pointerOf(type, name) {
  const escape = (part) => part.replaceAll("~", "~0").replaceAll("/", "~1");
  const field = fieldsOf(type).find((each) => fold(each) === fold(name));
  if (field) return `/${field}`;
  return `/attributes/${escape(name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name)}`;
}

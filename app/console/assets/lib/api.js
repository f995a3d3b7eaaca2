/** Calls of the API as the signed-in page, by the session cookie; nothing is kept that a script could read. */

/** A problem that the API answered with (RFC 9457): its own words are shown. */
export class Problem extends Error {
  constructor(status, body, requestId) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.body = body;
    this.code = body.code || "";
    this.errors = body.errors || [];
    this.requestId = body.request_id || requestId || "";
  }
}

/** Whether it is only that a newer view took over. */
export const isAborted = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * One request. `body`: an object (sent as JSON), or a Blob or text that is sent as it is with `type`.
 * Returns `{status, headers, body}`, with the body as JSON where it is JSON, else as text. Throws `Problem`.
 */
export async function call(method, path, { body, type, headers = {}, signal, accept = "application/json" } = {}) {
  const sent = { Accept: accept, ...headers };
  if (method !== "GET") sent["Tranche-Console"] = "1";
  let content;
  if (body !== undefined) {
    sent["Content-Type"] = type || "application/json";
    content = type ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, { method, headers: sent, body: content, signal, credentials: "same-origin" });
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new Problem(0, { detail: "The server cannot be reached; what was shown may be out of date." });
  }
  const answered = response.headers.get("Content-Type") || "";
  const text = await response.text();
  const read = answered.includes("json") && !answered.includes("x-ndjson") && text ? JSON.parse(text) : text;
  if (!response.ok) {
    const problem = typeof read === "object" && read !== null ? read : {};
    if (response.status === 401) window.dispatchEvent(new CustomEvent("signed-out"));
    throw new Problem(response.status, problem, response.headers.get("X-Request-ID"));
  }
  return { status: response.status, headers: response.headers, body: read };
}

export const get = async (path, options) => (await call("GET", path, options)).body;
export const post = async (path, body, options) => (await call("POST", path, { body, ...options })).body;
export const patch = async (path, body) => (await call("PATCH", path, { body })).body;
export const remove = async (path) => (await call("DELETE", path)).body;

/** A path with encoded parts: path`/v1/jobs/${id}`. */
export const path = (parts, ...values) =>
  parts.reduce((made, part, i) => made + part + (i < values.length ? encodeURIComponent(values[i]) : ""), "");

/** A query string of what is given; empty values are left out. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const newKey = () => crypto.randomUUID();

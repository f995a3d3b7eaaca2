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
    throw unreachable();
  }
  const answered = read(response.headers.get("Content-Type") || "", await response.text());
  return check({ status: response.status, headers: response.headers, body: answered });
}

/**
 * Send a file, whose progress `fetch` does not tell: `progress(sent, whole)` is called on the way.
 * Returns and throws what `call` does.
 */
export function upload(path, file, { type, headers = {}, progress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    const sent = { Accept: "application/json", "Content-Type": type, "Tranche-Console": "1", ...headers };
    for (const [name, value] of Object.entries(sent)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => progress?.(event.loaded, event.total));
    request.addEventListener("load", () => {
      try {
        const body = read(request.getResponseHeader("Content-Type") || "", request.responseText);
        const answer = { status: request.status, headers: { get: (name) => request.getResponseHeader(name) }, body };
        resolve(check(answer));
      } catch (error) {
        reject(error);
      }
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("It was stopped.", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

const read = (type, text) => (type.includes("json") && !type.includes("x-ndjson") && text ? JSON.parse(text) : text);

const unreachable = () => new Problem(0, { detail: "The server cannot be reached; what was shown may be out of date." });

function check(answer) {
  if (answer.status >= 200 && answer.status < 300) return answer;
  const problem = typeof answer.body === "object" && answer.body !== null ? answer.body : {};
  if (answer.status === 401) window.dispatchEvent(new CustomEvent("signed-out"));
  throw new Problem(answer.status, problem, answer.headers.get("X-Request-ID"));
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

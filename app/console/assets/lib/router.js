/** Which view an address is for: every view has one, so that it can be linked to, opened again and gone back to. */

const BASE = "/console";

export class Router {
  /** `routes`: pairs of a pattern, such as `/jobs/:id`, and what it leads to. */
  constructor(routes, changed) {
    this.routes = routes.map(([pattern, target]) => [compile(pattern), target]);
    this.changed = changed;
    addEventListener("popstate", () => this.changed());
    document.addEventListener("click", (event) => this.follow(event));
  }

  /** `{target, params, query}` of the present address; `target` is undefined where there is no such view. */
  find() {
    const at = location.pathname.slice(BASE.length).replace(/\/+$/, "") || "/";
    const query = Object.fromEntries(new URLSearchParams(location.search));
    for (const [pattern, target] of this.routes) {
      const found = pattern.exec(at);
      if (found) {
        const params = Object.fromEntries(Object.entries(found.groups || {}).map(([k, v]) => [k, decodeURIComponent(v)]));
        return { target, params, query };
      }
    }
    return { target: undefined, params: {}, query };
  }

  go(to, { replace = false } = {}) {
    history[replace ? "replaceState" : "pushState"](null, "", to);
    this.changed();
  }

  follow(event) {
    const link = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!link || !plain || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (link.pathname !== BASE && !link.pathname.startsWith(`${BASE}/`)) return;
    if (link.hash && link.pathname === location.pathname) return;
    event.preventDefault();
    this.go(link.href);
  }
}

function compile(pattern) {
  return new RegExp(`^${pattern.replace(/:(\w+)/g, "(?<$1>[^/]+)")}$`);
}

/** Ask before something is left that would be lost. */

import { confirm } from "./ui.js";

/**
 * While `lost()` returns a text, closing the page warns, and a link within the console asks with that text; the
 * button then says `label`. Returns a function that ends it.
 */
export function guard(lost, label, go) {
  const closing = (event) => {
    if (lost()) event.preventDefault();
  };
  const following = async (event) => {
    const link = event.target.closest?.("a[href]");
    const elsewhere = !link || link.origin !== location.origin || link.target || link.hasAttribute("download");
    if (elsewhere || link.pathname === location.pathname || !lost()) return;
    event.preventDefault();
    event.stopPropagation();
    if (await confirm(lost(), label)) go(link.href);
  };
  addEventListener("beforeunload", closing);
  document.addEventListener("click", following, { capture: true });
  return () => {
    removeEventListener("beforeunload", closing);
    document.removeEventListener("click", following, { capture: true });
  };
}

// Keeps the page as the store is, while the page is visible. The server says that something has changed; then the page
// is fetched again, and its live parts are put in the place of the old ones. Without this script all links and forms work.
"use strict";
(() => {
  const status = document.getElementById("status");
  if (!status) return; // a page that stays as it is
  const parts = [...document.querySelectorAll("[data-live]")];
  let asOf = status.textContent;

  function say(live) {
    const text = live ? "Live" : "Not live. " + asOf;
    status.classList.toggle("on", live);
    if (status.textContent !== text) status.textContent = text; // a screen reader would read it again and again
  }

  // What was done is said once.
  const here = new URL(location.href);
  if (here.searchParams.has("said")) {
    here.searchParams.delete("said");
    history.replaceState(null, "", here.search || "?");
  }

  function replace(part, next) {
    if (part.innerHTML === next.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : null;
    const known = new Set([...part.querySelectorAll("[data-session]")].map((row) => row.dataset.session));
    part.replaceChildren(...next.childNodes);
    for (const row of part.querySelectorAll("[data-session]")) row.classList.toggle("new", !known.has(row.dataset.session));
    if (focused !== null) (document.getElementById(focused) || part).focus({ preventScroll: true });
  }

  // Nothing moves under a pointer that is about to click: it would hit another session.
  let pressed = false, held = false;
  const aimed = (part) => pressed || part.querySelector("a:hover, button:hover");
  const move = () => { if (held && !parts.some(aimed)) refresh(); };
  addEventListener("pointerdown", () => { pressed = true; }, true);
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => { pressed = false; setTimeout(move); }, true);
  addEventListener("pointermove", move);

  let busy = false, again = false;
  async function refresh() {
    again = true;
    held = false;
    if (busy) return;
    for (busy = true; again;) {
      again = false;
      try {
        const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
        if (!answer.ok) throw answer.status;
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of parts) {
          if (part.id === "notices" && part.querySelector(".good")) continue; // it is said once
          if (aimed(part)) held = true;
          else replace(part, next.getElementById(part.id));
        }
        asOf = next.getElementById("status").textContent;
        say(true);
      } catch {
        say(false); // the server is away, or the visitor may not look any more
      }
    }
    busy = false;
  }

  let source = null, retry = 0, errors = 0;
  function close() {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  }
  function open() {
    if (source || document.hidden) return;
    clearTimeout(retry);
    source = new EventSource("?stream=1");
    source.onmessage = () => { errors = 0; refresh(); };
    source.onerror = () => { // the browser asks again, unless it was refused; the first error is how each stream ends
      const refused = source.readyState === EventSource.CLOSED;
      if (++errors > 1 || refused) say(false);
      if (!refused) return;
      close();
      retry = setTimeout(open, 10000);
    };
  }
  document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
  addEventListener("pagehide", close);
  addEventListener("pageshow", open); // also the first time
})();

// Keeps the page as the store is, while the page is visible. The server says that something has changed; then the page
// is fetched again, and its live parts are put in the place of the old ones. Without this script all links and forms work.
"use strict";
(() => {
  const status = document.getElementById("status");
  const parts = () => document.querySelectorAll("[data-live]");
  if (!window.EventSource || !status || parts().length === 0) return;

  const say = (text) => {
    if (status.dataset.said === text) return; // a screen reader would read it again and again
    status.dataset.said = text;
    status.textContent = text;
  };

  // What was done is said once.
  const here = new URL(location.href);
  if (here.searchParams.has("said")) {
    here.searchParams.delete("said");
    history.replaceState(null, "", here.search || "?");
  }

  function replace(part, next) {
    if (!next || part.innerHTML === next.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : null;
    const known = new Set([...part.querySelectorAll("[data-session]")].map((row) => row.dataset.session));
    part.replaceChildren(...[...next.childNodes].map((node) => document.importNode(node, true)));
    for (const row of part.querySelectorAll("[data-session]")) {
      if (!known.has(row.dataset.session)) row.classList.add("new");
    }
    if (focused !== null) (document.getElementById(focused) || part).focus({ preventScroll: true });
  }

  // Nothing moves under a pointer that is about to click: it would hit another session.
  let pressed = false, held = false;
  const aimed = (part) => pressed || part.querySelector("a:hover, button:hover") !== null;
  const move = () => {
    if (!held || [...parts()].some(aimed)) return;
    held = false;
    refresh();
  };
  addEventListener("pointerdown", () => { pressed = true; }, true);
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => { pressed = false; setTimeout(move); }, true);
  addEventListener("pointermove", move);

  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      if (!answer.ok) throw new Error("status " + answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts()) {
        if (part.id === "notices" && part.querySelector(".good")) continue; // it is said once
        if (aimed(part)) held = true;
        else replace(part, next.getElementById(part.id));
      }
      say("Live");
      status.classList.add("on");
    } catch {
      lost();
    }
    busy = false;
    if (again) { again = false; refresh(); }
  }

  function lost() {
    status.classList.remove("on");
    say("Not live: the server does not answer");
  }

  let source = null, retry = 0;
  function open() {
    clearTimeout(retry);
    if (source || document.hidden) return;
    source = new EventSource("?stream=1");
    source.onmessage = refresh;
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) { // it was refused, and the browser does not ask again
        close();
        lost();
        retry = setTimeout(open, 10000);
      }
    };
  }
  function close() {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  }
  document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
})();

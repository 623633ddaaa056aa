// Keeps the page as the server has it, while it is visible. The server says that the session has changed; then the page is
// fetched again, and its parts with data-live are put in the place of the old ones. Without this script all links and
// forms work, and "Look again" shows what has changed.
"use strict";
(() => {
  const { page, stream } = document.currentScript.dataset;
  const frames = [...document.querySelectorAll("iframe")]; // of the page with two sites in it
  const inFrame = parent !== window;
  // What a part depends on: the value of its data-live, so that what somebody types there stays, or else its whole content.
  const version = (part) => part.dataset.live || part.innerHTML;
  const known = new Map(); // the versions of the parts, as the server sent them
  for (const part of document.querySelectorAll("[data-live]")) known.set(part.id, version(part));

  const say = (text) => {
    const status = document.getElementById("live");
    if (status && status.textContent !== text) status.textContent = text; // or a screen reader would repeat it
  };
  const state = () => document.querySelector("[data-state]")?.dataset.state;
  const members = () => new Map([...document.querySelectorAll("[data-member]")].map((m) => [m.dataset.member, m.textContent]));

  let away = false, busy = false, again = false;
  async function refresh() {
    again = true;
    if (busy) return;
    for (busy = true; again;) {
      again = false;
      try {
        // The header tells the server that nobody has clicked: this look does not prolong the session.
        const answer = await fetch(page, { cache: "no-store", headers: { "X-Requested-With": "live.js" } });
        if (!answer.ok) throw answer.status;
        if (show(new DOMParser().parseFromString(await answer.text(), "text/html"))) tell();
      } catch {
        say("Not live. Is the server away?");
      }
    }
    busy = false;
  }

  // These two change with each visit, and do not count as a change.
  const quiet = new Set(['"cookie"', '"__lastAccess"']);
  const marked = new Map(); // when a member was changed

  // show puts what is new into the page, and reports whether there is news in the session.
  function show(next) {
    const before = members(), was = state();
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = next.getElementById(part.id);
      if (!now || known.get(part.id) === version(now)) continue;
      known.set(part.id, version(now));
      const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
      part.replaceChildren(...now.childNodes);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
    const news = [], now = Date.now();
    for (const m of document.querySelectorAll("[data-member]")) {
      const name = m.dataset.member;
      if (before.size > 0 && before.get(name) !== m.textContent) {
        marked.set(name, now);
        if (!quiet.has(name)) news.push(JSON.parse(name));
      }
      m.classList.toggle("changed", now - (marked.get(name) ?? 0) < 3000);
    }
    if (state() !== "stored") say("Not live: there is no session.");
    else if (news.length > 0) say("Live. Changed just now: " + news.join(", ") + ".");
    else if (away) say("Live again.");
    else if (was !== "stored" || !document.getElementById("live")?.textContent.startsWith("Live")) say("Live.");
    away = false;
    if (state() === "stored") open();
    return news.length > 0 || was !== state() || before.size !== members().size;
  }

  // tell lets the other parts of the page with two sites look too. The message says nothing but that, so that it may go to
  // whoever frames this page, and nobody has to trust whoever sends it.
  function tell() {
    if (inFrame) parent.postMessage("look", "*");
    for (const frame of frames) frame.contentWindow.postMessage("look", "*");
  }

  let source = null, retry = 0;
  function close() {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  }
  function open() {
    if (!stream || source || document.hidden) return;
    clearTimeout(retry);
    source = new EventSource(stream);
    source.onmessage = refresh;
    source.addEventListener("end", () => {
      close();
      refresh();
      setTimeout(refresh, 1000); // the cookie of a login in another tab may come a moment later
    });
    source.onerror = () => {
      away = true;
      say("The server is away. This page comes back by itself.");
      if (source.readyState !== EventSource.CLOSED) return; // the browser asks again
      close();
      if (state() === "stored") retry = setTimeout(() => { refresh(); open(); }, 2000);
      else say("Not live: there is no session.");
    };
  }

  // A form with data-stay is sent without leaving the page, so that what changes can be marked.
  addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("[data-stay]")) return;
    event.preventDefault();
    try {
      // The redirect is not followed: the page that it leads to may have a message, and would not be seen.
      await fetch(form.action, { method: "POST", redirect: "manual", body: new URLSearchParams(new FormData(form)) });
    } catch {
      say("Not sent. Is the server away?");
    }
    refresh();
    tell();
  });

  addEventListener("message", (event) => {
    if (event.data !== "look") return;
    refresh();
    for (const f of frames) if (f.contentWindow !== event.source) f.contentWindow.postMessage("look", "*");
  });
  addEventListener("click", (event) => {
    if (event.target.id !== "again") return;
    event.preventDefault();
    refresh();
    tell();
  });
  const visible = () => {
    if (document.hidden) return close();
    refresh(); // somebody may have logged in in another tab
    open();
  };
  document.addEventListener("visibilitychange", visible);
  addEventListener("pagehide", close);
  addEventListener("pageshow", () => { // also the first time
    if (state() === "stored") open();
    if (inFrame) tell(); // it may be here after a login
  });
})();

// Keeps a page up to date. The server renders; this script replaces what changed.
// It is optional: every page and form works without it.
"use strict";

(() => {
  const SOONEST = 500; // minimum milliseconds between two fetches ...
  const PATIENCE = 5; // ... and the minimum as a multiple of the last fetch
  const LONGEST_WAIT = 15000; // milliseconds between two attempts to connect
  const FAILED_WAIT = 3000; // milliseconds until the page is fetched again after a failure
  const REASONS = { too_slow: "this page was too slow", stopping: "the service is stopping", log_failed: "the log cannot be read", revoked: "your token was revoked" };

  const page = document.body;
  const live = "after" in page.dataset;
  const connection = document.getElementById("connection");
  const dialog = document.getElementById("dialog");
  const time = document.getElementById("time");
  const shown = new Map(); // by id: the last content from the server
  let after = Number(page.dataset.after ?? 0);
  const result = document.querySelector("[data-reload]"); // the page after a form was sent

  const parse = (text) => new DOMParser().parseFromString(text, "text/html");
  const clock = (date) => date.toLocaleTimeString([], { hour12: false });
  const liveOf = (root) => [...root.querySelectorAll("[data-live][id]")];
  const typing = (element) => element?.matches?.("input:not([type=range], [type=checkbox]), textarea, select");

  document.documentElement.classList.add("scripted");
  for (const element of document.querySelectorAll("[data-with-script]")) element.hidden = false;
  for (const element of liveOf(document)) shown.set(element.id, element.innerHTML);

  // Fetching the page

  let timer = 0, failing = 0, readyAt = 0;
  let fetching = null, wanted = false, fetchedAt = new Date();

  function soon() {
    wanted = true;
    if (timer || fetching || document.hidden) return;
    const wait = Math.max(readyAt - performance.now(), 40);
    timer = setTimeout(() => { timer = 0; refresh(); }, wait);
  }

  // Resolves to the current page; to null if the service does not answer.
  function refresh() {
    wanted = false;
    const began = performance.now();
    fetching ??= fetched().catch(() => null).then(noted).finally(() => {
      readyAt = performance.now() + Math.max(SOONEST, PATIENCE * (performance.now() - began));
      fetching = null;
      if (wanted) soon();
    });
    return fetching;
  }

  // The stream stays open while the service cannot read the log.
  function noted(fresh) {
    clearTimeout(failing);
    if (fresh) fetchedAt = new Date();
    if (fresh && source?.readyState === EventSource.OPEN) say("live", "live");
    else if (!fresh && source) {
      say("lost", `not up to date since ${clock(fetchedAt)}, trying again`);
      failing = setTimeout(soon, FAILED_WAIT);
    }
    return fresh;
  }

  async function fetched() {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") location.assign(answer.url);
    else if (answer.redirected && !edited(document.getElementById("main"))) location.replace(answer.url);
    if (answer.status >= 500) return null;
    const fresh = parse(await answer.text());
    if (answer.ok || answer.status === 404) swap(fresh);
    return fresh;
  }

  function swap(fresh) {
    if (result) return;
    const main = document.getElementById("main");
    const next = fresh.getElementById("main");
    const ids = (root) => liveOf(root).map((element) => element.id).join(" ");
    if (next && ids(next) !== ids(main) && !edited(main)) {
      put(main, next);
      for (const element of liveOf(main)) shown.set(element.id, element.innerHTML);
    }
    for (const old of liveOf(document)) {
      const now = fresh.getElementById(old.id);
      if (!now || shown.get(old.id) === now.innerHTML || edited(old)) continue;
      shown.set(old.id, now.innerHTML);
      put(old, now);
    }
    moveBar(fresh);
  }

  // The element itself stays, so that screen readers announce its changes.
  function put(old, next) {
    const focused = old.contains(document.activeElement) ? keyOf(document.activeElement) : "";
    for (const details of old.querySelectorAll("details[id]")) {
      const same = next.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = details.open;
    }
    for (const picked of old.querySelectorAll("[data-pick]:checked")) {
      const same = next.querySelector(`[data-pick][value="${CSS.escape(picked.value)}"]`);
      if (same) same.toggleAttribute("checked", true);
    }
    old.className = next.className;
    old.replaceChildren(...document.importNode(next, true).childNodes);
    if (focused) old.querySelector(focused)?.focus({ preventScroll: true });
  }

  function keyOf(element) {
    if (element.id) return `#${CSS.escape(element.id)}`;
    if (element.matches("summary")) return `${keyOf(element.parentElement)} > summary`;
    const link = element.getAttribute("href");
    return link ? `a[href="${CSS.escape(link)}"]` : "";
  }

  function edited(element) {
    if (element.contains(document.activeElement) && typing(document.activeElement)) return true;
    const fields = element.querySelectorAll("input:not([data-pick], [data-pick-all]), textarea, select");
    return [...fields].some((field) => {
      if (field.options) return [...field.options].some((one) => one.selected && !one.defaultSelected && one.value);
      return field.checked !== field.defaultChecked || (field.type !== "hidden" && field.value !== field.defaultValue);
    });
  }

  // The stream

  let source = null;
  let attempts = 0;
  let lostAt = null;
  let retry = 0;
  let settling = 0;

  function say(state, words) {
    if (!connection || connection.textContent === words) return;
    connection.dataset.state = state;
    connection.textContent = words;
  }

  function connect() {
    source?.close();
    source = new EventSource(`/v1/events/stream?after=${after}`);
    source.addEventListener("open", () => {
      attempts = 0;
      lostAt = null;
      say("live", "live");
    });
    source.addEventListener("recorded", (message) => {
      after = Number(message.lastEventId) || after;
      announce(message.data);
      soon();
      clearTimeout(settling);
      settling = setTimeout(soon, 1500); // an operation ends just after its last event
    });
    source.addEventListener("progress", soon);
    source.addEventListener("goodbye", (message) => {
      const { reason } = JSON.parse(message.data);
      lost("stopped", `disconnected: ${REASONS[reason] ?? reason}`);
    });
    source.addEventListener("error", () => lost());
  }

  function lost(state = "lost", words = "") {
    source?.close();
    source = null;
    lostAt ??= new Date();
    say(state, words || `disconnected since ${clock(lostAt)}, trying again`);
    clearTimeout(retry);
    if (document.hidden) return;
    retry = setTimeout(again, Math.min(400 * 2 ** attempts, LONGEST_WAIT) * (0.8 + Math.random() / 2));
    attempts += 1;
  }

  // Fetch the page first: it has the newest position, and shows if the service answers.
  async function again() {
    const fresh = await refresh();
    if (!fresh) { lost(); return; }
    if (fresh.body?.dataset.after) after = Number(fresh.body.dataset.after);
    connect();
  }

  let announcedAt = 0;
  function announce(data) {
    if (Date.now() - announcedAt < 2000) return;
    const event = JSON.parse(data);
    if (/Progressed$/.test(event.type)) return;
    announcedAt = Date.now();
    const words = document.getElementById("announced");
    if (words) words.textContent = `${event.model ?? event.stream}: ${event.sentence}`;
  }

  if (live) {
    connect();
    setInterval(soon, 30000);
    addEventListener("pagehide", () => source?.close());
    addEventListener("pageshow", (event) => { if (event.persisted) again(); });
    document.addEventListener("visibilitychange", () => {
      clearTimeout(retry);
      if (document.hidden) { source?.close(); source = null; } else again();
    });
  }

  // The reader's time zone: the server formats times in it

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const cookie = `zone=${encodeURIComponent(zone)}`;
  const known = () => document.cookie.split("; ").includes(cookie);
  if (zone && !known()) {
    document.cookie = `${cookie}; path=/; max-age=31536000; samesite=lax`;
    if (known()) location.reload();
  }

  // The time bar

  const range = time?.elements.time;
  const output = document.getElementById("time-shown");
  let samples = time ? JSON.parse(time.dataset.samples) : []; // [position, milliseconds]
  let moving = 0;
  let stepped = null; // the event that keys have led to

  function moveBar(fresh) {
    const next = fresh.getElementById("time");
    if (!range || !next || !live || moving || document.activeElement === range) return;
    samples = JSON.parse(next.dataset.samples);
    Object.assign(time.dataset, next.dataset);
    const { disabled, min, max, value } = next.elements.time;
    Object.assign(range, { disabled, min, max, value });
    output.textContent = fresh.getElementById("time-shown").textContent;
    const steps = (root) => root.querySelectorAll("#time .step");
    steps(fresh).forEach((link, index) => steps(document)[index]?.setAttribute("href", link.getAttribute("href")));
  }

  // A value between two samples, of which one column is known and the other wanted.
  function between(value, known, wanted) {
    const next = samples.findIndex((sample) => sample[known] > value);
    if (next === 0) return null;
    const one = samples.at(next < 0 ? -1 : next - 1);
    const other = next < 0 ? one : samples[next];
    const share = other === one ? 0 : (value - one[known]) / (other[known] - one[known]);
    return Math.round(one[wanted] + (other[wanted] - one[wanted]) * share);
  }

  function preview() {
    const at = Number(range.value);
    if (at >= Number(range.max)) { output.textContent = "now"; return; }
    const when = new Date(at).toLocaleString([], { hour12: false });
    const near = between(at, 1, 0);
    output.textContent = near ? `as of ${when} · about event ${near.toLocaleString("en")}` : "before the first event";
  }

  function travel() {
    const at = Number(range.value);
    let there = new Date(at).toISOString();
    if (stepped !== null) there = stepped >= Number(time.dataset.head) ? "" : stepped;
    else if (at >= Number(range.max)) there = "";
    else if (at <= Number(range.min)) there = "0";
    const link = new URL(time.action);
    for (const [name, value] of new FormData(time)) {
      if (name !== "time") link.searchParams.append(name, value);
    }
    if (there !== "") link.searchParams.append("as_of", there);
    sessionStorage.setItem("travelled", document.activeElement === range ? "1" : "");
    location.assign(link);
  }

  // Events may be close together in time: the arrow keys go from one to the next.
  function step(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const head = Number(time.dataset.head);
    stepped = Math.min(Math.max((stepped ?? Number(time.dataset.position)) + by, 0), head);
    range.value = stepped === head ? range.max : between(stepped, 0, 1) ?? range.min;
    output.textContent = stepped === head ? "now" : `as of event #${stepped}`;
    clearTimeout(moving);
    moving = setTimeout(travel, 350);
  }

  if (range) {
    range.addEventListener("keydown", step);
    range.addEventListener("input", () => { moving = 1; stepped = null; preview(); });
    range.addEventListener("change", () => { clearTimeout(moving); moving = setTimeout(travel, 350); });
    if (sessionStorage.getItem("travelled")) range.focus({ preventScroll: true });
    sessionStorage.removeItem("travelled");
  }

  // Confirmations in a dialog, with the same page and the same form

  async function ask(link) {
    dialog.replaceChildren(Object.assign(document.createElement("main"), { textContent: "Loading …" }));
    dialog.showModal();
    try {
      const answer = await fetch(link, { headers: { accept: "text/html" } });
      const main = parse(await answer.text()).querySelector("main");
      if (!main || new URL(answer.url).pathname === "/login") throw new Error("no page");
      main.removeAttribute("id");
      dialog.replaceChildren(document.importNode(main, true));
      (dialog.querySelector("[autofocus]") ?? dialog.querySelector("button, a"))?.focus();
    } catch {
      location.assign(link);
    }
  }

  document.addEventListener("click", (event) => {
    const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    const link = event.target.closest("a[data-dialog]");
    const close = event.target.closest("[data-close]");
    const copies = event.target.closest("[data-copy]");
    const text = event.target.closest("[data-copy-text]");
    if (link && plain) { event.preventDefault(); ask(link.href); }
    else if (close && dialog.contains(close)) { event.preventDefault(); dialog.close(); }
    else if (event.target === dialog) dialog.close();
    else if (copies) copy(copies.dataset.copy);
    else if (text) copyText(text);
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-dialog]")) return;
    event.preventDefault();
    ask(`${form.action}?${new URLSearchParams(new FormData(form, event.submitter))}`);
  });

  // Selecting several models

  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-pick-all]")) return;
    for (const one of document.querySelectorAll("[data-pick]")) one.checked = event.target.checked;
  });

  async function copyText(button) {
    let words = "Copied";
    try {
      await navigator.clipboard.writeText(button.dataset.copyText);
    } catch { // without HTTPS a browser allows only the selection
      const text = button.previousElementSibling ?? button.parentElement;
      getSelection().selectAllChildren(text);
      words = "Selected";
    }
    const announced = document.getElementById("announced");
    if (announced) announced.textContent = `${words}: ${button.dataset.copyText}`;
    button.dataset.done = words;
    setTimeout(() => delete button.dataset.done, 1500);
  }

  async function copy(id) {
    const text = document.getElementById(id).textContent;
    const words = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(text);
      words.textContent = "Copied";
    } catch {
      document.getElementById(id).closest("details").open = true;
      getSelection().selectAllChildren(document.getElementById(id));
      words.textContent = "Selected. Copy it with the keyboard.";
    }
  }

  // The filter applies during typing; without a script, a button sends it.

  const filter = document.getElementById("filter");
  filter?.addEventListener("input", () => {
    if (!filter.checkValidity()) return; // a size that is not complete yet
    const query = new URLSearchParams([...new FormData(filter)].filter(([, value]) => value));
    history.replaceState(history.state, "", `${location.pathname}?${query}`.replace(/\?$/, ""));
    soon();
  });

  // A reload of a result shows the page of its form, and does not send the form again.

  if (result) history.replaceState(history.state, "", result.dataset.reload);

  // The message about the last action is shown once, not after a reload.

  const toast = document.getElementById("toast");
  if (toast) {
    const here = new URL(location.href);
    for (const shownOnce of ["done", "note"]) here.searchParams.delete(shownOnce);
    history.replaceState(history.state, "", here);
    document.addEventListener("click", (event) => {
      if (event.target.closest("[data-dismiss]")) toast.remove();
    });
  }

  // Keyboard shortcuts

  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && typing(event.target)) event.target.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || dialog?.open) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector("[data-find]")?.focus();
    } else if (Date.now() - going < 1500) {
      going = 0;
      document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`)?.click();
    } else if (event.key === "g") going = Date.now();
  });
})();

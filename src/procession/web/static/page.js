// Keeps a page as it is on the server: told that something has changed, it fetches itself again and puts in what is new.
"use strict";

const main = document.getElementById("main");
const link = document.getElementById("link");
const PAUSE_MS = 100;
let events = main.dataset.events;
let source = null;
let fetching = false;
let again = false;

function say(state, words) {
  link.className = `link ${state}`;
  if (link.textContent !== words) link.textContent = words;
}

// Streams are few in a browser, so only pages that are seen have one.
function follow() {
  if (!events || source || document.hidden) return;
  source = new EventSource(events);
  source.onopen = () => say("live", "live");
  source.onerror = () => {
    say("lost", "not connected");
    // It tries again by itself, unless it was refused: a server that was started again has another key.
    if (source.readyState !== EventSource.CLOSED) return;
    leave();
    setTimeout(follow, 2000);
  };
  source.addEventListener("changed", refresh);
}

function leave() {
  if (source) source.close();
  source = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
addEventListener("pagehide", leave);
addEventListener("pageshow", follow);

async function fetched(address) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

async function refresh() {
  again = true;
  if (fetching) return;
  fetching = true;
  while (again) {
    again = false;
    try {
      const page = await fetched(location.href);
      const fresh = page.getElementById("main");
      if (fresh) {
        document.title = page.title;
        events = fresh.dataset.events || events;
        match(main, fresh);
        late();
      }
    } catch {
      say("lost", "not connected");
    }
    await new Promise((then) => setTimeout(then, PAUSE_MS));
  }
  fetching = false;
}

// Makes one element what another is, and leaves what is equal: so what has the focus keeps it, and what is open stays so.
function match(old, fresh) {
  for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !(name === "open" && old.id)) old.removeAttribute(name);
  if (!old.matches(".late, input, select, textarea")) fill(old, fresh);
}

function fill(old, fresh) {
  // What is gone goes first: then the others need not be moved, which would cost them the focus.
  const kept = new Set([...fresh.children].map((child) => child.id));
  for (const child of [...old.children]) if (child.id && !kept.has(child.id)) child.remove();
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const same = wanted.id ? named.get(wanted.id) : at && !at.id && at.nodeName === wanted.nodeName ? at : null;
    if (!same) {
      old.insertBefore(document.importNode(wanted, true), at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same.isEqualNode(wanted)) continue;
    if (same.nodeType === Node.ELEMENT_NODE && same.nodeName === wanted.nodeName) match(same, wanted);
    else if (same.nodeType === Node.TEXT_NODE) same.data = wanted.data;
    else same.replaceWith(document.importNode(wanted, true));
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// What takes the server longer comes after the page, and again when there is news of it, but not all the time.
const shown = new Map();
function late() {
  for (const place of document.querySelectorAll(".late[data-source]")) bring(place);
}

async function bring(place) {
  const before = shown.get(place) || { version: "", until: 0, busy: false };
  shown.set(place, before);
  if (before.busy || before.version === place.dataset.version) return;
  before.busy = true;
  const wait = before.until - performance.now();
  if (wait > 0) await new Promise((then) => setTimeout(then, wait));
  const version = place.dataset.version;
  const began = performance.now();
  try {
    const fresh = (await fetched(place.dataset.source)).getElementById(place.id);
    if (fresh) fill(place, fresh);
  } catch {
    // The next change tries again.
  }
  before.version = version;
  before.until = performance.now() + Math.max(1000, 10 * (performance.now() - began));
  before.busy = false;
  if (place.dataset.version !== version) bring(place);
}

// Times that go on.
function lasting(seconds) {
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds)} s`;
}
setInterval(() => {
  for (const place of document.querySelectorAll("[data-since]")) {
    const words = lasting(Math.max(0, Date.now() / 1000 - Number(place.dataset.since)));
    if (place.textContent !== words) place.textContent = words;
  }
}, 1000);

document.addEventListener("change", (event) => {
  if (event.target.id === "process") event.target.form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const open of document.querySelectorAll("details.confirm[open]")) open.open = false;
});

follow();
late();

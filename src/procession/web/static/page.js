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

// What the address leads to stays in sight while parts come in above it, until somebody moves.
let target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
for (const moved of ["wheel", "touchstart", "pointerdown", "keydown"]) addEventListener(moved, () => (target = null), { passive: true });

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
    if (zoom !== 1) enlarge();
    if (target && !before.version) target.scrollIntoView();
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

// The graph: buttons, or Ctrl and the wheel, make it larger; it is moved by scrolling, or by dragging it.
let zoom = 1;
function enlarge() {
  for (const picture of document.querySelectorAll(".graph-figure svg")) {
    const { width, height } = picture.viewBox.baseVal;
    picture.setAttribute("width", Math.round(width * zoom));
    picture.setAttribute("height", Math.round(height * zoom));
  }
}
function zoomTo(figure, wanted) {
  const { clientWidth, clientHeight, scrollLeft, scrollTop, firstElementChild: picture } = figure;
  const before = zoom;
  const { width, height } = picture.viewBox.baseVal;
  zoom = wanted === "fit" ? Math.min(clientWidth / width, innerHeight * 0.7 / height, 1) : Math.min(4, Math.max(0.1, zoom * wanted));
  enlarge();
  figure.scrollTo(((scrollLeft + clientWidth / 2) * zoom) / before - clientWidth / 2, ((scrollTop + clientHeight / 2) * zoom) / before - clientHeight / 2);
}
document.addEventListener("click", ({ target }) => {
  const wanted = target.dataset?.zoom;
  if (wanted) zoomTo(target.closest("#graph").querySelector(".graph-figure"), wanted === "fit" ? wanted : Number(wanted));
});
document.addEventListener("wheel", (event) => {
  const figure = event.ctrlKey && event.target.closest?.(".graph-figure");
  if (!figure) return;
  event.preventDefault();
  zoomTo(figure, event.deltaY < 0 ? 1.1 : 1 / 1.1);
}, { passive: false });
let held = null;
document.addEventListener("pointerdown", (event) => {
  const figure = event.pointerType === "mouse" && event.button === 0 && event.target.closest?.(".graph-figure");
  if (figure) held = { figure, x: event.clientX, y: event.clientY, moved: false };
});
document.addEventListener("pointermove", (event) => {
  if (!held || !event.buttons) return;
  held.moved ||= Math.hypot(event.clientX - held.x, event.clientY - held.y) > 4;
  if (!held.moved) return;
  held.figure.classList.add("held");
  held.figure.scrollBy(held.x - event.clientX, held.y - event.clientY);
  [held.x, held.y] = [event.clientX, event.clientY];
});
document.addEventListener("click", (event) => {
  if (held?.moved) event.preventDefault(); // it was dragged, not chosen
  held?.figure.classList.remove("held");
  held = null;
}, true);
document.addEventListener("dragstart", (event) => event.target.closest?.(".graph-figure") && event.preventDefault());

// What does not fit where it stands is told whole to whoever points at it.
document.addEventListener("mouseover", ({ target }) => {
  const place = target.closest?.(".cut, .name");
  if (place && !place.title && place.scrollWidth > place.clientWidth) place.title = place.textContent.trim();
});

document.documentElement.classList.add("script");
// Commands can be copied where a browser lets a page do so.
document.documentElement.classList.toggle("clipboard", Boolean(navigator.clipboard));
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

document.addEventListener("change", (event) => {
  if (event.target.id === "process") event.target.form.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const open of document.querySelectorAll("details.confirm[open]")) open.open = false;
});

follow();
late();

// The labelling page: one image, its labels, and navigation. Saves go through the outbox; the next ten
// images are preloaded. Keys do nothing while there is no picture to look at.
import { dialogs } from "./label_dialogs.js";
import { Outbox } from "./outbox.js";
import { fillMessage, sentence, showSaveState } from "./save_state.js";
import { promptLogin, request, ServerError, setCsrfToken } from "./server.js";
import { translate } from "./translate.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const isChinese = document.documentElement.lang.startsWith("zh");
const $ = (id) => document.getElementById(id);
setCsrfToken(settings.csrf);

const N_AHEAD = 10; // images that are loaded before their turn, for when the network fails
const RETRY_MS = 2000;

let queue = settings.items; // [{place, state}]
const items = new Map(); // place -> promise of the item
const loaded = new Set(); // places whose image is loaded
let place = null; // of the item that is shown or awaited
let current = null; // the item on the screen
let draft = null; // its labels and note as entered so far; null while nothing can be entered
const drafts = new Map(); // assignment -> what was entered and not saved
let retryTimer = null;
let walk = null; // places to look through, from the overview of the own labels
let keyTime = null; // when the key that led to this image was pressed
const versions = new Map(); // assignment -> latest version known to this page

// Only the time in which the page is visible counts.
const clock = { since: null, ms: 0 };
function startClock() { if (clock.since === null && !document.hidden) clock.since = performance.now(); }
function stopClock() { if (clock.since !== null) { clock.ms += performance.now() - clock.since; clock.since = null; } }
document.addEventListener("visibilitychange", () => (document.hidden ? stopClock() : startClock()));

const viewer = new window.PictureViewer($("viewer"), {
  translate, guide: settings.guide,
  onShown: (item) => {
    if (item.place !== place) return;
    activate(item);
    clock.ms = 0; clock.since = null; startClock();
    $("viewer").dataset.place = item.place;
    const ms = keyTime === null ? null : performance.now() - keyTime;
    document.dispatchEvent(new CustomEvent("image-shown", { detail: { place: item.place, ms } }));
  },
});

const outbox = new Outbox(`${settings.login}:labels`, {
  onChange: tellSaveState,
  onSaved: (entry, response) => { markSaved(entry, response.saved); if (!current && retryTimer) openItem(place); },
  onConflict: (entry, theirs) => dialogs.resolveConflict(entry, theirs, describe, {
    keep: () => { markSaved(entry, theirs); reloadIfOpen(entry.place); },
    use: () => outbox.add({ ...entry, body: { ...entry.body, expected_version: theirs.version } }),
  }),
  onRefused: (entry, error) => {
    setState(entry.place, "open");
    showBanner(translate("Image {n} was not saved: {why}", { n: entry.place, why: translate(error.message) }), translate("Go to the image"), () => openItem(entry.place));
  },
  onLoggedOut: () => promptLogin(() => { outbox.flush(); if (!current) openNext(); }),
});

function markSaved(entry, saved) {
  const id = entry.subject;
  versions.set(id, saved.version);
  items.get(entry.place)?.then((item) => { if (item.assignment_id === id) { item.saved = saved; item.version = saved.version; } }, () => {});
  setState(entry.place, saved.skip_reason ? "skipped" : "done");
}
function reloadIfOpen(place) { if (current?.place === place) openItem(place); }
function setState(place, state) {
  const entry = queue.find((one) => one.place === place);
  if (entry) entry.state = state;
  showProgress();
}

// ---- items -------------------------------------------------------------------------------------
function fetchItem(place) {
  if (!items.has(place)) {
    const promise = request(`/api/items/${place}`);
    items.set(place, promise);
    promise.catch(() => items.delete(place));
  }
  return items.get(place);
}
function nextOpenPlace(place) {
  const open = queue.filter((one) => one.state === "open" && one.place !== place);
  return (open.find((one) => one.place > place) ?? open[0])?.place ?? null;
}
function prefetch(from) {
  const open = queue.filter((one) => one.state === "open").map((one) => one.place);
  const ahead = walk ? walk.slice(walk.indexOf(from) + 1) : [...open.filter((one) => one > from), ...open.filter((one) => one < from)];
  for (const near of [...ahead.slice(0, N_AHEAD), from - 1]) {
    // What cannot be preloaded is requested again when it is opened, which shows the error.
    if (near >= 1) fetchItem(near).then((item) => item.image_error || viewer.load(item.image_url)).then(() => loaded.add(near)).catch(() => {});
  }
}

async function openItem(next) {
  leave();
  place = next;
  const slow = setTimeout(() => { if (place === next && !current) { viewer.clear(); render(); showMessage(translate("Loading …")); } }, 300);
  let item;
  try {
    item = await fetchItem(next);
    if (place !== next) return;
    if (!item.image_error) await viewer.show({ src: item.image_url, alt: translate("Image {n} of {all}", { n: next, all: queue.length }), mpp: item.mpp }, item);
  } catch (error) {
    if (place !== next) return;
    if (error.isLoggedOut) return promptLogin(() => { outbox.flush(); openItem(next); });
    return wait(next, error);
  } finally {
    clearTimeout(slow);
  }
  if (place !== next) return;
  loaded.add(next);
  if (item.image_error) {
    activate(item);
    clock.ms = 0; clock.since = null; startClock();
    $("viewer").dataset.place = next;
    showMessage(translate("This image cannot be shown: {why}. Skip it and tell the study's owner.", { why: translate(item.image_error) }), translate("Skip"), skip);
  }
  prefetch(next);
}
// Nothing can be entered until the next picture is on the screen.
function leave() {
  clearTimeout(retryTimer);
  retryTimer = null;
  if (draft && !isUnchanged()) drafts.set(current.assignment_id, draft);
  current = draft = null;
}
function wait(next, error) {
  items.delete(next);
  viewer.hide();
  delete $("viewer").dataset.place;
  render();
  const isRetried = !(error instanceof ServerError) || error.isRetryable;
  const text = error instanceof ServerError && error.status !== 0
    ? sentence(translate(error.message))
    : translate("This image is not loaded: the server does not respond. It appears by itself when the server is back.");
  showMessage(text, translate("Try again"), () => openItem(next));
  if (isRetried) retryTimer = setTimeout(() => openItem(next), RETRY_MS);
}
window.addEventListener("online", () => { if (retryTimer) openItem(place); });

function activate(item) {
  current = item;
  draft = drafts.get(item.assignment_id) ?? savedDraft(item);
  showMessage(null);
  render();
}
function savedDraft(item) {
  const content = outbox.pendingFor(item.assignment_id)?.body ?? item.saved;
  return {
    labels: new Set(Object.entries(content?.labels ?? {}).filter(([, value]) => value === 1).map(([id]) => id)),
    unsure: content?.unsure ?? false, note: content?.note ?? "", skipped: content?.skip_reason ?? null,
    isSaved: content !== null && content !== undefined,
  };
}
function isUnchanged() {
  const before = savedDraft(current);
  const text = ({ labels, unsure, note, skipped }) => JSON.stringify([[...labels].sort(), unsure, note, skipped]);
  return text(before) === text(draft);
}

async function openNext(after = 0) {
  const next = walk ? walk[walk.indexOf(after) + 1] : nextOpenPlace(after);
  if (next) return openItem(next);
  if (walk) return showEnd(translate("That was the last of the {n} images that you chose.", { n: walk.length }));
  // Images may have been added since the page was opened.
  try { queue = (await request("/api/items")).map((one) => (outbox.entries.some((entry) => entry.place === one.place) ? { ...one, state: "done" } : one)); } catch { /* the outbox shows the error */ }
  if (nextOpenPlace(after)) return openItem(nextOpenPlace(after));
  if (queue.length) return showEnd(translate("All images are done. Thank you."));
  showNothing(translate("There is nothing to label yet. The study's owner hands out the images."), translate("Check again"), () => openNext());
}
function showNothing(text, buttonText, onClick) {
  leave();
  place = null;
  viewer.hide();
  delete $("viewer").dataset.place;
  render();
  showMessage(text, buttonText, onClick);
}
// The end of the queue or of a selection: what was labelled, and the way to look at it again.
async function showEnd(text) {
  showNothing(text, translate("Review my labels"), () => { location.href = "/review"; });
  await outbox.settled();
  const { tally } = await request("/api/review").catch(() => ({ tally: [] }));
  if (current || place) return;
  const list = document.createElement("ul");
  list.className = "tally";
  list.append(...tally.map(({ text: name, n }) => Object.assign(document.createElement("li"), { textContent: `${name}: ${n}` })));
  $("image-message").querySelector("p").after(list);
}

// ---- actions -----------------------------------------------------------------------------------
function toggleLabel(index) {
  const label = settings.labels[index];
  if (!draft || !label || current.image_error) return;
  draft.skipped = null;
  if (draft.labels.delete(label.id)) return render();
  for (const other of settings.labels) {
    if (label.excludes.includes(other.id) || other.excludes.includes(label.id)) draft.labels.delete(other.id);
  }
  draft.labels.add(label.id);
  render();
}
function toggleUnsure() { if (draft && !current.image_error) { draft.unsure = !draft.unsure; render(); } }

function save() {
  if (!draft) return;
  if (draft.isSaved && isUnchanged()) return openNext(current.place); // nothing to store
  if (draft.skipped) return send({ labels: {}, skip_reason: draft.skipped });
  if (current.image_error) return showHint(translate("There is no picture to label; skip the image with S."), true);
  if (settings.needs_label && draft.labels.size === 0) return showHint(translate("Set a label first, or skip the image with S."), true);
  send({ labels: Object.fromEntries(settings.labels.map((label) => [label.id, draft.labels.has(label.id) ? 1 : 0])), skip_reason: null });
}
function send(content) {
  stopClock();
  const item = current;
  const body = {
    assignment_id: item.assignment_id, labels: content.labels, skip_reason: content.skip_reason,
    unsure: content.skip_reason ? false : draft.unsure, note: draft.note,
    expected_version: Math.max(item.version, versions.get(item.assignment_id) ?? 0),
    seconds: Math.round(Math.min(clock.ms, 86_400_000)) / 1000, image_mark: item.image_mark,
  };
  outbox.add({ path: "/api/annotations", subject: item.assignment_id, place: item.place, body });
  setState(item.place, content.skip_reason ? "skipped" : "done");
  drafts.delete(item.assignment_id);
  draft = null;
  openNext(item.place);
}
async function skip() {
  if (!draft) return;
  const reason = await dialogs.chooseSkipReason();
  if (reason) send({ labels: {}, skip_reason: reason });
}
async function editNote() {
  if (!draft) return;
  const text = await dialogs.editNote(draft.note);
  if (text !== null) { draft.note = text; render(); }
}
function back() { step(-1, translate("This is the first image.")); }
function forward() { step(1, translate("This is the last image.")); }
function step(by, atTheEnd) {
  const places = walk ?? queue.map((one) => one.place);
  const next = place === null ? places.at(-1) : places[places.indexOf(place) + by];
  if (next !== undefined) openItem(next); else showHint(atTheEnd);
}

// ---- display -----------------------------------------------------------------------------------
function labelName(label) { return isChinese ? label.name_zh : label.name; }
function reasonText(reason) {
  const [head, ...details] = reason.split(": ");
  return [translate(head), ...details].join(": ");
}
function describe(content) {
  if (content.skip_reason) return `${translate("skipped")}: ${reasonText(content.skip_reason)}`;
  const names = settings.labels.filter((label) => content.labels[label.id] === 1).map(labelName);
  return (names.join(" + ") || translate("no label")) + (content.unsure ? ` (${translate("unsure")})` : "");
}
function render() {
  const isOpen = draft !== null;
  for (const [index, button] of [...$("labels").querySelectorAll("button")].entries()) {
    const { id } = settings.labels[index];
    button.setAttribute("aria-pressed", String(isOpen && draft.labels.has(id)));
    button.disabled = !isOpen || Boolean(current.image_error);
    const model = current?.model?.[id];
    button.querySelector(".model").textContent = model === undefined ? "" : `${translate("model")} ${model.toFixed(2)}`;
  }
  for (const id of ["unsure", "note", "skip", "save"]) $(id).disabled = !isOpen;
  if (isOpen && current.image_error) $("unsure").disabled = true;
  $("unsure").setAttribute("aria-pressed", String(isOpen && draft.unsure));
  $("note").setAttribute("aria-pressed", String(isOpen && draft.note !== ""));
  $("note-text").hidden = !isOpen || draft.note === "";
  $("note-text").textContent = draft?.note ?? "";
  const places = walk ?? queue.map((one) => one.place);
  $("back").disabled = queue.length === 0 || (place !== null && place === places[0]);
  $("forward").disabled = place === null || place === places.at(-1);
  $("caption").textContent = isOpen ? translate("Image {n} of {all}", { n: current.place, all: queue.length }) : translate("No image");
  $("stain").hidden = !current?.stain;
  $("stain").textContent = current?.stain ?? "";
  $("others").hidden = !current?.others?.length;
  $("others").replaceChildren(...(current?.others ?? []).map((other) => {
    const line = document.createElement("div");
    line.textContent = `${other.who}: ${describe(other)}`;
    return line;
  }));
  showHint(isOpen && draft.skipped ? `${translate("skipped")}: ${reasonText(draft.skipped)}` : "");
  showProgress();
}
function showProgress() {
  const done = queue.filter((one) => one.state !== "open").length;
  $("progress").max = Math.max(queue.length, 1);
  $("progress").value = done;
  $("progress-text").textContent = current
    ? translate("image {n} · {done} of {all} done", { n: current.place, done, all: queue.length })
    : translate("{done} of {all} done", { done, all: queue.length });
}
function tellSaveState(n, error) {
  const n_loaded = queue.filter((one) => one.state === "open" && one.place !== place && loaded.has(one.place)).length;
  showSaveState(n, error, () => outbox.flush(), translate("You can continue: {n} more images are loaded.", { n: n_loaded }));
}
function showBanner(text, buttonText, onClick) {
  fillMessage($("banner"), text, buttonText, () => { $("banner").hidden = true; onClick(); });
}
function showMessage(text, buttonText, onClick) { fillMessage($("image-message"), text, buttonText, onClick); }
function showHint(text, strong = false) { $("hint").textContent = text; $("hint").classList.toggle("strong", strong); }

// ---- keys and buttons --------------------------------------------------------------------------
const KEYS = {
  Enter: save, Backspace: back, PageUp: back, PageDown: forward, ".": forward, ",": back, u: toggleUnsure, s: skip, n: editNote, "?": () => dialogs.help(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input:not([type=range]), textarea, select")) return;
  if (event.target.closest("input[type=range]") && event.key.startsWith("Arrow")) return;
  // Enter activates a focused button or link, but on a label button it saves as elsewhere.
  if (event.key === "Enter" && event.target.closest("a, button:not(.toggle)")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = /^[1-9]$/.test(key) ? () => toggleLabel(Number(key) - 1) : KEYS[key];
  if (!action) return viewer.key(event);
  event.preventDefault();
  if (event.repeat && (key === "Enter" || key === "Backspace" || /^[1-9]$/.test(key))) return;
  keyTime = event.timeStamp;
  action();
});
for (const [index, label] of settings.labels.entries()) {
  const button = document.createElement("button");
  button.className = "toggle";
  button.setAttribute("aria-keyshortcuts", String(index + 1));
  const key = document.createElement("kbd");
  key.textContent = String(index + 1);
  const model = document.createElement("span");
  model.className = "model";
  button.append(key, labelName(label), model);
  button.addEventListener("click", () => toggleLabel(index));
  $("labels").append(button);
}
const CLICKS = {
  save, back, forward, skip, note: editNote, unsure: toggleUnsure, "help-button": () => dialogs.help(),
};
// After a click with the mouse the keys act on the image again, Enter too, not on the button.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".panel button, .viewer-bar button, .viewer-panel button");
  if (button && event.detail > 0) button.blur();
});
for (const [id, action] of Object.entries(CLICKS)) {
  $(id).addEventListener("click", (event) => {
    if (event.detail > 0) $(id).blur(); // before a dialog opens, which returns the focus
    keyTime = event.timeStamp;
    action();
  });
}

for (const entry of outbox.entries) setState(entry.place, entry.body.skip_reason ? "skipped" : "done");
tellSaveState(outbox.size, null);
outbox.flush();
window.addEventListener("hashchange", start);
await start();

// From the overview of the own labels: "#place=7&show=unsure" opens one, and the keys walk through the others.
async function start() {
  walk = null;
  const wish = new URLSearchParams(location.hash.slice(1));
  const first = Number(wish.get("place"));
  if (!queue.some((one) => one.place === first)) return openNext();
  const { places } = await request(`/api/review?show=${encodeURIComponent(wish.get("show") ?? "all")}`).catch(() => ({ places: [] }));
  if (places.includes(first)) walk = places;
  return openItem(first);
}

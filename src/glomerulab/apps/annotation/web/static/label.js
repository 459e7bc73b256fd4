// The labelling page: one image, its labels, and navigation. Saves go through the outbox; the next
// image is preloaded.
import { dialogs } from "./label_dialogs.js";
import { Outbox } from "./outbox.js";
import { fillMessage, sentence, showSaveState } from "./save_state.js";
import { promptLogin, request, setCsrfToken } from "./server.js";
import { translate } from "./translate.js";
import { ImageViewer } from "./viewer.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const isChinese = document.documentElement.lang.startsWith("zh");
const $ = (id) => document.getElementById(id);
setCsrfToken(settings.csrf);

let queue = settings.items; // [{place, state}]
const items = new Map(); // place -> promise of the item
let current = null; // the item on the screen
let draft = null; // its labels and note as entered so far
let keyTime = null; // when the key that led to this image was pressed
const versions = new Map(); // assignment -> latest version known to this page

// Only the time in which the page is visible counts.
const clock = { since: null, ms: 0 };
function startClock() { if (clock.since === null && !document.hidden) clock.since = performance.now(); }
function stopClock() { if (clock.since !== null) { clock.ms += performance.now() - clock.since; clock.since = null; } }
document.addEventListener("visibilitychange", () => (document.hidden ? stopClock() : startClock()));

const viewer = new ImageViewer($("viewer"), {
  onShown: (item) => {
    clock.ms = 0; clock.since = null; startClock();
    $("viewer").dataset.place = item.place;
    const ms = keyTime === null ? null : performance.now() - keyTime;
    document.dispatchEvent(new CustomEvent("image-shown", { detail: { place: item.place, ms } }));
  },
});

const outbox = new Outbox(`${settings.login}:labels`, {
  onChange: (n, error) => showSaveState(n, error, () => outbox.flush()),
  onSaved: (entry, response) => markSaved(entry, response.saved),
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
function prefetch(place) {
  for (const near of [nextOpenPlace(place), place - 1]) {
    // What cannot be preloaded is requested again when it is opened, which shows the error.
    if (near) fetchItem(near).then((item) => item.image_error || viewer.load(item.image_url)).catch(() => {});
  }
}

async function openItem(place) {
  let item;
  try {
    item = await fetchItem(place);
  } catch (error) {
    if (error.isLoggedOut) return promptLogin(() => { outbox.flush(); openItem(place); });
    return showMessage(sentence(translate(error.message)), translate("Try again"), () => openItem(place));
  }
  current = item;
  const content = outbox.pendingFor(item.assignment_id)?.body ?? item.saved;
  draft = {
    labels: new Set(Object.entries(content?.labels ?? {}).filter(([, value]) => value === 1).map(([id]) => id)),
    unsure: content?.unsure ?? false, note: content?.note ?? "", skipped: content?.skip_reason ?? null,
  };
  showMessage(null);
  render();
  if (item.image_error) {
    viewer.hide();
    clock.ms = 0; clock.since = null; startClock();
    $("viewer").dataset.place = item.place;
    showMessage(translate("This image cannot be shown: {why}. Skip it and tell the study's owner.", { why: translate(item.image_error) }), translate("Skip"), skip);
  } else {
    viewer.show(item.image_url, item).catch(() => showMessage(translate("This image could not be loaded."), translate("Try again"), () => { items.delete(place); openItem(place); }));
  }
  prefetch(place);
}

async function openNext(after = 0) {
  const next = nextOpenPlace(after);
  if (next) return openItem(next);
  // Images may have been added since the page was opened.
  try { queue = (await request("/api/items")).map((one) => (outbox.entries.some((entry) => entry.place === one.place) ? { ...one, state: "done" } : one)); } catch { /* the outbox shows the error */ }
  if (nextOpenPlace(after)) return openItem(nextOpenPlace(after));
  current = draft = null;
  viewer.hide();
  render();
  showMessage(queue.length ? translate("All images are done. Thank you.") : translate("There is nothing to label yet. The study's owner hands out the images."),
    queue.length ? translate("Review them again") : translate("Check again"), () => (queue.length ? openItem(queue.at(-1).place) : openNext()));
}

// ---- actions -----------------------------------------------------------------------------------
function toggleLabel(index) {
  const label = settings.labels[index];
  if (!draft || !label) return;
  draft.skipped = null;
  if (draft.labels.delete(label.id)) return render();
  for (const other of settings.labels) {
    if (label.excludes.includes(other.id) || other.excludes.includes(label.id)) draft.labels.delete(other.id);
  }
  draft.labels.add(label.id);
  render();
}
function toggleUnsure() { if (draft) { draft.unsure = !draft.unsure; render(); } }

function save() {
  if (!draft) return;
  if (draft.skipped) return send({ labels: {}, skip_reason: draft.skipped });
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
function back() {
  const place = current ? current.place - 1 : queue.at(-1)?.place;
  if (place >= 1) openItem(place); else showHint(translate("This is the first image."));
}

// ---- display -----------------------------------------------------------------------------------
function labelName(label) { return isChinese ? label.name_zh : label.name; }
function describe(content) {
  if (content.skip_reason) return `${translate("skipped")}: ${translate(content.skip_reason)}`;
  const names = settings.labels.filter((label) => content.labels[label.id] === 1).map(labelName);
  return (names.join(" + ") || translate("no label")) + (content.unsure ? ` (${translate("unsure")})` : "");
}
function render() {
  const isOpen = draft !== null;
  for (const [index, button] of [...$("labels").querySelectorAll("button")].entries()) {
    const { id } = settings.labels[index];
    button.setAttribute("aria-pressed", String(isOpen && draft.labels.has(id)));
    button.disabled = !isOpen;
    const model = current?.model?.[id];
    button.querySelector(".model").textContent = model === undefined ? "" : `${translate("model")} ${model.toFixed(2)}`;
  }
  for (const id of ["unsure", "note", "skip", "save"]) $(id).disabled = !isOpen;
  $("unsure").setAttribute("aria-pressed", String(isOpen && draft.unsure));
  $("note").setAttribute("aria-pressed", String(isOpen && draft.note !== ""));
  $("note-text").hidden = !isOpen || draft.note === "";
  $("note-text").textContent = draft?.note ?? "";
  $("back").disabled = isOpen ? current.place <= 1 : queue.length === 0;
  $("caption").textContent = isOpen ? translate("Image {n} of {all}", { n: current.place, all: queue.length }) : translate("No image");
  $("stain").hidden = !current?.stain;
  $("stain").textContent = current?.stain ?? "";
  $("others").hidden = !current?.others?.length;
  $("others").replaceChildren(...(current?.others ?? []).map((other) => {
    const line = document.createElement("div");
    line.textContent = `${other.who}: ${describe(other)}`;
    return line;
  }));
  showHint(isOpen && draft.skipped ? `${translate("skipped")}: ${translate(draft.skipped)}` : "");
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
function showBanner(text, buttonText, onClick) {
  fillMessage($("banner"), text, buttonText, () => { $("banner").hidden = true; onClick(); });
}
function showMessage(text, buttonText, onClick) { fillMessage($("image-message"), text, buttonText, onClick); }
function showHint(text, strong = false) { $("hint").textContent = text; $("hint").classList.toggle("strong", strong); }

// ---- keys and buttons --------------------------------------------------------------------------
const KEYS = {
  Enter: save, Backspace: back, u: toggleUnsure, s: skip, n: editNote, "?": () => dialogs.help(),
  "+": () => viewer.zoomBy(1.4), "=": () => viewer.zoomBy(1.4), "-": () => viewer.zoomBy(1 / 1.4), 0: () => viewer.fit(),
  ArrowLeft: () => viewer.panBy(-0.12, 0), ArrowRight: () => viewer.panBy(0.12, 0),
  ArrowUp: () => viewer.panBy(0, -0.12), ArrowDown: () => viewer.panBy(0, 0.12),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, textarea, select")) return;
  // Enter activates a focused button or link, but on a label button it saves as elsewhere.
  if (event.key === "Enter" && event.target.closest("a, button:not(.toggle)")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = /^[1-9]$/.test(key) ? () => toggleLabel(Number(key) - 1) : KEYS[key];
  if (!action) return;
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
  save, back, skip, note: editNote, unsure: toggleUnsure, "help-button": () => dialogs.help(),
  "zoom-in": () => viewer.zoomBy(1.4), "zoom-out": () => viewer.zoomBy(1 / 1.4), "zoom-fit": () => viewer.fit(),
};
for (const [id, action] of Object.entries(CLICKS)) $(id).addEventListener("click", (event) => { keyTime = event.timeStamp; action(); });

for (const entry of outbox.entries) setState(entry.place, entry.body.skip_reason ? "skipped" : "done");
showSaveState(outbox.size, null, () => outbox.flush());
outbox.flush();
openNext();

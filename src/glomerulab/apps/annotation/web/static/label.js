// The labelling page: one image, its labels, and the way to the next. What is saved goes through the
// outbox; what is shown next was loaded while this one was looked at.
import { dialogs } from "./label_dialogs.js";
import { Outbox } from "./outbox.js";
import { ask, useToken } from "./server.js";
import { askToLogIn } from "./session.js";
import { fill, showSaveState } from "./save_state.js";
import { ImageViewer } from "./viewer.js";
import { say } from "./words.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const isChinese = document.documentElement.lang.startsWith("zh");
const $ = (id) => document.getElementById(id);
useToken(settings.csrf);

let queue = settings.items; // [{place, state}]
const items = new Map(); // place -> promise of the item
let current = null; // the item on the screen
let draft = null; // what is said of it so far
let keyTime = null; // when the key that asked for this image was pressed
const versions = new Map(); // assignment -> newest version this page knows

// Only the time in which the page could be seen counts.
const clock = { since: null, ms: 0 };
function clockRun() { if (clock.since === null && !document.hidden) clock.since = performance.now(); }
function clockStop() { if (clock.since !== null) { clock.ms += performance.now() - clock.since; clock.since = null; } }
document.addEventListener("visibilitychange", () => (document.hidden ? clockStop() : clockRun()));

const viewer = new ImageViewer($("viewer"), {
  onShown: (item) => {
    clock.ms = 0; clock.since = null; clockRun();
    $("viewer").dataset.place = item.place;
    const ms = keyTime === null ? null : performance.now() - keyTime;
    document.dispatchEvent(new CustomEvent("image-shown", { detail: { place: item.place, ms } }));
  },
});

const outbox = new Outbox(`${settings.login}:labels`, {
  onChange: (n, error) => showSaveState(n, error, () => outbox.tryNow()),
  onSaved: (entry, answer) => noteSaved(entry, answer.saved),
  onConflict: (entry, theirs) => dialogs.conflict(entry, theirs, describe, {
    keep: () => { noteSaved(entry, theirs); reloadIfShown(entry.place); },
    use: () => outbox.add({ ...entry, body: { ...entry.body, expected_version: theirs.version } }),
  }),
  onRefused: (entry, error) => {
    setState(entry.place, "open");
    banner(say("Image {n} was not saved: {why}", { n: entry.place, why: say(error.message) }), say("Go to the image"), () => go(entry.place));
  },
  onLoggedOut: () => askToLogIn(() => { outbox.tryNow(); if (!current) goToOpen(); }),
});

function noteSaved(entry, saved) {
  const id = entry.subject;
  versions.set(id, saved.version);
  items.get(entry.place)?.then((item) => { if (item.assignment_id === id) { item.saved = saved; item.version = saved.version; } }, () => {});
  setState(entry.place, saved.skip_reason ? "skipped" : "done");
}
function reloadIfShown(place) { if (current?.place === place) go(place); }
function setState(place, state) {
  const entry = queue.find((one) => one.place === place);
  if (entry) entry.state = state;
  showProgress();
}

// ---- items -------------------------------------------------------------------------------------
function fetchItem(place) {
  if (!items.has(place)) {
    const promise = ask(`/api/items/${place}`);
    items.set(place, promise);
    promise.catch(() => items.delete(place));
  }
  return items.get(place);
}
function openAfter(place) {
  const open = queue.filter((one) => one.state === "open" && one.place !== place);
  return (open.find((one) => one.place > place) ?? open[0])?.place ?? null;
}
function prefetch(place) {
  for (const near of [openAfter(place), place - 1]) {
    // What cannot be loaded ahead is asked for again when its turn comes, and told then.
    if (near) fetchItem(near).then((item) => item.image_error || viewer.load(item.image_url)).catch(() => {});
  }
}

async function go(place) {
  let item;
  try {
    item = await fetchItem(place);
  } catch (error) {
    if (error.isLoggedOut) return askToLogIn(() => { outbox.tryNow(); go(place); });
    return message(say(error.message), say("Try again"), () => go(place));
  }
  current = item;
  const said = outbox.pendingFor(item.assignment_id)?.body ?? item.saved;
  draft = {
    labels: new Set(Object.entries(said?.labels ?? {}).filter(([, value]) => value === 1).map(([id]) => id)),
    unsure: said?.unsure ?? false, note: said?.note ?? "", skipped: said?.skip_reason ?? null,
  };
  message(null);
  render();
  if (item.image_error) {
    viewer.hide();
    clock.ms = 0; clock.since = null; clockRun();
    $("viewer").dataset.place = item.place;
    message(say("This image cannot be shown: {why}. Skip it, and tell the study's owner.", { why: say(item.image_error) }), say("Skip"), skip);
  } else {
    viewer.show(item.image_url, item).catch(() => message(say("This image could not be loaded."), say("Try again"), () => { items.delete(place); go(place); }));
  }
  prefetch(place);
}

async function goToOpen(after = 0) {
  const next = openAfter(after);
  if (next) return go(next);
  // Images may have been added since the page was opened.
  try { queue = (await ask("/api/items")).map((one) => (outbox.entries.some((entry) => entry.place === one.place) ? { ...one, state: "done" } : one)); } catch { /* the outbox tells */ }
  if (openAfter(after)) return go(openAfter(after));
  current = draft = null;
  viewer.hide();
  render();
  message(queue.length ? say("All done. Thank you.") : say("Nothing to label yet. The study's owner hands out the images."),
    queue.length ? say("Look through them again") : say("Look again"), () => (queue.length ? go(queue.at(-1).place) : goToOpen()));
}

// ---- what the person does ----------------------------------------------------------------------
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
  if (settings.needs_label && draft.labels.size === 0) return hint(say("Set a label first, or skip with S."), true);
  send({ labels: Object.fromEntries(settings.labels.map((label) => [label.id, draft.labels.has(label.id) ? 1 : 0])), skip_reason: null });
}
function send(said) {
  clockStop();
  const item = current;
  const body = {
    assignment_id: item.assignment_id, labels: said.labels, skip_reason: said.skip_reason,
    unsure: said.skip_reason ? false : draft.unsure, note: draft.note,
    expected_version: Math.max(item.version, versions.get(item.assignment_id) ?? 0),
    seconds: Math.round(Math.min(clock.ms, 86_400_000)) / 1000, image_mark: item.image_mark,
  };
  outbox.add({ path: "/api/annotations", subject: item.assignment_id, place: item.place, body });
  setState(item.place, said.skip_reason ? "skipped" : "done");
  goToOpen(item.place);
}
async function skip() {
  if (!draft) return;
  const reason = await dialogs.skip();
  if (reason) send({ labels: {}, skip_reason: reason });
}
async function note() {
  if (!draft) return;
  const text = await dialogs.note(draft.note);
  if (text !== null) { draft.note = text; render(); }
}
function back() {
  const place = current ? current.place - 1 : queue.at(-1)?.place;
  if (place >= 1) go(place); else hint(say("This is the first image."));
}

// ---- what the person sees ----------------------------------------------------------------------
function labelName(label) { return isChinese ? label.name_zh : label.name; }
function describe(said) {
  if (said.skip_reason) return `${say("skipped")}: ${say(said.skip_reason)}`;
  const names = settings.labels.filter((label) => said.labels[label.id] === 1).map(labelName);
  return (names.join(" + ") || say("no label")) + (said.unsure ? ` (${say("unsure")})` : "");
}
function render() {
  const isOpen = draft !== null;
  for (const [index, button] of [...$("labels").querySelectorAll("button")].entries()) {
    const { id } = settings.labels[index];
    button.setAttribute("aria-pressed", String(isOpen && draft.labels.has(id)));
    button.disabled = !isOpen;
    const model = current?.model?.[id];
    button.querySelector(".model").textContent = model === undefined ? "" : `${say("model")} ${model.toFixed(2)}`;
  }
  for (const id of ["unsure", "note", "skip", "save"]) $(id).disabled = !isOpen;
  $("unsure").setAttribute("aria-pressed", String(isOpen && draft.unsure));
  $("note").setAttribute("aria-pressed", String(isOpen && draft.note !== ""));
  $("note-text").hidden = !isOpen || draft.note === "";
  $("note-text").textContent = draft?.note ?? "";
  $("back").disabled = isOpen ? current.place <= 1 : queue.length === 0;
  $("caption").textContent = isOpen ? say("Image {n} of {all}", { n: current.place, all: queue.length }) : say("No image");
  $("stain").hidden = !current?.stain;
  $("stain").textContent = current?.stain ?? "";
  $("others").hidden = !current?.others?.length;
  $("others").replaceChildren(...(current?.others ?? []).map((other) => {
    const line = document.createElement("div");
    line.textContent = `${other.who}: ${describe(other)}`;
    return line;
  }));
  hint(isOpen && draft.skipped ? `${say("skipped")}: ${say(draft.skipped)}` : "");
  showProgress();
}
function showProgress() {
  const done = queue.filter((one) => one.state !== "open").length;
  $("progress").max = Math.max(queue.length, 1);
  $("progress").value = done;
  $("progress-text").textContent = current
    ? say("image {n} · {done} of {all} done", { n: current.place, done, all: queue.length })
    : say("{done} of {all} done", { done, all: queue.length });
}
function banner(text, action, act) {
  fill($("banner"), text, action, () => { $("banner").hidden = true; act(); });
}
function message(text, action, act) { fill($("stage-message"), text, action, act); }
function hint(text, strong = false) { $("hint").textContent = text; $("hint").classList.toggle("strong", strong); }

// ---- keys and buttons --------------------------------------------------------------------------
const KEYS = {
  Enter: save, Backspace: back, u: toggleUnsure, s: skip, n: note, "?": () => dialogs.help(),
  "+": () => viewer.zoomBy(1.4), "=": () => viewer.zoomBy(1.4), "-": () => viewer.zoomBy(1 / 1.4), 0: () => viewer.fit(),
  ArrowLeft: () => viewer.panBy(-0.12, 0), ArrowRight: () => viewer.panBy(0.12, 0),
  ArrowUp: () => viewer.panBy(0, -0.12), ArrowDown: () => viewer.panBy(0, 0.12),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, textarea, select")) return;
  // Enter on a button that goes somewhere is that button's; on a label it saves, as everywhere.
  if (event.key === "Enter" && event.target.closest("a, button:not(.toggle)")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = /^[1-9]$/.test(key) ? () => toggleLabel(Number(key) - 1) : KEYS[key];
  if (!act) return;
  event.preventDefault();
  if (event.repeat && (key === "Enter" || key === "Backspace" || /^[1-9]$/.test(key))) return;
  keyTime = event.timeStamp;
  act();
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
  save, back, skip, note, unsure: toggleUnsure, "help-button": () => dialogs.help(),
  "zoom-in": () => viewer.zoomBy(1.4), "zoom-out": () => viewer.zoomBy(1 / 1.4), "zoom-fit": () => viewer.fit(),
};
for (const [id, act] of Object.entries(CLICKS)) $(id).addEventListener("click", (event) => { keyTime = event.timeStamp; act(); });

for (const entry of outbox.entries) setState(entry.place, entry.body.skip_reason ? "skipped" : "done");
showSaveState(outbox.size, null, () => outbox.tryNow());
outbox.tryNow();
goToOpen();

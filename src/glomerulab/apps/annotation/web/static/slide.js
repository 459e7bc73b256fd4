// A slide in deep zoom and the boxes drawn on it. Every box is saved as it is drawn, through the same
// outbox as labels: nothing is lost when the server is unreachable.
import { Outbox, randomKey } from "./outbox.js";
import { fillMessage, sentence, showSaveState } from "./save_state.js";
import { promptLogin, request, setCsrfToken } from "./server.js";
import { asAnnotation, isSameShape, shapeOf, shapeText } from "./shapes.js";
import { translate } from "./translate.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const path = `/api/slides/${settings.key}/regions`;
const $ = (id) => document.getElementById(id);
setCsrfToken(settings.csrf);

// annotation id -> {region_id, version, may_edit, cut, login, shape}; the shape of a deleted box is null
const boxes = new Map();
const changes = []; // {id, before}: what undo brings back

const viewer = OpenSeadragon({
  element: $("viewer"), drawer: "canvas", showNavigationControl: false, animationTime: 0.3, blendTime: 0,
  maxZoomPixelRatio: 4, visibilityRatio: 0.5, zoomPerScroll: 1.3,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { pinchRotate: false },
  tileSources: {
    width: settings.width, height: settings.height, tileSize: settings.tile_size, tileOverlap: settings.overlap,
    minLevel: settings.min_level, maxLevel: settings.max_level,
    getTileUrl: (level, column, row) => `/slides/${settings.key}/tiles/${level}/${column}_${row}.jpg`,
  },
});
viewer.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
viewer.addHandler("tile-load-failed", () => fillMessage($("image-message"),
  translate("A part of the slide could not be read."), translate("Try again"),
  () => { $("image-message").hidden = true; viewer.world.resetItems(); }));

const drawn = AnnotoriousOSD.createOSDAnnotator(viewer, {
  drawingEnabled: false, drawingMode: "drag", autoSave: true, theme: "light",
  style: (annotation) => ({ fill: "#12627c", fillOpacity: 0.06, stroke: boxes.get(annotation.id)?.may_edit === false ? "#5a5f63" : "#0d7896", strokeWidth: 2.5 }),
  userSelectAction: (annotation) => (boxes.get(annotation.id)?.may_edit === false ? "SELECT" : "EDIT"),
});
drawn.setDrawingTool("rectangle");
// A new box is selected at once, and while a box is selected the next drag draws nothing. Events of the annotator
// come by a timer, on a slow computer after the next press, which lost a box: subscribe to its state instead.
drawn.state.selection.subscribe(({ selected }) => {
  if (isDrawing() && selected.length) queueMicrotask(() => drawn.cancelSelected());
});

const outbox = new Outbox(`${settings.login}:${settings.key}`, {
  onChange: (n, error) => showSaveState(n, error, () => outbox.flush()),
  onSaved: (entry, response) => { const box = boxes.get(entry.subject); if (box) box.version = response.saved.version; },
  onConflict: () => restore(translate("This box was changed in another window; the saved box is shown.")),
  onRefused: (entry, error) => restore(sentence(translate(error.message))),
  onLoggedOut: () => promptLogin(() => outbox.flush()),
});

async function restore(why) {
  fillMessage($("banner"), why, translate("Close"), () => { $("banner").hidden = true; });
  await load();
}

function save(id, shape) {
  const box = boxes.get(id);
  if (!box?.may_edit || isSameShape(shape, box.shape)) return;
  const { x, y, width, height, outline } = shape ?? box.shape;
  const body = { region_id: box.region_id, x, y, width, height, outline, expected_version: box.version, deleted: shape === null };
  changes.push({ id, before: box.shape });
  box.shape = shape;
  clearNotices();
  outbox.add({ path, subject: id, place: null, body });
  renderList();
}

drawn.on("createAnnotation", (annotation) => {
  if (boxes.has(annotation.id)) return; // brought back by undo
  const shape = shapeOf(annotation);
  if (shape.width < 8 || shape.height < 8) { drawn.removeAnnotation(annotation.id); return; } // drawn by accident
  boxes.set(annotation.id, { region_id: randomKey(), version: 0, may_edit: true, cut: false, login: settings.login, shape: null });
  save(annotation.id, shape);
});
drawn.on("updateAnnotation", (annotation) => save(annotation.id, shapeOf(annotation)));
drawn.on("deleteAnnotation", (annotation) => save(annotation.id, null));
drawn.on("selectionChanged", renderList);

function eraseBox(id) {
  if (!boxes.get(id)?.may_edit) return;
  drawn.removeAnnotation(id);
  save(id, null);
}
function undo() {
  const change = changes.pop();
  if (!change) return;
  const { id, before } = change;
  drawn.cancelSelected();
  const isDrawn = boxes.get(id).shape !== null;
  if (before === null) drawn.removeAnnotation(id);
  else if (isDrawn) drawn.updateAnnotation(asAnnotation(id, before));
  else drawn.addAnnotation(asAnnotation(id, before));
  save(id, before);
  changes.length = changes.findLastIndex((one) => one.id === id); // the undoing itself is not undone
  renderList();
}

function renderList() {
  const selected = new Set(drawn.getSelected().map((one) => one.id));
  const known = drawn.getAnnotations().filter((one) => boxes.get(one.id)?.shape);
  $("count").textContent = translate("{n} boxes", { n: known.length });
  $("undo").disabled = changes.length === 0;
  $("others-note").hidden = known.every((one) => boxes.get(one.id).may_edit);
  $("selected-note").textContent = known.filter((one) => selected.has(one.id)).map((one) => whyFixed(boxes.get(one.id))).join(" ");
  $("box-list").replaceChildren(...known.map((annotation, index) => {
    const box = boxes.get(annotation.id);
    const line = document.createElement("li");
    const show = document.createElement("button");
    show.className = "small toggle";
    show.setAttribute("aria-pressed", String(selected.has(annotation.id)));
    const parts = [index + 1, shapeText(box.shape, translate)];
    if (box.login !== settings.login) parts.push(box.login);
    if (box.cut) parts.push(translate("handed out"));
    show.textContent = parts.join(" · ");
    show.addEventListener("click", () => { setDrawing(false); drawn.setSelected(annotation.id, box.may_edit); drawn.fitBounds(annotation.id, { padding: 90 }); });
    line.append(show);
    if (box.may_edit) {
      const erase = document.createElement("button");
      erase.className = "small";
      erase.textContent = "×";
      erase.setAttribute("aria-label", translate("Delete box {n}", { n: index + 1 }));
      erase.addEventListener("click", () => eraseBox(annotation.id));
      line.append(erase);
    }
    return line;
  }));
}
function whyFixed(box) {
  if (box.may_edit) return "";
  if (box.cut) return translate("This box was cut and handed out; it can no longer be changed.");
  return translate("{name} drew this box; only the account that drew a box can change it here.", { name: box.login });
}
// What the server told of an earlier action is no longer the last word.
function clearNotices() { for (const notice of document.querySelectorAll(".panel .notice.done")) notice.remove(); }

function setDrawing(isOn) {
  drawn.setDrawingEnabled(isOn);
  $("draw").setAttribute("aria-pressed", String(isOn));
  $("hint").textContent = isOn ? translate("Drag from corner to corner. Esc ends drawing.") : translate("Drag to move, B to draw; click a box to change it.");
}
function isDrawing() { return $("draw").getAttribute("aria-pressed") === "true"; }

async function load() {
  let known;
  try { known = await request(path); } catch (error) {
    if (error.isLoggedOut) promptLogin(load);
    else fillMessage($("banner"), sentence(translate(error.message)), translate("Try again"), () => { $("banner").hidden = true; load(); });
    return;
  }
  boxes.clear();
  changes.length = 0;
  const pending = new Map(outbox.entries.map((entry) => [entry.body.region_id.replaceAll("-", ""), entry]));
  const annotations = [];
  for (const box of known) {
    const entry = pending.get(box.region_id);
    pending.delete(box.region_id);
    if (entry?.body.deleted) continue;
    const id = entry?.subject ?? box.region_id;
    const { x, y, width, height, outline } = entry?.body ?? box;
    const shape = { x, y, width, height, outline };
    boxes.set(id, { ...box, shape });
    annotations.push(asAnnotation(id, shape));
  }
  for (const entry of pending.values()) {
    if (entry.body.deleted) continue;
    const { x, y, width, height, outline } = entry.body;
    const shape = { x, y, width, height, outline: outline ?? null };
    boxes.set(entry.subject, { region_id: entry.body.region_id, version: 0, may_edit: true, cut: false, login: settings.login, shape });
    annotations.push(asAnnotation(entry.subject, shape));
  }
  drawn.setAnnotations(annotations, true);
  renderList();
  $("viewer").dataset.ready = "true";
}

const KEYS = {
  b: () => setDrawing(!isDrawing()),
  Escape: () => { drawn.cancelSelected(); setDrawing(false); },
  Delete: () => drawn.getSelected().forEach((one) => eraseBox(one.id)),
  Backspace: () => drawn.getSelected().forEach((one) => eraseBox(one.id)),
  "+": () => viewer.viewport.zoomBy(1.4), "=": () => viewer.viewport.zoomBy(1.4), "-": () => viewer.viewport.zoomBy(1 / 1.4),
  0: () => viewer.viewport.goHome(),
};
// Before the annotator sees the key: its own undo knows nothing of what is saved.
window.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || !["z", "y"].includes(event.key.toLowerCase())) return;
  if (event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
  event.stopImmediatePropagation();
  event.preventDefault();
  if (event.key === "z") undo();
}, { capture: true });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, textarea, select")) return;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); action(); }
});
$("draw").addEventListener("click", () => setDrawing(!isDrawing()));
$("undo").addEventListener("click", undo);
$("zoom-in").addEventListener("click", () => viewer.viewport.zoomBy(1.4));
$("zoom-out").addEventListener("click", () => viewer.viewport.zoomBy(1 / 1.4));
$("zoom-fit").addEventListener("click", () => viewer.viewport.goHome());
$("file").addEventListener("change", () => { $("import").submit(); showImport(); });

// While the browser waits for the response to the file.
async function showImport() {
  const { n_done: done, n_boxes: all } = await request("/api/import").catch(() => ({ n_done: 0, n_boxes: 0 }));
  $("importing").textContent = all ? translate("{done} of {all} boxes saved", { done, all }) : translate("Reading the file …");
  $("importing").hidden = false;
  setTimeout(showImport, 500);
}

// Cutting cannot be undone: say what it does, and ask.
$("cut")?.addEventListener("click", () => {
  const n = [...boxes.values()].filter((box) => box.shape && !box.cut).length;
  const { slide_mpp: slide, crop_mpp: crop } = settings;
  const lines = [];
  if (slide === null) lines.push(translate("This slide does not state its µm per pixel and cannot be cut. Start the server with a slides table that has the column mpp."));
  else if (n === 0) lines.push(translate("Every box of this slide is handed out already."));
  else if (outbox.size) lines.push(translate("Some boxes are not saved yet. Try again when all are saved."));
  else {
    lines.push(translate("{n} boxes become images of {mpp} µm per pixel and go to the annotators at once. This cannot be undone, and these boxes can then no longer be changed.", { n, mpp: crop }));
    if (slide > crop * 1.001) lines.push(translate("The slide has {slide} µm per pixel: the images are enlarged and show no finer detail than it does.", { slide: Number(slide.toPrecision(4)) }));
  }
  $("cut-text").replaceChildren(...lines.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  $("cut-confirm").hidden = slide === null || n === 0 || outbox.size > 0;
  $("cut-dialog").showModal();
});

setDrawing(false);
history.replaceState(null, "", location.pathname); // a reload does not tell again what was done once
showSaveState(outbox.size, null, () => outbox.flush());
viewer.addOnceHandler("open", () => { load(); outbox.flush(); });

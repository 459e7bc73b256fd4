// A slide in deep zoom and the shapes drawn on it, boxes and polygons. Every shape is saved as it is drawn,
// through the same outbox as labels: nothing is lost when the server is unreachable.
import { Outbox, randomKey } from "./outbox.js";
import { fillMessage, sentence, showSaveState } from "./save_state.js";
import { promptLogin, request, setCsrfToken } from "./server.js";
import { asAnnotation, isSameShape, ringsOf, shapeOf, shapeText, withRings } from "./shapes.js";
import { drawStrokes } from "./stroke.js";
import { translate } from "./translate.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const path = `/api/slides/${settings.key}/regions`;
const $ = (id) => document.getElementById(id);
setCsrfToken(settings.csrf);

// annotation id -> {region_id, version, may_edit, cut, login, shape}; the shape of a deleted one is null
const boxes = new Map();
const structures = new Map(settings.structures.map((one) => [one.id, one]));
const DEFAULT = settings.structures[0].id;
const PROPOSED = "#e69f00", FIXED = "#5a5f63";
const MAX_LINES = 300; // of the list; thousands of lines make the page slow
const changes = []; // {id, before, isFurther}: what undo brings back; a further change goes with the one before
const TOOLS = { rectangle: $("draw"), polygon: $("draw-polygon"), cut: $("cut-out"), join: $("join") };
let tool = null; // a key of TOOLS
let target = null; // the id of the shape that is cut, or to which another is joined

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
  style: (annotation) => styleOf(boxes.get(annotation.id)),
  userSelectAction: (annotation) => (boxes.get(annotation.id)?.may_edit === false ? "SELECT" : "EDIT"),
});
function styleOf(box) {
  const stroke = box?.may_edit === false ? FIXED : box?.shape?.proposed ? PROPOSED : structures.get(box?.shape?.structure ?? $("structure").value)?.colour ?? "#0d7896";
  const isTarget = target !== null && box === boxes.get(target);
  return { fill: stroke, fillOpacity: 0.1, stroke, strokeWidth: isTarget ? 6 : 2.5 };
}
// A new box is selected at once, and while a box is selected the next drag draws nothing. Events of the annotator
// come by a timer, on a slow computer after the next press, which lost a box: subscribe to its state instead.
drawn.state.selection.subscribe(({ selected }) => {
  if (!tool || !selected.length) return;
  const [{ id }] = selected;
  queueMicrotask(() => {
    drawn.cancelSelected();
    if (tool === "cut" || tool === "join") pick(id);
  });
});

const outbox = new Outbox(`${settings.login}:${settings.key}`, {
  onChange: (n, error) => showSaveState(n, error, () => outbox.flush()),
  onSaved: (entry, response) => {
    const box = boxes.get(entry.subject);
    if (!box) return;
    box.version = response.saved.version;
    if (response.mended && !outbox.pendingFor(entry.subject)) showMended(entry.subject, response.saved);
  },
  onConflict: () => restore(translate("This shape was changed in another window; the saved shape is shown.")),
  onRefused: (entry, error) => restore(sentence(translate(error.message))),
  onLoggedOut: () => promptLogin(() => outbox.flush()),
});

async function restore(why) {
  tell(why);
  await load();
}

function showMended(id, saved) {
  const box = boxes.get(id);
  if (!box.shape) return;
  drawn.cancelSelected();
  box.shape = shapeFrom(saved);
  drawn.updateAnnotation(asAnnotation(id, box.shape));
  tell(translate("The outline crossed itself and was mended; the saved shape is shown."));
  renderList();
}

function save(id, shape, { isUndo = false, isFurther = false } = {}) {
  const box = boxes.get(id);
  if (!box?.may_edit || isSameShape(shape, box.shape)) return;
  const { x, y, width, height, outline, holes, labels, proposed } = shape ?? box.shape; // proposed where undone
  const body = { region_id: box.region_id, x, y, width, height, outline, holes, labels, proposed, expected_version: box.version, deleted: shape === null };
  if (!isUndo) changes.push({ id, before: box.shape, isFurther });
  box.shape = shape;
  clearNotices();
  outbox.add({ path, subject: id, place: null, body });
  renderList();
}

drawn.on("createAnnotation", (annotation) => {
  if (boxes.has(annotation.id)) return; // brought back by undo
  const shape = { ...shapeOf(annotation), ...ofStructure($("structure").value) };
  if (shape.width < 8 || shape.height < 8) { drawn.removeAnnotation(annotation.id); return; } // drawn by accident
  boxes.set(annotation.id, ownBox());
  save(annotation.id, shape);
  restyle();
});
// A proposal that a person corrects is their own shape.
drawn.on("updateAnnotation", (annotation) => {
  const box = boxes.get(annotation.id);
  if (!box?.shape) return;
  const { labels, structure, proposed } = box.shape;
  const shape = { ...shapeOf(annotation), labels, structure, proposed };
  save(annotation.id, isSameShape(shape, box.shape) ? shape : judged(shape));
});
drawn.on("deleteAnnotation", (annotation) => save(annotation.id, null));
drawn.on("selectionChanged", () => { showSelectedStructure(); renderList(); });

function ownBox() { return { region_id: randomKey().replaceAll("-", ""), version: 0, may_edit: true, cut: false, login: settings.login, shape: null }; }
function judged(shape) { return { ...shape, labels: shape.labels.filter((one) => one !== settings.proposal), proposed: false }; }
function ofStructure(id) { return { labels: [id], structure: id, proposed: false }; }
function shapeFrom({ x, y, width, height, outline, holes, labels, structure, proposed }) {
  const named = structure ?? labels?.find((one) => structures.has(one)) ?? DEFAULT;
  return { x, y, width, height, outline: outline ?? null, holes: holes ?? [], labels: labels ?? [], structure: named, proposed: Boolean(proposed) };
}
function restyle() { drawn.setStyle((annotation) => styleOf(boxes.get(annotation.id))); }
function selectedOwn() {
  return drawn.getSelected().map((one) => one.id).filter((id) => boxes.get(id)?.may_edit && boxes.get(id).shape);
}
// The class of what is selected, else of what is drawn next.
function setStructure(id) {
  $("structure").value = id;
  for (const one of selectedOwn()) if (boxes.get(one).shape.structure !== id) save(one, { ...boxes.get(one).shape, ...ofStructure(id) });
  restyle();
}
function showSelectedStructure() {
  const [id] = selectedOwn();
  if (id) $("structure").value = boxes.get(id).shape.structure;
}
function proposals() { return [...boxes].filter(([, box]) => box.may_edit && box.shape?.proposed).map(([id]) => id); }
// Store a proposal as it is, and go to the next.
function accept() {
  const taken = selectedOwn().filter((id) => boxes.get(id).shape.proposed);
  showNext();
  for (const id of taken) save(id, judged(boxes.get(id).shape));
  restyle();
}
// The next proposal after the selected shape, in the order of the list, and then from its start.
function showNext() {
  const [current] = selectedOwn();
  const order = [...boxes.keys()], place = order.indexOf(current) + 1, waiting = new Set(proposals());
  const next = [...order.slice(place), ...order.slice(0, place)].find((id) => id !== current && waiting.has(id));
  drawn.cancelSelected();
  if (next) showShape(next);
}
function showShape(id) {
  setTool(null);
  drawn.setSelected(id, boxes.get(id).may_edit);
  drawn.fitBounds(id, { padding: viewer.element.clientHeight / 5 }); // its neighbours are seen too
}

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
  const isRestyled = before?.structure !== boxes.get(id).shape?.structure || before?.proposed;
  if (before === null) drawn.removeAnnotation(id);
  else showChanged(id, before);
  save(id, before, { isUndo: true });
  if (change.isFurther) undo();
  if (isRestyled) restyle();
  renderList();
}
function showChanged(id, shape) {
  if (boxes.get(id).shape) drawn.updateAnnotation(asAnnotation(id, shape));
  else drawn.addAnnotation(asAnnotation(id, shape));
}

// Cut a shape along a stroke, or join two: the server computes the outlines, and the page saves them as one
// step, with the id and the structure of the first.
async function edit(ids, stroke) {
  setTool(null);
  const before = ids.map((id) => boxes.get(id)?.shape);
  const isChanged = () => ids.some((id, n) => !before[n] || boxes.get(id)?.shape !== before[n]);
  const tellChanged = () => tell(translate("The shape was changed in the meantime; nothing was cut or joined. Try again."));
  if (isChanged()) { tellChanged(); return; } // deleted since it was picked
  let parts;
  try { ({ shapes: parts } = await request("/api/shapes", { shapes: before.map(ringsOf), stroke })); } catch (error) {
    if (error.isLoggedOut) promptLogin(() => edit(ids, stroke));
    else tell(sentence(translate(error.message)));
    return;
  }
  if (isChanged()) { tellChanged(); return; }
  const own = judged(before[0]);
  parts.forEach((rings, n) => {
    const id = n === 0 ? ids[0] : randomKey(), shape = withRings(own, rings);
    if (n > 0) boxes.set(id, ownBox());
    showChanged(id, shape);
    save(id, shape, { isFurther: n > 0 });
  });
  for (const id of ids.slice(1)) {
    drawn.removeAnnotation(id);
    save(id, null, { isFurther: true });
  }
  restyle();
  drawn.setSelected(ids[0], true);
}
// The shape that was clicked while a tool needs one.
function pick(id) {
  const box = boxes.get(id);
  if (!box?.may_edit) { if (box) tell(whyFixed(box)); return; }
  if (tool === "join" && target !== null && target !== id) { edit([target, id], null); return; }
  setTarget(id);
  setHint();
}
function tell(text) { fillMessage($("banner"), text, translate("Close"), () => { $("banner").hidden = true; }); }

function renderList() {
  const selected = new Set(drawn.getSelected().map((one) => one.id));
  const known = drawn.getAnnotations().filter((one) => boxes.get(one.id)?.shape);
  $("count").textContent = translate("{n} shapes", { n: known.length });
  $("undo").disabled = changes.length === 0;
  $("others-note").hidden = known.every((one) => boxes.get(one.id).may_edit);
  $("selected-note").textContent = known.filter((one) => selected.has(one.id)).map((one) => whyFixed(boxes.get(one.id))).join(" ");
  const n_proposed = proposals().length;
  $("accept").hidden = n_proposed === 0;
  $("accept-count").textContent = translate("{n} proposals to look at", { n: n_proposed });
  $("more-note").hidden = known.length <= MAX_LINES;
  $("box-list").replaceChildren(...known.slice(0, MAX_LINES).map((annotation, index) => {
    const box = boxes.get(annotation.id);
    const line = document.createElement("li");
    const show = document.createElement("button");
    show.className = "small toggle";
    show.setAttribute("aria-pressed", String(selected.has(annotation.id)));
    const parts = [index + 1, nameOf(box.shape), shapeText(box.shape, translate)];
    if (box.shape.proposed) parts.push(translate("proposed"));
    if (box.login !== settings.login) parts.push(box.login);
    if (box.cut) parts.push(translate("handed out"));
    show.textContent = parts.join(" · ");
    show.style.setProperty("--structure", styleOf(box).stroke);
    show.addEventListener("click", () => (tool === "cut" || tool === "join" ? pick : showShape)(annotation.id));
    line.append(show);
    if (box.may_edit) {
      const erase = document.createElement("button");
      erase.className = "small";
      erase.textContent = "×";
      erase.setAttribute("aria-label", translate("Delete shape {n}", { n: index + 1 }));
      erase.addEventListener("click", () => eraseBox(annotation.id));
      line.append(erase);
    }
    return line;
  }));
}
// The structure, or the class of a region file that names none, such as a lesion.
function nameOf({ structure, labels, proposed }) {
  const isNamed = proposed || structure !== DEFAULT || labels.length === 0 || labels.includes(structure);
  return isNamed ? structures.get(structure)?.name ?? structure : labels.join(", ");
}
function whyFixed(box) {
  if (box.may_edit) return "";
  if (box.cut) return translate("This shape was cut and handed out; it can no longer be changed.");
  return translate("{name} drew this shape; only the account that drew a shape can change it here.", { name: box.login });
}
// What the server told of an earlier action is no longer the last word.
function clearNotices() { for (const notice of document.querySelectorAll(".panel .notice.done")) notice.remove(); }

// A box is dragged, a polygon clicked corner by corner, a cut drawn over the selected shape; null ends all.
function setTool(next) {
  const [selected = null] = selectedOwn();
  const isDrawn = next === "rectangle" || next === "polygon";
  tool = next;
  setTarget(next && !isDrawn ? selected : null);
  if (next) drawn.cancelSelected();
  if (isDrawn) {
    drawn.setDrawingMode(next === "polygon" ? "click" : "drag");
    drawn.setDrawingTool(next);
  }
  drawn.setDrawingEnabled(isDrawn);
  viewer.gestureSettingsMouse.dblClickToZoom = tool === null; // it closes a polygon
  for (const [name, button] of Object.entries(TOOLS)) button.setAttribute("aria-pressed", String(name === tool));
  setHint();
}
function setTarget(id) {
  if (target === id) return;
  target = id;
  restyle();
}
function setHint() {
  const isPicked = target !== null;
  $("hint").textContent = {
    rectangle: translate("Drag from corner to corner. Esc ends drawing."),
    polygon: translate("Click corner by corner; click the first corner or double-click to close. Esc ends drawing."),
    cut: isPicked
      ? translate("Draw a loop around what to take away, or a line across the shape to split it. Esc ends cutting.")
      : translate("Click the shape to cut. Esc ends cutting."),
    join: isPicked
      ? translate("Click the shape to join to the marked one. Esc ends joining.")
      : translate("Click the first of two shapes to join. Esc ends joining."),
  }[tool] ?? translate("Drag to move, B for boxes, P for polygons, X to cut, J to join; click a shape to change it. Click a corner and press Delete to remove it.");
}
function toggleTool(next) { setTool(tool === next ? null : next); }
drawStrokes(viewer, () => tool === "cut" && target !== null, (stroke) => edit([target], stroke));
// Delete a corner if one is selected, else the selected shapes.
let isCornerSelected = false; // before the annotator sees the key, which takes the corner away
function deleteSelected(event) {
  const layer = document.querySelector("svg.a9s-annotationlayer");
  if (!isCornerSelected) drawn.getSelected().forEach((one) => eraseBox(one.id));
  else if (!layer.contains(event.target)) layer.dispatchEvent(new KeyboardEvent("keydown", { key: "Delete" }));
}
// The annotator gives its handles the role of a button and no name.
new MutationObserver(() => {
  for (const one of $("viewer").querySelectorAll("[role=button]:not([aria-label])")) one.setAttribute("aria-label", translate("Handle of the shape"));
}).observe($("viewer"), { childList: true, subtree: true });

async function load() {
  let known;
  try { known = await request(path); } catch (error) {
    if (error.isLoggedOut) promptLogin(load);
    else fillMessage($("banner"), sentence(translate(error.message)), translate("Try again"), () => { $("banner").hidden = true; load(); });
    return;
  }
  drawn.cancelSelected();
  if (target !== null) setTool(null);
  boxes.clear();
  changes.length = 0;
  const ids = new Set(known.map((one) => one.region_id));
  const listed = (id) => (ids.has(id) ? id : id.replaceAll("-", "")); // as the server lists it
  const pending = new Map(outbox.entries.map((entry) => [listed(entry.body.region_id), entry]));
  const annotations = [];
  for (const box of known) {
    const entry = pending.get(box.region_id);
    pending.delete(box.region_id);
    if (entry?.body.deleted) continue;
    const id = entry?.subject ?? box.region_id;
    const shape = shapeFrom(entry?.body ?? box);
    boxes.set(id, { ...box, shape });
    annotations.push(asAnnotation(id, shape));
  }
  for (const entry of pending.values()) {
    if (entry.body.deleted) continue;
    const shape = shapeFrom(entry.body);
    boxes.set(entry.subject, { ...ownBox(), region_id: entry.body.region_id, shape });
    annotations.push(asAnnotation(entry.subject, shape));
  }
  drawn.setAnnotations(annotations, true);
  renderList();
  $("viewer").dataset.ready = "true";
}

const KEYS = {
  b: () => toggleTool("rectangle"),
  p: () => toggleTool("polygon"),
  x: () => toggleTool("cut"),
  j: () => toggleTool("join"),
  a: accept,
  n: showNext,
  Escape: () => { drawn.cancelSelected(); setTool(null); },
  Delete: deleteSelected,
  Backspace: deleteSelected,
  "+": () => viewer.viewport.zoomBy(1.4), "=": () => viewer.viewport.zoomBy(1.4), "-": () => viewer.viewport.zoomBy(1 / 1.4),
  0: () => viewer.viewport.goHome(),
  ...Object.fromEntries(settings.structures.slice(0, 9).map((one, index) => [index + 1, () => setStructure(one.id)])),
};
// Before the annotator sees the key: its own undo knows nothing of what is saved.
window.addEventListener("keydown", (event) => {
  isCornerSelected = document.querySelector(".a9s-handle-selected") !== null;
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
  if (action) { event.preventDefault(); action(event); }
});
for (const [name, button] of Object.entries(TOOLS)) button.addEventListener("click", () => toggleTool(name));
$("structure").addEventListener("change", () => setStructure($("structure").value));
$("accept-button").addEventListener("click", accept);
$("later").addEventListener("click", showNext);
$("undo").addEventListener("click", undo);
$("zoom-in").addEventListener("click", () => viewer.viewport.zoomBy(1.4));
$("zoom-out").addEventListener("click", () => viewer.viewport.zoomBy(1 / 1.4));
$("zoom-fit").addEventListener("click", () => viewer.viewport.goHome());
$("file").addEventListener("change", () => { $("import").submit(); showImport(); });

// While the browser waits for the response to the file.
async function showImport() {
  const { n_done: done, n_boxes: all } = await request("/api/import").catch(() => ({ n_done: 0, n_boxes: 0 }));
  $("importing").textContent = all ? translate("{done} of {all} shapes saved", { done, all }) : translate("Reading the file …");
  $("importing").hidden = false;
  setTimeout(showImport, 500);
}

// Cutting cannot be undone: say what it does, and ask.
$("cut")?.addEventListener("click", () => {
  const n = [...boxes.values()].filter((box) => box.shape && !box.cut && settings.glomeruli.includes(box.shape.structure)).length;
  const { slide_mpp: slide, crop_mpp: crop } = settings;
  const lines = [];
  if (slide === null) lines.push(translate("This slide does not state its µm per pixel and cannot be cut. Start the server with a slides table that has the column mpp."));
  else if (n === 0) lines.push(translate("Every glomerulus of this slide is handed out already."));
  else if (outbox.size) lines.push(translate("Some shapes are not saved yet. Try again when all are saved."));
  else {
    lines.push(translate("{n} glomeruli become images of {mpp} µm per pixel and go to the annotators at once. This cannot be undone, and these shapes can then no longer be changed.", { n, mpp: crop }));
    if (slide > crop * 1.001) lines.push(translate("The slide has {slide} µm per pixel: the images are enlarged and show no finer detail than it does.", { slide: Number(slide.toPrecision(4)) }));
  }
  $("cut-text").replaceChildren(...lines.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  $("cut-confirm").hidden = slide === null || n === 0 || outbox.size > 0;
  $("cut-dialog").showModal();
});

setTool(null);
history.replaceState(null, "", location.pathname); // a reload does not tell again what was done once
showSaveState(outbox.size, null, () => outbox.flush());
viewer.addOnceHandler("open", () => { load(); outbox.flush(); });

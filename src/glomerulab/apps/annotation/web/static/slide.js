// A slide in deep zoom and the boxes drawn on it. Every box is saved as it is drawn, through the same
// outbox as labels: nothing is lost when the server is unreachable.
import { Outbox, randomKey } from "./outbox.js";
import { fillMessage, sentence, showSaveState } from "./save_state.js";
import { promptLogin, request, setCsrfToken } from "./server.js";
import { translate } from "./translate.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const path = `/api/slides/${settings.key}/regions`;
const $ = (id) => document.getElementById(id);
setCsrfToken(settings.csrf);

const boxes = new Map(); // annotation id -> {region_id, version, may_edit, login}

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
  style: (annotation) => ({ fill: "#12627c", fillOpacity: 0.06, stroke: boxes.get(annotation.id)?.may_edit === false ? "#6a6f73" : "#0d7896", strokeWidth: 2.5 }),
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

function corners(annotation) {
  const { minX, minY, maxX, maxY } = annotation.target.selector.geometry.bounds;
  const x = Math.round(minX), y = Math.round(minY);
  return { x, y, width: Math.max(1, Math.round(maxX) - x), height: Math.max(1, Math.round(maxY) - y) };
}
function asAnnotation(id, { x, y, width, height }) {
  const bounds = { minX: x, minY: y, maxX: x + width, maxY: y + height };
  return { id, bodies: [], target: { annotation: id, selector: { type: "RECTANGLE", geometry: { x, y, w: width, h: height, bounds } } } };
}
function save(annotation, deleted = false) {
  const box = boxes.get(annotation.id);
  if (!box || box.may_edit === false) return;
  const body = { region_id: box.region_id, ...corners(annotation), expected_version: box.version, deleted };
  outbox.add({ path, subject: annotation.id, place: null, body });
  renderList();
}

drawn.on("createAnnotation", (annotation) => {
  const { width, height } = corners(annotation);
  if (width < 8 || height < 8) { drawn.removeAnnotation(annotation.id); return; } // drawn by accident
  boxes.set(annotation.id, { region_id: randomKey(), version: 0, may_edit: true, login: settings.login });
  save(annotation);
});
drawn.on("updateAnnotation", (annotation) => save(annotation));
drawn.on("deleteAnnotation", (annotation) => removeBox(annotation));
drawn.on("selectionChanged", renderList);

function removeBox(annotation) {
  if (!boxes.has(annotation.id)) return;
  save(annotation, true);
  boxes.delete(annotation.id);
  renderList();
}
function eraseBox(id) {
  const annotation = drawn.getAnnotationById(id);
  if (!annotation || boxes.get(id)?.may_edit === false) return;
  drawn.removeAnnotation(id);
  removeBox(annotation);
}

function renderList() {
  const selected = new Set(drawn.getSelected().map((one) => one.id));
  const known = drawn.getAnnotations().filter((one) => boxes.has(one.id));
  $("count").textContent = translate("{n} boxes", { n: known.length });
  $("box-list").replaceChildren(...known.map((annotation, index) => {
    const box = boxes.get(annotation.id);
    const { width, height } = corners(annotation);
    const line = document.createElement("li");
    const show = document.createElement("button");
    show.className = "small toggle";
    show.setAttribute("aria-pressed", String(selected.has(annotation.id)));
    show.textContent = `${index + 1} · ${width} × ${height}${box.login === settings.login ? "" : ` · ${box.login}`}`;
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
  const pending = new Map(outbox.entries.map((entry) => [entry.body.region_id.replaceAll("-", ""), entry]));
  const annotations = [];
  for (const box of known) {
    const entry = pending.get(box.region_id);
    pending.delete(box.region_id);
    if (entry?.body.deleted) continue;
    const id = entry?.subject ?? box.region_id;
    boxes.set(id, { ...box, version: box.version });
    annotations.push(asAnnotation(id, entry?.body ?? box));
  }
  for (const entry of pending.values()) {
    if (entry.body.deleted) continue;
    boxes.set(entry.subject, { region_id: entry.body.region_id, version: 0, may_edit: true, login: settings.login });
    annotations.push(asAnnotation(entry.subject, entry.body));
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
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, textarea, select")) return;
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action) { event.preventDefault(); action(); }
});
$("draw").addEventListener("click", () => setDrawing(!isDrawing()));
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

setDrawing(false);
showSaveState(outbox.size, null, () => outbox.flush());
viewer.addOnceHandler("open", () => { load(); outbox.flush(); });

// Sends the chosen image to the HTTP interface and shows the prediction.
import { byId, request, settings, showProblem, translate } from "./service.js";

const STATES = { present: "above the threshold, alone", absent: "below the threshold", either: "cannot be settled" };
const NO_OVERLAY = "No overlay: this server runs an export, which has no gradients.";
const viewer = new window.PictureViewer(byId("preview"), { translate, guide: settings.guide });
let overlayUrl = null;
let pictureUrl = null;

const nameOf = (label) => (settings.language === "zh" && label.name_zh) || label.name;

// A whole slide cannot be predicted as a crop; say where it can.
function isSlide(file) {
  const name = file.name.toLowerCase();
  return settings.slideSuffixes.some((suffix) => name.endsWith(suffix)) || (/\.tiff?$/.test(name) && file.size > settings.maxMib * 2 ** 20);
}

function refuseSlide(file) {
  byId("image").value = "";
  if (settings.takesSlides) {
    showProblem(translate("This is a whole slide. Slides are predicted as jobs, from the slides folder of the server."), [`/slides?slide=${encodeURIComponent(file.name)}`, translate("To the slides")]);
  } else {
    showProblem(translate("This is a whole slide, and this server takes crops only. Its operator can start it with --slides FOLDER and --jobs FOLDER."));
  }
}

function showPicture() {
  viewer.show({ src: pictureUrl, alt: translate("Chosen image {name}", { name: byId("image").files[0].name }), mpp: byId("mpp").value })
    .catch(() => { byId("preview").hidden = true; }); // a TIFF, which browsers do not show
}

function preview() {
  const file = byId("image").files[0];
  if (pictureUrl) URL.revokeObjectURL(pictureUrl);
  pictureUrl = null;
  viewer.hide();
  byId("preview").hidden = true;
  showProblem(null);
  if (!file) return;
  if (isSlide(file)) { refuseSlide(file); return; }
  byId("drop-text").textContent = translate("Drop another image here, or choose one:");
  byId("preview").hidden = false;
  pictureUrl = URL.createObjectURL(file);
  showPicture();
}

function row(label) {
  const line = document.createElement("tr");
  if (label.called) line.className = "called";
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = label.called ? translate("{name} (called)", { name: nameOf(label) }) : nameOf(label);
  const chance = document.createElement("td");
  chance.className = "number";
  chance.textContent = `${(100 * label.probability).toFixed(1)} %`;
  const bar = document.createElement("td");
  const meter = document.createElement("meter");
  meter.value = label.probability;
  meter.setAttribute("aria-label", `${nameOf(label)} ${chance.textContent}`);
  bar.append(meter);
  const state = document.createElement("td");
  state.textContent = translate(STATES[label.state]);
  line.append(name, chance, bar, state);
  return line;
}

function items(list, texts) {
  list.replaceChildren(...texts.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// Green only for what is confident and was checked by every gate: a crop of unknown scale may be a wrong one.
function showReferral(prediction) {
  const box = byId("referral");
  const least = prediction.coverage;
  const isConfident = prediction.labels.every((label) => (label.called ? label.probability >= least : label.probability <= 1 - least));
  const isGood = !prediction.referred && prediction.scale_known && isConfident;
  box.classList.toggle("none", isGood);
  const text = document.createElement("p");
  if (prediction.referred) text.textContent = translate("A person must review this image:");
  else if (isGood) text.textContent = translate("Inside every gate: no reason was found to refer this image.");
  else if (!prediction.scale_known) text.textContent = translate("No reason was found to refer this image, but its scale is not known: state its µm per pixel.");
  else text.textContent = translate("No gate refers this image, but the call is not confident: a label lies between {low} % and {high} %. Look at it yourself.", { low: Math.round(100 * (1 - least)), high: Math.round(100 * least) });
  const list = document.createElement("ul");
  items(list, prediction.reasons.map((reason) => reason.meaning));
  box.replaceChildren(text, ...(prediction.referred ? [list] : []));
}

function showOverlay(prediction) {
  if (overlayUrl) URL.revokeObjectURL(overlayUrl);
  overlayUrl = null;
  byId("saliency").hidden = !prediction.overlay;
  if (!prediction.overlay) return;
  const bytes = Uint8Array.from(atob(prediction.overlay.png_base64), (one) => one.charCodeAt(0));
  overlayUrl = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  const name = nameOf(prediction.labels.find((label) => label.id === prediction.overlay.label));
  byId("overlay").src = overlayUrl;
  byId("overlay").alt = translate("The crop, and beside it a map of the evidence for {name}", { name });
  byId("overlay-caption").textContent = translate("Left: the crop as the network reads it. Right: what influenced the probability of {name} ({method}); the brighter, the more. It proves no lesion.", { name, method: prediction.overlay.method });
}

function showPrediction(prediction) {
  byId("waiting").hidden = true;
  byId("found").hidden = false;
  const called = prediction.labels.filter((label) => label.called).map(nameOf);
  byId("call").textContent = prediction.assessed ? called.join(translate("sign|, ")) || translate("no label") : translate("not assessed as a glomerulus");
  byId("coverage").textContent = translate("the labels above the threshold hold the true one in {n} of 100 images like the validation images; a label below it is less likely, not excluded", { n: Math.round(100 * prediction.coverage) });
  byId("labels").closest("table").hidden = !prediction.assessed;
  byId("labels").replaceChildren(...prediction.labels.map(row));
  showReferral(prediction);
  showOverlay(prediction);
  items(byId("notes"), prediction.notes);
  byId("prediction").focus({ preventScroll: true });
  byId("prediction").scrollIntoView({ block: "nearest" });
}

async function predict() {
  const file = byId("image").files[0];
  if (file.size > settings.maxMib * 2 ** 20) throw new Error(translate("The image is larger than {n} MiB.", { n: settings.maxMib }));
  const query = new URLSearchParams({ saliency: settings.canDraw, language: settings.language });
  for (const name of ["stain", "mpp"]) if (byId(name).value) query.set(name, byId(name).value);
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  const prediction = await (await request(`/v1/crops?${query}`, { method: "POST", headers, body: file })).json();
  if (!settings.canDraw) prediction.notes.push(translate(NO_OVERLAY));
  return prediction;
}

byId("image").addEventListener("change", preview);
byId("mpp").addEventListener("change", () => { if (pictureUrl) showPicture(); });
byId("preview").addEventListener("keydown", (event) => viewer.key(event));
byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("predict");
  button.disabled = true;
  button.textContent = translate("Predicting…");
  showProblem(null);
  try {
    showPrediction(await predict());
  } catch (error) {
    byId("found").hidden = true;
    byId("waiting").hidden = false;
    showProblem(error.message);
  } finally {
    button.disabled = false;
    button.textContent = translate("Predict");
  }
});

const drop = byId("drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  byId("image").files = event.dataTransfer.files;
  preview();
});

// Sends the chosen image to the HTTP interface and shows the prediction.
const byId = (id) => document.getElementById(id);
const settings = document.body.dataset;
const STATES = { present: "above the threshold, alone", absent: "below the threshold", either: "cannot be settled" };
const NO_OVERLAY = "No overlay: this server runs an export, which has no gradients.";
let overlayUrl = null;

const key = byId("key");
if (key) key.value = sessionStorage.getItem("glomerulab-key") ?? "";

function showProblem(problem) {
  byId("problem").hidden = !problem;
  byId("problem").textContent = problem ?? "";
}

function preview() {
  const file = byId("image").files[0];
  const picture = byId("preview");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.hidden = true;
  showProblem(null);
  if (!file) return;
  byId("drop-text").textContent = "Drop another image here, or choose one:";
  picture.onload = () => { picture.hidden = false; };
  picture.onerror = () => { picture.hidden = true; }; // a TIFF, which browsers do not show
  picture.alt = `Chosen image ${file.name}`;
  picture.src = URL.createObjectURL(file);
}

function row(label) {
  const line = document.createElement("tr");
  if (label.called) line.className = "called";
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = label.called ? `${label.name} (called)` : label.name;
  const chance = document.createElement("td");
  chance.className = "number";
  chance.textContent = `${(100 * label.probability).toFixed(1)} %`;
  const bar = document.createElement("td");
  const meter = document.createElement("meter");
  meter.value = label.probability;
  meter.setAttribute("aria-label", `${label.name} ${chance.textContent}`);
  bar.append(meter);
  const state = document.createElement("td");
  state.textContent = STATES[label.state];
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

function showReferral(prediction) {
  const box = byId("referral");
  // Green only where every gate was checked: a crop of unknown scale may be a wrong one.
  const isChecked = !prediction.referred && prediction.scale_known;
  box.classList.toggle("none", isChecked);
  const text = document.createElement("p");
  if (prediction.referred) text.textContent = "A person must review this image:";
  else if (isChecked) text.textContent = "Inside every gate: no reason was found to refer this image.";
  else text.textContent = "No reason was found to refer this image, but its scale is not known: state its µm per pixel.";
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
  const name = prediction.labels.find((label) => label.id === prediction.overlay.label).name;
  byId("overlay").src = overlayUrl;
  byId("overlay").alt = `The crop, and beside it a map of the evidence for ${name}`;
  byId("overlay-caption").textContent =
    `Left: the crop as the network reads it. Right: evidence for ${name} `
    + `(${prediction.overlay.method}); the brighter, the more.`;
}

function showPrediction(prediction) {
  byId("waiting").hidden = true;
  byId("found").hidden = false;
  const called = prediction.labels.filter((label) => label.called).map((label) => label.name);
  byId("call").textContent = prediction.assessed ? called.join(", ") || "no label" : "not assessed as a glomerulus";
  byId("coverage").textContent = prediction.assessed
    ? "the labels above the threshold hold the true one in "
      + `${Math.round(100 * prediction.coverage)} of 100 images like the validation images; a label below it is less likely, not excluded`
    : "probabilities mean nothing for it";
  byId("labels").replaceChildren(...(prediction.assessed ? prediction.labels.map(row) : []));
  showReferral(prediction);
  showOverlay(prediction);
  items(byId("notes"), prediction.notes);
  byId("prediction").focus({ preventScroll: true });
  byId("prediction").scrollIntoView({ block: "nearest" });
}

async function predict() {
  const file = byId("image").files[0];
  if (file.size > settings.maxMib * 2 ** 20) {
    throw new Error(`The image is larger than ${settings.maxMib} MiB.`);
  }
  const query = new URLSearchParams({ saliency: settings.canDraw === "yes" });
  for (const name of ["stain", "mpp"]) if (byId(name).value) query.set(name, byId(name).value);
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  if (key) {
    sessionStorage.setItem("glomerulab-key", key.value);
    headers.Authorization = `Bearer ${key.value}`;
  }
  const response = await fetch(`/v1/crops?${query}`, { method: "POST", headers, body: file });
  const prediction = await response.json();
  if (!response.ok) throw new Error(prediction.detail);
  if (settings.canDraw !== "yes") prediction.notes.push(NO_OVERLAY);
  return prediction;
}

byId("image").addEventListener("change", preview);
byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("predict");
  button.disabled = true;
  button.textContent = "Predicting…";
  showProblem(null);
  try {
    showPrediction(await predict());
  } catch (error) {
    byId("found").hidden = true;
    byId("waiting").hidden = false;
    showProblem(error instanceof TypeError ? "The server cannot be reached." : error.message);
  } finally {
    button.disabled = false;
    button.textContent = "Predict";
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

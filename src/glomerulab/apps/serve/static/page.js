// Sends the chosen image to the same interface as programs use, and shows what comes back.
const byId = (id) => document.getElementById(id);
const settings = document.body.dataset;
const STATES = { present: "present", absent: "ruled out", either: "cannot be settled" };
const NO_OVERLAY = "No overlay: this server runs an export, which holds no gradients.";
let shown = null;

const key = byId("key");
if (key) key.value = sessionStorage.getItem("glomerulab-key") ?? "";

function say(problem) {
  byId("problem").hidden = !problem;
  byId("problem").textContent = problem ?? "";
}

function preview() {
  const file = byId("image").files[0];
  const picture = byId("preview");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.hidden = true;
  say(null);
  if (!file) return;
  byId("drop-words").textContent = "Drop another image here, or choose one:";
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

function refer(answer) {
  const box = byId("referral");
  box.classList.toggle("none", !answer.referred);
  const words = document.createElement("p");
  words.textContent = answer.referred
    ? "A person must look at this image:"
    : "No reason was found to refer this image.";
  const list = document.createElement("ul");
  items(list, answer.reasons.map((reason) => reason.meaning));
  box.replaceChildren(words, ...(answer.referred ? [list] : []));
}

function draw(answer) {
  if (shown) URL.revokeObjectURL(shown);
  shown = null;
  byId("seen").hidden = !answer.overlay;
  if (!answer.overlay) return;
  const bytes = Uint8Array.from(atob(answer.overlay.png_base64), (one) => one.charCodeAt(0));
  shown = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
  const name = answer.labels.find((label) => label.id === answer.overlay.label).name;
  byId("overlay").src = shown;
  byId("overlay").alt = `The crop, and beside it a map of where the model found ${name}`;
  byId("overlay-words").textContent =
    `Left the crop as the model saw it; right what spoke for ${name} `
    + `(${answer.overlay.method}), brighter is more.`;
}

function show(answer) {
  byId("waiting").hidden = true;
  byId("found").hidden = false;
  const called = answer.labels.filter((label) => label.called).map((label) => label.name);
  byId("call").textContent = called.join(", ") || "no label";
  byId("coverage").textContent = "states hold the truth in "
    + `${Math.round(100 * answer.coverage)} of 100 images like the validation images`;
  byId("labels").replaceChildren(...answer.labels.map(row));
  refer(answer);
  draw(answer);
  items(byId("notes"), answer.notes);
  byId("answer").focus({ preventScroll: true });
  byId("answer").scrollIntoView({ block: "nearest" });
}

async function judge() {
  const file = byId("image").files[0];
  if (file.size > settings.maxMib * 2 ** 20) {
    throw new Error(`The image is larger than ${settings.maxMib} MiB.`);
  }
  const asked = new URLSearchParams({ saliency: settings.canDraw === "yes" });
  for (const name of ["stain", "mpp"]) if (byId(name).value) asked.set(name, byId(name).value);
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  if (key) {
    sessionStorage.setItem("glomerulab-key", key.value);
    headers.Authorization = `Bearer ${key.value}`;
  }
  const answer = await fetch(`/v1/crops?${asked}`, { method: "POST", headers, body: file });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  if (settings.canDraw !== "yes") found.notes.push(NO_OVERLAY);
  return found;
}

byId("image").addEventListener("change", preview);
byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("judge");
  button.disabled = true;
  button.textContent = "Judging…";
  say(null);
  try {
    show(await judge());
  } catch (error) {
    byId("found").hidden = true;
    byId("waiting").hidden = false;
    say(error instanceof TypeError ? "The server cannot be reached." : error.message);
  } finally {
    button.disabled = false;
    button.textContent = "Judge";
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

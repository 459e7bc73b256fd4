// The dialogs of the labelling page. Each returns a promise; Escape cancels.
import { translate } from "./translate.js";

const $ = (id) => document.getElementById(id);

function openDialog(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

async function editNote(text) {
  $("note-input").value = text;
  const closed = openDialog($("note-dialog"));
  $("note-input").focus();
  return (await closed) === "keep" ? $("note-input").value.trim() : null;
}
// Enter closes the note; Shift and Enter starts a new line.
$("note-input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("note-dialog").close("keep"); }
});

// No reason is chosen at first: one that is pressed by habit would be stored for every image.
async function chooseSkipReason() {
  $("skip-form").reset();
  if ((await openDialog($("skip-dialog"))) !== "skip") return null;
  const reason = $("skip-form").querySelector("input[name=reason]:checked").value;
  const text = $("skip-text").value.trim();
  return text ? `${reason}: ${text}` : reason;
}
$("skip-dialog").addEventListener("keydown", (event) => {
  const reasons = [...$("skip-form").querySelectorAll("input[name=reason]")];
  if (/^[1-9]$/.test(event.key) && event.target !== $("skip-text") && reasons[event.key - 1]) {
    event.preventDefault();
    reasons[event.key - 1].checked = true;
    reasons[event.key - 1].focus();
  } else if (event.key === "Enter" && !event.target.closest("button")) {
    event.preventDefault();
    if ($("skip-form").reportValidity()) $("skip-dialog").close("skip");
  }
});

const waiting = []; // conflicts are shown one after the other
function resolveConflict(entry, theirs, describe, choices) {
  waiting.push({ entry, theirs, describe, choices });
  if (!$("conflict-dialog").open) nextConflict();
}
function nextConflict() {
  if (!waiting.length) return;
  const { entry, theirs, describe } = waiting[0];
  const when = new Date(theirs.saved_at).toLocaleTimeString();
  $("conflict-where").textContent = translate("Image {n} was saved in another window at {when}.", { n: entry.place, when });
  $("conflict-image").src = imageAddress(entry);
  $("conflict-theirs").textContent = describe(theirs);
  $("conflict-mine").textContent = describe(entry.body);
  $("conflict-dialog").showModal();
}
// The image in question is often no longer the one on the screen.
function imageAddress({ subject, body }) {
  return `/items/${subject}/image${body.image_mark ? `?v=${body.image_mark.slice(0, 16)}` : ""}`;
}
for (const [id, choice] of [["conflict-keep", "keep"], ["conflict-use", "use"]]) {
  $(id).addEventListener("click", () => {
    $("conflict-dialog").close();
    waiting.shift().choices[choice]();
    nextConflict();
  });
}
// The user must choose a version, or a label would be lost.
$("conflict-dialog").addEventListener("cancel", (event) => event.preventDefault());

export const dialogs = { editNote, chooseSkipReason, resolveConflict, help: () => openDialog($("help-dialog")) };

// The questions the labelling page asks. Each answers with a promise; Escape is always "no".
import { say } from "./words.js";

const $ = (id) => document.getElementById(id);

function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

async function note(text) {
  $("note-input").value = text;
  const done = ask($("note-dialog"));
  $("note-input").focus();
  return (await done) === "keep" ? $("note-input").value.trim() : null;
}
// Enter ends a note, as it ends everything here; Shift and Enter makes a new line.
$("note-input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("note-dialog").close("keep"); }
});

async function skip() {
  $("skip-text").value = "";
  if ((await ask($("skip-dialog"))) !== "skip") return null;
  const reason = document.querySelector("#skip-dialog input[name=reason]:checked").value;
  const text = $("skip-text").value.trim();
  return text ? `${reason}: ${text}` : reason;
}
$("skip-dialog").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.target.closest("button")) { event.preventDefault(); $("skip-dialog").close("skip"); }
});

const waiting = []; // conflicts are asked about one after the other
function conflict(entry, theirs, describe, choices) {
  waiting.push({ entry, theirs, describe, choices });
  if (!$("conflict-dialog").open) nextConflict();
}
function nextConflict() {
  if (!waiting.length) return;
  const { entry, theirs, describe } = waiting[0];
  const when = new Date(theirs.saved_at).toLocaleTimeString();
  $("conflict-where").textContent = say("Image {n} was saved in another window at {when}.", { n: entry.place, when });
  $("conflict-theirs").textContent = describe(theirs);
  $("conflict-mine").textContent = describe(entry.body);
  $("conflict-dialog").showModal();
}
for (const [id, choice] of [["conflict-keep", "keep"], ["conflict-use", "use"]]) {
  $(id).addEventListener("click", () => {
    $("conflict-dialog").close();
    waiting.shift().choices[choice]();
    nextConflict();
  });
}
// Neither answer may be skipped: a label would be lost.
$("conflict-dialog").addEventListener("cancel", (event) => event.preventDefault());

export const dialogs = { note, skip, conflict, help: () => ask($("help-dialog")) };

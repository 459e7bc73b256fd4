// The page that settles an image: its picture, large, and the form, in which a tick clears those that it
// excludes, as on the labelling page.
import { translate } from "./translate.js";

const settings = JSON.parse(document.getElementById("settings").textContent);
const viewer = new window.PictureViewer(document.getElementById("viewer"), { translate, guide: settings.guide });
viewer.show(settings.picture).catch(() => { document.getElementById("picture-problem").hidden = false; });

const ticks = [...document.querySelectorAll("#settle input[type=checkbox]")];

function excludes(one, other) {
  return one.name !== "label" || other.name !== "label" || one.dataset.excludes.split(" ").includes(other.value);
}
for (const tick of ticks) {
  tick.addEventListener("change", () => {
    if (!tick.checked) return;
    for (const other of ticks) {
      if (other !== tick && (excludes(tick, other) || excludes(other, tick))) other.checked = false;
    }
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("textarea, input:not([type=checkbox])")) return;
  const label = ticks.filter((tick) => tick.name === "label")[Number(event.key) - 1];
  if (/^[1-9]$/.test(event.key) && label) { event.preventDefault(); label.click(); }
  else if (event.key === "Enter" && !event.target.closest("a, button, summary")) {
    event.preventDefault();
    document.getElementById("settle").requestSubmit();
  } else viewer.key(event);
});
// After a click with the mouse the keys act on the page again, not on the button.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".viewer-bar button, .viewer-panel button");
  if (button && event.detail > 0) button.blur();
});

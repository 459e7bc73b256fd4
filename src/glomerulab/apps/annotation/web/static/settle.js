// The form that settles an image: a tick clears those that it excludes, as on the labelling page.
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

// Whether everything is on the server, in the bar above; and what to do if it is not, in the banner.
import { say } from "./words.js";

const $ = (id) => document.getElementById(id);
let isShown = false;

export function showSaveState(n, error, tryNow) {
  const state = $("save-state");
  state.classList.toggle("waiting", n > 0 && error !== null);
  if (n === 0) state.textContent = say("All saved");
  else state.textContent = error ? say("{n} not saved yet", { n }) : say("Saving…");
  if (n > 0 && error?.mayPass) {
    const text = say("{why} Your work is kept in this browser ({n}) and is sent again by itself. You can go on.", { why: say(error.message), n });
    fill($("banner"), text, say("Try now"), tryNow);
    isShown = true;
  } else if (n === 0 && isShown) {
    $("banner").hidden = true;
    isShown = false;
  }
}

export function fill(element, text, action, act) {
  element.hidden = text === null;
  const line = document.createElement("p");
  line.textContent = text ?? "";
  element.replaceChildren(line);
  if (text !== null && action) {
    const button = document.createElement("button");
    button.className = "small";
    button.textContent = action;
    button.addEventListener("click", act);
    element.append(button);
  }
}

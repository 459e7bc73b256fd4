// Show in the top bar whether everything is on the server, and in the banner what to do if it is not.
import { translate } from "./translate.js";

const $ = (id) => document.getElementById(id);
let isBannerShown = false;

// hint: a further sentence while something waits.
export function showSaveState(n, error, retry, hint = translate("You can continue.")) {
  const state = $("save-state");
  state.classList.toggle("waiting", n > 0 && error !== null);
  if (n === 0) state.textContent = translate("All saved");
  else state.textContent = error ? translate("{n} not saved yet", { n }) : translate("Saving…");
  if (n > 0 && error?.isRetryable) {
    const text = `${translate("{why} Your work ({n}) is kept in this browser and will be sent again automatically.", { why: sentence(translate(error.message)), n })} ${hint}`;
    fillMessage($("banner"), text, translate("Try now"), retry);
    isBannerShown = true;
  } else if (n === 0 && isBannerShown) {
    $("banner").hidden = true;
    isBannerShown = false;
  }
}

// An error message of the server has neither a capital nor a full stop.
export function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[a-z0-9)'"]$/i.test(text) ? `${text}.` : text;
}

// Show a text with an optional button in an element; null hides the element.
export function fillMessage(element, text, buttonText, onClick) {
  element.hidden = text === null;
  const line = document.createElement("p");
  line.textContent = text ?? "";
  element.replaceChildren(line);
  if (text !== null && buttonText) {
    const button = document.createElement("button");
    button.className = "small";
    button.textContent = buttonText;
    button.addEventListener("click", onClick);
    element.append(button);
  }
}

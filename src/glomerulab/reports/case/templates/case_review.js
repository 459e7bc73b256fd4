"use strict";
// The page of a case while `glomerulab review` runs. Changes that this browser keeps are sent, one after the other; the
// program counts them and makes the page anew. Nothing is counted here, and nothing is given up that was not counted.
(() => {
  const page = window.casePage;
  const { facts, say, kept, keep, row, show, element, nameOf, moment, cardOf, openForm } = page;
  const ASK_EVERY_MS = 5000;
  const ANSWER_WITHIN_MS = 30000;
  const COUNTED = "glomerulab counted " + facts.key;
  const DRAFTS = "glomerulab drafts " + facts.key;
  const refused = new Map();  // what the program answered to a change, by the change
  let isSending = false;

  function remember(key, text) {
    try { sessionStorage.setItem(key, text); } catch { /* the page then begins at its top */ }
  }

  function recall(key) {
    try { return sessionStorage.getItem(key) || ""; } catch { return ""; }
  }

  const place = document.getElementById("review");
  function tell(text, buttonText, act) {
    const parts = [element("span", text)];
    if (buttonText) {
      const button = element("button", buttonText);
      button.type = "button";
      button.addEventListener("click", act);
      parts.push(" ", button);
    }
    place.replaceChildren(...parts);
    place.hidden = !text;
  }

  async function ask(path, body) {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    };
    try {
      const answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
      return { status: answer.status, ok: answer.ok, body: await answer.json() };
    } catch {
      return { status: 0, ok: false, body: {} };
    }
  }

  // Nobody there, or a program that was started anew under another address.
  const tellLost = () => tell(say("The server does not respond. Your changes stay in this browser and are counted when it responds again. If it was stopped, save them as a file."), say("Try again"), again);
  // Somebody is there, and says why it cannot count: such as a damaged file.
  const tellWhy = (detail) => tell(`${say("These predictions cannot be counted now. Your changes stay in this browser. The reason")}${say("sign|: ")}${detail}`, say("Try again"), again);
  const tellEnded = () => tell(say("The server was restarted: open its new address. Changes that are not counted yet stay here: save them as a file."));

  async function send() {
    if (isSending) return;
    isSending = true;
    let last = "";
    const waiting = new Set();  // images with a change that a person has to decide on: later ones wait behind it
    for (const entry of kept()) {
      const current = kept().find((one) => row(one) === row(entry));  // what was seen of it may have grown
      if (!current || waiting.has(current.image_id)) continue;
      if (refused.has(row(current))) { waiting.add(current.image_id); continue; }
      const { ok, status, body } = await ask("changes", current);
      if (ok) {
        last = current.image_id;
        // The next change of the same image was made knowing this one.
        keep(kept().filter((one) => row(one) !== row(current)).map(
          (one) => one.image_id === last && one.seen === current.seen ? { ...one, seen: body.seen } : one));
      } else if (status === 0) {
        tellLost();
        break;
      } else if (status === 404) {
        tellEnded();
        break;
      } else {
        refused.set(row(current), body);
        waiting.add(current.image_id);
      }
    }
    isSending = false;
    if (last) showAnew(last);
    else show();
  }

  function showAnew(image = "") {
    remember(COUNTED, image);
    location.reload();
  }

  // A change that was not counted says why, beside itself; the person decides.
  page.onShown = (entry, line) => {
    const answer = refused.get(row(entry));
    if (!answer) return;
    const { current, detail, why: reason, seen } = answer;
    const why = current
      ? `${say("Not counted: somebody else changed this call meanwhile, to")}${say("sign|: ")}${nameOf(current.labels)} (${current.by}, ${moment(current.time)}${say("sign|: ")}${current.reason})`
      : `${say("Not counted")}${say("sign|: ")}${facts.outdated[reason] ?? detail ?? ""}`;
    line.prepend(element("strong", why), element("br"));
    if (seen === undefined) return;
    const mine = element("button", say("Count mine anyway"));
    mine.type = "button";
    mine.addEventListener("click", () => {
      refused.delete(row(entry));
      keep(kept().map((one) => row(one) === row(entry) ? { ...one, seen } : one));
      send();
    });
    line.append(" ", mine);
  };
  page.onKept = send;

  async function check() {
    if (document.hidden || isSending) return;
    const { ok, status, body } = await ask("state");
    if (isSending) return;
    if (status === 404) tellEnded();
    else if (!ok) { if (body.detail) tellWhy(body.detail); else tellLost(); }
    else if (body.state !== facts.review.state) tell(say("A call was changed after this page was loaded: its numbers are out of date."), say("Show the new numbers"), () => showAnew());
    else if (place.querySelector("button")) { tell(""); send(); }
  }

  async function again() {
    refused.clear();
    await check();
    await send();
  }

  // Words that were not yet kept as a change outlive the page's being shown anew.
  function saveDrafts() {
    const drafts = [...document.querySelectorAll(".change[open] form")].map((form) => ({
      image: form.closest("li").dataset.image,
      labels: [...form.querySelectorAll("input:checked")].map((box) => box.value),
      reason: form.elements.reason.value,
      by: form.elements.by.value,
    }));
    remember(DRAFTS, JSON.stringify(drafts));
  }

  function restoreDrafts() {
    for (const draft of JSON.parse(recall(DRAFTS) || "[]")) {
      const card = cardOf(draft.image);
      if (!card) continue;
      const details = openForm(card);
      const form = details.querySelector("form");
      form.querySelectorAll("input[type=checkbox]").forEach((box) => { box.checked = draft.labels.includes(box.value); });
      form.elements.reason.value = draft.reason;
      form.elements.by.value = draft.by;
      details.open = true;
    }
  }

  function showCounted() {
    const card = cardOf(recall(COUNTED));
    remember(COUNTED, "");
    // A card that moved to another group is looked for below; the browser would go back to where it was.
    history.scrollRestoration = card ? "manual" : "auto";
    if (!card) return;
    if (kept().length === 0) tell(`${say("Counted: every number on this page includes your change.")} ${document.querySelector(".headline").textContent}`);
    card.classList.add("counted");
    card.querySelector(".change summary").focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });  // below the bar
  }

  restoreDrafts();
  showCounted();
  show();
  send();
  window.addEventListener("pagehide", saveDrafts);
  document.addEventListener("visibilitychange", check);
  setInterval(check, ASK_EVERY_MS);
})();

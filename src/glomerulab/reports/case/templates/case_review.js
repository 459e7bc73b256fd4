"use strict";
// The page of a case while `glomerulab review` runs. The changes in this browser are sent one after the other; the
// server counts them and renders the page again. A change is deleted here only when it has been counted.
(() => {
  const page = window.casePage;
  const { facts, translate, pending, store, keyOf, render, element, nameOf, formatTime, cardOf, bodyOf, openForm } = page;
  const POLL_MS = 5000;
  const TIMEOUT_MS = 30000;
  const COUNTED = "glomerulab counted " + facts.key;
  const DRAFTS = "glomerulab drafts " + facts.key;
  const refused = new Map();  // response of the server by change
  let isSending = false;

  function saveItem(key, text) {
    try { sessionStorage.setItem(key, text); } catch { /* the page then starts at its top */ }
  }

  function loadItem(key) {
    try { return sessionStorage.getItem(key) || ""; } catch { return ""; }
  }

  const place = document.getElementById("review");
  function showMessage(text, buttonText, act) {
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

  async function request(path, body) {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    };
    try {
      const response = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      return { status: response.status, ok: response.ok, body: await response.json() };
    } catch {
      return { status: 0, ok: false, body: {} };
    }
  }

  // The server stopped, or was started again under another address.
  const showUnreachable = () => showMessage(translate("The server does not respond. Your changes stay in this browser and are counted when it responds again. If it was stopped, save them as a file."), translate("Try again"), retry);
  // The server responds with the reason, such as a damaged file.
  const showUncountable = (detail) => showMessage(`${translate("These predictions cannot be counted now. Your changes stay in this browser. The reason")}${translate("sign|: ")}${detail}`, translate("Try again"), retry);
  const showRestarted = () => showMessage(translate("The server was restarted: open its new address. Changes that are not counted yet stay here: save them as a file."));

  async function send() {
    if (isSending) return;
    isSending = true;
    let last = "";
    const waiting = new Set();  // images with a refused change, which later ones wait for
    for (const entry of pending()) {
      const current = pending().find((one) => keyOf(one) === keyOf(entry));  // `seen` may have changed
      if (!current || waiting.has(current.image_id)) continue;
      if (refused.has(keyOf(current))) { waiting.add(current.image_id); continue; }
      const { ok, status, body } = await request("changes", current);
      if (ok) {
        last = current.image_id;
        // The next change of the same image was made after this one.
        store(pending().filter((one) => keyOf(one) !== keyOf(current)).map(
          (one) => one.image_id === last && one.seen === current.seen ? { ...one, seen: body.seen } : one));
      } else if (status === 0) {
        showUnreachable();
        break;
      } else if (status === 404) {
        showRestarted();
        break;
      } else {
        refused.set(keyOf(current), body);
        waiting.add(current.image_id);
      }
    }
    isSending = false;
    if (last) reload(last);
    else render();
  }

  function reload(image = "") {
    saveItem(COUNTED, image);
    location.reload();
  }

  // Show beside a refused change why it was not counted.
  page.onRendered = (entry, line) => {
    const response = refused.get(keyOf(entry));
    if (!response) return;
    const { current, detail, why: reason, seen } = response;
    const text = current
      ? `${translate("Not counted: somebody else changed this call meanwhile, to")}${translate("sign|: ")}${nameOf(current.labels)} (${current.by}, ${formatTime(current.time)}${translate("sign|: ")}${current.reason})`
      : `${translate("Not counted")}${translate("sign|: ")}${facts.outdated[reason] ?? detail ?? ""}`;
    line.prepend(element("strong", text), element("br"));
    if (seen === undefined) return;
    const mine = element("button", translate("Count mine anyway"));
    mine.type = "button";
    mine.addEventListener("click", () => {
      refused.delete(keyOf(entry));
      store(pending().map((one) => keyOf(one) === keyOf(entry) ? { ...one, seen } : one));
      send();
    });
    line.append(" ", mine);
  };
  page.onStored = send;

  async function check() {
    if (document.hidden || isSending) return;
    const { ok, status, body } = await request("state");
    if (isSending) return;
    if (status === 404) showRestarted();
    else if (!ok) { if (body.detail) showUncountable(body.detail); else showUnreachable(); }
    else if (body.state !== facts.review.state) showMessage(translate("A call was changed after this page was loaded: its numbers are out of date."), translate("Show the new numbers"), () => reload());
    else if (place.querySelector("button")) { showMessage(""); send(); }
  }

  async function retry() {
    refused.clear();
    await check();
    await send();
  }

  // Keep unfinished input across a reload.
  function saveDrafts() {
    const drafts = [...document.querySelectorAll(".change[open] form")].map((form) => ({
      image: form.closest(".body").dataset.image,
      labels: [...form.querySelectorAll("input:checked")].map((box) => box.value),
      reason: form.elements.reason.value,
      by: form.elements.by.value,
    }));
    saveItem(DRAFTS, JSON.stringify(drafts));
  }

  function restoreDrafts() {
    for (const draft of JSON.parse(loadItem(DRAFTS) || "[]")) {
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
    const card = cardOf(loadItem(COUNTED));
    saveItem(COUNTED, "");
    // The card may have moved to another group, so the old scroll position is not restored.
    history.scrollRestoration = card ? "manual" : "auto";
    if (!card) return;
    if (pending().length === 0) showMessage(`${translate("Counted: every number on this page includes your change.")} ${document.querySelector(".headline").textContent}`);
    card.classList.add("counted");
    bodyOf(card).querySelector(".change summary").focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });  // below the bar
  }

  restoreDrafts();
  showCounted();
  render();
  send();
  window.addEventListener("pagehide", saveDrafts);
  document.addEventListener("visibilitychange", check);
  setInterval(check, POLL_MS);
})();

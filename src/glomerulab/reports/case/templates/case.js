"use strict";
// Changes of calls that are made on the page of a report. They stay in this browser until they are counted: saved as a
// file and given to `glomerulab override --from`, or sent to `glomerulab review` (case_review.js). Until then the
// page shows that its numbers do not include them.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const translate = (text) => facts.translations[text];
  const FIELDS = ["time", "by", "image_id", "labels", "reason"];  // identify a change
  const COLUMNS = [...FIELDS, "place"];
  const PLACE = "glomerulab changes " + facts.key;
  const NAME = "glomerulab name";
  let inMemory = [];  // where the browser stores nothing
  let canStore = true;
  let isSaved = true;

  const keyOf = (entry) => JSON.stringify(FIELDS.map((field) => entry[field]));
  const counted = new Set(facts.counted.map((cells) => JSON.stringify(cells)));

  function pending() {
    try {
      return JSON.parse(localStorage.getItem(PLACE) || "[]").filter((one) => !counted.has(keyOf(one)));
    } catch {
      canStore = false;
      return inMemory;
    }
  }

  function store(entries) {
    inMemory = entries;
    try {
      localStorage.setItem(PLACE, JSON.stringify(entries));
    } catch {
      canStore = false;
    }
  }

  function storedName() {
    try { return localStorage.getItem(NAME) || ""; } catch { return ""; }
  }

  function storeName(name) {
    try { localStorage.setItem(NAME, name); } catch { canStore = false; }
  }

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  const nameOf = (labels) => labels.split("+").map((id) => facts.labels[id]?.name ?? id).join(" + ");
  function formatTime(time) {
    const when = new Date(/(Z|[+-]\d\d:?\d\d)$/.test(time) ? time : time + "Z");
    return Number.isNaN(when.getTime()) ? time : when.toISOString().slice(0, 16).replace("T", " ") + " UTC";
  }

  // What stands below a picture, which case_pictures.js moves beside the enlarged one.
  const bodies = new Map([...document.querySelectorAll(".cards .body")].map((body) => [body.closest("li"), body]));
  const bodyOf = (card) => bodies.get(card);
  const cardOf = (image) => [...document.querySelectorAll(".cards li[data-image]")]
    .find((card) => card.dataset.image === image);

  function makeForm(card) {
    const form = document.getElementById("change-form").content.cloneNode(true).querySelector("form");
    const boxes = [...form.querySelectorAll("input[type=checkbox]")];
    const current = card.dataset.labels.split("+");
    boxes.forEach((box) => { box.checked = current.includes(box.value); });
    form.elements.by.value = storedName();
    form.addEventListener("change", (event) => {
      const box = event.target;
      if (box.type !== "checkbox" || !box.checked) return;
      for (const other of boxes) {
        const excluded = facts.labels[box.value].excludes.includes(other.value)
          || facts.labels[other.value].excludes.includes(box.value);
        if (other !== box && excluded) other.checked = false;
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const labels = boxes.filter((box) => box.checked).map((box) => box.value).sort().join("+");
      const [by, reason] = [form.elements.by.value.trim(), form.elements.reason.value.trim()];
      const missing = !labels ? translate("Choose its labels.") : !by || !reason ? translate("A change needs your name and a reason.") : "";
      form.querySelector("[role=alert]").textContent = missing;
      if (missing) return;
      const time = new Date().toISOString().slice(0, 19) + "+00:00";
      storeName(by);
      isSaved = false;
      const { image: image_id, place, seen } = card.dataset;
      store([...pending(), { time, by, image_id, labels, reason, place, seen: Number(seen) }]);
      form.closest("details").open = false;
      form.elements.reason.value = "";
      page.onKept(card);
      render();
      page.onStored();
    });
    form.querySelector(".confirm").hidden = !card.dataset.labels;
    form.querySelector(".confirm").addEventListener("click", () => {
      boxes.forEach((box) => { box.checked = current.includes(box.value); });
      form.elements.reason.value ||= translate("confirmed");
      form.requestSubmit();
    });
    return form;
  }

  function openForm(card) {
    const details = bodyOf(card).querySelector(".change");
    if (!details.querySelector("form")) details.querySelector("summary").after(makeForm(card));
    return details;
  }

  function pendingLine(entry) {
    const line = element("p", "", "pending");
    line.append(element("b", translate("Changed here, not yet counted") + translate("sign|: ") + nameOf(entry.labels)), element("br"));
    line.append(`${entry.by}, ${formatTime(entry.time)}${translate("sign|: ")}${entry.reason} `);
    const back = element("button", translate("Take back"));
    back.type = "button";
    back.addEventListener("click", () => {
      store(pending().filter((one) => keyOf(one) !== keyOf(entry)));
      render();
    });
    line.append(back);
    page.onRendered(entry, line);
    return line;
  }

  function render() {
    const entries = pending();
    document.querySelectorAll(".body .pending").forEach((line) => line.remove());
    for (const [card, body] of bodies) {
      const mine = entries.filter((one) => one.image_id === card.dataset.image);
      body.querySelector(".change").before(...mine.map(pendingLine));
    }
    document.querySelectorAll(".stale").forEach((mark) => {
      mark.hidden = entries.length === 0;
      mark.querySelector(".n").textContent = entries.length;
    });
    document.getElementById("no-storage").hidden = canStore;
  }

  function save() {
    const quoted = (text = "") => '"' + text.replaceAll('"', '""') + '"';
    const lines = [COLUMNS.join(","), ...pending().map((one) => COLUMNS.map((c) => quoted(one[c])).join(","))];
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = facts.file;
    link.click();
    isSaved = true;
  }

  // case_pictures.js replaces onKept; case_review.js the others, on a page that `glomerulab review` serves.
  const page = { facts, translate, pending, store, keyOf, render, element, nameOf, formatTime, cardOf, bodyOf, openForm, onKept() {}, onStored() {}, onRendered() {} };
  window.casePage = page;

  for (const [card, body] of bodies) body.querySelector(".change").addEventListener("toggle", () => openForm(card));
  document.getElementById("save-changes").addEventListener("click", save);
  window.addEventListener("storage", render);  // the same page in another tab
  window.addEventListener("beforeunload", (event) => {
    if (!canStore && !isSaved && pending().length) event.preventDefault();
  });
  render();
})();

"use strict";
// Changes of calls, made on the page of a report. They stay in this browser until they are counted: saved as a
// file and given to `glomerulab override --from`, or sent to `glomerulab review` (case_review.js). Until then the
// page says that its numbers lack them.
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const say = (text) => facts.words[text];
  const FIELDS = ["time", "by", "image_id", "labels", "reason"];  // what makes a change the same one
  const COLUMNS = [...FIELDS, "place"];
  const PLACE = "glomerulab changes " + facts.key;
  const NAME = "glomerulab name";
  let unkept = [];  // where the browser keeps nothing
  let keeps = true;
  let isSaved = true;

  const row = (entry) => JSON.stringify(FIELDS.map((field) => entry[field]));
  const counted = new Set(facts.counted.map((cells) => JSON.stringify(cells)));

  function kept() {
    try {
      return JSON.parse(localStorage.getItem(PLACE) || "[]").filter((one) => !counted.has(row(one)));
    } catch {
      keeps = false;
      return unkept;
    }
  }

  function keep(entries) {
    unkept = entries;
    try {
      localStorage.setItem(PLACE, JSON.stringify(entries));
    } catch {
      keeps = false;
    }
  }

  function remembered() {
    try { return localStorage.getItem(NAME) || ""; } catch { return ""; }
  }

  function remember(name) {
    try { localStorage.setItem(NAME, name); } catch { keeps = false; }
  }

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  const nameOf = (labels) => labels.split("+").map((id) => facts.labels[id]?.name ?? id).join(" + ");
  function moment(time) {
    const when = new Date(/(Z|[+-]\d\d:?\d\d)$/.test(time) ? time : time + "Z");
    return Number.isNaN(when.getTime()) ? time : when.toISOString().slice(0, 16).replace("T", " ") + " UTC";
  }

  const cardOf = (image) => [...document.querySelectorAll(".cards li[data-image]")]
    .find((card) => card.dataset.image === image);

  function makeForm(card) {
    const form = document.getElementById("change-form").content.cloneNode(true).querySelector("form");
    const boxes = [...form.querySelectorAll("input[type=checkbox]")];
    const shown = card.dataset.labels.split("+");
    boxes.forEach((box) => { box.checked = shown.includes(box.value); });
    form.elements.by.value = remembered();
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
      const missing = !labels ? say("Choose its labels.") : !by || !reason ? say("A change needs your name and a reason.") : "";
      form.querySelector("[role=alert]").textContent = missing;
      if (missing) return;
      const time = new Date().toISOString().slice(0, 19) + "+00:00";
      remember(by);
      isSaved = false;
      const { image: image_id, place, seen } = card.dataset;
      keep([...kept(), { time, by, image_id, labels, reason, place, seen: Number(seen) }]);
      form.closest("details").open = false;
      form.elements.reason.value = "";
      show();
      page.onKept();
    });
    return form;
  }

  function openForm(card) {
    const details = card.querySelector(".change");
    if (!details.querySelector("form")) details.querySelector("summary").after(makeForm(card));
    return details;
  }

  function pendingLine(entry) {
    const line = element("p", "", "pending");
    line.append(element("b", say("Changed here, not yet counted") + say("sign|: ") + nameOf(entry.labels)), element("br"));
    line.append(`${entry.by}, ${moment(entry.time)}${say("sign|: ")}${entry.reason} `);
    const back = element("button", say("Take back"));
    back.type = "button";
    back.addEventListener("click", () => {
      keep(kept().filter((one) => row(one) !== row(entry)));
      show();
    });
    line.append(back);
    page.onShown(entry, line);
    return line;
  }

  function show() {
    const entries = kept();
    document.querySelectorAll(".cards .pending").forEach((line) => line.remove());
    for (const card of document.querySelectorAll(".cards li[data-image]")) {
      const mine = entries.filter((one) => one.image_id === card.dataset.image);
      card.querySelector(".change").before(...mine.map(pendingLine));
    }
    document.querySelectorAll(".stale").forEach((mark) => {
      mark.hidden = entries.length === 0;
      mark.querySelector(".n").textContent = entries.length;
    });
    document.getElementById("no-storage").hidden = keeps;
  }

  function save() {
    const quoted = (text = "") => '"' + text.replaceAll('"', '""') + '"';
    const lines = [COLUMNS.join(","), ...kept().map((one) => COLUMNS.map((c) => quoted(one[c])).join(","))];
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = facts.file;
    link.click();
    isSaved = true;
  }

  // What a page with a program behind it adds: case_review.js puts its own in place of these.
  const page = { facts, say, kept, keep, row, show, element, nameOf, moment, cardOf, openForm, onKept() {}, onShown() {} };
  window.casePage = page;

  for (const card of document.querySelectorAll(".cards li[data-image]")) {
    card.querySelector(".change").addEventListener("toggle", () => openForm(card));
  }
  document.getElementById("save-changes").addEventListener("click", save);
  window.addEventListener("storage", show);  // the same page in another tab
  window.addEventListener("beforeunload", (event) => {
    if (!keeps && !isSaved && kept().length) event.preventDefault();
  });
  show();
})();

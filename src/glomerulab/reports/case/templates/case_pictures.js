"use strict";
// Enlarges the pictures of a case, with what is known of each and the form that changes its call beside it.
(() => {
  const page = window.casePage;
  const { facts, translate, bodyOf, openForm, cardOf } = page;
  const OPEN = "glomerulab enlarged " + facts.key;
  const $ = (id) => document.getElementById(id);
  const dialog = $("enlarged");
  const read = dialog.querySelector(".read");
  const cards = [...document.querySelectorAll(".cards li[data-image]")].filter((card) => card.querySelector("button.picture"));
  const guide = [...$("change-form").content.querySelectorAll("fieldset input")].map(({ value }, place) => {
    const { name, definition, picture } = facts.labels[value];
    return { key: String(place + 1), name, text: definition, picture };
  });
  const viewer = new window.PictureViewer($("viewer"), { translate, guide });
  let current = null;
  let isNative = false;  // kept from one picture to the next
  let pointed = null;  // the picture under the mouse

  function remember(image) {
    try { sessionStorage.setItem(OPEN, image); } catch { /* the page then opens as it is */ }
  }

  function pictureOf(card) {
    const svg = card.querySelector("button.picture svg");
    const outline = svg.querySelector("polygon");
    const { width } = svg.viewBox.baseVal;
    return {
      src: svg.querySelector("image").getAttribute("href"), width, mpp: svg.parentElement.dataset.mpp,
      alt: svg.parentElement.getAttribute("aria-label"), map: bodyOf(card).querySelector(".looked img")?.getAttribute("src"),
      marks: outline ? [{ points: outline.getAttribute("points"), colour: outline.getAttribute("stroke") }] : [],
    };
  }

  // The glomerulus with its neighbours: on the slide itself where the page's server has it, else on the report's map.
  function contextOf(card) {
    if (card.dataset.context) return JSON.parse(card.dataset.context);
    const mark = document.querySelector(`.map [data-number="${card.dataset.number}"]`);
    const svg = mark?.closest("svg");
    if (!svg) return null;
    const marks = [...svg.querySelectorAll("[data-number]")].map((one) => {
      const ring = one.querySelector("polygon:last-of-type");
      return { points: ring.getAttribute("points"), colour: ring.getAttribute("stroke"), dashed: ring.hasAttribute("stroke-dasharray"), text: one.dataset.number, current: one === mark };
    });
    const { x, y, width, height } = mark.getBBox();
    return { src: svg.querySelector("image").getAttribute("href"), width: svg.viewBox.baseVal.width, mpp: svg.dataset.mpp, marks, focus: [x + width / 2, y + height / 2, 8 * Math.max(width, height)], alt: svg.getAttribute("aria-label") };
  }

  function putBack() {
    if (current) current.append(read.firstChild);
    read.replaceChildren();
  }

  function open(card, at) {
    if (!card) return;
    putBack();
    current = card;
    read.append(bodyOf(card));
    openForm(card).open = true;
    read.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
    const place = cards.indexOf(card);
    dialog.querySelector(".place").textContent = `${place + 1} / ${cards.length}`;
    $("previous").disabled = place === 0;
    $("next").disabled = place === cards.length - 1;
    $("context").hidden = !contextOf(card);
    $("context").setAttribute("aria-pressed", "false");
    remember(card.dataset.image);
    viewer.show(pictureOf(card)).then(() => {
      if (at) viewer.lookAt(at);
      else if (isNative) viewer.native();
    });
    for (const near of [cards[place + 1], cards[place - 1]]) if (near) viewer.load(pictureOf(near).src);
    viewer.stage.focus();
  }

  function step(by) {
    isNative = viewer.isNative;
    open(cards[cards.indexOf(current) + by]);
  }

  function showContext() {
    const isShown = $("context").getAttribute("aria-pressed") === "true";
    $("context").setAttribute("aria-pressed", String(!isShown));
    viewer.show(isShown ? pictureOf(current) : contextOf(current));
  }

  // Enter: the call as it is, or the labels that were chosen, once a reason is given.
  function keep() {
    const form = openForm(current).querySelector("form");
    const chosen = [...form.querySelectorAll("input:checked")].map((box) => box.value).sort().join("+");
    const isSame = chosen === current.dataset.labels.split("+").sort().join("+");
    if (!form.elements.by.value) form.elements.by.focus();
    else if (isSame && chosen) form.querySelector(".confirm").click();
    else if (!form.elements.reason.value) form.elements.reason.focus();
    else form.requestSubmit();
  }

  function setLabel(place) {
    const box = openForm(current).querySelectorAll("input[type=checkbox]")[place];
    if (box) box.click();
  }

  page.onKept = (card) => {
    if (!dialog.open) return;
    const next = cards[cards.indexOf(card) + 1];
    if (next) open(next);
    else dialog.close();
  };

  dialog.addEventListener("close", () => {
    const card = current;
    putBack();
    current = null;
    viewer.hide();
    remember("");
    card?.querySelector("button.picture").focus();
  });
  for (const card of cards) {
    const button = card.querySelector("button.picture");
    button.addEventListener("click", (event) => {
      const box = button.getBoundingClientRect();
      // A click enlarges where it points; the keyboard's click has no place.
      open(card, event.detail ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : null);
    });
    button.addEventListener("pointermove", (event) => { pointed = { card, event }; });
    button.addEventListener("pointerleave", () => { pointed = null; });
  }
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("context").addEventListener("click", showContext);
  $("close").addEventListener("click", () => dialog.close());
  $("outlines").addEventListener("click", () => {
    const isPlain = document.body.classList.toggle("no-outlines");
    $("outlines").setAttribute("aria-pressed", String(!isPlain));
  });

  document.addEventListener("keydown", (event) => {
    const isText = event.target.closest("input[type=text], textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || isText) return;
    const key = event.key.toLowerCase();
    if (!dialog.open) {
      if (key === "o") $("outlines").click();
      else if (key === "j") open(cards.find((card) => card.contains(document.activeElement)) ?? cards[0]);
      else if (key === "z" && pointed) pointed.card.querySelector("button.picture").dispatchEvent(new MouseEvent("click", { detail: 1, clientX: pointed.event.clientX, clientY: pointed.event.clientY }));
      else return;
      event.preventDefault();
      return;
    }
    const isButton = event.target.closest("button, summary, a");
    if (key === "j") step(1);
    else if (key === "k") step(-1);
    else if (key === "c" && !$("context").hidden) showContext();
    else if (key === "enter" && !isButton) keep();
    else if (/^[1-9]$/.test(key)) setLabel(Number(key) - 1);
    else { viewer.key(event); return; }
    event.preventDefault();
  });

  // The page of `glomerulab review` is loaded anew after each change.
  let last = "";
  try { last = sessionStorage.getItem(OPEN) || ""; } catch { /* none */ }
  if (facts.review && last) open(cards.find((card) => card.dataset.image === last));
})();

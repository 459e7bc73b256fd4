"use strict";
// Shows one picture at a time: reports, review, serve and labelling share it. It needs no other script, adds no style
// attribute to HTML, and makes no request but for the pictures it is given, so that it can be embedded in a file.
//
//   const viewer = new PictureViewer(element, { translate, onShown, guide });
//   await viewer.show({ src, alt, mpp, width, marks, map }, token)  calls onShown(token) once it is on the screen
//   viewer.load(src)      preloads and decodes; the last 16 are kept
//   viewer.key(event)     handles its keys and returns true: + - 0 (fit) Z (native) O (outline) M (map) B (brightness)
//                         D (definitions) and the arrows; the page calls it, as it owns the keyboard
//   viewer.fit() native() zoomBy(factor) panBy(x, y) clear() hide() toggle("outline" | "map" | "adjust" | "guide") lookAt([x, y])
//
// translate: English text to the page's language. guide: [{ key, name, text, picture }], the definition of each label.
// mpp: micrometres per pixel, empty if unknown. width: of the coordinates of mpp and marks, if src was made smaller.
// marks: [{ points: "x,y x,y", colour, dashed, current, text }]. map: address of a picture of the same extent. focus: [x, y, width]
// of the part to show first, instead of all.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MOST = 4;  // device pixels per pixel of the picture
  const MOST_KEPT = 16;
  const LENGTHS_UM = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
  const LONGEST_BAR_PX = 150;
  const ADJUSTMENTS = ["brightness", "contrast", "gamma"];
  let nViewers = 0;

  function made(tag, name = "", text = "") {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text) element.textContent = text;
    return element;
  }

  function drawn(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  class PictureViewer {
    constructor(element, { translate = (text) => text, onShown = () => {}, guide = [] } = {}) {
      this.translate = translate;
      this.onShown = onShown;
      this.element = element;
      this.kept = new Map();  // address -> promise of the decoded image
      this.on = { outline: true, map: false, adjust: false, guide: false };
      this.adjusted = { brightness: 1, contrast: 1, gamma: 1 };
      this.filterId = `picture-viewer-gamma-${nViewers += 1}`;
      element.classList.add("picture-viewer");
      this.#build(guide);
      new ResizeObserver(() => this.#resize()).observe(this.stage);
    }

    load(src) {
      if (!this.kept.has(src)) {
        const image = new Image();
        image.draggable = false;
        image.src = src;
        const loading = image.decode().then(() => image);
        loading.catch(() => this.kept.delete(src));
        this.kept.set(src, loading);
        const old = [...this.kept.keys()].filter((one) => one !== src && one !== this.requested);
        for (const one of old.slice(0, Math.max(0, this.kept.size - MOST_KEPT))) this.kept.delete(one);
      }
      return this.kept.get(src);
    }

    async show(picture, token) {
      this.requested = picture.src;
      const image = await this.load(picture.src);
      if (this.requested !== picture.src) return;
      this.picture = picture;
      this.size = { width: image.naturalWidth, height: image.naturalHeight };
      image.alt = picture.alt ?? "";
      image.className = "image";
      this.sheet.replaceChildren(image, ...this.#map(picture), this.#marks(picture));
      for (const [part, exists] of [["outline", picture.marks?.length], ["map", picture.map]]) this.buttons[part].hidden = !exists;
      this.stage.hidden = this.bar.hidden = false;
      this.#adjust();
      this.#render();
      this.fit();
      if (picture.focus) this.#focus(picture.focus, (picture.width || this.size.width) / this.size.width);
      requestAnimationFrame(() => this.onShown(token));
    }

    // Show nothing; a picture that is still loading is shown when it has come.
    clear() {
      this.picture = null;
      this.sheet.replaceChildren();
      this.bar.hidden = true;
    }
    // Show nothing, also of a picture that is still loading.
    hide() { this.requested = null; this.clear(); }

    get nativeScale() { return 1 / window.devicePixelRatio; }
    get fitScale() {
      const { width, height } = this.#room();
      return Math.min(width / this.size.width, height / this.size.height, MOST * this.nativeScale);
    }

    fit() {
      if (!this.picture) return;
      this.isFit = true;
      this.#place(this.fitScale, this.#middle(), [this.size.width / 2, this.size.height / 2]);
    }

    // One pixel of the picture on one of the screen; `at` (of the stage, CSS px) stays where it is.
    native(at) { this.zoomTo(this.nativeScale, at); }
    get isNative() { return !this.isFit && Math.abs(this.scale / this.nativeScale - 1) < 0.01; }
    // Centre a point, given by shares of width and height, in native pixels, unless the whole is larger already.
    lookAt([x, y]) {
      if (!this.picture || this.fitScale >= this.nativeScale) return;
      this.isFit = false;
      this.#place(this.nativeScale, this.#middle(), [x * this.size.width, y * this.size.height]);
    }

    zoomBy(factor, at) { if (this.picture) this.zoomTo(this.scale * factor, at); }
    zoomTo(scale, at = this.pointer ?? this.#middle()) {
      if (!this.picture) return;
      this.isFit = false;
      const least = Math.min(this.fitScale, this.nativeScale);
      const most = Math.max(this.fitScale, MOST * this.nativeScale);
      this.#place(Math.min(Math.max(scale, least), most), at, this.#pictureAt(at));
    }

    // By shares of the stage.
    panBy(x, y) {
      if (!this.picture) return;
      const { width, height } = this.#room();
      const [middleX, middleY] = this.#middle();
      this.isFit = false;
      this.#place(this.scale, [middleX, middleY], this.#pictureAt([middleX + x * width, middleY + y * height]));
    }

    toggle(part) {
      this.on[part] = !this.on[part];
      if (part === "adjust" && this.on.adjust) this.on.guide = false;
      if (part === "guide" && this.on.guide) this.on.adjust = false;
      this.#render();
    }

    key(event) {
      if (!this.picture || event.ctrlKey || event.metaKey || event.altKey) return false;
      const actions = {
        "+": () => this.zoomBy(1.4), "=": () => this.zoomBy(1.4), "-": () => this.zoomBy(1 / 1.4), 0: () => this.fit(),
        z: () => (this.isNative ? this.fit() : this.native()),
        o: () => this.toggle("outline"), m: () => this.toggle("map"), b: () => this.toggle("adjust"), d: () => this.toggle("guide"),
        ArrowLeft: () => this.panBy(-0.12, 0), ArrowRight: () => this.panBy(0.12, 0),
        ArrowUp: () => this.panBy(0, -0.12), ArrowDown: () => this.panBy(0, 0.12),
      };
      const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const part = { o: "outline", m: "map", d: "guide" }[name];
      if (!Object.hasOwn(actions, name) || (part && this.buttons[part].hidden)) return false;
      event.preventDefault();
      actions[name]();
      return true;
    }

    // ---- geometry -------------------------------------------------------------------------------
    #room() { return { width: this.stage.clientWidth || 1, height: this.stage.clientHeight || 1 }; }
    #middle() { const { width, height } = this.#room(); return [width / 2, height / 2]; }
    #pictureAt([x, y]) { return [(x - this.left) / this.scale, (y - this.top) / this.scale]; }

    // Put a point of the picture at a point of the stage; the picture never leaves it.
    #place(scale, [x, y], [pictureX, pictureY]) {
      const { width, height } = this.#room();
      const kept = (start, room, side) => (side <= room ? (room - side) / 2 : Math.min(0, Math.max(room - side, start)));
      const whole = (length) => Math.round(length * window.devicePixelRatio) / window.devicePixelRatio;
      this.scale = scale;
      this.left = whole(kept(x - pictureX * scale, width, this.size.width * scale));
      this.top = whole(kept(y - pictureY * scale, height, this.size.height * scale));
      this.sheet.style.width = `${this.size.width}px`;
      this.sheet.style.height = `${this.size.height}px`;
      this.sheet.style.transform = `translate(${this.left}px, ${this.top}px) scale(${scale})`;
      const percent = Math.round((100 * scale) / this.nativeScale);
      this.readout.textContent = `${percent} %`;
      this.buttons.native.setAttribute("aria-pressed", String(percent === 100));
      this.#showScale();
    }

    #focus([x, y, width], reduced) {
      this.isFit = false;
      const scale = Math.max(this.fitScale, Math.min((this.#room().width * reduced) / width, MOST * this.nativeScale));
      this.#place(scale, this.#middle(), [x / reduced, y / reduced]);
    }

    #resize() {
      if (!this.picture) return;
      if (this.isFit) this.fit();
      else this.#place(this.scale, this.#middle(), this.#pictureAt(this.#middle()));
    }

    #showScale() {
      const mpp = Number(this.picture.mpp);
      this.rule.hidden = !(mpp > 0);
      if (!(mpp > 0)) return;
      const pxPerUm = (this.scale * this.size.width) / ((this.picture.width || this.size.width) * mpp);
      const length = LENGTHS_UM.findLast((one) => one * pxPerUm <= LONGEST_BAR_PX) ?? LENGTHS_UM[0];
      this.rule.firstChild.style.width = `${length * pxPerUm}px`;
      this.rule.lastChild.textContent = length < 1000 ? `${length} µm` : `${length / 1000} mm`;
    }

    // ---- content --------------------------------------------------------------------------------
    #map(picture) {
      if (!picture.map) return [];
      const image = made("img", "over");
      image.alt = "";
      image.draggable = false;
      image.src = picture.map;
      return [image];
    }

    #marks(picture) {
      const width = picture.width || this.size.width;
      const height = (width * this.size.height) / this.size.width;
      const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "marks", "aria-hidden": "true" });
      for (const { points, colour, dashed, current, text } of picture.marks ?? []) {
        svg.append(drawn("polygon", { points, stroke: colour, class: `mark${dashed ? " dashed" : ""}${current ? " current" : ""}` }));
        if (!text) continue;
        const [x, y] = points.split(" ", 1)[0].split(",");
        const label = drawn("text", { x, y, "font-size": width / 40 });
        label.textContent = text;
        svg.append(label);
      }
      return svg;
    }

    #adjust() {
      const { brightness, contrast, gamma } = this.adjusted;
      for (const one of this.exponents) one.setAttribute("exponent", String(1 / gamma));
      const isChanged = ADJUSTMENTS.some((name) => this.adjusted[name] !== 1);
      const image = this.sheet.querySelector(".image");
      if (image) image.style.filter = isChanged ? `brightness(${brightness}) contrast(${contrast}) url(#${this.filterId})` : "";
      this.buttons.adjust.classList.toggle("changed", isChanged);
    }

    #render() {
      for (const part of Object.keys(this.on)) {
        const button = this.buttons[part];
        const isPanel = part === "adjust" || part === "guide";
        button.setAttribute(isPanel ? "aria-expanded" : "aria-pressed", String(this.on[part]));
      }
      this.sheet.classList.toggle("plain", !this.on.outline);
      this.sheet.classList.toggle("mapped", this.on.map);
      this.panels.adjust.hidden = !this.on.adjust;
      this.panels.guide.hidden = !this.on.guide;
    }

    // ---- elements -------------------------------------------------------------------------------
    #build(guide) {
      const { translate } = this;
      this.stage = made("div", "stage");
      this.stage.tabIndex = 0;
      this.stage.setAttribute("role", "group");
      this.stage.setAttribute("aria-label", translate("Picture"));
      this.sheet = made("div", "sheet");
      this.rule = made("div", "rule");
      this.rule.append(made("i"), made("span"));
      this.rule.hidden = true;
      this.bar = made("div", "viewer-bar");
      this.bar.setAttribute("role", "group");
      this.bar.setAttribute("aria-label", translate("View"));
      this.buttons = {};
      const button = (name, text, title, key, act) => {
        const one = made("button", "", text);
        one.type = "button";
        one.title = `${title} (${key})`;
        one.setAttribute("aria-label", /[A-Z0-9]/i.test(text) && text !== title ? `${text} – ${title}` : title);
        one.setAttribute("aria-keyshortcuts", key);
        one.addEventListener("click", act);
        this.buttons[name] = one;
        return one;
      };
      this.readout = made("output", "readout");
      this.bar.append(
        button("out", "−", translate("Zoom out"), "-", () => this.zoomBy(1 / 1.4, this.#middle())), this.readout,
        button("in", "+", translate("Zoom in"), "+", () => this.zoomBy(1.4, this.#middle())),
        button("fit", "⤢", translate("Whole picture"), "0", () => this.fit()),
        button("native", "1:1", translate("Native pixels"), "Z", () => this.native(this.#middle())),
        button("outline", translate("Outline"), translate("Show the outline"), "O", () => this.toggle("outline")),
        button("map", translate("Map"), translate("Show the map"), "M", () => this.toggle("map")),
        button("adjust", "◐", translate("Brightness, contrast, gamma"), "B", () => this.toggle("adjust")),
        button("guide", "?", translate("Definitions of the labels"), "D", () => this.toggle("guide")),
      );
      this.buttons.guide.hidden = guide.length === 0;
      this.bar.hidden = this.buttons.outline.hidden = this.buttons.map.hidden = true;
      this.panels = { adjust: this.#adjustPanel(), guide: this.#guidePanel(guide) };
      this.stage.append(this.sheet, this.rule);
      this.element.replaceChildren(this.stage, this.bar, this.panels.adjust, this.panels.guide, this.#gamma());
      this.#render();
      this.#listen();
    }

    #adjustPanel() {
      const { translate } = this;
      const panel = made("div", "viewer-panel");
      const names = { brightness: translate("Brightness"), contrast: translate("Contrast"), gamma: translate("Gamma") };
      const inputs = ADJUSTMENTS.map((name) => {
        const label = made("label", "", names[name]);
        const input = made("input");
        Object.assign(input, { type: "range", min: "0.4", max: "2.5", step: "0.05", value: "1" });
        input.addEventListener("input", () => { this.adjusted[name] = Number(input.value); this.#adjust(); });
        label.append(input);
        panel.append(label);
        return input;
      });
      const reset = made("button", "", translate("As it is"));
      reset.type = "button";
      reset.addEventListener("click", () => {
        this.adjusted = { brightness: 1, contrast: 1, gamma: 1 };
        inputs.forEach((input) => { input.value = "1"; });
        this.#adjust();
      });
      panel.append(reset);
      return panel;
    }

    #guidePanel(guide) {
      const panel = made("div", "viewer-panel guide");
      panel.tabIndex = 0;
      panel.setAttribute("role", "region");
      panel.setAttribute("aria-label", this.translate("Definitions of the labels"));
      for (const { key, name, text, picture } of guide) {
        const entry = made("div", "entry");
        const title = made("p");
        if (key) title.append(made("kbd", "", key), " ");
        title.append(made("b", "", name));
        entry.append(title);
        if (picture) {
          const image = made("img");
          Object.assign(image, { src: picture, alt: name });
          entry.append(image);
        }
        entry.append(made("p", "", text || this.translate("No definition is given.")));
        panel.append(entry);
      }
      return panel;
    }

    #gamma() {
      const svg = drawn("svg", { class: "filters", "aria-hidden": "true", width: 0, height: 0 });
      const filter = drawn("filter", { id: this.filterId, "color-interpolation-filters": "sRGB" });
      const transfer = drawn("feComponentTransfer", {});
      this.exponents = ["R", "G", "B"].map((one) => drawn(`feFunc${one}`, { type: "gamma", exponent: 1 }));
      transfer.append(...this.exponents);
      filter.append(transfer);
      svg.append(filter);
      return svg;
    }

    #listen() {
      const held = new Map();  // pointers that are down, by id
      const place = (event) => {
        const box = this.stage.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      const spread = () => { const [[x, y], [u, v]] = held.values(); return Math.max(Math.hypot(u - x, v - y), 1); };
      const centre = () => { const all = [...held.values()]; return [0, 1].map((i) => all.reduce((sum, one) => sum + one[i], 0) / all.length); };
      this.stage.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        held.set(event.pointerId, place(event));
        this.stage.setPointerCapture(event.pointerId);
      });
      this.stage.addEventListener("pointermove", (event) => {
        this.pointer = event.pointerType === "mouse" ? place(event) : undefined;
        if (!this.picture || !held.has(event.pointerId)) return;
        const [before, spreadBefore] = [centre(), held.size === 2 ? spread() : 0];
        held.set(event.pointerId, place(event));
        const under = this.#pictureAt(before);
        this.isFit = false;
        this.#place(this.scale, centre(), under);
        if (held.size === 2) this.zoomBy(spread() / spreadBefore, centre());
      });
      for (const kind of ["pointerup", "pointercancel"]) this.stage.addEventListener(kind, (event) => held.delete(event.pointerId));
      this.stage.addEventListener("pointerleave", () => { this.pointer = undefined; });
      this.stage.addEventListener("dblclick", (event) => (this.isFit ? this.native(place(event)) : this.fit()));
      this.stage.addEventListener("wheel", (event) => {
        event.preventDefault();
        this.zoomBy(1.25 ** (-event.deltaY / 100), place(event));
      }, { passive: false });
    }
  }

  window.PictureViewer = PictureViewer;
})();

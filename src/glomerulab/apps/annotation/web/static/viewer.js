// Show one image at a time in OpenSeadragon. Others are preloaded, invisible, so that the next one
// appears within one frame.
const MAX_KEPT = 14; // the ten that are preloaded, the last ones, and one to spare

export class ImageViewer {
  constructor(element, { onShown }) {
    this.onShown = onShown;
    this.loading = new Map(); // address -> promise of the loaded image
    this.current = null;
    this.osd = OpenSeadragon({
      element, drawer: "canvas", showNavigationControl: false, immediateRender: true, blendTime: 0,
      animationTime: 0.2, springStiffness: 12, minZoomImageRatio: 0.4, maxZoomPixelRatio: 12,
      visibilityRatio: 0.4, zoomPerScroll: 1.25, imageLoaderLimit: 4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true, flickEnabled: false },
      gestureSettingsTouch: { pinchRotate: false },
    });
    // The page handles the keys, wherever the focus is.
    this.osd.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    this.osd.addHandler("tile-drawn", (event) => {
      if (this.awaited && event.tiledImage === this.awaited.image) {
        const { key } = this.awaited;
        this.awaited = null;
        requestAnimationFrame(() => this.onShown(key));
      }
    });
    this.osd.addHandler("resize", () => this.fit());
  }

  load(address) {
    if (!this.loading.has(address)) {
      this.loading.set(address, new Promise((resolve, reject) => {
        this.osd.addTiledImage({
          tileSource: { type: "image", url: address, buildPyramid: false },
          opacity: 0, preload: true,
          success: (event) => resolve(event.item),
          error: (event) => { this.loading.delete(address); reject(new Error(event.message)); },
        });
      }));
    }
    return this.loading.get(address);
  }

  // Resolves when the image is on the screen next; rejects if it cannot be loaded.
  // onShown receives the key when the image is on the screen.
  async show(address, key) {
    this.requested = address;
    const image = await this.load(address);
    if (this.requested !== address) return;
    if (this.current && this.current !== image) this.current.setOpacity(0);
    this.current = image;
    this.awaited = { image, key };
    image.setOpacity(1);
    this.osd.world.setItemIndex(image, this.osd.world.getItemCount() - 1);
    this.fit();
    this.osd.forceRedraw();
    this.#removeOld(address);
  }

  hide() {
    this.requested = null;
    if (this.current) this.current.setOpacity(0);
    this.current = null;
  }

  fit() { if (this.current) this.osd.viewport.fitBounds(this.current.getBounds(), true); }
  zoomBy(factor) { this.osd.viewport.zoomBy(factor); this.osd.viewport.applyConstraints(); }
  panBy(x, y) {
    const size = this.osd.viewport.getBounds(true);
    this.osd.viewport.panBy(new OpenSeadragon.Point(x * size.width, y * size.height));
    this.osd.viewport.applyConstraints();
  }

  #removeOld(shown) {
    // A map keeps the order of insertion: the first are the oldest.
    const others = [...this.loading.keys()].filter((address) => address !== shown);
    for (const address of others.slice(0, Math.max(0, others.length - MAX_KEPT))) {
      this.loading.get(address).then((image) => this.osd.world.removeItem(image), () => {});
      this.loading.delete(address);
    }
  }
}

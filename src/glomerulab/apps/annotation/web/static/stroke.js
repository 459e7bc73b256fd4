// A stroke drawn with mouse, pen or finger over a slide, while a drag would else move the slide.
const STEP = 3; // pixels of the screen between two points
const MAX_POINTS = 500; // that the server takes
const SVG = "http://www.w3.org/2000/svg";

// `isOn()` says whether a drag draws; `onDrawn(points)` gets the stroke in level-0 pixels.
export function drawStrokes(viewer, isOn, onDrawn) {
  const layer = document.createElementNS(SVG, "svg"), line = document.createElementNS(SVG, "polyline");
  layer.setAttribute("class", "stroke");
  layer.append(line);
  viewer.element.append(layer);
  let points = null; // {x, y} in pixels of the screen

  function end() {
    points = null;
    line.setAttribute("points", "");
  }
  viewer.addHandler("canvas-press", (event) => { points = isOn() ? [event.position] : null; });
  viewer.addHandler("canvas-drag", (event) => {
    if (!isOn()) return;
    event.preventDefaultAction = true;
    if (!points || event.position.distanceTo(points.at(-1)) < STEP) return;
    points.push(event.position);
    line.setAttribute("points", points.map(({ x, y }) => `${x},${y}`).join(" "));
  });
  viewer.addHandler("canvas-pinch", end);
  viewer.addHandler("canvas-drag-end", (event) => {
    if (!isOn()) return;
    event.preventDefaultAction = true;
    const drawn = points ?? [];
    end();
    if (drawn.length < 3) return;
    const every = Math.ceil(drawn.length / (MAX_POINTS - 1));
    const kept = drawn.filter((_, index) => index % every === 0 || index === drawn.length - 1);
    onDrawn(kept.map((one) => {
      const { x, y } = viewer.viewport.viewerElementToImageCoordinates(one);
      return [Math.round(x * 100) / 100, Math.round(y * 100) / 100];
    }));
  });
}

// A shape on a slide, as the server keeps it: {x, y, width, height, outline, holes, labels, structure,
// proposed}. The outline of a turned box or of a polygon is a list of points in level-0 pixels; a plain
// box has none.

export function shapeOf(annotation) {
  const { type, geometry } = annotation.target.selector;
  const { minX, minY, maxX, maxY } = geometry.bounds;
  const x = Math.round(minX), y = Math.round(minY);
  const box = { x, y, width: Math.max(1, Math.round(maxX) - x), height: Math.max(1, Math.round(maxY) - y), holes: [] };
  if (type === "POLYGON") return { ...box, outline: rounded(geometry.points) };
  if (type === "MULTIPOLYGON") {
    const [outline, ...holes] = geometry.polygons[0].rings.map((ring) => rounded(ring.points));
    return { ...box, outline, holes };
  }
  return { ...box, outline: isTurned(geometry) ? cornersOf(geometry) : null };
}

export function asAnnotation(id, { x, y, width, height, outline, holes = [] }) {
  const plain = { x, y, w: width, h: height, rot: 0, bounds: { minX: x, minY: y, maxX: x + width, maxY: y + height } };
  const selector = (type, geometry) => ({ id, bodies: [], target: { annotation: id, selector: { type, geometry } } });
  if (!outline) return selector("RECTANGLE", plain);
  const bounds = boundsOf(outline);
  if (holes.length) return selector("MULTIPOLYGON", { polygons: [{ rings: [outline, ...holes].map((points) => ({ points })), bounds }], bounds });
  const turned = rectangleOf(outline);
  return turned ? selector("RECTANGLE", { ...turned, bounds }) : selector("POLYGON", { points: outline, bounds });
}

// Outline and holes, also of a plain box.
export function ringsOf({ x, y, width, height, outline, holes = [] }) {
  return { outline: outline ?? [[x, y], [x + width, y], [x + width, y + height], [x, y + height]], holes };
}
// A shape with another outline; the box is the one around it.
export function withRings(shape, { outline, holes }) {
  const { minX, minY, maxX, maxY } = boundsOf(outline), x = Math.round(minX), y = Math.round(minY);
  return { ...shape, x, y, width: Math.max(1, Math.round(maxX) - x), height: Math.max(1, Math.round(maxY) - y), outline, holes };
}

export function isSameShape(one, other) {
  return JSON.stringify(one && ordered(one)) === JSON.stringify(other && ordered(other));
}
function ordered({ x, y, width, height, outline, holes, labels, proposed }) {
  return [outline ?? [x, y, width, height], holes ?? [], labels ?? [], Boolean(proposed)];
}

// A hundredth of a pixel is finer than any hand, and half as long in a request.
function rounded(points) { return points.map(([x, y]) => [Math.round(x * 100) / 100, Math.round(y * 100) / 100]); }

// The size along its own sides, in pixels of the slide.
export function shapeText({ width, height, outline }, translate) {
  if (!outline) return `${width} × ${height}`;
  const turned = rectangleOf(outline);
  return turned
    ? `${Math.round(turned.w)} × ${Math.round(turned.h)} · ${translate("turned")}`
    : `${width} × ${height} · ${translate("outline")}`;
}

function isTurned({ rot = 0 }) { return Math.abs(Math.sin(2 * rot)) > 1e-6; }

function cornersOf({ x, y, w, h, rot }) {
  const centre = [x + w / 2, y + h / 2], cos = Math.cos(rot), sin = Math.sin(rot);
  return [[-w, -h], [w, -h], [w, h], [-w, h]].map(([dx, dy]) => [
    centre[0] + (dx * cos - dy * sin) / 2, centre[1] + (dx * sin + dy * cos) / 2,
  ]);
}

// The turned rectangle that four corners make, or null.
function rectangleOf(points) {
  if (points.length !== 4) return null;
  const [a, b, c, d] = points;
  const across = [b[0] - a[0], b[1] - a[1]], down = [c[0] - b[0], c[1] - b[1]];
  const w = Math.hypot(...across), h = Math.hypot(...down), tolerance = 1e-3 * Math.max(w, h);
  const isClosed = Math.hypot(a[0] + down[0] - d[0], a[1] + down[1] - d[1]) < tolerance;
  const turn = across[0] * down[1] - across[1] * down[0];
  const isSquare = Math.abs(across[0] * down[0] + across[1] * down[1]) < tolerance * Math.min(w, h);
  if (!isClosed || !isSquare || turn <= 0) return null;
  return { x: (a[0] + c[0] - w) / 2, y: (a[1] + c[1] - h) / 2, w, h, rot: Math.atan2(across[1], across[0]) };
}

function boundsOf(points) {
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  return { minX: Math.min(...xs), minY: Math.min(...ys), maxX: Math.max(...xs), maxY: Math.max(...ys) };
}

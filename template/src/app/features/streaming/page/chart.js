// A small line over the queries of a session, with a mark for the outcome of each.

const WIDTH = 280;
const HEIGHT = 72;
const EDGE = 7;

/**
 * Draw `points`, each `{value, outcome}`, between `least` and `most`, with a thin line at `base`.
 * Colours and the marks' looks are in the style sheet.
 */
export function draw(svg, points, { least, most, base, label }) {
  const span = most - least || 1;
  const step = (WIDTH - 2 * EDGE) / Math.max(points.length - 1, 1);
  const x = (index) => EDGE + index * step;
  const y = (value) => HEIGHT - EDGE - ((value - least) / span) * (HEIGHT - 2 * EDGE);
  const places = points.map((point, index) => [x(index), y(point.value)]);
  const line = places.map((place) => place.join(" ")).join(" L ");
  const shapes = [shape("line", { class: "base", x1: 0, x2: WIDTH, y1: y(base), y2: y(base) })];
  if (places.length > 1) {
    const area = `M ${x(0)} ${y(base)} L ${line} L ${x(points.length - 1)} ${y(base)} Z`;
    shapes.push(shape("path", { class: "area", d: area }));
    shapes.push(shape("path", { class: "line", d: `M ${line}` }));
  }
  // Of a long session the marks would hide the line.
  const from = Math.max(0, points.length - 40);
  for (const [index, [cx, cy]] of places.entries()) {
    if (index >= from) shapes.push(shape("circle", { class: points[index].outcome, cx, cy, r: 4 }));
  }
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("aria-label", label);
  svg.replaceChildren(...shapes);
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

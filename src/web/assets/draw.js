// Drawing and small tools. Text goes in by textContent only: labels and names come from files that others wrote.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** An element with a class, a text and children. */
function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Seconds as people say them. */
function ago(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

const percent = (share) => `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** A rule at one view: its last frames as dots between 0 and 100 %, and its thresholds as lines. */
function drawDots(svg, dots, [on, off]) {
  const width = 320, height = 84, left = 6, right = 40, step = (width - left - right) / 59;
  const y = (share) => 6 + (1 - share) * (height - 12);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const shapes = [];
  for (const [share, name] of [[off, "off"], [on, "on"]]) {
    shapes.push(shape("line", { class: name, x1: left, x2: width - right + 4, y1: y(share), y2: y(share) }));
    const label = shape("text", { x: width - right + 8, y: y(share) + 3.5 });
    label.textContent = `${name} ${Math.round(share * 100)}`;
    shapes.push(label);
  }
  const first = 60 - dots.length;
  dots.forEach((share, index) => {
    const kind = share >= on ? "hit" : share >= off ? "keeps" : "";
    const radius = index === dots.length - 1 ? 4 : 2.3;
    shapes.push(shape("circle", { class: kind, cx: left + (first + index) * step, cy: y(share), r: radius }));
  });
  svg.replaceChildren(...shapes);
}

/** A line's level over the last minute. */
function drawLevels(svg, edges) {
  const width = 320, height = 34, span = 60;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const x = (seconds) => width * (1 - Math.min(seconds, span) / span);
  const y = (high) => (high ? 7 : height - 7);
  let level = edges.length ? edges[0].high : false;
  let path = "";
  for (const edge of edges) {
    const before = x(edge.ago);
    path += path ? `L${before} ${y(level)}L${before} ${y(edge.high)}` : `M${before} ${y(edge.high)}`;
    level = edge.high;
  }
  path = path ? `${path}L${width} ${y(level)}` : `M0 ${y(false)}L${width} ${y(false)}`;
  svg.replaceChildren(shape("path", { class: "level", d: path }));
}

/** A curve of an hour; gaps where nothing is known. */
function drawCurve(svg, values) {
  const width = 320, height = 60, known = values.filter((value) => value !== null);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const top = Math.max(...known, 1e-9) * 1.15;
  let path = "", pen = false;
  values.forEach((value, index) => {
    if (value === null) { pen = false; return; }
    const x = (width * (360 - values.length + index)) / 359;
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${(height - 4 - (value / top) * (height - 8)).toFixed(1)}`;
    pen = true;
  });
  svg.replaceChildren(shape("path", { class: "curve", d: path || "M0 0" }));
}

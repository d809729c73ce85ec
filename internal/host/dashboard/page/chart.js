"use strict";
// Charts with axes, and the values under the pointer.
const hovers = new Map(); // by title: where the pointer is, as a time

// nice returns the step of an axis for a largest value: 1, 2 or 5 times a power of ten.
function nice(most, parts) {
  const raw = most / parts, p = Math.pow(10, Math.floor(Math.log10(raw)));
  return [1, 2, 5, 10].find((m) => m * p >= raw) * p;
}
const clock = (t, seconds) => new Date(t).toLocaleTimeString("en-GB", seconds ? {} : {hour: "2-digit", minute: "2-digit"});

// withUnit writes a number with its unit: 4/s, 794 bit/s, 1.08 kbit/s.
const withUnit = (n, unit) => n + (/^[a-z].*\d$/.test(unit + n) ? " " : "") + unit;

// chart draws series, as [key, name], of points with a time each. range is in seconds.
function chart(title, unit, points, series, width, range) {
  const H = 178, L = 54, R = 12, T = unit ? 22 : 10, B = 22, W = Math.max(width, 220);
  const times = points.map((p) => Date.parse(p.at)), end = times.length ? times[times.length - 1] : Date.now();
  const from = Math.max(times.length ? times[0] : end, end - range * 1000), first = times.findIndex((t) => t >= from);
  if (first > 0) { points = points.slice(first); times.splice(0, first); }
  const most = Math.max(0, ...points.flatMap((p) => series.map(([k]) => p[k]))) || 1; // of nothing, an axis up to 1
  const step = nice(most, 5), top = Math.ceil(most / step - 1e-9) * step;
  const x = (t) => L + (W - L - R) * (end > from ? (t - from) / (end - from) : 1), y = (v) => H - B - (H - T - B) * v / top;
  const s = svg("svg", {viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img", "aria-label": title});
  for (let v = 0; v <= top * 1.0001; v += step) {
    s.append(svg("line", {class: v ? "grid" : "axis", x1: L, x2: W - R, y1: y(v), y2: y(v)}), svg("text", {x: L - 7, y: y(v) + 3.5, "text-anchor": "end"}, num(v).replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "")));
  }
  if (unit) s.append(svg("text", {class: "unit", x: L - 7, y: 9, "text-anchor": "end"}, unit));
  const minutes = [1 / 6, 0.5, 1, 2, 5, 10, 15, 30, 60].find((m) => (end - from) / (m * 60000) <= W / 90) || 120;
  for (let t = Math.ceil(from / (minutes * 60000)) * minutes * 60000; end > from && t <= end; t += minutes * 60000) {
    s.append(svg("line", {class: "tick", x1: x(t), x2: x(t), y1: H - B, y2: H - B + 4}));
    if (x(t) > L + 14 && x(t) < W - R - 12) s.append(svg("text", {x: x(t), y: H - 6, "text-anchor": "middle"}, clock(t, minutes < 1)));
  }
  series.forEach(([key], i) => {
    if (points.length < 2) return;
    const d = points.map((p, n) => (n ? "L" : "M") + x(times[n]).toFixed(1) + " " + y(p[key]).toFixed(1)).join("");
    if (i === 0) s.append(svg("path", {class: "area", d: `${d}L${x(end).toFixed(1)} ${H - B}L${x(times[0]).toFixed(1)} ${H - B}Z`}));
    s.append(svg("path", {class: "line s" + i, d}));
  });
  const last = points[points.length - 1], tip = el("div", {class: "tip", hidden: ""}), marks = svg("g", {class: "marks"});
  s.append(marks);
  const values = (p) => series.map(([key, name], i) => el("span", {class: "key s" + i}, name + " ", el("b", {}, withUnit(num(p[key]), unit))));
  const hover = (at) => {
    marks.replaceChildren();
    tip.hidden = true;
    if (at === undefined || points.length < 2) return;
    let n = 0;
    times.forEach((t, i) => { if (Math.abs(t - at) < Math.abs(times[n] - at)) n = i; });
    marks.append(svg("line", {class: "cross", x1: x(times[n]), x2: x(times[n]), y1: T, y2: H - B}));
    series.forEach(([key], i) => marks.append(svg("circle", {class: "dot s" + i, cx: x(times[n]), cy: y(points[n][key]), r: 3.5})));
    tip.replaceChildren(el("span", {}, clock(times[n], true)), ...values(points[n]));
    tip.hidden = false;
    const left = x(times[n]);
    tip.style.left = left > W / 2 ? "auto" : left + 24 + "px";
    tip.style.right = left > W / 2 ? W - left + 24 + "px" : "auto";
  };
  s.onpointermove = (e) => {
    const box = s.getBoundingClientRect(), at = from + ((e.clientX - box.left) * W / box.width - L) / (W - L - R) * (end - from);
    hovers.set(title, at);
    hover(at);
  };
  s.onpointerleave = () => { hovers.delete(title); hover(); };
  hover(hovers.get(title));
  return el("div", {class: "plot"}, el("h2", {}, title, el("span", {class: "legend"}, ...(last ? values(last) : []))), s, tip,
    points.length < 2 ? el("p", {class: "none"}, "the chart begins with the second snapshot of metrics") : "");
}

// spark draws a small line without axes.
function spark(values) {
  const W = 120, H = 22, top = Math.max(...values, 1e-9);
  const s = svg("svg", {viewBox: `0 0 ${W} ${H}`, width: W, height: H, class: "spark", "aria-hidden": "true"});
  if (values.length > 1) s.append(svg("path", {class: "line s0", d: values.map((v, i) => (i ? "L" : "M") + (i * (W - 2) / (values.length - 1) + 1).toFixed(1) + " " + (H - 2 - (H - 4) * v / top).toFixed(1)).join("")}));
  return s;
}

// chartWidth returns how wide a chart may be in a grid of so many.
function chartWidth(grid, charts) {
  const gap = 12, padding = 30, all = grid.clientWidth || 1000, fit = Math.min(charts, Math.max(1, Math.floor((all + gap) / (430 + gap))));
  const n = charts % fit ? Math.max(1, fit - 1) : fit; // rows are full
  grid.style.gridTemplateColumns = `repeat(${n}, minmax(0, 1fr))`;
  return (all - gap * (n - 1)) / n - padding;
}

"use strict";
// Elements, numbers and tables. Everything that comes from a firewall is set as text,
// never as markup.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function el(name, attrs, ...kids) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attrs || {})) e.setAttribute(k, v);
  e.append(...kids);
  return e;
}
function svg(name, attrs, text) {
  const e = document.createElementNS(SVG, name);
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}
const units = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
function num(v) {
  for (const [f, u] of units) if (Math.abs(v) >= f) return (v / f).toFixed(v / f < 10 ? 2 : 1) + " " + u;
  return v >= 10 || Number.isInteger(v) ? v.toFixed(0) : v.toFixed(v === 0 ? 0 : v < 1 ? 2 : 1);
}
const whole = (v) => Math.round(v).toLocaleString("en").replaceAll(",", " ");
function time(s) {
  if (!(s > 0)) return "–";
  if (s < 1e-3) return (s * 1e6).toFixed(0) + " µs";
  return s < 1 ? (s * 1e3).toFixed(s < 0.01 ? 1 : 0) + " ms" : s.toFixed(1) + " s";
}
function span(s) {
  if (s < 120) return Math.max(0, Math.round(s)) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  return s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " days";
}
const since = (at) => (Date.now() - Date.parse(at)) / 1000;
const fill = (used, size) => size > 0 ? Math.min(used / size, 1) : 0;
const level = (f) => f >= 0.95 ? "bad" : f >= 0.8 ? "warn" : "";

function table(where, heads, rows, none) {
  if (!rows.length) return where.replaceChildren(el("p", {class: "none"}, none));
  const cell = (tag, c, i) => {
    const e = el(tag, i > 0 && !(c instanceof Node) ? {class: "n"} : {});
    e.append(c);
    return e;
  };
  where.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h, i) => cell("th", h, i)))),
    el("tbody", {}, ...rows.map((r) => el("tr", r.faint ? {class: "faint"} : {}, ...r.map((c, i) => cell("td", c, i)))))));
}
function bar(f) {
  const i = el("i", {class: level(f)});
  i.style.width = (100 * f).toFixed(1) + "%";
  return el("span", {class: "bar", role: "meter", "aria-valuenow": (100 * f).toFixed(0), "aria-valuemin": 0, "aria-valuemax": 100}, i);
}
function tile(name, value, more, cls) {
  return el("div", {class: "tile " + (cls || "")}, el("span", {}, name), el("b", {}, value), el("span", {}, more || ""));
}
// link returns a link to the view of one rule, host or name.
function link(kind, key, text) {
  const a = el("a", {href: hash({view: kind, key})}, text === undefined ? key : text);
  return a;
}

"use strict";
// Everything that comes from a firewall is set as text, never as markup.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// The token comes in the fragment, which no server sees, and is kept for this
// tab and this port only.
const asked = /^#token=(.+)$/.exec(location.hash);
if (asked) {
  sessionStorage.setItem("token", asked[1]);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem("token") || "";
let chosen = decodeURIComponent(location.hash.slice(1)), views = [], open = new Set();

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
const fill = (used, size) => size > 0 ? Math.min(used / size, 1) : 0;
const level = (f) => f >= 0.95 ? "bad" : f >= 0.8 ? "warn" : "";

function table(where, heads, rows, none) {
  if (!rows.length) return $(where).replaceChildren(el("p", {class: "none"}, none));
  const cell = (tag, c, i) => {
    const e = el(tag, i > 0 && !(c instanceof Node) ? {class: "n"} : {});
    e.append(c);
    return e;
  };
  const t = el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h, i) => cell("th", h, i)))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, ...r.map((c, i) => cell("td", c, i))))));
  $(where).replaceChildren(t);
}
function bar(f) {
  const i = el("i", {class: level(f)});
  i.style.width = (100 * f).toFixed(1) + "%";
  return el("span", {class: "bar", role: "meter", "aria-valuenow": (100 * f).toFixed(0), "aria-valuemin": 0, "aria-valuemax": 100}, i);
}
function tile(name, value, more, cls) {
  return el("div", {class: "tile " + (cls || "")}, el("span", {}, name), el("b", {}, value), el("span", {}, more || ""));
}

function plot(title, history, series, unit) {
  const W = 600, H = 130, L = 4, R = 4, T = 12, B = 16;
  const s = svg("svg", {viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": title});
  const box = el("div", {class: "plot"}, el("h2", {}, title), s);
  const top = Math.max(1e-9, ...history.flatMap((p) => series.map(([k]) => p[k])));
  const t0 = history.length ? Date.parse(history[0].at) : 0, t1 = history.length ? Date.parse(history[history.length - 1].at) : 1;
  const x = (p) => L + (W - L - R) * (t1 > t0 ? (Date.parse(p.at) - t0) / (t1 - t0) : 1), y = (v) => H - B - (H - T - B) * v / top;
  for (const f of [0, 0.5, 1]) s.append(svg("line", {x1: L, x2: W - R, y1: y(top * f), y2: y(top * f)}));
  series.forEach(([key], i) => {
    if (history.length < 2) return;
    const d = history.map((p, n) => (n ? "L" : "M") + x(p).toFixed(1) + " " + y(p[key]).toFixed(1)).join("");
    if (i === 0) s.append(svg("path", {class: "area", d: `${d}L${x(history[history.length - 1]).toFixed(1)} ${H - B}L${x(history[0]).toFixed(1)} ${H - B}Z`}));
    s.append(svg("path", {class: "line s" + i, d}));
  });
  const now = history[history.length - 1];
  box.append(el("div", {class: "legend"}, ...series.map(([key, name], i) => el("span", {class: "key s" + i}, name + " " + (now ? num(now[key]) : "–") + unit)),
    el("span", {}, history.length < 2 ? "the plot begins with the second snapshot" : "highest " + num(top) + unit + ", " + span((t1 - t0) / 1000))));
  return box;
}

function verdicts(v) {
  const want = $("filter").value.toLowerCase();
  const rows = v.recent.filter((r) => r.text.toLowerCase().includes(want)).map((r) => {
    const key = r.at + r.text, d = el("div", {}, el("span", {class: "none"}, r.at.slice(11, 23) + "Z  "), el("span", {class: r.action}, r.text));
    if (r.explain) {
      d.append(el("code", {}, r.explain));
      d.setAttribute("role", "button");
      d.tabIndex = 0;
      d.title = "shows the command that explains it";
      if (open.has(key)) d.className = "open";
      d.onclick = () => { d.classList.toggle("open") ? open.add(key) : open.delete(key); };
      d.onkeydown = (e) => { if (e.key === "Enter") d.onclick(); };
    }
    return d;
  });
  $("recent").replaceChildren(...(rows.length ? rows : [el("div", {class: "none"}, want ? "no line matches" : "no verdicts yet")]));
}

function show() {
  $("empty").hidden = views.length > 0;
  $("main").hidden = views.length === 0;
  if (!views.length) { $("state").textContent = ""; $("state").className = ""; return; }
  const v = views.find((w) => w.name === chosen) || views[0];
  $("firewalls").replaceChildren(...(views.length > 1 ? views : []).map((w) => {
    const b = el("button", {"aria-pressed": w.name === v.name}, w.name);
    b.onclick = () => { chosen = w.name; location.hash = encodeURIComponent(chosen); show(); };
    return b;
  }));
  const age = (Date.now() - Date.parse(v.last_line)) / 1000;
  $("state").className = v.connected ? "up" : "down";
  $("state").textContent = v.connected ? `${v.name} is connected, up ${span((Date.now() - Date.parse(v.booted)) / 1000)}` : `${v.name} is not connected; its last line came ${span(age)} ago`;
  const f = fill(v.flows.entries, v.flows.capacity), lost = v.stream.dropped + v.stream.lost;
  $("tiles").replaceChildren(
    tile("accepted", num(v.accept_rate) + "/s", "packets"), tile("dropped", num(v.drop_rate) + "/s", "packets"),
    tile("flows", whole(v.flows.entries), v.flows.capacity ? `${(100 * f).toFixed(0)} % of ${whole(v.flows.capacity)}` : "", level(f)),
    tile("new flows", num(v.flows.inserts) + "/s"), tile("DNS", num(v.dns.rate) + "/s", `median ${time(v.dns.p50)}, 99 % ${time(v.dns.p99)}`),
    tile("processor", `${(100 * v.load).toFixed(0)} %`, "used by packets", level(v.load)),
    tile("verdicts", num(v.event_rate) + "/s", "over 10 seconds"),
    tile("telemetry lost", whole(lost), `lines; ${whole(v.stream.malformed)} malformed`, lost + v.stream.malformed > 0 ? "warn" : ""));
  $("plots").replaceChildren(plot("Packets", v.history, [["accepts", "accepted"], ["drops", "dropped"]], "/s"),
    plot("Throughput", v.history, [["wan_bits", "from the WAN"], ["lan_bits", "from the LAN"]], "bit/s"),
    plot("Flows and NAT ports", v.history, [["flows", "flows"], ["ports", "ports in use"]], ""), plot("DNS queries", v.history, [["queries", "queries"]], "/s"));
  table("rules", ["rule", "packets/s", "accepted", "dropped"], v.rules.map((r) => [r.id, num(r.rate), whole(r.accepts), whole(r.drops)]), "no counters yet");
  table("drops", ["reason", "packets/s", "total"], v.drops.map((r) => [r.reason, num(r.rate), whole(r.total)]), "nothing was dropped");
  table("dns", ["outcome", "queries/s", "total"], v.dns.outcomes.map((r) => [r.reason, num(r.rate), whole(r.total)]), "no queries");
  const g = [["flow table", bar(f), whole(v.flows.entries)], ...v.nat.map((p) => [`ports of ${p.address} ${p.proto}`, bar(fill(p.in_use, p.size)), whole(p.in_use)]),
    ["names learned", "", whole(v.dns.bindings)], ["telemetry queue", "", whole(v.stream.queue)]];
  table("gauges", ["", "", "now"], g, "");
  table("names", ["name", "packets"], v.denied_names.map((c) => [c.key, whole(c.count)]), "none");
  table("sources", ["source", "packets"], v.denied_sources.map((c) => [c.key, whole(c.count)]), "none");
  verdicts(v);
  $("build").textContent = `version ${v.version || "unknown"}, commit ${v.git_sha || "unknown"}, policy ${v.policy || "unknown"}, clock ${v.clock || "unknown"}, LAN ${v.lan || "?"}, WAN ${v.wan || "?"}`;
}

async function refresh() {
  try {
    const r = await fetch("api/v1/firewalls", {cache: "no-store", headers: token ? {Authorization: "Bearer " + token} : {}});
    $("locked").hidden = r.status !== 401;
    if (r.status === 401) {
      $("main").hidden = $("empty").hidden = true;
      $("state").className = "down";
      $("state").textContent = "a token is needed";
      return;
    }
    if (!r.ok) throw new Error(r.status);
    views = await r.json();
    show();
  } catch (e) {
    $("state").className = "down";
    $("state").textContent = "the receiver does not answer; trying again";
  }
  setTimeout(refresh, 1000);
}
$("filter").oninput = () => show();
window.onhashchange = () => { chosen = decodeURIComponent(location.hash.slice(1)); show(); };
refresh();

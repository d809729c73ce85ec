"use strict";
// What is asked for, and when. The token comes in the fragment, which no server sees, and
// is kept for this tab and this port only; later the fragment says what is shown.
const asked = new URLSearchParams(location.hash.slice(1));
if (asked.has("token")) {
  sessionStorage.setItem("token", asked.get("token"));
  asked.delete("token");
  history.replaceState(null, "", location.pathname + (asked.size ? "#" + asked : ""));
}
const token = sessionStorage.getItem("token") || "";
let views = [], answers = 0;

// hash returns the fragment of a view of the firewall that is shown.
function hash(change) {
  const p = {...place(), key: "", ...change};
  for (const k of Object.keys(p)) if (!p[k]) delete p[k];
  return "#" + new URLSearchParams(p);
}
function place() {
  const p = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return {fw: p.fw || "", view: p.view || "", key: p.key || "", range: p.range || ""};
}
const range = () => Number(place().range) || 900;
const shown = () => views.find((w) => w.name === place().fw) || views[0];

async function ask(path) {
  // From the origin, which has no name and password that the address may have.
  const r = await fetch(new URL(path, location.origin + location.pathname), {cache: "no-store", headers: token ? {Authorization: "Bearer " + token} : {}});
  $("locked").hidden = r.status !== 401;
  if (r.status === 401) {
    $("main").hidden = $("empty").hidden = true;
    $("state").className = "down";
    $("state").textContent = "a token is needed";
    throw "locked";
  }
  if (!r.ok) throw new Error(r.status);
  return r.json();
}

// buttons fills a list of buttons, of which one is pressed.
function buttons(where, all, now, to) {
  where.replaceChildren(...all.map(([text, value]) => {
    const b = el("button", {type: "button", "aria-pressed": value === now}, text);
    b.onclick = () => { location.hash = to(value); };
    return b;
  }));
}

async function show(now) {
  $("empty").hidden = views.length > 0;
  $("main").hidden = views.length === 0;
  for (const id of ["views", "ranges"]) $(id).hidden = views.length === 0;
  if (!views.length) { $("state").textContent = ""; $("state").className = ""; return; }
  const v = shown(), at = place(), turn = ++answers, of = "firewall=" + encodeURIComponent(v.name);
  buttons($("firewalls"), views.length > 1 ? views.map((w) => [w.name, w.name]) : [], v.name, (fw) => hash({fw, view: ["policy", "reach"].includes(at.view) ? at.view : ""}));
  buttons($("views"), [["Overview", ""], ["Policy", "policy"], ["Reach", "reach"]], at.view, (view) => hash({view}));
  buttons($("ranges"), ranges, range(), (r) => hash({range: r, key: at.key}));
  $("state").className = v.connected ? "up" : "down";
  $("state").textContent = v.connected ? `${v.name} is connected, up ${span(since(v.booted))}` : `${v.name} is not connected; its last line came ${span(since(v.last_line))} ago`;
  $("build").textContent = `version ${v.version || "unknown"}, commit ${v.git_sha || "unknown"}, policy ${v.policy || "unknown"}, clock ${v.clock || "unknown"}, LAN ${v.lan || "?"}, WAN ${v.wan || "?"}`;
  const one = ["rule", "host", "name"].includes(at.view) && at.key !== "";
  const plain = at.view === "policy" || at.view === "reach"; // about the policy, without history
  let answer, text;
  if (one) {
    answer = await ask(`api/v1/detail?${of}&kind=${at.view}&key=${encodeURIComponent(at.key)}`);
    text = answer.text;
  } else if (at.view === "policy") {
    answer = await ask(`api/v1/rules?${of}`);
  } else if (at.view === "reach" && reached !== of + v.policy) {
    answer = await ask(`api/v1/reach?${of}`);
  }
  if (turn !== answers || held && !now) return; // something else was asked for meanwhile
  $("overview").hidden = one || plain;
  $("policy").hidden = at.view !== "policy";
  $("reach").hidden = at.view !== "reach";
  $("detail").hidden = !one;
  $("verdicts").hidden = $("ranges").hidden = plain;
  $("back").href = hash({view: at.view === "rule" ? "policy" : ""});
  if (one) detail(answer, text, range());
  else if (at.view === "policy") policy(answer);
  else if (at.view === "reach") { if (answer) reach(answer, of + v.policy); }
  else { overview(v, range()); verdicts(v.recent); }
}

// What is under a finger or a pressed button stays until it is released: a click on an
// element that was replaced meanwhile would be none.
let held = false;
window.addEventListener("pointerdown", () => { held = true; }, true);
for (const end of ["pointerup", "pointercancel", "blur"]) window.addEventListener(end, () => setTimeout(() => { held = false; }), true);

async function refresh() {
  try {
    views = await ask("api/v1/firewalls");
    if (!held) await show();
  } catch (e) {
    if (e === "locked") return;
    $("state").className = "down";
    $("state").textContent = "the receiver does not answer; trying again";
  }
  setTimeout(refresh, 1000);
}

// Colours: as the system has them, or as the button says, for this browser.
const themes = ["", "light", "dark"], names = {"": "auto", light: "light", dark: "dark"};
function theme(t) {
  if (t) document.documentElement.dataset.theme = t; else delete document.documentElement.dataset.theme;
  $("theme").textContent = "◐ " + names[t];
  localStorage.setItem("theme", t);
}
theme(themes.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "");
$("theme").onclick = () => theme(themes[(themes.indexOf(localStorage.getItem("theme") || "") + 1) % themes.length]);

const again = () => show(true).catch(() => {});
$("filter").oninput = $("rulefilter").oninput = $("never").onchange = window.onresize = again;
window.onhashchange = () => { window.scrollTo(0, 0); again(); };
refresh();

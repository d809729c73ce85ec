"use strict";
// Who may reach what: the policy as tables of services and classes of hosts.
let reached = ""; // whose tables are drawn

function reach(answer, of) {
  if (reached === of) return;
  const why = answer.known ? answer.why : "Which addresses and names the policy groups is in its rules.yaml, which is not at hand here: give thurward run the file with -f, or the collector's receiver its folder (policies).";
  const tables = answer.tables || [];
  $("reachwhy").textContent = why || "";
  $("reachwhy").hidden = !why;
  $("reachlegend").hidden = !tables.length;
  $("reachrules").textContent = tables.length ? "A cell says what a new connection may reach; under the pointer it says by which rules." : "";
  $("reachtables").replaceChildren(...tables.map(side));
  reached = of;
}

// side draws the flows that begin on one side.
function side(t) {
  const e = el("article", {class: "reach " + t.from}, el("h2", {}, t.title));
  if (!t.rows.length) e.append(el("p", {class: "none"}, "nothing is reached"));
  else {
    const head = t.heads.map((h) => el("th", {scope: "col", title: h.addresses.join(", ")}, h.label));
    const rows = t.rows.map((r) => el("tr", {}, el("th", {scope: "row", title: (r.names || []).join(", ")}, r.service), ...r.cells.map((c, i) => cell(c, r, t.heads[i]))));
    e.append(el("div", {class: "wide"}, el("table", {}, el("thead", {}, el("tr", {}, el("td", {}), ...head)), el("tbody", {}, ...rows))));
  }
  if (t.left) e.append(el("p", {class: "none"}, t.left.replace(" (--all shows them)", "; thurward explain --matrix --all shows them")));
  return e;
}

function cell(c, row, head) {
  const e = el("td", {}, el("span", {class: "cell " + (c.kind || "")}, c.text));
  if (!c.kind) return e;
  e.tabIndex = 0;
  e.onpointerenter = e.onfocus = () => $("reachrules").replaceChildren(`${head.label}, ${row.service}: ${c.text}, by `, ...c.rules.flatMap((r, i) => [i ? ", " : "", link("rule", r)]));
  return e;
}

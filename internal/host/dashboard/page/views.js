"use strict";
// What is shown of one firewall: the overview, its policy, and one rule, host or name.
const ranges = [["5 min", 300], ["15 min", 900], ["1 h", 3600], ["2 h", 7200]];
let open = new Set();

function verdicts(recent) {
  const want = $("filter").value.toLowerCase();
  const rows = recent.filter((r) => r.text.toLowerCase().includes(want)).map((r) => {
    const key = r.at + r.text, d = el("div", {}, el("span", {class: "none"}, r.at.slice(11, 23) + "Z  "), el("span", {class: r.action}, r.text));
    const more = el("span", {class: "more"});
    for (const [kind, k] of [["rule", r.rule], ["host", r.source], ["host", r.destination], ["name", r.name]]) if (k) more.append(link(kind, k, `${kind} ${k}`), " ");
    if (r.explain) more.append(el("code", {}, r.explain));
    d.append(more);
    d.setAttribute("role", "button");
    d.tabIndex = 0;
    d.title = "shows whom it is about, and the command that explains it";
    if (open.has(key)) d.className = "open";
    d.onclick = (e) => { if (e.target.tagName !== "A") d.classList.toggle("open") ? open.add(key) : open.delete(key); };
    d.onkeydown = (e) => { if (e.key === "Enter" && e.target === d) d.onclick(e); };
    return d;
  });
  $("recent").replaceChildren(...(rows.length ? rows : [el("div", {class: "none"}, want ? "no line matches" : "no verdicts yet")]));
}

function overview(v, range) {
  const f = fill(v.flows.entries, v.flows.capacity), lost = v.stream.dropped + v.stream.lost;
  $("tiles").replaceChildren(
    tile("accepted", num(v.accept_rate) + "/s", "packets"), tile("dropped", num(v.drop_rate) + "/s", "packets"),
    tile("flows", whole(v.flows.entries), v.flows.capacity ? `${(100 * f).toFixed(0)} % of ${whole(v.flows.capacity)}` : "", level(f)),
    tile("new flows", num(v.flows.inserts) + "/s"), tile("DNS", num(v.dns.rate) + "/s", v.dns.p50 > 0 ? `median ${time(v.dns.p50)}, 99 % ${time(v.dns.p99)}` : "no queries lately"),
    tile("processor", `${(100 * v.load).toFixed(0)} %`, "used by packets", level(v.load)),
    tile("verdicts", num(v.event_rate) + "/s", "over 10 seconds"),
    tile("telemetry lost", whole(lost), `lines; ${whole(v.stream.malformed)} malformed`, lost + v.stream.malformed > 0 ? "warn" : ""));
  const w = chartWidth($("plots"), 4), c = (title, unit, series) => chart(title, unit, v.history, series, w, range);
  $("plots").replaceChildren(c("Packets", "/s", [["accepts", "accepted"], ["drops", "dropped"]]),
    c("Throughput", "bit/s", [["wan_bits", "from the WAN"], ["lan_bits", "from the LAN"]]),
    c("Flows and NAT ports", "", [["flows", "flows"], ["ports", "ports in use"]]), c("DNS queries", "/s", [["queries", "queries"]]));
  table($("rules"), ["rule", "packets/s", "accepted", "dropped"], v.rules.slice(0, 10).map((r) => [link("rule", r.id), num(r.rate), whole(r.accepts), whole(r.drops)]), "no counters yet");
  if (v.rules.length > 10) $("rules").append(el("p", {class: "none"}, el("a", {href: hash({view: "policy"})}, "all rules"), ", in their order"));
  table($("drops"), ["reason", "packets/s", "total"], v.drops.map((r) => [r.reason, num(r.rate), whole(r.total)]), "nothing was dropped");
  table($("dns"), ["outcome", "queries/s", "total"], v.dns.outcomes.map((r) => [r.reason, num(r.rate), whole(r.total)]), "no queries");
  const g = [["flow table", bar(f), whole(v.flows.entries)], ...v.nat.map((p) => [`ports of ${p.address} ${p.proto}`, bar(fill(p.in_use, p.size)), whole(p.in_use)]),
    ["names learned", "", whole(v.dns.bindings)], ["telemetry queue", "", whole(v.stream.queue)]];
  table($("gauges"), ["", "", "now"], g, "");
  table($("names"), ["name", "packets"], v.denied_names.map((c) => [link("name", c.key), whole(c.count)]), "none");
  table($("sources"), ["source", "packets"], v.denied_sources.map((c) => [link("host", c.key), whole(c.count)]), "none");
}

const lastHit = (at) => at.startsWith("0001") ? "" : span(since(at)) + " ago";

// matches returns what a rule matches, in words.
function matches(text) {
  const e = el("span", {class: "matches"});
  for (const l of text.matches || []) e.append(el("code", {}, l));
  if (text.more) e.append(el("span", {class: "none"}, `and ${whole(text.more)} more`));
  return e;
}

function policy(answer) {
  const want = $("rulefilter").value.toLowerCase(), never = $("never").checked;
  const idle = answer.rules.filter((r) => r.accepts + r.drops === 0).length;
  const said = answer.rules.some((r) => r.text);
  const rows = [];
  answer.rules.forEach((r, i) => {
    const t = r.text || {}, hits = r.accepts + r.drops;
    const words = [r.id, t.name, t.action, ...(t.matches || [])].join(" ").toLowerCase();
    if (!words.includes(want) || never && hits > 0) return;
    const action = t.action || (r.drops > 0 ? "drops" : r.accepts > 0 ? "accepts" : "");
    const row = [String(i + 1), el("span", {}, link("rule", r.id), t.name ? el("span", {class: "sub"}, t.name) : "")];
    if (said) row.push(matches(t));
    row.push(el("span", {class: "chip " + action}, action, t.shadow ? " (shadow)" : ""), whole(hits), num(r.rate), spark(r.hits || []),
      hits === 0 ? "never" : lastHit(r.last_hit) || "before");
    row.faint = hits === 0;
    rows.push(row);
  });
  table($("policyrules"), ["", el("span", {}, "rule"), ...(said ? [el("span", {}, "matches")] : []), el("span", {}, "action"), "packets", "per second", el("span", {}, "last ten minutes"), "last"], rows, "no rule is like that");
  $("rulecount").textContent = `${answer.rules.length} rules, ${idle} of them have not decided since the firewall started`;
}

function detail(d, text, range) {
  $("about").replaceChildren(el("span", {class: "none"}, d.kind + " "), d.key);
  const tiles = [];
  if (d.rule) tiles.push(tile("per second", num(d.rule.rate), "packets"), tile("accepted", whole(d.rule.accepts), "packets"), tile("dropped", whole(d.rule.drops), "packets"),
    tile("last hit", lastHit(d.rule.last_hit) || "–", lastHit(d.rule.last_hit) ? "" : "not since this page's receiver began"));
  $("detailtiles").replaceChildren(...tiles);
  $("detailtext").replaceChildren(...(text ? [el("span", {class: "chip " + text.action}, text.action), " ", text.name || "", matches(text)] : d.groups ? ["in ", d.groups.join(", ")] : []));
  $("detailplot").replaceChildren(...(d.hits ? [chart("Hits", "/s", d.hits, [["rate", "packets"]], chartWidth($("detailplot"), 1), range)] : []));
  const lists = [];
  for (const [title, kind, all] of [["Rules", "rule", d.rules], ["Sources", "host", d.sources], ["Destinations", "host", d.destinations], ["Names", "name", d.names], ["Verdicts", "", d.actions]]) {
    if (!all.length || all.length === 1 && all[0].key === d.key) continue;
    const where = el("div", {});
    table(where, [title.toLowerCase(), "events"], all.map((c) => [kind && c.key !== d.key ? link(kind, c.key) : c.key, whole(c.count)]), "");
    lists.push(el("article", {}, el("h2", {}, title), where));
  }
  $("detaillists").replaceChildren(...lists);
  verdicts(d.recent);
}

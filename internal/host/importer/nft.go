package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// NFT reads what nft -j list ruleset prints. The error says why nothing at all
// could be made of it; with a result, it says why that is no valid policy.
func NFT(src []byte, o Options) (*Result, error) {
	return newNFTParser().read(src, o)
}

func newNFTParser() *nftParser {
	return &nftParser{set: &ruleset{chains: map[string]*chain{}}, sets: map[string]any{}, left: maxRules}
}

// read reads a document, and converts it.
func (p *nftParser) read(src []byte, o Options) (*Result, error) {
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes; at most %d are read", o.File, len(src), MaxBytes)
	}
	items, err := nftItems(src)
	if err != nil {
		return nil, fmt.Errorf("%s: not the output of nft -j list ruleset: %w", o.File, err)
	}
	// Chains and sets first: rules refer to those that come later.
	for i, e := range items {
		for kind, raw := range e {
			switch kind {
			case "table":
				p.table(raw, i)
			case "chain":
				p.chain(raw, i)
			case "set", "map":
				p.namedSet(kind, raw, i)
			}
		}
	}
	for i, e := range items {
		for _, kind := range slices.Sorted(maps.Keys(e)) {
			switch kind {
			case "rule":
				p.rule(e[kind], i)
			case "metainfo", "table", "chain", "set", "map":
			case "element":
				p.note(i, string(e[kind]), "elements apart from their set are not read", Permissive)
			case "flowtable", "ct helper", "ct timeout", "ct expectation", "counter", "quota", "limit", "secmark", "synproxy":
				p.note(i, kind+" "+string(e[kind]), "no counterpart; rules that use it are listed separately", Nothing)
			default:
				p.note(i, kind+" "+string(e[kind]), "not known", Permissive)
			}
		}
	}
	if p.left <= 0 {
		return nil, fmt.Errorf("%s: more than %d rules when maps and sets are written out", o.File, maxRules)
	}
	if len(p.set.notes) > maxNotes {
		return nil, fmt.Errorf("%s: more than %d items that are not understood: want the output of nft -j list ruleset", o.File, maxNotes)
	}
	return convert(p.set, o)
}

// nftItems returns the elements of the list that a document is.
func nftItems(src []byte) (items []map[string]json.RawMessage, err error) {
	var doc struct{ Nftables json.RawMessage }
	if err := json.Unmarshal(src, &doc); err != nil {
		return nil, err
	}
	if doc.Nftables == nil {
		return nil, errors.New("no nftables in it")
	}
	d := json.NewDecoder(bytes.NewReader(doc.Nftables))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("nftables is no list")
	}
	for d.More() {
		var item map[string]json.RawMessage
		if err := d.Decode(&item); err != nil {
			return nil, err
		}
		if items = append(items, item); len(items) > maxRules {
			return nil, fmt.Errorf("more than %d items", maxRules)
		}
		for _, raw := range item {
			if len(raw) > maxItem {
				return nil, fmt.Errorf("item %d has %d bytes; at most %d are read", len(items)-1, len(raw), maxItem)
			}
		}
	}
	return items, nil
}

type nftParser struct {
	set     *ruleset
	sets    map[string]any // elements by table and name
	left    int
	authors map[string]written // rules as their author wrote them, by table and handle
}

// written is a rule in the file of its author.
type written struct {
	text string
	line int // 0: not known
}

func (p *nftParser) note(item int, text, why string, e Effect) {
	p.set.notes = append(p.set.notes, Note{Place: fmt.Sprintf("item %d", item), Text: shorten(text), Why: why, Effect: e, Packets: everything})
}

func (p *nftParser) rule(raw json.RawMessage, item int) {
	o := parseObject(raw)
	n := placeOf(o)
	in := o.text("chain")
	handle, _ := o.take("handle")
	comment := o.text("comment")
	expr, isList := o.list("expr")
	o.skip("index")
	why := o.rest()
	if !isList {
		why = "no list of statements"
	}
	text, _ := json.Marshal(expr)
	place := fmt.Sprintf("%s %s handle %s", n.key(), in, word(handle))
	c := p.set.chains[n.key()+" "+in]
	if c == nil {
		if n.forwarded() {
			p.set.notes = append(p.set.notes, Note{Place: shorten(place), Text: shorten(string(text)), Why: "its chain is not there", Effect: Permissive, Packets: everything})
		}
		return
	}
	if w := p.authors[n.key()+" "+word(handle)]; w.line > 0 {
		place = fmt.Sprintf("line %d (%s)", w.line, place)
	}
	r := rule{place: shorten(place), text: p.text(n, handle, expr), comment: comment, do: verdict{kind: "none"}}
	if why != "" {
		r.cannot(why)
		r.others = []string{"a rule that is not understood"}
	}
	// Statements stand one after the other; a verdict map makes several rules.
	rules := []rule{r}
	for _, e := range expr {
		m, ok := e.(map[string]any)
		if !ok || len(m) != 1 {
			rules = each(rules, func(r *rule) { r.other("a statement that is not understood") })
			continue
		}
		for kind, arg := range m {
			rules = p.statement(rules, n.key(), kind, arg)
		}
		if p.left -= len(rules); p.left <= 0 {
			return
		}
	}
	c.rules = append(c.rules, each(rules, (*rule).settle)...)
}

func each(rs []rule, f func(r *rule)) []rule {
	for i := range rs {
		f(&rs[i])
	}
	return rs
}

// statement adds a statement to rules that have all before it. What of it is
// not understood is a condition that cannot be converted, so that a rule is never
// taken for one that matches more.
func (p *nftParser) statement(rs []rule, table, kind string, arg any) []rule {
	o := newObject(arg)
	what := kind
	switch kind {
	case "counter":
		if _, isName := arg.(string); isName || arg == nil {
			return rs
		}
		o.skip("packets", "bytes")
	case "log":
		if arg == nil {
			return rs
		}
		o.skip("prefix", "group", "snaplen", "queue-threshold", "level", "flags")
	case "match":
		op := o.text("op")
		left, _ := o.take("left")
		right, _ := o.take("right")
		rs = product(rs, p.match(table, op, left, right))
	case "vmap":
		key, _ := o.take("key")
		data, _ := o.take("data")
		rs = p.vmap(rs, table, key, data)
	case "accept", "drop", "return":
		rs = each(rs, func(r *rule) { r.decide(verdict{kind: kind}) })
		if arg == nil {
			return rs
		}
	case "jump", "goto":
		target := o.text("target")
		rs = each(rs, func(r *rule) { r.decide(verdict{kind: kind, target: target}) })
	case "reject":
		rs = each(rs, func(r *rule) { r.decide(verdict{kind: "reject"}) })
		if arg == nil {
			return rs
		}
		o.skip("type", "expr")
	case "masquerade", "snat", "dnat", "redirect":
		rs = p.nat(rs, table, kind, arg, o)
		if arg == nil {
			return rs
		}
	case "limit", "quota", "connlimit", "ct count", "meter", "set", "map":
		return each(rs, func(r *rule) { r.cannot(kind) })
	case "last":
		return rs
	case "notrack":
		return each(rs, func(r *rule) { r.does(untracks) })
	case "flow":
		return each(rs, func(r *rule) { r.does(aside{design: byFast}) })
	case "ct helper":
		return each(rs, func(r *rule) {
			r.does(aside{why: "connections that others announce (" + word(arg) + ") meet the rules as any other", effect: Stricter})
		})
	case "ct timeout", "ct expectation":
		return each(rs, func(r *rule) { r.does(aside{why: kind + " has no counterpart", effect: Differs}) })
	case "mangle":
		key, _ := o.take("key")
		value, _ := o.take("value")
		rs = each(rs, func(r *rule) { r.does(changes(key, value)) })
	case "tproxy":
		o.skip("family", "addr", "port")
		rs = each(rs, func(r *rule) { r.tproxy = true })
	default:
		if kind == "xt" {
			what = "xt " + o.text("name") + ", which nft does not show; give the output of iptables-save"
		}
		return each(rs, func(r *rule) { r.other(what) })
	}
	if why := o.rest(); why != "" {
		return each(rs, func(r *rule) { r.cannot(kind + ": " + why) })
	}
	return rs
}

// product returns the rules with each of the conditions. The copies of a rule
// are in the order of the conditions, which exclude each other or mean the same.
func product(rs []rule, cs []cond) []rule {
	if len(cs) == 1 {
		return each(rs, func(r *rule) { r.cond = r.cond.and(cs[0]) })
	}
	var out []rule
	for _, r := range rs {
		for _, c := range cs {
			q := r
			q.cond = r.cond.and(c)
			out = append(out, q)
			if len(out) > maxRules {
				return out
			}
		}
		if len(cs) == 0 {
			r.cond.never = true
			out = append(out, r)
		}
	}
	return out
}

// match returns what a match expression means: one condition, or several of
// which one must hold.
func (p *nftParser) match(table, op string, left, right any) []cond {
	not := op == "!="
	if op != "==" && op != "!=" && op != "in" && op != "" {
		if lo, hi, ok := comparison(op, right); ok {
			return []cond{p.one(left, []any{map[string]any{"range": []any{lo, hi}}}, false)}
		}
		return []cond{{hard: []string{"operator " + shorten(op)}}}
	}
	values, ok := p.elements(table, right)
	if p.left -= len(values) / 64; p.left <= 0 {
		return nil // the caller gives up
	}
	if !ok {
		return []cond{{hard: []string{"set " + shorten(fmt.Sprint(right))}}}
	}
	if parts, isConcat := newObject(left).only("concat"); isConcat {
		if not {
			return []cond{{hard: []string{"the opposite of a concatenation"}}}
		}
		fields, _ := parts.([]any)
		var cs []cond
		for _, v := range values {
			cs = append(cs, p.concat(fields, v))
			if len(cs) > maxRanges {
				return []cond{{hard: []string{"a set that is too large"}}}
			}
		}
		return cs
	}
	return []cond{p.one(left, values, not)}
}

// comparison returns the range of a number that is smaller or larger.
func comparison(op string, right any) (lo, hi float64, ok bool) {
	n, ok := right.(float64)
	switch op {
	case "<":
		return 0, n - 1, ok && n >= 1
	case "<=":
		return 0, n, ok
	case ">":
		return n + 1, 65535, ok && n < 65535
	case ">=":
		return n, 65535, ok
	}
	return 0, 0, false
}

// concat returns the condition that an element of a concatenation makes.
func (p *nftParser) concat(parts []any, v any) cond {
	all, _ := newObject(v).only("concat")
	vs, ok := all.([]any)
	if !ok || len(vs) != len(parts) || len(vs) == 0 {
		return cond{hard: []string{"a concatenation that is not understood"}}
	}
	c := cond{}
	for i := range parts {
		c = c.and(p.one(parts[i], []any{vs[i]}, false))
	}
	return c
}

// elements returns the values that an expression stands for.
func (p *nftParser) elements(table string, v any) ([]any, bool) {
	switch v := v.(type) {
	case string:
		if name, ok := strings.CutPrefix(v, "@"); ok {
			e, ok := p.sets[table+" "+name]
			if !ok {
				return nil, false
			}
			return p.elements(table, e)
		}
	case []any:
		var out []any
		for _, e := range v {
			e, ok := element(e)
			if !ok {
				return nil, false
			}
			out = append(out, e)
		}
		return out, len(out) <= maxRanges
	case map[string]any:
		o := newObject(v)
		if s, ok := o.only("set"); ok {
			return p.elements(table, s)
		}
		if s, ok := o.only("|"); ok { // flags
			l, ok := s.([]any)
			return l, ok
		}
		if e, ok := element(v); ok {
			return []any{e}, true
		}
		return nil, false
	}
	return []any{v}, true
}

// element returns the value of an element of a set, which may have a counter or a
// comment. One that has a time to live or a limit is not understood.
func element(e any) (any, bool) {
	inner, ok := newObject(e).only("elem")
	if !ok {
		return e, true
	}
	o := newObject(inner)
	v, ok := o.take("val")
	o.skip("counter", "comment")
	return v, ok && o.rest() == ""
}

// pairs returns the keys and values of a map.
func (p *nftParser) pairs(table string, data any) ([][2]any, bool) {
	es, ok := p.elements(table, data)
	if !ok {
		return nil, false
	}
	var out [][2]any
	for _, e := range es {
		kv, ok := e.([]any)
		if !ok || len(kv) != 2 {
			return nil, false
		}
		k, ok := element(kv[0])
		if !ok {
			return nil, false
		}
		out = append(out, [2]any{k, kv[1]})
	}
	return out, true
}

// vmap writes a verdict map out: one rule for each key.
func (p *nftParser) vmap(rs []rule, table string, key, data any) []rule {
	kvs, ok := p.pairs(table, data)
	if !ok {
		return each(rs, func(r *rule) { r.decide(verdict{kind: "vmap"}); r.cannot("a verdict map that is not understood") })
	}
	var out []rule
	for _, r := range rs {
		for _, kv := range kvs {
			q := product([]rule{r}, p.match(table, "==", key, map[string]any{"set": []any{kv[0]}}))
			v, _ := kv[1].(map[string]any)
			if len(v) != 1 {
				q = each(q, func(r *rule) { r.decide(verdict{kind: "vmap"}); r.cannot("a verdict that is not understood") })
			} else {
				for kind, arg := range v {
					q = p.statement(q, table, kind, arg)
				}
			}
			if out = append(out, q...); len(out) > maxRules {
				return out
			}
		}
	}
	if len(out) == 0 {
		return each(rs, func(r *rule) { r.cond.never = true })
	}
	return out
}

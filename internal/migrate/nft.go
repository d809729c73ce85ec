package migrate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// NFT reads what nft -j list ruleset prints. The error says why nothing at all
// could be made of it; with a result, it says why that is no valid policy.
func NFT(src []byte, o Options) (*Result, error) {
	if len(src) > maxBytes {
		return nil, fmt.Errorf("%s: %d bytes; at most %d are read", o.File, len(src), maxBytes)
	}
	var doc struct {
		Nftables []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(src, &doc); err != nil {
		return nil, fmt.Errorf("%s: not the output of nft -j list ruleset: %w", o.File, err)
	}
	if doc.Nftables == nil {
		return nil, fmt.Errorf("%s: not the output of nft -j list ruleset: no nftables in it", o.File)
	}
	p := &nftParser{set: &ruleset{chains: map[string]*chain{}}, sets: map[string]any{}, left: maxRules}
	// Chains and sets first: rules refer to those that come later.
	for _, e := range doc.Nftables {
		for kind, raw := range e {
			switch kind {
			case "chain":
				p.chain(raw)
			case "set", "map":
				p.namedSet(raw)
			}
		}
	}
	for i, e := range doc.Nftables {
		for _, kind := range slices.Sorted(keys(e)) {
			switch kind {
			case "rule":
				p.rule(e[kind], i)
			case "metainfo", "table", "chain", "set", "map":
			case "element":
				p.set.notes = append(p.set.notes, Note{fmt.Sprintf("item %d", i), shorten(string(e[kind])), "elements apart from their set are not read", Permissive})
			case "flowtable", "ct helper", "ct timeout", "ct expectation", "counter", "quota", "limit", "secmark", "synproxy":
				p.set.notes = append(p.set.notes, Note{fmt.Sprintf("item %d", i), kind + " " + shorten(string(e[kind])), "no counterpart; rules that use it are listed by themselves", Nothing})
			default:
				p.set.notes = append(p.set.notes, Note{fmt.Sprintf("item %d", i), shorten(kind + " " + string(e[kind])), "not known", Permissive})
			}
		}
	}
	if p.left <= 0 {
		return nil, fmt.Errorf("%s: more than %d rules when maps are written out", o.File, maxRules)
	}
	return carry(p.set, o)
}

func keys[T any](m map[string]T) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

type nftParser struct {
	set  *ruleset
	sets map[string]any // elements by table and name
	left int
}

type nftPlace struct {
	Family, Table, Name string
}

func (n nftPlace) key() string { return n.Family + " " + n.Table }

func (p *nftParser) chain(raw json.RawMessage) {
	var v struct {
		nftPlace
		Type, Hook, Policy string
	}
	if json.Unmarshal(raw, &v) != nil || v.Family == "arp" || v.Family == "bridge" {
		return
	}
	if v.Policy == "" {
		v.Policy = "accept"
	}
	p.set.add(&chain{place: v.key() + " " + v.Name, name: v.Name, table: v.key(), kind: v.Type, hook: v.Hook, policy: v.Policy, ipv6: v.Family == "ip6"})
}

func (p *nftParser) namedSet(raw json.RawMessage) {
	var v struct {
		nftPlace
		Elem any
	}
	if json.Unmarshal(raw, &v) == nil {
		if v.Elem == nil {
			v.Elem = []any{}
		}
		p.sets[v.key()+" "+v.Name] = v.Elem
	}
}

func (p *nftParser) rule(raw json.RawMessage, item int) {
	var v struct {
		nftPlace
		Chain, Comment string
		Handle         json.Number
		Expr           []any
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		p.set.notes = append(p.set.notes, Note{fmt.Sprintf("item %d", item), shorten(string(raw)), "not understood: " + err.Error(), Permissive})
		return
	}
	c := p.set.chains[v.key()+" "+v.Chain]
	text, _ := json.Marshal(v.Expr)
	place := fmt.Sprintf("%s %s handle %s", v.key(), v.Chain, v.Handle)
	if c == nil {
		if v.Family != "arp" && v.Family != "bridge" {
			p.set.notes = append(p.set.notes, Note{place, shorten(string(text)), "its chain is not there", Permissive})
		}
		return
	}
	r := rule{place: place, text: string(text), comment: v.Comment, do: verdict{kind: "none"}}
	// Statements stand one after the other; a verdict map makes several rules.
	rules := []rule{r}
	for _, e := range v.Expr {
		m, ok := e.(map[string]any)
		if !ok || len(m) != 1 {
			rules = each(rules, func(r *rule) { r.cannot("a statement that is not understood") })
			continue
		}
		for kind, arg := range m {
			rules = p.statement(rules, v.key(), kind, arg)
		}
		if p.left -= len(rules); p.left <= 0 {
			return
		}
	}
	c.rules = append(c.rules, rules...)
}

func each(rs []rule, f func(r *rule)) []rule {
	for i := range rs {
		f(&rs[i])
	}
	return rs
}

// statement adds a statement to rules that have all before it.
func (p *nftParser) statement(rs []rule, table, kind string, arg any) []rule {
	switch kind {
	case "counter", "log", "comment", "notrack":
		return rs
	case "match":
		m, _ := arg.(map[string]any)
		op, _ := m["op"].(string)
		alternatives := p.match(table, op, m["left"], m["right"])
		return product(rs, alternatives)
	case "vmap":
		m, _ := arg.(map[string]any)
		return p.vmap(rs, table, m["key"], m["data"])
	case "accept", "drop", "return":
		return each(rs, func(r *rule) { r.do.kind = kind })
	case "jump", "goto":
		m, _ := arg.(map[string]any)
		target, _ := m["target"].(string)
		return each(rs, func(r *rule) { r.do.kind, r.do.target = kind, target })
	case "reject":
		return each(rs, func(r *rule) { r.do.kind = "reject" })
	case "masquerade", "snat", "dnat", "redirect":
		return p.nat(rs, table, kind, arg)
	case "limit", "quota", "connlimit", "ct count", "meter", "set":
		return each(rs, func(r *rule) { r.cannot(kind) })
	}
	return each(rs, func(r *rule) {
		if kind == "xt" {
			if m, ok := arg.(map[string]any); ok {
				kind = fmt.Sprintf("xt %v", m["name"])
			}
		}
		if r.do.kind == "none" {
			r.do.kind = kind
		} else {
			r.cannot(kind)
		}
	})
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
	if !ok {
		return []cond{{hard: []string{"set " + shorten(fmt.Sprint(right))}}}
	}
	if m, isMap := left.(map[string]any); isMap {
		if parts, isConcat := m["concat"].([]any); isConcat {
			if not {
				return []cond{{hard: []string{"the opposite of a concatenation"}}}
			}
			var cs []cond
			for _, v := range values {
				cs = append(cs, p.concat(parts, v))
				if len(cs) > maxRanges {
					return []cond{{hard: []string{"a set that is too large"}}}
				}
			}
			return cs
		}
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
	m, _ := v.(map[string]any)
	vs, ok := m["concat"].([]any)
	if !ok || len(vs) != len(parts) {
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
			if m, ok := e.(map[string]any); ok && len(m) == 1 {
				if x, ok := m["elem"].(map[string]any); ok { // with a timeout, counter or comment
					e = x["val"]
				}
			}
			out = append(out, e)
		}
		return out, len(out) <= maxRanges
	case map[string]any:
		if s, ok := v["set"]; ok {
			return p.elements(table, s)
		}
		if s, ok := v["|"].([]any); ok { // flags
			return s, true
		}
	}
	return []any{v}, true
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
		if m, ok := kv[0].(map[string]any); ok {
			if x, ok := m["elem"].(map[string]any); ok {
				kv = []any{x["val"], kv[1]}
			}
		}
		out = append(out, [2]any{kv[0], kv[1]})
	}
	return out, true
}

// vmap writes a verdict map out: one rule for each key.
func (p *nftParser) vmap(rs []rule, table string, key, data any) []rule {
	kvs, ok := p.pairs(table, data)
	if !ok {
		return each(rs, func(r *rule) { r.do.kind = "vmap"; r.cannot("a verdict map that is not understood") })
	}
	var out []rule
	for _, r := range rs {
		for _, kv := range kvs {
			v, _ := kv[1].(map[string]any)
			if len(v) != 1 {
				r.do.kind = "vmap"
				r.cannot("a verdict that is not understood")
				out = append(out, r)
				continue
			}
			q := product([]rule{r}, p.match(table, "==", key, map[string]any{"set": []any{kv[0]}}))
			for kind, arg := range v {
				q = p.statement(q, table, kind, arg)
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

// nat reads masquerade, snat, dnat and redirect.
func (p *nftParser) nat(rs []rule, table, kind string, arg any) []rule {
	m, _ := arg.(map[string]any)
	if word(m["family"]) == "ip6" {
		return each(rs, func(r *rule) { r.do.kind = kind; r.cond.ipv6 = true })
	}
	if mp, ok := m["addr"].(map[string]any); ok && mp["map"] != nil {
		return p.natMap(rs, table, kind, m, mp["map"])
	}
	do := verdict{kind: kind}
	ok := true
	if m["addr"] != nil {
		s, good := addresses([]any{m["addr"]})
		if ok = good && len(s) == 1; ok {
			do.addr, do.last = s[0].addr(), span{s[0].hi, s[0].hi}.addr()
		}
	}
	if ok && m["port"] != nil {
		do.ports, ok = numbers([]any{m["port"]})
		ok = ok && len(do.ports) == 1
	}
	return each(rs, func(r *rule) {
		r.do = do
		if !ok {
			r.cannot(kind + " to " + shorten(fmt.Sprint(m["addr"], " ", m["port"])))
		}
	})
}

// natMap writes a map of translations out: one rule for each key.
func (p *nftParser) natMap(rs []rule, table, kind string, args map[string]any, arg any) []rule {
	m, _ := arg.(map[string]any)
	kvs, ok := p.pairs(table, m["data"])
	if !ok {
		return each(rs, func(r *rule) { r.do.kind = kind; r.cannot("a map that is not understood") })
	}
	var out []rule
	for _, kv := range kvs {
		to := map[string]any{"addr": kv[1], "port": args["port"]}
		if c, ok := kv[1].(map[string]any); ok {
			if parts, ok := c["concat"].([]any); ok && len(parts) == 2 {
				to["addr"], to["port"] = parts[0], parts[1]
			}
		}
		if inner, ok := to["addr"].(map[string]any); ok && inner["map"] != nil {
			delete(to, "addr") // no map in a map
		}
		q := product(slices.Clone(rs), p.match(table, "==", m["key"], map[string]any{"set": []any{kv[0]}}))
		if out = append(out, p.nat(q, table, kind, to)...); len(out) > maxRules {
			return out
		}
	}
	if len(out) == 0 {
		return each(rs, func(r *rule) { r.do.kind = kind; r.cond.never = true })
	}
	return out
}

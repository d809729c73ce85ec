package importer

import (
	"fmt"
	"slices"
)

// nat reads masquerade, snat, dnat and redirect, whose members are o's.
func (p *nftParser) nat(rs []rule, table, kind string, arg any, o *object) []rule {
	family := o.text("family")
	addr, _ := o.take("addr")
	port, _ := o.take("port")
	// How a port is chosen does not matter; that addresses are prefixes does.
	if flags, _ := o.take("flags"); !onlyWords(flags, "random", "fully-random", "persistent") {
		rs = each(rs, func(r *rule) { r.cannot(kind + " with flags") })
	}
	if flags, _ := o.take("type_flags"); !onlyWords(flags, "interval", "concat") {
		rs = each(rs, func(r *rule) { r.cannot(kind + " with type_flags") })
	}
	if family == "ip6" {
		return each(rs, func(r *rule) { r.decide(verdict{kind: kind}); r.cond.ipv6 = true })
	}
	if m, ok := addr.(map[string]any); ok && m["map"] != nil {
		am := newObject(addr)
		inner, _ := am.take("map")
		rs = p.natMap(rs, table, kind, port, inner)
		if why := am.rest(); why != "" {
			return each(rs, func(r *rule) { r.cannot(kind + ": " + why) })
		}
		return rs
	}
	return p.natTo(rs, kind, addr, port)
}

// natTo reads what is translated to.
func (p *nftParser) natTo(rs []rule, kind string, addr, port any) []rule {
	do := verdict{kind: kind}
	ok := true
	if addr != nil {
		s, good := addresses([]any{addr})
		if ok = good && len(s) == 1; ok {
			do.addr, do.last = s[0].addr(), span{s[0].hi, s[0].hi}.addr()
		}
	}
	if ok && port != nil {
		do.ports, ok = numbers([]any{port})
		ok = ok && len(do.ports) == 1
	}
	return each(rs, func(r *rule) {
		r.decide(do)
		if !ok {
			r.cannot(kind + " to " + shorten(fmt.Sprint(addr, " ", port)))
		}
	})
}

// natMap writes a map of translations out: one rule for each key.
func (p *nftParser) natMap(rs []rule, table, kind string, port, arg any) []rule {
	o := newObject(arg)
	key, _ := o.take("key")
	data, _ := o.take("data")
	kvs, ok := p.pairs(table, data)
	if !ok || o.rest() != "" {
		return each(rs, func(r *rule) { r.decide(verdict{kind: kind}); r.cannot("a map that is not understood") })
	}
	var out []rule
	for _, kv := range kvs {
		addr, to := kv[1], port
		if parts, ok := newObject(kv[1]).only("concat"); ok {
			if both, ok := parts.([]any); ok && len(both) == 2 {
				addr, to = both[0], both[1]
			}
		}
		q := product(slices.Clone(rs), p.match(table, "==", key, map[string]any{"set": []any{kv[0]}}))
		if out = append(out, p.natTo(q, kind, addr, to)...); len(out) > maxRules {
			return out
		}
	}
	if len(out) == 0 {
		return each(rs, func(r *rule) { r.decide(verdict{kind: kind}); r.cond.never = true })
	}
	return out
}

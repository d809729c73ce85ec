package importer

import (
	"encoding/json"
	"slices"
)

// A place is where a chain, a set or a rule stands.
type nftPlace struct{ family, table, name string }

func (n nftPlace) key() string { return n.family + " " + n.table }

// forwarded reports whether the family's rules see packets that are routed.
func (n nftPlace) forwarded() bool { return n.family != "arp" && n.family != "bridge" }

func placeOf(o *object) nftPlace {
	return nftPlace{o.text("family"), o.text("table"), o.text("name")}
}

// table notes a table whose flags change what its rules do.
func (p *nftParser) table(raw json.RawMessage, item int) {
	o := parseObject(raw)
	o.skip("family", "name", "handle", "comment")
	if why := o.rest(); why != "" {
		p.note(item, "table "+string(raw), "the table's rules may not be in force: "+why, Permissive)
	}
}

func (p *nftParser) chain(raw json.RawMessage, item int) {
	o := parseObject(raw)
	n := placeOf(o)
	c := &chain{place: n.key() + " " + n.name, name: n.name, table: n.key(), kind: o.text("type"), hook: o.text("hook"), policy: o.text("policy"), ipv6: n.family == "ip6"}
	o.skip("handle", "comment")
	if dev, ok := o.take("dev"); ok {
		if list, ok := dev.([]any); ok {
			c.devs, _ = names(list)
		} else {
			c.devs = []string{word(dev)}
		}
	}
	prio, _ := o.take("prio")
	if v, ok := prio.(float64); ok && v > -1e6 && v < 1e6 {
		c.prio = int(v)
	} else if prio != nil {
		p.note(item, "chain "+string(raw), "its priority is not understood", Permissive)
	}
	if c.hook != "" && !slices.Contains([]string{"ingress", "prerouting", "input", "forward", "output", "postrouting"}, c.hook) {
		p.note(item, "chain "+string(raw), "a chain at the hook "+c.hook+" is not read", Permissive)
	}
	if !n.forwarded() {
		return
	}
	if why := o.rest(); why != "" {
		p.note(item, "chain "+string(raw), "not understood: "+why, Permissive)
	}
	if c.policy == "" {
		c.policy = "accept"
	}
	p.set.add(c)
}

// namedSet keeps the elements of a set or map. One that packets or time change
// is not kept: what it holds now is not what it will hold.
func (p *nftParser) namedSet(kind string, raw json.RawMessage, item int) {
	o := parseObject(raw)
	n := placeOf(o)
	elem, some := o.take("elem")
	o.skip("type", "map", "handle", "comment", "size", "policy", "auto-merge")
	flags, _ := o.take("flags")
	if !onlyWords(flags, "constant", "interval") {
		return
	}
	if why := o.rest(); why != "" {
		p.note(item, kind+" "+string(raw), "not understood; rules that use it are listed separately: "+why, Nothing)
		return
	}
	if !some {
		elem = []any{}
	}
	if _, isList := elem.([]any); !isList {
		p.note(item, kind+" "+string(raw), "its elements are no list; rules that use it are listed separately", Nothing)
		return
	}
	p.sets[n.key()+" "+n.name] = elem
}

// onlyWords reports whether flags, a word or a list of words, has none but these.
func onlyWords(flags any, allowed ...string) bool {
	list, ok := flags.([]any)
	if !ok {
		list = []any{flags}
	}
	for _, f := range list {
		if w, isWord := f.(string); f != nil && (!isWord || !slices.Contains(allowed, w)) {
			return false
		}
	}
	return true
}

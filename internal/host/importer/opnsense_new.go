package importer

import (
	"slices"
	"strconv"
	"strings"
)

// newRules returns the rules that OPNsense keeps apart ("Rules [new]", formerly Automation) in the form
// of the others, before which they are asked. Those of several interfaces, or of none, are floating; in
// each class the sequence decides.
func (p *pfParser) newRules() (es []*xmlNode) {
	for _, e := range p.numbered("rules") {
		o := oldForm(e)
		n := len(strings.FieldsFunc(e.child("interface").text, func(r rune) bool { return r == ',' || r == ' ' }))
		if n != 1 || e.on("interfacenot") {
			o.children = append(o.children, &xmlNode{name: "floating", line: e.line, text: "1"})
		}
		if e.child("quick").name == "" {
			o.children = append(o.children, &xmlNode{name: "quick", line: e.line, text: "1"})
		}
		es = append(es, o)
	}
	return es
}

// numbered returns the rules of a list that are switched on, in order of their sequence, which is 1 where
// it is not given.
func (p *pfParser) numbered(list string) []*xmlNode {
	es := p.root.child("OPNsense", "Firewall", "Filter", list).all("rule")
	es = slices.DeleteFunc(es, func(e *xmlNode) bool { return e.has("enabled") && !e.on("enabled") })
	sequence := func(e *xmlNode) int {
		n, err := strconv.Atoi(e.child("sequence").text)
		if err != nil {
			return 1
		}
		return n
	}
	slices.SortStableFunc(es, func(a, b *xmlNode) int { return sequence(a) - sequence(b) })
	return es
}

// newNAT returns the rules of address translation that OPNsense keeps with the new rules, since 26.1 its only
// ones, in the form of the others.
func (p *pfParser) newNAT(list string) (es []*xmlNode) {
	for _, e := range p.numbered(list) {
		o := oldForm(e)
		for _, side := range []struct{ end, name string }{{"source", "sourceport"}, {"destination", "dstport"}} {
			end := o.child(side.end)
			for i, c := range end.children {
				if c.name == "port" {
					end.children = slices.Delete(end.children, i, i+1)
					o.children = append(o.children, &xmlNode{name: side.name, line: c.line, text: c.text})
					break
				}
			}
		}
		es = append(es, o)
	}
	return es
}

// renamed are parts of new rules that have another name in the others.
var renamed = map[string]string{"action": "type", "description": "descr", "replyto": "reply-to", "target_port": "natport"}

// inOrder are parts of new rules that are no condition, whatever they say.
var inOrder = []string{"enabled", "sequence", "sort_order", "prio_group", "categories", "state-policy", "overload"}

// oldForm returns a rule in the form of the others. What it has beside that is kept under its name, so that
// nothing is left out unnoticed; a switch that is off says nothing.
func oldForm(e *xmlNode) *xmlNode {
	leaf := func(name, text string) *xmlNode { return &xmlNode{name: name, line: e.line, text: text} }
	o := &xmlNode{name: "rule", line: e.line}
	ends := map[string]*xmlNode{"source": leaf("source", ""), "destination": leaf("destination", "")}
	for _, c := range e.children {
		if slices.Contains(inOrder, c.name) {
			continue
		}
		side, part, _ := strings.Cut(c.name, "_")
		if end := ends[side]; end != nil {
			switch {
			case part == "net" && c.text != "":
				end.children = append(end.children, leaf("network", c.text))
			case part == "not" && (c.text == "" || c.text == "0"):
			case part == "net":
			default:
				end.children = append(end.children,
					&xmlNode{name: part, line: e.line, text: c.text, children: c.children})
			}
			continue
		}
		name := c.name
		if n, ok := renamed[name]; ok {
			name = n
		}
		if c.text == "0" && name != "quick" {
			continue
		}
		o.children = append(o.children, &xmlNode{name: name, line: e.line, text: c.text, children: c.children})
	}
	o.children = append(o.children, ends["source"], ends["destination"])
	return o
}

// reflects adds the interfaces from which a forward is for the hosts behind them, too: where it says so, or
// where it says nothing and that is usual.
func (p *pfParser) reflects(r *rule, e *xmlNode, usually bool) {
	v := e.child("natreflection").text
	switch {
	case r.do.kind != "dnat" || v == "disable":
		return
	case v == "enable" || v == "purenat":
	case (v == "" || v == "default") && usually:
	case v == "" || v == "default":
		return
	default:
		r.cannot("natreflection " + v)
		return
	}
	for _, i := range p.root.child("interfaces").children {
		gw := i.child("gateway").text
		if _, ok := p.nets[i.name]; !ok || i.name == p.wan || gw != "" && gw != "none" || len(r.cond.in) != 1 {
			continue
		}
		if names := r.cond.in[0].names; !slices.Contains(names, i.name) {
			r.cond.in = []iface{{names: append(slices.Clone(names), i.name)}}
		}
	}
}

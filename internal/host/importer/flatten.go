package importer

import (
	"fmt"
)

// A flat is a rule without chains: the first whose condition holds decides.
type flat struct {
	cond cond
	do   verdict
	rule *rule // as it stands in the rule set
	tail bool  // the policy of a chain
}

// A flattener writes chains out: what chains jump to, what they go to, and what
// comes after a return, as one list of which the first entry that matches decides.
//
// A jump needs nothing: what its chain leaves undecided meets the entries that
// follow. After a return or a goto other rules follow than those that stand below,
// so that they are written out for what the return or goto matches: next writes
// what follows a chain.
type flattener struct {
	chains  map[string]*chain
	resolve func(*rule) cond // the condition of a rule, with interfaces as ways
	emit    func(flat) bool  // false: no more
	accept  func(c cond, r *rule)
	note    func(r *rule, why string, e Effect)
	left    *int // entries that may still be written
	wide    *int // ranges that these may still have
	rules   map[*rule]cond
}

// spend counts work, and reports whether there may be more.
func (f *flattener) spend(c *cond) bool {
	*f.left--
	*f.wide -= c.ranges()
	return *f.left > 0 && *f.wide > 0
}

// next writes what follows for the packets that a condition describes.
type next func(c cond)

// chain writes the rules of a chain from one on, for packets that outer describes.
// Where explicit is set what the chain leaves undecided does not meet the entries
// that follow, but then.
func (f *flattener) chain(ch *chain, from int, outer cond, depth int, then next, explicit bool) {
	for i := from; i < len(ch.rules); i++ {
		r := &ch.rules[i]
		own := f.resolve(r)
		m := outer.and(own)
		if !f.spend(&m) {
			return
		}
		if f.rules != nil && !m.never {
			if seen, ok := f.rules[r]; !ok || seen.never {
				f.rules[r] = m
			}
		}
		if m.never {
			continue
		}
		whole := own.any() || own.exact() && own.holds(&outer)
		switch r.do.kind {
		case "none":
		case "return":
			if explicit || len(ch.rules) > i+1 || depth == 0 {
				if left, ok := f.without(outer, own, whole); ok && !explicit && depth > 0 {
					outer = left
				} else {
					then(m)
				}
			}
			if whole {
				return
			}
		case "jump", "goto":
			to := f.chains[ch.table+" "+r.do.target]
			switch {
			case to == nil || to.hook != "":
				f.note(r, "there is no chain "+r.do.target, Permissive)
				continue
			case depth >= maxDepth:
				f.note(r, fmt.Sprintf("jumps are nested more than %d deep", maxDepth), Permissive)
				continue
			}
			if r.do.kind == "jump" {
				f.chain(to, 0, m, depth+1, func(c cond) { f.chain(ch, i+1, c, depth, then, true) }, false)
				continue
			}
			f.chain(to, 0, m, depth+1, then, explicit || !whole)
			if whole {
				return
			}
		case "accept":
			f.accept(m, r)
			if whole {
				return
			}
		default:
			if !f.emit(flat{cond: m, do: r.do, rule: r}) || whole {
				return
			}
		}
	}
	if explicit {
		then(outer)
	}
}

// without returns the packets of a chain that a return does not match, if one
// condition describes them.
func (f *flattener) without(outer, own cond, whole bool) (cond, bool) {
	switch {
	case whole:
		return cond{never: true}, true
	case !own.exact():
		return cond{}, false
	}
	parts := outer.minus(own)
	if len(parts) != 1 {
		return cond{}, false
	}
	return parts[0], true
}

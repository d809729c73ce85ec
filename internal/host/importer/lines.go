package importer

import (
	"github.com/thurward/thurward/internal/shared/printable"
)

// manyAlike is how many notes with one reason are listed under it.
const manyAlike = 3

// Lines returns notes for people, a line each. Where several rules have one reason and effect it is said once,
// with their number, and each rule follows as its author wrote it.
func Lines(notes []Note) (ls []string) {
	type reason struct {
		why    string
		effect Effect
	}
	alike := map[reason][]*Note{}
	for i := range notes {
		k := reason{notes[i].Why, notes[i].Effect}
		alike[k] = append(alike[k], &notes[i])
	}
	for i := range notes {
		n := notes[i]
		k := reason{n.Why, n.Effect}
		same := alike[k]
		n.Place = shorten(n.Place)
		n.Why = shortenTo(n.Why, 3*maxShorten)
		switch {
		case len(same) < manyAlike:
			ls = append(ls, n.String())
		case same[0] == &notes[i]:
			ls = append(ls, printable.Sprintf("%d rules: %s (%s):", len(same), n.Why, n.Effect))
			for _, m := range same {
				ls = append(ls, "    "+m.where())
			}
		}
	}
	return ls
}

// where returns the rule of a note, and the packets that it is about.
func (n *Note) where() string {
	s := printable.Sprintf("%s: %s", shorten(n.Place), n.rule())
	if n.Traffic != "" && n.Effect != Nothing {
		s += printable.Sprintf(" (%s)", n.Traffic)
	}
	return s
}

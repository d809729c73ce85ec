package diff

import (
	"fmt"
	"io"
	"strings"

	"github.com/thurward/thurward/internal/shared/printable"
)

// Write prints the changes for people, at most as many of them as most, and of
// each the sets that Compare has described. What is left out is counted.
func (d *Diff) Write(w io.Writer, most int) {
	if d.Same() {
		printable.Fprintf(w, "%s and %s do the same\n", d.Old, d.New)
		return
	}
	for i := range d.Traffic {
		if i == most {
			printable.Fprintf(w, "and %d more changes (--all shows them)\n\n", len(d.Traffic)-i)
			break
		}
		t := &d.Traffic[i]
		if i == 0 || d.Traffic[i-1].Effect != t.Effect {
			printable.Fprintf(w, "%s:\n\n", t.Effect.Title())
		}
		printable.Fprintf(w, "%s -> %s\n", &t.From, &t.To)
		for j := range t.Packets {
			printable.Fprintf(w, "  %s\n", &t.Packets[j])
		}
		if n := t.Sets - len(t.Packets); n > 0 {
			printable.Fprintf(w, "  and %d more sets of packets (--all shows them)\n", n)
		}
		printable.Fprintf(w, "  example: %s\n\n", &t.Example)
	}
	if !d.Complete {
		printable.Fprintf(w, "there is more: so many sets of packets differ that the search was stopped (--all goes on)\n\n")
	}
	for _, o := range d.Other {
		switch {
		case o.Old == "":
			printable.Fprintf(w, "%s: added: %s\n", o.What, o.New)
		case o.New == "":
			printable.Fprintf(w, "%s: removed: %s\n", o.What, o.Old)
		default:
			printable.Fprintf(w, "%s: %s -> %s\n", o.What, o.Old, o.New)
		}
	}
}

// String names the action and the rule.
func (d *Decision) String() string {
	s := d.Action
	if d.Rule != "" {
		s += " by " + d.Rule
	}
	if d.SNI {
		s += " with sni: require"
	}
	if d.Place != "" {
		s += " (" + d.Place + ")"
	}
	return s
}

// String writes the packet.
func (e *Example) String() string {
	s := fmt.Sprintf("%s %s to %s from the %s", e.Proto, e.Src, e.Dst, e.From)
	if e.State != "new" {
		s += ", an answer"
	}
	if len(e.Names) > 0 {
		s += ", known as " + strings.Join(e.Names, " and ")
	}
	if len(e.NoNames) > 0 {
		s += ", not known as " + strings.Join(e.NoNames, " or ")
	}
	return s
}

package evasions

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// An attack is one entry of the corpus. Its name is stable.
type attack struct {
	name   string // family/short-name
	trick  string // what the attacker does, and what for
	source string // where it is public; empty: nowhere that we know of
	fate   string // what becomes of it
	// run attacks, and reports whether the attack succeeded. With legit it runs the twin,
	// and reports whether that worked. The two differ in the trick alone.
	run func(a *arena, legit bool) bool
	// open is why the attack succeeds, where it does and no packet filter can prevent it.
	open string
	// squid says that the attack is one on what Squid does: to let TLS
	// connections through by server name.
	squid bool
	// local is why the attack cannot be run against other firewalls.
	local string
	// How the policy differs, where it does: a line of its defaults, the length
	// of the LAN's prefix, the range of external ports.
	set, prefix, ports string
}

// families are the tables, in the order of the documentation.
var families = []struct {
	name, title string
	attacks     []attack
}{
	{"names", "Names", slices.Concat(names, namesReviewed)},
	{"hello", "First messages of TLS", hellos},
	{"tcp", "TCP state", slices.Concat(tcps, tcpReviewed)},
	{"addresses", "Addresses and translation", slices.Concat(addresses, addressesReviewed)},
	{"fragments", "Fragments", fragments},
	{"icmp", "ICMP", icmps},
	{"arp", "ARP", slices.Concat(arps, arpsReviewed)},
	{"shares", "Shares", shares},
}

// TestCorpus: no attack succeeds, and every twin works.
func TestCorpus(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			for i := range f.attacks {
				at := &f.attacks[i]
				t.Run(strings.TrimPrefix(at.name, f.name+"/"), func(t *testing.T) {
					t.Parallel()
					if a := newArena(t, newThurward(t, at)); !at.run(a, true) {
						t.Errorf("the legitimate twin does not work; %s", a)
					}
					if a := newArena(t, newThurward(t, at)); at.run(a, false) != (at.open != "") {
						t.Errorf("%s: %s: the attack works: %v; %s", at.trick, at.fate, at.open == "", a)
					}
				})
			}
		})
	}
}

// TestAgain: attacks that a busy machine may have to try again have the same fate
// when they are, on the same firewall.
func TestAgain(t *testing.T) {
	for _, f := range families {
		for i := range f.attacks {
			at := &f.attacks[i]
			if !slices.ContainsFunc(booted, func(g []string) bool { return slices.Contains(g, at.name) }) {
				continue
			}
			t.Run(at.name, func(t *testing.T) {
				t.Parallel()
				fw := newThurward(t, at)
				for n, legit := range []bool{false, false, true, true} {
					if a := newArena(t, &restarted{fw, uint16(n)}); at.run(a, legit) != legit {
						t.Errorf("run %d: legitimate %v: %s", n+1, legit, a)
					}
				}
			})
		}
	}
}

// restarted is a firewall that has been attacked n times.
type restarted struct {
	*thurward
	n uint16
}

func (r *restarted) begin() (port, id uint16) { return 20000 + 500*r.n, 100 + 5000*r.n }

// TestCorpusIsWhole: enough attacks, each of a family, with all of its fields, and under a
// unique name.
func TestCorpusIsWhole(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+/[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for _, f := range families {
		for _, at := range f.attacks {
			if !form.MatchString(at.name) || !strings.HasPrefix(at.name, f.name+"/") || seen[at.name] {
				t.Errorf("%s: not a name of family %s, or there twice", at.name, f.name)
			}
			seen[at.name] = true
			if at.trick == "" || at.fate == "" || at.run == nil {
				t.Errorf("%s: trick, fate or program is missing", at.name)
			}
		}
	}
	if len(seen) < 100 {
		t.Errorf("%d attacks; want at least 100", len(seen))
	}
}

package importing

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/importer"
)

var reSides = regexp.MustCompile(`(?m)^  (lan0|wan0): \{[^}]*\} # (\S+)$`)

// guessed imports a rule set without a word about its interfaces, but for what the router says of itself
// where links is set. It returns whether the importer found out which is the LAN and which the WAN; an
// answer that is wrong fails the test, and so does a question that does not say how to answer it.
func (a *about) guessed(t *testing.T, src []byte, links bool) bool {
	t.Helper()
	o := importer.Options{File: "rules", Partial: false}
	if links {
		o.Links = a.options().Links
	}
	res, err := a.read()(src, o)
	if err != nil {
		for _, want := range []string{"it is not certain which interface is the", "NAME", "--links FILE"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s (links %v): it asks %q, without %q", a.name, links, err, want)
			}
		}
		named := false
		for _, i := range a.Interfaces {
			named = named || strings.Contains(err.Error(), i.Name)
		}
		if !named {
			t.Errorf("%s (links %v): it asks %q, and names none of the interfaces", a.name, links, err)
		}
		return false
	}
	want := map[string]string{"lan0": a.LAN, "wan0": a.WAN}
	all := strings.Join(res.Assumptions, "\n")
	for _, m := range reSides.FindAllStringSubmatch(string(res.YAML), -1) {
		if want[m[1]] != m[2] {
			t.Errorf("%s (links %v): %s is taken for %s, which is %s", a.name, links, m[2], m[1], want[m[1]])
		}
		if !strings.Contains(all, m[2]+" is taken for the ") {
			t.Errorf("%s (links %v): it does not say why %s is %s:\n%s", a.name, links, m[2], m[1], all)
		}
		delete(want, m[1])
	}
	// A side without a name is one that no rule is about.
	for side, name := range want {
		if strings.Contains(string(src), name) || links {
			t.Errorf("%s (links %v): %s, %s, has no name in the policy", a.name, links, side, name)
		}
	}
	return true
}

// interfaces says what is known of a rule set's interfaces without a hint, for the table.
func (a *about) interfaces(t *testing.T, src []byte) string {
	t.Helper()
	byRules, byLinks := a.guessed(t, src, false), a.guessed(t, src, true)
	switch {
	case byRules:
		return "by its rules"
	case byLinks:
		return "by `--links`"
	}
	return "asks"
}

// TestGuesses: the rule sets of which iptables-save is stored need neither root nor nft to be guessed about.
func TestGuesses(t *testing.T) {
	known := 0
	as := read(t)
	for _, a := range as {
		if a.format() != "iptables" {
			continue
		}
		src, err := os.ReadFile(a.rules())
		if err != nil {
			t.Fatal(err)
		}
		how := a.interfaces(t, src)
		t.Logf("%s: %s", a.name, how)
		if how != "asks" {
			known++
		}
	}
	if known < 15 {
		t.Errorf("the interfaces of %d rule sets are known without a hint, want 15", known)
	}
}

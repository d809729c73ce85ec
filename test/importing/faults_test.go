package importing

import (
	"bytes"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/host/importer"
)

// TestFaultsAreFound makes policies and notes wrong on purpose: each fault is a silent difference
// of its kind, and without one there is none.
func TestFaultsAreFound(t *testing.T) {
	needsRoot(t)
	as := read(t)
	a := as[slices.IndexFunc(as, func(a *about) bool { return a.name == "homelab-iptables" })]
	k, src, lines := loaded(t, a)
	policy := func(old, new string) func(*importer.Result) {
		return func(r *importer.Result) {
			if !bytes.Contains(r.YAML, []byte(old)) {
				t.Fatalf("the policy has no %q:\n%s", old, r.YAML)
			}
			r.YAML = bytes.Replace(r.YAML, []byte(old), []byte(new), 1)
		}
	}
	notes := func(f func(*importer.Note)) func(*importer.Result) {
		return func(r *importer.Result) {
			for i := range r.Notes {
				f(&r.Notes[i])
			}
		}
	}
	for _, f := range []struct {
		name string
		make func(*importer.Result)
		kind string
	}{
		{"none", func(*importer.Result) {}, ""},
		{"another default", policy("default_action: deny", "default_action: accept"), permissive},
		{"another server", policy("to: '192.168.1.20:443'", "to: '192.168.1.21:443'"), stricter},
		{"another port of the server", policy("to: '192.168.1.20:443'", "to: '192.168.1.20:80'"), differs},
		{"another port", policy("wan_port: 51820", "wan_port: 51821"), permissive},
		{"no notes", func(r *importer.Result) { r.Notes = nil }, stricter},
		{"notes elsewhere", notes(func(n *importer.Note) { n.Place += "0" }), stricter},
		{"notes with another effect", notes(func(n *importer.Note) { n.Effect = importer.Differs }), stricter},
		{"notes about other packets", notes(func(n *importer.Note) { n.Packets = importer.Packets{} }), stricter},
	} {
		res, err := a.read()(src, a.options())
		if err != nil {
			t.Fatal(err)
		}
		f.make(res)
		c, err := compareWith(t, k, a, res, lines)
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if n := sum(c.tally.silent); (n > 0) != (f.kind != "") || f.kind != "" && c.tally.silent[f.kind] == 0 {
			t.Errorf("%s: silent differences %v, want kind %q", f.name, c.tally.silent, f.kind)
		}
	}
}

// TestThirdInterfacesAreNamed: what comes from a third interface, or goes there, is excused only if the
// import has named it.
func TestThirdInterfacesAreNamed(t *testing.T) {
	needsRoot(t)
	as := read(t)
	a := as[slices.IndexFunc(as, func(a *about) bool { return a.name == "three-legs-nft" })]
	k, src, lines := loaded(t, a)
	for _, named := range []bool{true, false} {
		res, err := a.read()(src, a.options())
		if err != nil {
			t.Fatal(err)
		}
		n := len(res.Notes)
		if !named {
			res.Notes = slices.DeleteFunc(res.Notes, func(n importer.Note) bool { return reThird.MatchString(n.Why) })
			if len(res.Notes) == n {
				t.Fatal("no note names a third interface")
			}
		}
		c, err := compareWith(t, k, a, res, lines)
		if err != nil {
			t.Fatal(err)
		}
		if silent := sum(c.tally.silent); (silent == 0) != named || !named && c.tally.silent[answer] == 0 {
			t.Errorf("named %v: silent differences %v", named, c.tally.silent)
		}
	}
}

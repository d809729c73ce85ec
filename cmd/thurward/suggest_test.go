package main

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/suggest"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

var update = flag.Bool("update", false, "write what is wanted into the txtar files")

// TestSuggest runs the files of testdata/suggest: a policy, events, and the
// rules that are proposed. With the proposals the policy is valid, and the default
// action does not decide any of the events.
func TestSuggest(t *testing.T) {
	files, _ := filepath.Glob("testdata/suggest/*.txt")
	if len(files) < 5 {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		f, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			part := map[string]string{}
			for _, v := range a.Files {
				part[v.Name] = string(v.Data)
			}
			t.Chdir(t.TempDir())
			for _, n := range []string{"rules.yaml", "events"} {
				if err := os.WriteFile(n, []byte(part[n]), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			code, out, errs := capture(t, append([]string{"suggest", "events"}, strings.Fields(part["args"])...)...)
			if code != 0 {
				t.Fatalf("exit %d: %s", code, errs)
			}
			if *update {
				a.Files = append(a.Files[:3:3], txtar.File{Name: "want", Data: []byte(out)})
				if errs != "" {
					a.Files = append(a.Files, txtar.File{Name: "want.stderr", Data: []byte(errs)})
				}
				if err := os.WriteFile(f, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(part["want"]+part["want.stderr"], out+errs); d != "" {
				t.Error(d)
			}
			_, list, _ := strings.Cut(out, "rules:\n")
			src := part["rules.yaml"] + list
			p, ds := policy.Load("extended.yaml", []byte(src))
			if p == nil {
				t.Fatalf("the policy with the proposals: %v\n%s", ds, src)
			}
			seg, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			obs, _, err := observations(strings.NewReader(part["events"]))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range obs {
				got := explain.Decide(p, seg, policy.Flow{FromLAN: o.FromLAN, Protocol: o.Protocol, Src: netip.AddrPortFrom(o.Src, 0), Dst: netip.AddrPortFrom(o.Dst, uint16(o.Port)), FQDN: strings.ToLower(o.Domain)})
				if o.FromLAN && got.Asked && got.Rule == len(p.Rules) {
					t.Errorf("%+v still meets the default action", o)
				}
			}
		})
	}
}

// TestSuggestReadsWhatTheFirewallWrites: suggest reads the events of package export.
func TestSuggestReadsWhatTheFirewallWrites(t *testing.T) {
	pol := &ruleset.Policy{Rules: []ruleset.Rule{{ID: ruleset.Text{Len: 3}, Action: ruleset.Accept}}, Strings: []byte("try"), Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
	addr := func(s string) ruleset.Addr { return netip.MustParseAddr(s).As16() }
	c := &export.Context{Policy: pol}
	r := event.Record{Action: verdict.WouldAccept, Reason: verdict.RuleAccept, Src: addr("10.0.0.2"), Dst: addr("198.51.100.7"), SrcPort: 9, DstPort: 443, Proto: 6, Direction: verdict.Egress}
	lines := string(export.AppendNamed(nil, &r, []byte("example.com"), c)) + "\n"
	r.Action, r.Reason, r.Rule = verdict.Drop, verdict.NoMatchingAllowRule, 1
	lines += string(export.AppendEvent(nil, &r, c)) + "\n"
	r.Proto, r.DstPort = 1, 8<<8
	lines += string(export.AppendEvent(nil, &r, c)) + "\n"
	r.Proto, r.DstPort, r.Hint, r.Ago = 6, 443, verdict.NameExpired, 42
	lines += string(export.AppendNamed(nil, &r, []byte("example.com"), c)) + "\n"
	r.Hint, r.Ago = verdict.OtherClient, 0
	lines += string(export.AppendNamed(nil, &r, []byte("example.com"), c)) + "\n"
	got, bad, err := observations(strings.NewReader(lines))
	if err != nil || bad > 0 {
		t.Fatal(bad, err)
	}
	src, dst := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("198.51.100.7")
	const at = "1970-01-01T00:00:00.000000Z"
	want := []suggest.Observation{
		{FromLAN: true, Protocol: policy.TCP, Src: src, Dst: dst, Port: 443, Domain: "example.com", Shadow: "try", Accept: true, Count: 1, Time: at},
		{FromLAN: true, Protocol: policy.TCP, Src: src, Dst: dst, Port: 443, Count: 1, Time: at},
		{FromLAN: true, Protocol: policy.ICMP, Src: src, Dst: dst, Count: 1, Time: at},
		{FromLAN: true, Protocol: policy.TCP, Src: src, Dst: dst, Port: 443, Domain: "example.com", Expired: 42, Count: 1, Time: at},
		{FromLAN: true, Protocol: policy.TCP, Src: src, Dst: dst, Port: 443, Domain: "example.com", ByOther: true, Count: 1, Time: at},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("%s\n%s", d, lines)
	}
}

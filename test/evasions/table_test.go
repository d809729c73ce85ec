package evasions

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	against      = flag.Bool("peers", false, "run the corpus against what people use instead, (root)")
	only         = flag.String("only", "", "with -peers or -every: attacks whose names contain this")
	table        = flag.String("table", "", "with -peers: write the table to this file")
	proxyCommand = flag.String("proxy", "", "with -peers: in place of the known peers, a proxy that this command starts (proxy_test.go)")
	proxyName    = flag.String("proxy-name", "a proxy", "its name and version, in the table")
	proxyDNS     = flag.Bool("proxy-dns", false, "it answers DNS, too")
	write        = flag.Bool("write", false, "with -peers: write the table into docs/evasions.md, too")
)

// An outcome is the result of an attack in one environment.
type outcome string

const (
	holds   outcome = "holds"
	passes  outcome = "**passes**"
	noTwin  outcome = "no twin" // the legitimate twin does not work, so that nothing is to be learned
	moot    outcome = "moot"    // it gets through, and gains nothing
	nothing outcome = "–"
)

// outcome runs an attack and its twin. forget is called before each; where it is
// nil, a twin may leave behind what helps the attack, and comes after it. A
// machine that is busy may be too slow: the patience with which the twin works
// is doubled for the attack, which is tried until two of three agree, with ever
// more of it.
func (w *wires) outcome(t testing.TB, at *attack, forget func()) outcome {
	quiet := w.quiet
	defer func() { w.quiet = quiet }()
	attempt := func(legit bool) bool {
		if forget != nil {
			forget()
		}
		return at.run(newArena(t, w), legit)
	}
	twin := func() bool {
		for range 5 {
			if attempt(true) {
				return true
			}
			w.quiet *= 3
		}
		return false
	}
	attack := func() bool { // two of three
		w.quiet *= 2
		first := attempt(false)
		w.quiet *= 2
		if attempt(false) == first {
			return first
		}
		w.quiet *= 2
		return attempt(false)
	}
	var works, well bool
	if forget != nil {
		well = twin()
		works = well && attack()
	} else {
		works = attack()
		w.quiet = quiet
		well = twin()
	}
	switch {
	case !well:
		return noTwin
	case works:
		return passes
	}
	return holds
}

// TestPeers runs the corpus against the peers.
func TestPeers(t *testing.T) {
	if !*against {
		t.Skip("make evasions runs it")
	}
	peers := []*peer{&nftables, &squid}
	if *proxyCommand != "" {
		someProxy.name = *proxyName
		peers = []*peer{&someProxy}
	}
	got := map[string]outcome{}
	count := map[string]map[outcome]int{}
	for _, p := range peers {
		count[p.name] = map[outcome]int{}
		t.Run(p.name, func(t *testing.T) {
			w, forget := p.start(t)
			for _, f := range families {
				for i := range f.attacks {
					at := &f.attacks[i]
					if !strings.Contains(at.name, *only) {
						continue
					}
					o := nothing
					if p.applies(f.name, at) == "" && at.local == "" && at.set+at.prefix+at.ports == "" {
						o = w.outcome(t, at, forget)
						if o == passes && p.moot[at.name] != "" {
							o = moot
						}
						t.Logf("%s: %s", at.name, o)
					}
					got[p.name+at.name] = o
					count[p.name][o]++
				}
			}
		})
	}
	text := results(peers, got, count)
	t.Log("\n" + text)
	if *table != "" {
		if err := os.WriteFile(*table, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if *write && *only == "" && !t.Failed() {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		from, to := section(t, string(b), "peers")
		if err := os.WriteFile(page, append(append(b[:from:from], text...), b[to:]...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// results is the table.
func results(peers []*peer, got map[string]outcome, count map[string]map[outcome]int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s.\n\n| | version | hold | moot | pass | twin does not work | does not apply |\n| --- | --- | --- | --- | --- | --- | --- |\n", time.Now().UTC().Format("2006-01-02"))
	own := map[outcome]int{}
	for _, f := range families {
		for i := range f.attacks {
			own[mine(&f.attacks[i])]++
		}
	}
	fmt.Fprintf(&b, "| thurward | this one, in process (`TestCorpus`) | %d | 0 | %d | 0 | 0 |\n", own[holds], own[passes])
	for _, p := range peers {
		c := count[p.name]
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d |\n", p.name, p.version(), c[holds], c[moot], c[passes], c[noTwin], c[nothing])
	}
	b.WriteString("\n| attack | thurward |")
	for _, p := range peers {
		b.WriteString(" " + p.name + " |")
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", 1+len(peers)) + "\n")
	var notes []string
	for _, f := range families {
		for i := range f.attacks {
			at := &f.attacks[i]
			line, any := "", false
			for _, p := range peers {
				o, ok := got[p.name+at.name]
				if !ok {
					o = nothing
				}
				any = any || o != nothing
				line += " " + string(o)
				n := p.notes[at.name]
				if o == moot {
					n = p.moot[at.name]
				}
				if n != "" && o != holds && o != nothing {
					k := slices.Index(notes, n) + 1
					if k == 0 {
						notes = append(notes, n)
						k = len(notes)
					}
					line += fmt.Sprintf(" (%d)", k)
				}
				line += " |"
			}
			if any {
				fmt.Fprintf(&b, "| `%s` | %s |%s\n", at.name, mine(at), line)
			}
		}
	}
	for i, n := range notes {
		fmt.Fprintf(&b, "\n%d. %s", i+1, n)
	}
	b.WriteString("\n")
	return b.String()
}

// mine is what TestCorpus requires of an attack.
func mine(at *attack) outcome {
	if at.open != "" {
		return passes
	}
	return holds
}

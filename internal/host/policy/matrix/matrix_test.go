package matrix

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func compute(t testing.TB, file, src string) (*policy.Policy, *ruleset.Policy, *Matrix) {
	t.Helper()
	p, ds := policy.Load(file, []byte(src))
	if p == nil {
		t.Fatalf("%v\n%s", ds, src)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Compute(p, rs)
	if err != nil {
		t.Fatal(err)
	}
	return p, rs, m
}

// reaches reports whether a matrix says that a source reaches a destination, without a
// name (pattern "") or by one of a pattern. It is an error when a source, or a service of
// one source, is in two classes.
func reaches(m *Matrix, f *policy.Flow, pattern string) (bool, error) {
	side := &m.Sides[1]
	if f.FromLAN {
		side = &m.Sides[0]
	}
	found, sources := 0, 0
	for j := range side.Sources {
		if !side.Sources[j].set.has(number(f.Src.Addr())) {
			continue
		}
		sources++
		services := map[string]int{}
		for i := range side.Services {
			s := &side.Services[i]
			if len(s.Names) > 0 && !slices.Contains(s.Names, pattern) {
				continue
			}
			for _, q := range s.Ports {
				if q.class != classOf(f.Protocol) || q.class != packetset.ICMP && !q.set.has(uint32(f.Dst.Port())) {
					continue
				}
				if services[fmt.Sprint(len(s.Names) > 0)]++; services["true"] > 1 || services["false"] > 1 {
					return false, fmt.Errorf("%v (%s) is of two services", f, pattern)
				}
				if c := s.Cell(j); c != nil && c.dst.has(number(f.Dst.Addr())) {
					found++
				}
			}
		}
	}
	if sources > 1 {
		return false, fmt.Errorf("%v is of two classes of sources", f.Src)
	}
	if found > 1 {
		return false, fmt.Errorf("%v (%s) is reached by a name, and without", f, pattern)
	}
	return found == 1, nil
}

// TestMatrixIsExact: on random policies over a small world, the matrix has exactly the
// flows that are accepted, by each name and without one.
func TestMatrixIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(20261130, 360))
	hosts := func(ns ...string) (all []netip.Addr) {
		for _, n := range ns {
			p := netip.MustParsePrefix(n)
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				all = append(all, a)
			}
		}
		return all
	}
	// c.example.com has the wildcard only.
	names := map[string]string{"": "", "a.example.com": "a.example.com", "b.example.com": "b.example.com", "*.example.com": "c.example.com"}
	accepted, named := 0, 0
	for range 60 {
		src := policytest.Small(r)
		p, rs, m := compute(t, "random.yaml", src)
		for _, fromLAN := range []bool{true, false} {
			srcs := hosts("10.0.0.0/28", "198.51.100.0/31")
			dsts := hosts("10.0.0.0/29", "198.51.100.0/31", "203.0.113.9/32", "203.0.113.10/31", "192.168.3.4/32", "127.0.0.1/32")
			if !fromLAN {
				srcs = hosts("198.51.100.0/30", "10.0.0.5/32", "203.0.113.8/29", "0.0.0.1/32")
			}
			for _, s := range srcs {
				for _, d := range dsts {
					for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.ICMP} {
						ports := []uint16{1, 2, 3, 53, 54, 65535}
						if proto == policy.ICMP {
							ports = ports[:1]
						}
						for _, port := range ports {
							f := policy.Flow{FromLAN: fromLAN, Protocol: proto, Src: netip.AddrPortFrom(s, 0), Dst: netip.AddrPortFrom(d, port)}
							if proto == policy.ICMP {
								f.Dst = netip.AddrPortFrom(d, 0)
							}
							for pattern, name := range names {
								f.FQDN = name
								want := false
								for _, o := range explain.Ways(p, rs, f) {
									want = want || o.Accept
								}
								if _, has := slices.BinarySearch(sortedPatterns(rs), pattern); name == "c.example.com" && !has {
									pattern = ""
								}
								if name != "" && pattern == name && !slices.Contains(compile.Patterns(rs), pattern) {
									if pattern = "*.example.com"; policy.AtOrBelow(p.DNS.Block, name) {
										continue // a cell is about a name of the pattern that is resolved
									}
								}
								got, err := reaches(m, &f, pattern)
								if err != nil || got != want {
									t.Fatalf("%v by %q: reached %v, want %v (%v)\n%s", f, pattern, got, want, err, src)
								}
								if want {
									if accepted++; name != "" {
										named++
									}
								}
							}
						}
					}
				}
			}
		}
	}
	if accepted < 10000 || named < 1000 {
		t.Errorf("%d accepted, %d by name: too few to say anything", accepted, named)
	}
}

func sortedPatterns(rs *ruleset.Policy) []string {
	all := compile.Patterns(rs)
	slices.Sort(all)
	return all
}

var update = flag.Bool("update", false, "write the picture of docs")

// TestPictureOfDocs: docs show what is drawn now.
func TestPictureOfDocs(t *testing.T) {
	const file, picture = "../../../../examples/branch.yaml", "../../../../docs/images/matrix.svg"
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, _, m := compute(t, "branch.yaml", string(src))
	_, _, now := forms(t, m)
	if *update {
		if err := os.WriteFile(picture, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(picture); err != nil || string(b) != now {
		t.Errorf("%s is not what is drawn now (%v); -update writes it", picture, err)
	}
}

// TestPictureHasRoom: in the picture of an ordinary policy nothing is cut, begins left of the
// picture, or is wider than its cell.
func TestPictureHasRoom(t *testing.T) {
	const narrow = 5.5 // no letter is narrower on average, in whatever font
	for _, name := range []string{"branch.yaml", "egress.yaml", "home.yaml"} {
		src, err := os.ReadFile("../../../../examples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		_, _, m := compute(t, name, string(src))
		_, _, picture := forms(t, m)
		texts := regexp.MustCompile(`(?:<text|<tspan)[^>]* x="(\d+)"[^>]*?(text-anchor="end")?>([^<]+)<`).FindAllStringSubmatch(picture, -1)
		if len(texts) < 15 {
			t.Fatalf("%s: %d texts", name, len(texts))
		}
		for _, text := range texts {
			x, _ := strconv.Atoi(text[1])
			words := html.UnescapeString(text[3])
			if strings.Contains(words, "…") {
				t.Errorf("%s: %q is cut", name, words)
			}
			if text[2] != "" && float64(x)-narrow*float64(len(words)) < 0 {
				t.Errorf("%s: %q begins outside", name, words)
			}
		}
		wide := regexp.MustCompile(`<rect class="(?:all|name|some)"[^>]* width="(\d+)"[^>]* rx="6"/><text[^>]*>(.*?)</text>`).FindAllStringSubmatch(picture, -1)
		if len(wide) < 4 {
			t.Fatalf("%s: %d cells with words", name, len(wide))
		}
		for _, cell := range wide {
			width, _ := strconv.Atoi(cell[1])
			for words := range strings.SplitSeq(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(cell[2], "\n"), "\n") {
				if letter*float64(len(html.UnescapeString(words))) > float64(width) {
					t.Errorf("%s: %q is wider than its cell of %d", name, words, width)
				}
			}
		}
	}
}

// TestHalves: the longer of two lines is as short as it can be, and nothing is lost.
func TestHalves(t *testing.T) {
	for s, want := range map[string][2]string{
		"anywhere and the firewall": {"anywhere and", "the firewall"},
		"$web by 198.51.100.2:80":   {"$web by", "198.51.100.2:80"},
		"oneword":                   {"oneword", ""},
		"":                          {"", ""},
		" ":                         {"", ""},
	} {
		if first, second := halves(s); first != want[0] || second != want[1] {
			t.Errorf("%q: %q, %q", s, first, second)
		}
	}
}

// TestExamples: each example has a matrix, in every form: tables whose rows are equally
// long, JSON, and XML that can be read.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../../examples/*.yaml")
	more, _ := filepath.Glob("../../../../examples/*/rules.yaml")
	if files = append(files, more...); err != nil || len(files) < 6 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range append(files, "../../../../rules.yaml") {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		p, rs, m := compute(t, filepath.Base(f), string(src))
		if d := time.Since(begin); d > 2*time.Minute {
			t.Errorf("%s took %v", f, d)
		}
		forms(t, m)
		// The policy's own tests, read from the matrix.
		for i := range p.Tests {
			x := &p.Tests[i].Flow
			if x.Established || !x.Protocol.Forwarded() {
				continue
			}
			o := explain.Decide(p, rs, *x)
			seen := o.Seen
			if !o.Asked {
				seen = *x
			}
			pattern := ""
			for _, n := range o.Names {
				if pattern == "" || strings.HasPrefix(pattern, "*.") {
					pattern = n
				}
			}
			got, err := reaches(m, &seen, pattern)
			if direct := explain.Ways(p, rs, seen); !o.Accept && slices.ContainsFunc(direct, func(o explain.Outcome) bool { return o.Accept }) {
				continue // another way leads there
			}
			if err != nil || got != o.Accept {
				t.Errorf("%s: %v by %q: reached %v, want %v (%v)", f, seen, pattern, got, o.Accept, err)
			}
		}
	}
}

// forms writes a matrix in each form, and looks at what can be said of all.
func forms(t *testing.T, m *Matrix) (text, markdown, picture string) {
	t.Helper()
	var a, b, c strings.Builder
	m.Write(&a, 120, false)
	m.WriteMarkdown(&b, false)
	if err := m.WriteSVG(&c, false); err != nil {
		t.Error(err)
	}
	if _, err := json.Marshal(m); err != nil {
		t.Error(err)
	}
	bars := 0
	for l := range strings.Lines(b.String()) {
		n := strings.Count(strings.ReplaceAll(l, `\|`, ""), "|")
		if n > 0 && bars > 0 && n != bars {
			t.Errorf("%s: a row of %d cells after one of %d: %s", m.File, n, bars, l)
		}
		bars = n
	}
	for d := xml.NewDecoder(strings.NewReader(c.String())); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", m.File, err, c.String())
		}
		if e, ok := tok.(xml.StartElement); ok && !slices.Contains([]string{"svg", "style", "rect", "text", "tspan", "g", "title", "circle"}, e.Name.Local) {
			t.Errorf("%s: element %s", m.File, e.Name.Local)
		}
	}
	return a.String(), b.String(), c.String()
}

// TestHostileWords: what a policy and its file are called is text in every form.
func TestHostileWords(t *testing.T) {
	const evil = "</text><script>alert(1)</script>|\n`<img src=x>`\x1b[2J\u202e"
	m := &Matrix{File: evil, Sides: []Side{{From: "lan", Sources: []Source{{Label: evil}},
		Services: []Service{{Label: evil, Names: []string{evil, evil, evil}, Cells: []Cell{{Label: evil, Rules: []string{evil}}}}}}}}
	text, markdown, picture := forms(t, m)
	for _, s := range []string{text, markdown, picture} {
		if strings.ContainsAny(s, "\x1b\u202e") {
			t.Errorf("%q", s)
		}
	}
	if n := strings.Count(text, "\n"); n != 3 {
		t.Errorf("%d lines: %q", n, text)
	}
	if strings.Contains(picture, "<script") || strings.Contains(picture, "<img") {
		t.Errorf("%s", picture)
	}
	for l := range strings.Lines(markdown) {
		if strings.HasPrefix(l, "| ") && strings.Contains(l, "script") && !strings.Contains(l, "``") {
			t.Errorf("not in a code span: %s", l)
		}
	}
}

// TestTooLarge: a policy whose matrix would not fit in memory is refused, with what works.
func TestTooLarge(t *testing.T) {
	var b strings.Builder
	b.WriteString("interfaces:\n  lan0: { address: 10.0.0.1/8 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\ndefaults: { default_action: accept }\nrules:\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "  - { id: r%d, action: deny, direction: egress, source: 10.%d.%d.0/24, destination_port: %d, protocol: tcp }\n", i, i/250, i%250, 1+i)
	}
	p, ds := policy.Load("large.yaml", []byte(b.String()))
	if p == nil {
		t.Fatal(ds)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compute(p, rs); err == nil || !strings.Contains(err.Error(), "too many for a matrix") {
		t.Error(err)
	}
}

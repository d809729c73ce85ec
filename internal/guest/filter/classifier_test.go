package filter_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// same fails unless the classifier decides about n packets as the linear scan
// does.
func same(t testing.TB, r *rand.Rand, p *ruleset.Policy, n int) {
	t.Helper()
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	c, err := filter.New(p)
	if err != nil {
		t.Fatal(err)
	}
	filtertest.Same(t, r, p, n, c, linear.New(p))
}

// TestClassifierIsLinearScan: the classifier decides as the definition says, on
// random policies of all sizes, with shadow rules, names and odd masks.
func TestClassifierIsLinearScan(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 1))
		same(t, r, filtertest.RandomPolicy(r, r.IntN(1<<r.IntN(11)), r.IntN(6)), 300)
	}
	for _, v := range filtertest.Variants {
		for _, n := range []int{1, 5, 11, 100, 3000} {
			same(t, rand.New(rand.NewPCG(uint64(n), 2)), v.Policy(n), 1000)
		}
	}
}

// TestClassifierThroughEncoding: the tables survive encoding, and the same
// policy gives the same bytes.
func TestClassifierThroughEncoding(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	p := filtertest.RandomPolicy(r, 500, 3)
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	b := compile.Encode(p)
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b, compile.Encode(p)) {
		t.Error("two compilations differ")
	}
	q, err := ruleset.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := filter.New(q)
	if err != nil {
		t.Fatal(err)
	}
	l := linear.New(q)
	for range 2000 {
		k := filtertest.RandomPacket(r, p)
		if c.Decide(&k) != l.Decide(&k) {
			t.Fatalf("%+v", k)
		}
	}
}

// TestNewNeedsTables: a policy with rules and without a classifier is refused;
// it must not be taken for one without rules.
func TestNewNeedsTables(t *testing.T) {
	if _, err := filter.New(filtertest.Variants[0].Policy(6)); err == nil {
		t.Error("accepted")
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := filtertest.Variants[3].Policy(1000)
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	c, _ := filter.New(p)
	ps := filtertest.Packets(p, "any")
	i := 0
	if n := testing.AllocsPerRun(1000, func() { sink += c.Decide(&ps[i%filtertest.NumPackets]).Rule; i++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// steps counts what a decision looks at: nodes and entries.
func steps(c *ruleset.Classifier, q *filter.Packet) (n int) {
	k := ruleset.Key{uint32(q.Src), uint32(q.Dst), uint32(q.DstPort), ruleset.KindField(q.Proto, q.Direction, q.State)}
	r := c.Roots[0]
	best := ^uint32(0)
	for _, t := range c.Trees[r.Tree:][:r.Trees] {
		ref := t.Ref
		for ref&ruleset.LeafBit == 0 {
			n++
			d := &c.Nodes[ref]
			ref = uint32(c.Cells[d.Cell+min((k[d.Field]-d.Base)>>d.Shift, d.Parts)])
		}
		for j := ref &^ ruleset.LeafBit; j < uint32(len(c.Entries)) && t.First < best; j++ {
			n++
			e := &c.Entries[j]
			if e.Matches(&k, ruleset.EntryKind(q.Proto, q.Direction, q.State)) {
				best = min(best, e.Match&^ruleset.Last)
				break
			}
			if e.Match&ruleset.Last != 0 {
				break
			}
		}
	}
	return n
}

// TestFlatCost: what a decision looks at, on average, hardly grows from 10 to
// 10,000 rules. (Times are printed by make bench; counts do not depend on what
// else the machine does.)
func TestFlatCost(t *testing.T) {
	for _, v := range filtertest.Variants {
		for _, place := range filtertest.Places {
			count := func(n int) float64 {
				p := v.Policy(n)
				if err := compile.Classifier(p); err != nil {
					t.Fatal(err)
				}
				sum := 0
				ps := filtertest.Packets(p, place)
				for i := range ps {
					sum += steps(&p.Classifier, &ps[i])
				}
				return float64(sum) / float64(len(ps))
			}
			small, large := count(10), count(10000)
			if large > 2*small+4 || large > 12 {
				t.Errorf("%s, match at %s: %.1f steps with 10,000 rules, %.1f with 10", v.Name, place, large, small)
			}
		}
	}
}

// FuzzClassifier compares with the linear scan on policies and packets made of
// the input.
func FuzzClassifier(f *testing.F) {
	f.Add(uint64(1), uint16(10), uint8(2))
	f.Add(uint64(2), uint16(700), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, matches uint16, names uint8) {
		r := rand.New(rand.NewPCG(seed, 3))
		same(t, r, filtertest.RandomPolicy(r, int(matches%1500), int(names%8)), 100)
	})
}

// FuzzTables: tables that Open accepts, whatever they hold, lead neither outside
// of a table nor in a circle.
func FuzzTables(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	p := filtertest.RandomPolicy(r, 40, 2)
	if err := compile.Classifier(p); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 0, 0, 1, 2, 3, 4}, uint64(1))
	f.Fuzz(func(t *testing.T, edits []byte, seed uint64) {
		// Each edit overwrites four bytes of a table.
		q := *p
		c := &q.Classifier
		c.Roots, c.Trees, c.Nodes, c.Cells, c.Entries = slices.Clone(c.Roots), slices.Clone(c.Trees), slices.Clone(c.Nodes), slices.Clone(c.Cells), slices.Clone(c.Entries)
		for ; len(edits) >= 7; edits = edits[7:] {
			var b []byte
			switch edits[0] % 5 {
			case 0:
				b = bytesOf(c.Roots)
			case 1:
				b = bytesOf(c.Trees)
			case 2:
				b = bytesOf(c.Nodes)
			case 3:
				b = bytesOf(c.Cells)
			case 4:
				b = bytesOf(c.Entries)
			}
			at := int(binary.LittleEndian.Uint16(edits[1:])) % len(b) &^ 3
			copy(b[at:at+4], edits[3:7])
		}
		o, err := ruleset.Open(compile.Encode(&q))
		if err != nil {
			return
		}
		d, err := filter.New(o)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 6))
		for range 50 {
			k := filtertest.RandomPacket(r, p)
			k.Names = append(k.Names, 99)
			v := d.Decide(&k)
			if v.Rule > uint32(len(q.Rules)) || v.Shadow != filter.NoRule && v.Shadow >= uint32(len(q.Rules)) {
				t.Fatalf("%+v", v)
			}
		}
	})
}

func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

// BenchmarkDecide classifies packets whose match is anywhere in the policy.
func BenchmarkDecide(b *testing.B) {
	for _, v := range filtertest.Variants {
		for _, n := range []int{10, 10000} {
			b.Run(fmt.Sprintf("%s/rules=%d", v.Name, n), func(b *testing.B) {
				p := v.Policy(n)
				if err := compile.Classifier(p); err != nil {
					b.Fatal(err)
				}
				c, _ := filter.New(p)
				ps := filtertest.Packets(p, "any")
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					sink += c.Decide(&ps[i%filtertest.NumPackets]).Rule
				}
			})
		}
	}
}

// BenchmarkOpen is what boot does with a policy of 10,000 rules: digest and
// checks.
func BenchmarkOpen(b *testing.B) {
	p := filtertest.Variants[3].Policy(10000)
	p.Settings.MaxFlows = 1024
	if err := compile.Classifier(p); err != nil {
		b.Fatal(err)
	}
	s := compile.Encode(p)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		if _, err := ruleset.Open(s); err != nil {
			b.Fatal(err)
		}
	}
}

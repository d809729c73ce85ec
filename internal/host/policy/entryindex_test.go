package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// anEntry is a random entry of a small world, in which many share something.
func anEntry(r *rand.Rand) *DNAT {
	d := &DNAT{WAN: netip.AddrFrom4([4]byte{203, 0, 113, byte(r.IntN(2))})}
	switch r.IntN(8) {
	case 0: // ports that could not be read
	case 1:
		d.Ports = PortRange{1, 65535}
	default:
		lo := 1 + r.IntN(65535)>>r.IntN(14)
		d.Ports = PortRange{lo, min(65535, lo+r.IntN(1<<r.IntN(10)))}
	}
	d.Protocols = [][]Protocol{{TCP}, {UDP}, {TCP, UDP}, nil}[r.IntN(4)]
	for range r.IntN(4) {
		bits := []int{0, 7, 8, 9, 15, 16, 23, 24, 25, 31, 32, 32}[r.IntN(12)]
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(2) * 128), byte(r.IntN(3)), byte(r.IntN(256) >> r.IntN(8))})
		d.From = append(d.From, netip.PrefixFrom(a, bits)) // with bits behind the network's, too
	}
	return d
}

// TestEntryIndex: the first entry that shares packets with another is the one that comparing
// with each of them finds.
func TestEntryIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	found, missed := 0, 0
	for range 300 {
		var x entryIndex
		var all []*DNAT
		for range 1 + r.IntN(60) {
			d := anEntry(r)
			want, wantOK := 0, false
			for i, e := range all {
				if d.overlaps(e) {
					want, wantOK = i, true
					break
				}
			}
			got, ok := x.first(d)
			if ok != wantOK || ok && got != want {
				t.Fatalf("%+v: entry %d (%v), want %d (%v)", d, got, ok, want, wantOK)
			}
			if ok {
				found++
			} else {
				missed++
			}
			x.add(d, len(all))
			all = append(all, d)
		}
	}
	if found < 1000 || missed < 1000 {
		t.Errorf("%d share something and %d do not: the test says little", found, missed)
	}
}

// large are documents with many entries of which none shares anything with another.
var large = map[string]func(i int) (from, port string){
	"hosts": func(i int) (string, string) {
		return fmt.Sprintf("from: 198.%d.%d.%d, ", 18+i>>16, i>>8&255, i&255), "443"
	},
	"ports": func(i int) (string, string) { return "", fmt.Sprint(i + 1) },
	"hosts and ports": func(i int) (string, string) {
		if i%2 == 0 {
			return fmt.Sprintf("from: 198.18.%d.%d, ", i>>9, i>>1&255), fmt.Sprint(1 + i%4*30000)
		}
		return "", fmt.Sprint(1000 + i/2)
	},
}

// TestEntryIndexIsFast: among 60,000 entries the index needs a tenth, at most, of what
// comparing with each of them does.
func TestEntryIndexIsFast(t *testing.T) {
	for name, of := range large {
		l := &loader{Report: Report{File: name}, p: &Policy{}}
		if root, ok := l.parseYAML(document(60000, of)); ok {
			l.document(root)
		}
		if len(l.p.DNAT) != 60000 || len(l.ds) > 0 {
			t.Fatalf("%s: %d entries, %v", name, len(l.p.DNAT), l.ds[:min(3, len(l.ds))])
		}
		var indexed, each time.Duration
		for i := 0; i < 60000; i += 600 {
			d := l.p.DNAT[i]
			d.Ports = PortRange{900, 999} // nobody's: all would be looked at
			began := time.Now()
			_, ok := l.entries.first(&d)
			indexed += time.Since(began)
			began = time.Now()
			for j := range l.p.DNAT {
				ok = d.overlaps(&l.p.DNAT[j]) != ok && ok
			}
			each += time.Since(began)
		}
		t.Logf("%s: %v by the index, %v by comparing", name, indexed/100, each/100)
		if indexed > each/10 {
			t.Errorf("%s: %v by the index, %v by comparing", name, indexed, each)
		}
	}
}

func document(entries int, of func(i int) (from, port string)) []byte {
	var b strings.Builder
	b.WriteString("interfaces:\n  lan0: { address: 10.0.0.1/24 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\n" +
		"defaults: { default_action: deny }\nrules: []\nnat:\n  dnat:\n")
	for i := range entries {
		from, port := of(i)
		fmt.Fprintf(&b, "    - { wan_ip: 203.0.113.10, wan_port: %s, to: \"10.0.0.5:%s\", proto: tcp, %shairpin: false }\n", port, port, from)
	}
	return []byte(b.String())
}

// BenchmarkManyEntries loads policies with many entries of nat.dnat; ns/entry must not grow
// with their number.
func BenchmarkManyEntries(b *testing.B) {
	for name, of := range large {
		for _, n := range []int{4000, 16000, 60000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				src := document(n, of)
				b.ReportAllocs()
				for b.Loop() {
					Load("large.yaml", src)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
			})
		}
	}
}

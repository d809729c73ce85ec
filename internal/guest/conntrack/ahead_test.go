package conntrack

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// batchOf prepares a batch of keys.
func batchOf(t *Table, keys ...Key) *Batch {
	b := new(Batch)
	for _, k := range keys {
		*b.Next() = k
		b.Add()
	}
	t.Prepare(b)
	return b
}

// TestInsertedAfterPrepare: what was inserted after a batch was prepared is found by it, both
// directions, whatever else was inserted and removed meanwhile; what was not is not found,
// and seldom looked for.
func TestInsertedAfterPrepare(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 7))
	looked, unknown := 0, 0
	for n := range 200 {
		tab := New(256, [2]uint64{r.Uint64(), r.Uint64()}, udpTimeouts(), dirty)
		var keys []Key
		for i := range BatchSize / 2 {
			k, out := flow(i)
			keys = append(keys, k, Key{Src: out.Dst, Dst: out.Src, SrcPort: out.DstPort, DstPort: out.SrcPort, Proto: k.Proto})
		}
		if n%2 == 0 { // what another batch has seen is forgotten
			k, out := flow(1000)
			tab.Insert(&k, &out, UDPReplied, outward, 1000)
		}
		b := batchOf(tab, keys...)
		for j := range b.Len() {
			if !b.Unknown(j) || tab.recent.has(b, b.hash[j]) {
				t.Fatalf("key %d is known before there is a flow", j)
			}
		}
		if b.Unknown(b.Len()) {
			t.Fatal("there is no such key")
		}
		var in [BatchSize / 2]Ref
		for i := range in {
			if in[i] = None; r.IntN(4) == 0 {
				k, out := flow(i)
				in[i] = tab.Insert(&k, &out, UDPReplied, outward, 1000)
			}
		}
		for i, want := range in {
			if want != None && r.IntN(4) == 0 {
				tab.Remove(want, Closed)
				in[i] = None
			}
		}
		for i, want := range in {
			for d := range Ref(2) {
				j := 2*i + int(d)
				got := tab.LookupBatch(b, j, 1001)
				if want == None && got != None || want != None && got != want|d {
					t.Fatalf("flow %d, direction %d: %d, want %d", i, d, got, want)
				}
				if want == None {
					unknown++
					if tab.recent.has(b, b.hash[j]) {
						looked++
					}
				}
			}
		}
		// A batch that was prepared before another one knows nothing of what was inserted.
		k, out := flow(500)
		old := batchOf(tab, k)
		want := tab.Insert(&k, &out, UDPReplied, outward, 1000)
		batchOf(tab, k)
		if got := tab.LookupBatch(old, 0, 1001); got != want {
			t.Fatalf("an older batch finds %d, not %d", got, want)
		}
	}
	if looked > unknown/10 {
		t.Errorf("%d of %d keys without a flow were looked for again", looked, unknown)
	}
}

// TestLinesOfAKey: what is prefetched for a key are its buckets.
func TestLinesOfAKey(t *testing.T) {
	tab := New(4096, [2]uint64{1, 2}, udpTimeouts(), dirty)
	for i := range 500 {
		k, out := flow(i)
		r := tab.Insert(&k, &out, UDPReplied, outward, 1000)
		a, z := tab.Lines(&k)
		found := 0
		for j := range tab.buckets {
			for s, x := range tab.buckets[j].refs {
				if at := uintptr(unsafe.Pointer(&tab.buckets[j])); x == r && tab.buckets[j].tags[s/4]>>(16*(s%4))&1 != 0 && (at == a || at == z) {
					found++
				}
			}
		}
		if found != 1 || a == z {
			t.Fatalf("flow %d is in %d of its buckets %#x, %#x", i, found, a, z)
		}
	}
}

package event

import (
	"sync"
	"testing"
)

// TestRings: of several rings the record with the earliest time comes first, each ring keeps its
// order, and nothing is lost or counted twice.
func TestRings(t *testing.T) {
	q := Rings{NewRing(8), NewRing(8), NewRing(8)}
	for _, r := range []struct {
		ring int
		at   int64
		name string
	}{{0, 10, "a"}, {1, 5, ""}, {2, 7, "c"}, {1, 20, "d"}, {0, 3, "e"}, {2, 8, ""}} {
		q[r.ring].PutNamed(&Record{Time: r.at, FlowID: uint64(r.ring)}, r.name)
	}
	if q.Len() != 6 || q.Full() {
		t.Fatalf("%d records", q.Len())
	}
	var got []int64
	var names string
	for {
		var r Record
		name, ok := q.GetNamed(&r, nil)
		if !ok {
			break
		}
		got, names = append(got, r.Time), names+string(name)
	}
	want := []int64{5, 7, 8, 10, 3, 20} // 3 was put after 10
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	if names != "caed" || q.Len() != 0 {
		t.Errorf("names %q, %d left", names, q.Len())
	}
	for range 10 {
		q[1].Put(&Record{})
	}
	if q.Len() != 8 || q.Lost() != 2 || !q.Full() {
		t.Errorf("%d in them, %d lost", q.Len(), q.Lost())
	}
}

// TestRingsTogether: producers put while the consumer takes.
func TestRingsTogether(t *testing.T) {
	const each = 10_000
	q := Rings{NewRing(64), NewRing(64), NewRing(64), NewRing(64)}
	var wg sync.WaitGroup
	for k, x := range q {
		wg.Go(func() {
			for i := range int64(each) {
				for !x.PutNamed(&Record{Time: i, FlowID: uint64(k)}, "name") {
				}
			}
		})
	}
	var next [4]int64
	for n := 0; n < each*len(q); {
		var r Record
		name, ok := q.GetNamed(&r, nil)
		if !ok {
			continue
		}
		if string(name) != "name" || r.Time != next[r.FlowID] {
			t.Fatalf("%q, record %d of %d, want %d", name, r.Time, r.FlowID, next[r.FlowID])
		}
		next[r.FlowID]++
		n++
	}
	wg.Wait()
}

package event

import (
	"testing"
	"unsafe"
)

// TestNext: the place that is named is that of the record which is stored there, also round
// the ring's end.
func TestNext(t *testing.T) {
	q := NewRing(8)
	for i := range 40 {
		for ahead := range 3 {
			if got, want := q.Next(ahead), uintptr(unsafe.Pointer(&q.buf[(i+ahead)%8])); got != want {
				t.Fatalf("record %d, %d ahead: %#x, not %#x", i, ahead, got, want)
			}
		}
		var r Record
		if !q.Put(&Record{Seq: uint64(i)}) || q.buf[i%8].Seq != uint64(i) || !q.Get(&r) {
			t.Fatalf("record %d", i)
		}
	}
}

// TestSlot: what is filled in before Commit is stored, nothing of what was there before is,
// the consumer sees it after Publish or the next Put, in order, and when there is no room it is
// counted as lost.
func TestSlot(t *testing.T) {
	q := NewRing(4)
	put := func() bool { return q.PutNamed(&Record{Seq: 1000, Packets: 7, Truncated: true}, "name") }
	for i := range 10 {
		if !put() {
			t.Fatal("no room")
		}
		r := q.Slot()
		if r == nil || *r != (Record{}) {
			t.Fatalf("round %d: %+v", i, r)
		}
		r.Seq = uint64(i)
		q.Commit()
		if q.Len() != 1 {
			t.Fatal("published by Commit")
		}
		switch i % 3 {
		case 0:
			q.Publish()
		case 1:
			q.Put(&Record{Seq: 1001})
		case 2:
			put()
		}
		var got Record
		if !q.Get(&got) || got.Seq != 1000 || !q.Get(&got) || got != (Record{Seq: uint64(i)}) {
			t.Fatalf("round %d: %+v", i, got)
		}
		if q.Get(&got) != (i%3 > 0) || q.Get(&got) {
			t.Fatalf("round %d: then %+v", i, got)
		}
	}
	for range 4 {
		q.Slot()
		q.Commit()
	}
	if q.Slot() != nil || put() || q.Put(&Record{}) || q.Lost() != 3 || q.Len() != 0 {
		t.Errorf("%d records, %d lost", q.Len(), q.Lost())
	}
	if q.Publish(); q.Len() != 4 {
		t.Errorf("%d records", q.Len())
	}
}

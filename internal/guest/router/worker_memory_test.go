package router

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A region is memory that a worker can reach: an object, or the elements of a slice.
type region struct {
	data    unsafe.Pointer
	lo, hi  uintptr
	what    string
	buffers bool // of packets, each of which is one worker's
}

// A memory is what a worker can reach, and the locks in it.
type memory struct {
	regions []region
	locks   []*sync.Mutex
	seen    map[string]bool
}

// reach finds the memory that a worker can reach.
func reach(e *Engine) *memory {
	m := &memory{seen: map[string]bool{}}
	m.walk(reflect.ValueOf(e), "engine", false)
	slices.SortFunc(m.regions, func(a, b region) int { return cmp.Compare(a.lo, b.lo) })
	return m
}

var lockType = reflect.TypeFor[sync.Mutex]()

// add notes memory at p, and reports whether it is new.
func (m *memory) add(p unsafe.Pointer, size uintptr, t reflect.Type, what string, buffers bool) bool {
	key := fmt.Sprint(p, t, size)
	if p == nil || size == 0 || m.seen[key] {
		return false
	}
	m.seen[key] = true
	m.regions = append(m.regions, region{p, uintptr(p), uintptr(p) + size, what, buffers})
	return true
}

func (m *memory) walk(v reflect.Value, what string, buffers bool) {
	switch v.Kind() {
	case reflect.Pointer:
		t := v.Type().Elem()
		if v.IsNil() || t == reflect.TypeFor[loop]() || t == reflect.TypeFor[wire]() { // devices, which are the test's
			return
		}
		buffers = buffers || t == reflect.TypeFor[framebuf.Pool]()
		if m.add(v.UnsafePointer(), t.Size(), t, what+" "+t.String(), false) {
			m.walk(v.Elem(), what, buffers)
		}
	case reflect.Slice:
		t := v.Type().Elem()
		if m.add(v.UnsafePointer(), uintptr(v.Cap())*t.Size(), t, what+" []"+t.String(), buffers) && points(t) {
			for i := range v.Len() {
				m.walk(v.Index(i), what, buffers)
			}
		}
	case reflect.Interface:
		if !v.IsNil() {
			m.walk(v.Elem(), what, buffers)
		}
	case reflect.Array:
		for i := 0; points(v.Type().Elem()) && i < v.Len(); i++ {
			m.walk(v.Index(i), what, buffers)
		}
	case reflect.Struct:
		if v.Type() == lockType && v.CanAddr() {
			m.locks = append(m.locks, (*sync.Mutex)(v.Addr().UnsafePointer()))
			return
		}
		for i := range v.NumField() {
			m.walk(v.Field(i), what+"."+v.Type().Field(i).Name, buffers)
		}
	case reflect.Map:
		if v.Len() > 0 {
			panic("a map: " + what)
		}
	}
}

// points reports whether values of a type lead to other memory, or are locks.
func points(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Interface, reflect.Map:
		return true
	case reflect.Array:
		return points(t.Elem())
	case reflect.Struct:
		if t == lockType {
			return true
		}
		for i := range t.NumField() {
			if points(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}

// of returns the bytes of a region.
func (r *region) of() []byte { return unsafe.Slice((*byte)(r.data), r.hi-r.lo) }

// changes runs f, and returns the cache lines of regions that it changes, with the regions.
func changes(regions []region, f func()) map[uintptr]*region {
	was := make([][]byte, len(regions))
	for i := range regions {
		was[i] = bytes.Clone(regions[i].of())
	}
	f()
	changed := map[uintptr]*region{}
	for i := range regions {
		r := &regions[i]
		now := r.of()
		for at := 0; at < len(now); at += 64 {
			if end := min(at+64, len(now)); !bytes.Equal(now[at:end], was[i][at:end]) {
				changed[(r.lo+uintptr(at))/64] = r
				changed[(r.lo+uintptr(end)-1)/64] = r
			}
		}
	}
	return changed
}

// overlaps returns the regions of a that overlap with some of b.
func overlaps(a, b *memory) (both []region) {
	for _, r := range a.regions {
		if slices.ContainsFunc(b.regions, func(o region) bool { return r.lo < o.hi && o.lo < r.hi }) {
			both = append(both, r)
		}
	}
	return both
}

// findings runs some packets of both workers, one after the other, and returns what they share
// that is written for them: memory that one of them has changed and the other can reach, cache
// lines that both have changed, and locks that one takes, which it does not get within the
// patience; and how many lines each has changed at least.
func findings(l *lab, patience time.Duration, run func(e *Engine)) (found []string, touched int) {
	a, b := l.engines()[0], l.engines()[1]
	ma, mb := reach(a), reach(b)
	all := append(slices.Clone(ma.regions), mb.regions...)
	both := overlaps(ma, mb)
	var changed [2]map[uintptr]*region
	for k, e := range l.engines() {
		changed[k] = changes(all, func() { run(e) })
		for at, r := range changed[k] {
			for i := range both {
				if o := &both[i]; !o.buffers && at >= o.lo/64 && at <= (o.hi-1)/64 && r.lo < o.hi && o.lo < r.hi {
					found = append(found, "changed by one: "+o.what)
				}
			}
		}
	}
	touched = min(len(changed[0]), len(changed[1]))
	for at := range changed[0] {
		if r, ok := changed[1][at]; ok {
			found = append(found, "a cache line of both: "+r.what+", "+changed[0][at].what)
		}
	}
	for _, lock := range ma.locks {
		if !slices.Contains(mb.locks, lock) {
			continue
		}
		lock.Lock()
		for _, e := range l.engines() {
			done := make(chan bool)
			go func() { run(e); close(done) }()
			select {
			case <-done:
			case <-time.After(patience):
				found = append(found, "a lock")
				lock.Unlock()
				<-done
				lock.Lock()
			}
		}
		lock.Unlock()
	}
	slices.Sort(found)
	return slices.Compact(found), touched
}

// TestWorkersShareNothing: with a device that gives each worker its own packets, nothing that both
// use is written for a packet, be it of an established flow or a new one: neither memory that
// both can reach, nor different memory in one cache line, nor a lock. That is why two processors
// do twice as much as one (BenchmarkWorkers measures it). The twins: what would make them
// slower is found.
func TestWorkersShareNothing(t *testing.T) {
	const flows = 4096
	for _, c := range []struct {
		name   string
		fresh  bool
		limits bool // by source
		astray bool
		spoil  func(a, b *Engine)
		want   bool // something is found
	}{
		{name: "established"},
		{name: "new", fresh: true},
		{name: "limits, established", limits: true},
		{name: "limits, new", limits: true, fresh: true, want: true},
		{name: "astray", astray: true, want: true},
		{name: "one counter", spoil: func(a, b *Engine) { b.c.Accepts = a.c.Accepts }, want: true},
		{name: "counters in one line", spoil: func(a, b *Engine) {
			all := make([]uint64, 2*len(a.c.Accepts))
			a.c.Accepts, b.c.Accepts = all[:len(a.c.Accepts):len(a.c.Accepts)], all[len(a.c.Accepts):]
		}, want: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, in, out := loopsOf(t, 2, flows, c.astray, func(p *ruleset.Policy) {
				if c.limits {
					p.Settings.SourceFlows = 2 * flows
				}
			})
			if c.spoil != nil {
				c.spoil(l.e, l.others[0])
			}
			now := int64(1e9)
			made, over := l.e.flows.C.Inserts, l.e.c.HandedOver+l.others[0].c.HandedOver
			patience := time.Minute
			if c.want {
				patience = time.Second
			}
			found, touched := findings(l, patience, func(e *Engine) {
				if c.fresh {
					now += 121 * second
				} else {
					now += 1e6
				}
				e.tick = now + second // no sweep
				if !c.astray {
					e.events = l.rings[e.w.k]
				}
				for in[e.w.k].left = flows / 4; in[e.w.k].left > 0; {
					e.Poll(now)
				}
			})
			if (len(found) > 0) != c.want || touched < flows/8 {
				t.Errorf("found %q; each has changed %d lines", found, touched)
			}
			if out[0].sent == 0 || !c.astray && out[1].sent == 0 {
				t.Errorf("%d and %d sent", out[0].sent, out[1].sent)
			}
			if (l.e.flows.C.Inserts > made) != c.fresh {
				t.Errorf("%d flows were made", l.e.flows.C.Inserts-made)
			}
			if over = l.e.c.HandedOver + l.others[0].c.HandedOver - over; (over > 0) != c.astray {
				t.Errorf("%d were handed over", over)
			}
		})
	}
}

package nat

import (
	"runtime"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const external = packet.Addr(0xcb00710a)

func TestPreservesThePort(t *testing.T) {
	p := NewPool(external, 1024, 65535, 1)
	if got, ok := p.Take(packet.UDP, 1, 4000, 77); !ok || got != 4000 {
		t.Fatalf("port %d, %v", got, ok)
	}
	// Taken: another one of the same parity (RFC 4787 REQ-4) and class.
	for i := range packet.Addr(100) {
		if got, ok := p.Take(packet.UDP, 2+i, 4000, uint64(i)<<59); !ok || got == 4000 || got%2 != 0 || got < 1024 {
			t.Fatalf("host %d: port %d, %v", i, got, ok)
		}
	}
	// TCP and ICMP have ports of their own.
	for _, proto := range []uint8{packet.TCP, packet.ICMP} {
		if got, ok := p.Take(proto, 9, 4000, 0); !ok || got != 4000 {
			t.Fatalf("protocol %d: port %d, %v", proto, got, ok)
		}
	}
	if _, ok := p.Take(132, 9, 4000, 0); ok {
		t.Fatal("a port for a protocol that has none")
	}
}

// TestClass: RFC 4787 REQ-3a, and what happens when a class is used up.
func TestClass(t *testing.T) {
	p := NewPool(external, 1020, 1027, 1)
	for i, want := range []bool{true, true, true, true, false} { // low ones for low ones, then high
		got, ok := p.Take(packet.TCP, packet.Addr(i), 80, 1<<40)
		if !ok || got < 1024 != want {
			t.Fatalf("host %d: port %d, %v", i, got, ok)
		}
	}
}

func TestUsesTheWholePool(t *testing.T) {
	p := NewPool(external, 3000, 3129, 5)
	seen := map[uint16]bool{}
	for i := range 130 {
		port, ok := p.Take(packet.UDP, packet.Addr(i), 53, uint64(i)*0x9e3779b97f4a7c15)
		if !ok || seen[port] || port < 3000 || port > 3129 {
			t.Fatalf("host %d: port %d, %v", i, port, ok)
		}
		seen[port] = true
	}
	if _, ok := p.Take(packet.UDP, 999, 53, 0); ok || p.Failed != 1 || p.InUse(packet.UDP) != 130 {
		t.Fatalf("a port of a full pool: %v, %d failures, %d in use", ok, p.Failed, p.InUse(packet.UDP))
	}
	p.Give(packet.UDP, 3077)
	if port, ok := p.Take(packet.UDP, 999, 53, 0); !ok || port != 3077 {
		t.Fatalf("port %d, %v", port, ok)
	}
}

// TestUnpredictable: the next port cannot be predicted from others. The test is weak: it
// detects counters and constants.
func TestUnpredictable(t *testing.T) {
	p := NewPool(external, 1024, 65535, 1)
	p.Take(packet.UDP, 0, 4000, 0)
	near, last := 0, 0
	for i := range 200 {
		port, _ := p.Take(packet.UDP, packet.Addr(1+i), 4000, uint64(i+1)*0xd1342543de82ef95)
		if d := int(port) - last; d > -64 && d < 64 {
			near++
		}
		last = int(port)
	}
	if near > 10 {
		t.Fatalf("%d of 200 ports lie next to the one before", near)
	}
}

// TestPoolModel compares a pool with a model: a map from endpoints to ports, with counts of
// flows.
func TestPoolModel(t *testing.T) {
	type endpoint struct {
		addr packet.Addr
		port uint16
	}
	type mapped struct {
		port uint16
		refs int
	}
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 40).Draw(t, "size")
		p := NewPool(external, 1000, uint16(1000+size-1), rapid.Uint64().Draw(t, "key"))
		model := map[endpoint]*mapped{}
		byPort := map[uint16]endpoint{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				e := endpoint{packet.Addr(rapid.IntRange(1, 8).Draw(t, "addr")), uint16(rapid.IntRange(995, 1045).Draw(t, "port"))}
				got, ok := p.Take(packet.UDP, e.addr, e.port, rapid.Uint64().Draw(t, "rnd"))
				if m := model[e]; m != nil {
					if !ok || got != m.port {
						t.Fatalf("%v has port %d, got %d, %v", e, m.port, got, ok)
					}
					m.refs++
					return
				}
				has := 0
				for o := range model {
					if o.addr == e.addr {
						has++
					}
				}
				if ok != (len(model) < size && has < evenShare*(size-len(model))+fewPorts) {
					t.Fatalf("%d of %d taken, %d by this host: %v", len(model), size, has, ok)
				}
				if !ok {
					return
				}
				if o, taken := byPort[got]; taken || got < p.Lo || got > p.Hi {
					t.Fatalf("%v gets port %d, which %v has", e, got, o)
				}
				model[e], byPort[got] = &mapped{got, 1}, e
			},
			"give": func(t *rapid.T) {
				port := uint16(rapid.IntRange(999, 1041).Draw(t, "port"))
				p.Give(packet.UDP, port) // also what was never taken
				if e, ok := byPort[port]; ok {
					if model[e].refs--; model[e].refs == 0 {
						delete(model, e)
						delete(byPort, port)
					}
				}
			},
			"": func(t *rapid.T) {
				if p.InUse(packet.UDP) != len(model) {
					t.Fatalf("%d in use, want %d", p.InUse(packet.UDP), len(model))
				}
			},
		})
	})
}

// TestBytes: the reported memory of a pool is what it allocates.
func TestBytes(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := NewPool(1, 1024, 65535, 1)
	runtime.ReadMemStats(&after)
	got, want := int(after.TotalAlloc-before.TotalAlloc), poolBytes(1024, 65535)
	if got < want || got > want+want/50 {
		t.Errorf("a pool takes %d bytes, poolBytes says %d", got, want)
	}
	runtime.KeepAlive(p)
}

// TestAlloc: mappings and indexes are in the memory that is given, in one piece for each address
// and as much as Bytes says; the rest is on the heap.
func TestAlloc(t *testing.T) {
	p := &ruleset.Policy{Interfaces: []ruleset.Interface{{Role: ruleset.LAN}, {Role: ruleset.WAN, Address: external.To16()}},
		SNAT: []ruleset.SNAT{{Interface: 1, PortLo: 1024, PortHi: 65535}, {Interface: 1, PortLo: 5, PortHi: 5, External: (external + 1).To16()}}}
	var mem [][]byte
	n, err := NewPart(p, 7, Part{}, func(bytes int, zeroed bool) []byte {
		if !zeroed {
			t.Error("whatever was there")
		}
		mem = append(mem, make([]byte, bytes))
		return mem[len(mem)-1]
	})
	if err != nil || len(mem) != 2 {
		t.Fatalf("%v, %d pieces", err, len(mem))
	}
	if got, want := len(mem[0])+len(mem[1])+2*protos*int(unsafe.Sizeof(space{})), Bytes(p); got != want {
		t.Errorf("%d bytes, Bytes says %d", got, want)
	}
	for i, q := range n.pools {
		for proto, s := range q.space {
			first, last := uintptr(unsafe.Pointer(&s.byExt[0])), uintptr(unsafe.Pointer(&s.index[len(s.index)-1]))
			from := uintptr(unsafe.Pointer(&mem[i][0])) + uintptr(proto*len(mem[i])/protos)
			if first != from || last != from+uintptr(len(mem[i])/protos)-2 || uintptr(unsafe.Pointer(&s.index[0])) < uintptr(unsafe.Pointer(&s.byExt[len(s.byExt)-1]))+unsafe.Sizeof(mapping{}) {
				t.Errorf("pool %d, space %d: from %#x to %#x, want from %#x on", i, proto, first, last, from)
			}
		}
	}
}

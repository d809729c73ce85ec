package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A wire is a port in memory.
type wire struct {
	pool *framebuf.Pool
	in   [][]byte
	out  [][]byte
	full bool
	room int // how many frames it takes; 0: any number

	large []largeIn // large frames that come before those of in
	whole int       // large frames that left as such
	sent  int       // calls of Transmit
}

func (w *wire) Receive(dst []framebuf.Frame) int {
	n := w.receiveLarge(dst)
	for n < len(dst) && len(w.in) > 0 {
		b, ok := w.pool.Get()
		if !ok {
			break
		}
		k := copy(w.pool.Buffer(b)[framebuf.Headroom:], w.in[0])
		dst[n] = framebuf.Frame{Buf: b, Len: uint32(k)}
		w.in = w.in[1:]
		n++
	}
	return n
}

func (w *wire) HasRoom(n int) bool { return w.room == 0 || w.room-len(w.out) >= n }

func (w *wire) Transmit(src []framebuf.Frame) int {
	w.sent++
	if w.full {
		return 0
	}
	if w.room != 0 {
		src = src[:min(len(src), max(w.room-len(w.out), 0))]
	}
	for _, f := range src {
		if f.IsLarge() {
			w.sendLarge(f)
			continue
		}
		w.out = append(w.out, append([]byte(nil), w.pool.Bytes(f)...))
		w.pool.Put(f.Buf)
	}
	return len(src)
}

// The ports' numbers.
const (
	lan = 0
	wan = 1
)

// outward is the path from the LAN to the WAN.
var outward = conntrack.NewPath(lan, wan, false, true)

// portsOf is the configuration of a LAN and a WAN.
func portsOf(l, w Port) []PortConfig {
	return []PortConfig{lan: {Role: ruleset.LAN, Port: l, MAC: lanMAC}, wan: {Role: ruleset.WAN, Port: w, MAC: wanMAC}}
}

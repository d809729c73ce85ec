package router

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A largeIn is a large frame that is to arrive: its bytes, with the checksum of the
// pseudo-header, and the payload of each segment.
type largeIn struct {
	f    []byte
	size int
}

// largeOf makes a large frame of a segment.
func largeOf(p pkt, to [6]byte, size int) largeIn {
	f := p.frame(to)
	var q packet.Packet
	packet.ParseIPv4(f, &q)
	var b [12]byte
	copy(b[:8], f[26:])
	b[9] = packet.TCP
	binary.BigEndian.PutUint16(b[10:], uint16(len(f)-int(q.L4)))
	binary.BigEndian.PutUint16(f[q.L4+16:], packet.Sum(b[:], 0))
	return largeIn{f, size}
}

// receiveLarge receives the large frames, in as many buffers as a device would use: of every
// other length in a long one, while there are any.
func (w *wire) receiveLarge(dst []framebuf.Frame) (n int) {
	for ; n < len(dst) && len(w.large) > 0; n++ {
		x := w.large[0]
		w.large = w.large[1:]
		var bufs, k [framebuf.MaxParts]uint32
		parts, off := 0, framebuf.Headroom
		for rest := x.f; len(rest) > 0; parts++ {
			get := w.pool.Get
			if len(x.f)%2 == 0 && w.pool.FreeLong() > 0 {
				get = w.pool.GetLong
			}
			b, ok := get()
			if !ok {
				panic("no buffers")
			}
			c := copy(w.pool.Whole(b)[off:], rest)
			off, rest, bufs[parts], k[parts] = 0, rest[c:], b, uint32(c)
		}
		l4 := packet.EthLen + int(x.f[14]&15)*4
		dst[n] = w.pool.Chain(bufs[:parts], k[:parts], framebuf.Large{First: k[0], Size: uint16(x.size), Transport: uint16(l4)})
	}
	return n
}

// sendLarge puts the segments of a large frame on the wire.
func (w *wire) sendLarge(f framebuf.Frame) {
	l := w.pool.Large(f)
	whole := make([]byte, l.Total)
	w.pool.Copy(whole, f, 0)
	w.whole++
	segments := cutByHand(whole, int(l.Headers), int(l.Transport), int(l.Size))
	if len(segments) != int(l.Segments) {
		panic("another number of segments")
	}
	w.out = append(w.out, segments...)
	w.pool.Release(f)
}

// cutByHand cuts a large frame into its segments.
func cutByHand(f []byte, headers, l4, size int) (out [][]byte) {
	for at := headers; at < len(f); at += size {
		end := min(at+size, len(f))
		s := append(bytes.Clone(f[:headers]), f[at:end]...)
		ip, tcp := s[14:], s[l4:]
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(len(out)))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^packet.Sum(ip[:l4-14], 0))
		binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(at-headers))
		if end < len(f) {
			tcp[13] &^= packet.FIN | packet.PSH
		}
		binary.BigEndian.PutUint16(tcp[16:], 0)
		pseudo := packet.Sum(ip[12:20], packet.TCP+uint64(len(tcp)))
		binary.BigEndian.PutUint16(tcp[16:], ^packet.Sum(tcp, uint64(pseudo)))
		out = append(out, s)
	}
	return out
}

// takesLarge makes both ports of a lab take and give large frames, as far as out says.
func (l *lab) takesLarge(out ...int) {
	for _, i := range out {
		l.e.port[i].large = true
	}
	l.e.port[lan].burst, l.e.port[wan].burst = 2*Batch, 2*Batch
	l.pool.AddLong(make([]byte, 3*framebuf.LongSize), 0)
}

// TestLargeIsItsSegments sends large frames through one firewall and their segments
// through another, and compares everything that can be seen of them: what leaves, with a
// port that takes large frames and one that does not, events, counters and flows.
func TestLargeIsItsSegments(t *testing.T) {
	whole, cut := uint64(0), uint64(0)
	rapid.Check(t, func(r *rapid.T) {
		mtu := rapid.SampledFrom([]uint16{1500, 1500, 1000, 9000}).Draw(r, "mtu")
		var ls [2]*lab
		for i := range ls {
			ls[i] = newLabWith(t, func(p *ruleset.Policy) {
				p.Interfaces[0].MTU, p.Interfaces[1].MTU = max(mtu, 1500), mtu
				p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 9000, 9000, server, 80)}
				p.Settings.TCPEstablished = 1000
			}, "deny egress -> 192.0.2.66", "accept egress", "accept ingress -> 10.0.0.5", established)
			ls[i].t = fatal{t, r}
		}
		ls[0].takesLarge(rapid.SampledFrom([][]int{{lan, wan}, {lan, wan}, {lan}, {wan}, nil}).Draw(r, "large")...)
		var ext uint16
		for _, l := range ls {
			ext = l.handshake(host, 4000, web, 80)
		}
		seqs := map[int]uint32{lan: 1001, wan: 5001}
		acks := map[int]uint32{lan: 5001, wan: 1001}
		r.Repeat(map[string]func(*rapid.T){
			"segment": func(r *rapid.T) {
				from := rapid.IntRange(0, 1).Draw(r, "from")
				to := [...][6]byte{lanMAC, wanMAC}[from]
				p := tcpSeg(host, 4000, web, 80, packet.ACK, seqs[from], acks[from])
				if from == wan {
					p = tcpSeg(web, 80, ours, ext, packet.ACK, seqs[from], acks[from])
				}
				p.win, p.df = 60000, rapid.SampledFrom([]bool{true, true, true, false}).Draw(r, "df")
				p.data = make([]byte, rapid.SampledFrom([]int{1, 900, 1448, 1449, 2896, 5000, 8000, 20000}).Draw(r, "n"))
				for i := range p.data {
					p.data[i] = byte(i * 7)
				}
				if rapid.Bool().Draw(r, "timestamps") {
					p.opts = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
				}
				good := false
				switch rapid.IntRange(0, 19).Draw(r, "fault") {
				case 0:
					p.seq += 100_000
				case 1:
					p.ack += 100_000
				case 2:
					p.ttl = 1
				case 3:
					p.flags |= packet.FIN
				case 4:
					p.dst = "192.0.2.66" // of no flow, and denied
				case 5:
					p.src = "10.0.0.66"
				case 6:
					p.mac = &[6]byte{2, 7, 7, 7, 7, 7}
				case 7:
					p.flags = 0
				case 8:
					p.seq -= 2000 // a repetition, of which a part is old
				default:
					good = true
					p.flags |= rapid.SampledFrom([]uint8{0, packet.PSH}).Draw(r, "psh")
				}
				size := rapid.SampledFrom([]int{1448, 1448, 1000, 940, 536, 48, 1900, int(mtu) - 52, int(mtu) - 40}).Draw(r, "size")
				if len(p.data) > 2896 && size < 500 {
					size = 536
				}
				x := largeOf(p, to, size)
				if rapid.IntRange(0, 9).Draw(r, "id") == 0 {
					packet.SetID(x.f[packet.EthLen:], 0xfffe)
				}
				ls[0].port[from].large = append(ls[0].port[from].large, x)
				ls[1].port[from].in = append(ls[1].port[from].in, cutByHand(x.f, 34+20+len(p.opts), 34, size)...)
				for _, l := range ls {
					l.run()
				}
				if good {
					seqs[from] += uint32(len(p.data))
					acks[1-from] = seqs[from]
				}
			},
			"wait": func(r *rapid.T) {
				s := rapid.Float64Range(0.01, 200).Draw(r, "seconds")
				for _, l := range ls {
					l.pass(s)
				}
			},
			"": func(r *rapid.T) {
				a, b := ls[0], ls[1]
				for i := range a.port {
					if len(a.port[i].out) != len(b.port[i].out) {
						r.Fatalf("port %d sent %d frames, from segments %d; drops %s, from segments %s", i, len(a.port[i].out), len(b.port[i].out), a.drops(), b.drops())
					}
					for j := range a.port[i].out {
						if !bytes.Equal(a.port[i].out[j], b.port[i].out[j]) {
							r.Fatalf("port %d, frame %d: %x, from segments %x", i, j, a.port[i].out[j], b.port[i].out[j])
						}
					}
					a.port[i].out, b.port[i].out = nil, nil
				}
				if !reflect.DeepEqual(a.seen, b.seen) {
					r.Fatalf("events %+v, from segments %+v", a.seen, b.seen)
				}
				a.seen, b.seen = nil, nil
				x, y := *a.e.Counters(), *b.e.Counters()
				whole, cut = whole+x.LargeForwarded, cut+x.LargeCut
				x.LargeForwarded, x.LargeCut = 0, 0
				a.e.c.LargeForwarded, a.e.c.LargeCut = 0, 0
				// A frame for another host is one, however large.
				x.OtherHost, y.OtherHost = [2]uint64{}, [2]uint64{}
				x.RxPackets, y.RxPackets = fewer(x.RxPackets, a), fewer(y.RxPackets, b)
				x.RxBytes, y.RxBytes = [2]uint64{}, [2]uint64{}
				if a.e.c.OtherHost == [2]uint64{} {
					x.RxBytes, y.RxBytes = a.e.c.RxBytes, b.e.c.RxBytes
				}
				if !reflect.DeepEqual(x, y) {
					r.Fatalf("counters %+v, from segments %+v", x, y)
				}
				if a.e.flows.C != b.e.flows.C {
					r.Fatalf("table %+v, from segments %+v", a.e.flows.C, b.e.flows.C)
				}
				for ref := conntrack.Ref(0); ref < 64; ref++ {
					if d, o := a.e.flows.Dir(ref).Unmarked(), b.e.flows.Dir(ref).Unmarked(); d != o || *a.e.flows.Shared(ref) != *b.e.flows.Shared(ref) {
						r.Fatalf("direction %d: %+v, from segments %+v", ref, d, o)
					}
				}
				a.buffers()
			},
		})
	})
	if whole == 0 || cut == 0 {
		t.Fatalf("%d large frames passed whole, %d were cut", whole, cut)
	}
}

// fewer returns received packets without those for other hosts.
func fewer(n [2]uint64, l *lab) [2]uint64 {
	return [2]uint64{n[0] - l.e.c.OtherHost[0], n[1] - l.e.c.OtherHost[1]}
}

// TestLargePassesWhole: which large frames of a connection leave as they came, and which are
// cut: each with a twin that is not.
func TestLargePassesWhole(t *testing.T) {
	for _, x := range []struct {
		name string
		edit func(l *lab, p *pkt, size *int)
		want int // large frames that left whole
	}{
		{"data", func(*lab, *pkt, *int) {}, 1},
		{"to a port that takes none", func(l *lab, _ *pkt, _ *int) { l.e.port[wan].large = false }, 0},
		{"the end", func(_ *lab, p *pkt, _ *int) { p.flags |= packet.FIN }, 0},
		{"segments as long as the way out carries", func(_ *lab, _ *pkt, size *int) { *size = 1460 }, 1},
		{"longer ones", func(_ *lab, p *pkt, size *int) { *size = 1461 }, 0},
		{"the last hop but one", func(_ *lab, p *pkt, _ *int) { p.ttl = 2 }, 1},
		{"the last hop", func(_ *lab, p *pkt, _ *int) { p.ttl = 1 }, 0},
		{"beyond the window", func(_ *lab, p *pkt, _ *int) { p.seq += 200_000 }, 0},
	} {
		l := newLab(t, "accept egress", established)
		l.takesLarge(lan, wan)
		l.handshake(host, 4000, web, 80)
		l.one(wan, tcpSeg(web, 80, ours, l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)).SrcPort, packet.ACK, 5001, 1001))
		p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
		p.data, p.df = make([]byte, 8000), true
		size := 1448
		x.edit(l, &p, &size)
		l.port[lan].large = append(l.port[lan].large, largeOf(p, lanMAC, size))
		l.run()
		if l.port[wan].whole != x.want {
			t.Errorf("%s: %d left whole, want %d; drops %s", x.name, l.port[wan].whole, x.want, l.drops())
		}
		l.buffers()
	}
}

// TestLargeMalformed: large frames that cannot be are dropped and counted, and their buffers
// come back.
func TestLargeMalformed(t *testing.T) {
	for _, x := range []struct {
		name string
		edit func(f []byte) []byte
		want verdict.Reason
	}{
		{"a checksum that is not the pseudo-header's", func(f []byte) []byte { f[50] ^= 1; return f }, verdict.MalformedPacket},
		{"longer than it says", func(f []byte) []byte { return append(f, 0) }, verdict.MalformedPacket},
		{"IPv6", func(f []byte) []byte { packet.SetType(f, packet.TypeIPv6); return f }, verdict.IPv6Unsupported},
		{"ARP", func(f []byte) []byte { packet.SetType(f, packet.TypeARP); return f }, verdict.MalformedPacket},
		{"for all", func(f []byte) []byte { copy(f, broadcastMAC[:]); return f }, verdict.Martian},
		{"headers in the second buffer", func(f []byte) []byte { f[46] = 0xf0; return f[:60] }, verdict.MalformedPacket},
	} {
		l := newLab(t, "accept egress", established)
		l.takesLarge(lan, wan)
		l.handshake(host, 4000, web, 80)
		p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
		p.data = make([]byte, 8000)
		in := largeOf(p, lanMAC, 1448)
		in.f = x.edit(in.f)
		l.port[lan].large = append(l.port[lan].large, in)
		before := l.e.c.DropReasons[x.want]
		l.run()
		if n := l.e.c.DropReasons[x.want] - before; n != 1 || len(l.taken(wan)) != 0 {
			t.Errorf("%s: %d dropped for it; drops %s", x.name, n, l.drops())
		}
		l.buffers()
	}
}

// TestLargeWithoutBuffers: a large frame that must be cut, and for whose segments there are no
// buffers, is dropped and counted; with buffers it passes.
func TestLargeWithoutBuffers(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.takesLarge()
	l.handshake(host, 4000, web, 80)
	p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	p.data, p.df = make([]byte, 8001), true
	l.port[lan].large = append(l.port[lan].large, largeOf(p, lanMAC, 1448))
	var held []uint32
	for l.pool.Free() > 5+5 { // 5 for its parts, and one too few for its segments
		b, _ := l.pool.Get()
		held = append(held, b)
	}
	l.run()
	if l.e.c.DropReasons[verdict.TxFull] != 6 || l.e.c.NoBuffer != 1 || len(l.taken(wan)) != 0 {
		t.Errorf("drops %s, %d without a buffer", l.drops(), l.e.c.NoBuffer)
	}
	for _, b := range held {
		l.pool.Put(b)
	}
	l.buffers()
	l.port[lan].large = append(l.port[lan].large, largeOf(p, lanMAC, 1448))
	l.run()
	if n := len(l.taken(wan)); n != 6 || l.e.c.LargeCut != 1 {
		t.Errorf("with buffers %d of 6 segments leave", n)
	}
}

package evasions

import (
	"encoding/binary"
	"fmt"

	"github.com/thurward/thurward/internal/shared/packet"
)

// An end is the TCP of all servers of a side: it listens at every address and
// port, and takes what an end takes (RFC 9293, with timestamps after RFC 7323
// and the checks of RFC 5961). What a firewall may read otherwise, it reads as
// the usual servers do:
//
//   - it is hops routers away, so that what has a smaller TTL does not arrive;
//   - data without ACK, with an acknowledgement of what was never sent, with an
//     old timestamp or an MD5 signature (RFC 2385) that was not negotiated is not
//     taken;
//   - of data that comes twice, what came first counts;
//   - urgent data leaves the stream: it is read by other means, if at all;
//   - data in a SYN is taken where synData says so (TCP fast open).
type end struct {
	a       *arena
	side    side
	hops    uint8
	synData bool
	split   bool   // it answers a SYN with a SYN (a split handshake)
	isn     uint32 // of its next connection
	conns   map[string]*stream
	all     []*stream
}

// A stream is what a server has of a connection.
type stream struct {
	peer, self   string
	pport, sport uint16
	iss, snd     uint32 // our first number, and the next
	irs, rcv     uint32 // the peer's, and the next that is expected
	open         bool
	ended        string // "", "RST" or "FIN"
	stamps       bool
	last         uint32 // timestamp
	data         []byte
	ahead        map[uint32]byte
	gone         map[uint32]bool // urgent
	out          []byte          // to be sent, as far as the peer's window allows
}

func newEnd(a *arena, s side) *end {
	return &end{a: a, side: s, hops: 3, isn: 50000, conns: map[string]*stream{}}
}

func (v *view) key() string { return fmt.Sprint(v.src, v.sport, v.dst, v.dport) }

// option returns the value of a TCP option.
func option(o []byte, kind byte) ([]byte, bool) {
	for len(o) > 0 && o[0] != 0 {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return nil, false
		}
		if o[0] == kind {
			return o[2:o[1]], true
		}
		o = o[o[1]:]
	}
	return nil, false
}

func stampOption(value, echo uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, value), echo)
}

// send sends a segment of a connection.
func (e *end) send(c *stream, flags uint8, seq, ack uint32, data ...byte) {
	p := tcp(c.self, c.sport, c.peer, c.pport, flags, seq, ack, data...)
	if c.stamps {
		p.opts = stampOption(9000, c.last)
	}
	e.a.fw.put(e.side, e.a.frame(e.side, p))
}

// segment takes what arrived.
func (e *end) segment(v *view) {
	if v.ttl <= e.hops {
		return
	}
	if _, md5 := option(v.opts, 19); md5 {
		return
	}
	c := e.conns[v.key()]
	value, stamped := option(v.opts, 8)
	if c == nil || c.ended != "" && v.flags&packet.SYN != 0 {
		if v.flags&(packet.SYN|packet.ACK|packet.RST) != packet.SYN {
			return
		}
		e.isn += 100000
		c = &stream{peer: v.src, pport: v.sport, self: v.dst, sport: v.dport, iss: e.isn, snd: e.isn + 1, irs: v.seq, rcv: v.seq + 1,
			ahead: map[uint32]byte{}, gone: map[uint32]bool{}}
		if stamped && len(value) == 8 {
			c.stamps, c.last = true, binary.BigEndian.Uint32(value)
		}
		e.conns[v.key()] = c
		e.all = append(e.all, c)
		if e.synData {
			c.take(v.seq+1, v.data, 0)
		}
		if e.split {
			e.send(c, packet.SYN, c.iss, 0)
		} else {
			e.send(c, packet.SYN|packet.ACK, c.iss, c.rcv)
		}
		return
	}
	if c.ended != "" {
		return
	}
	if c.stamps && v.flags&packet.RST == 0 {
		if !stamped || len(value) != 8 {
			return // RFC 7323 section 3.2
		}
		if t := binary.BigEndian.Uint32(value); int32(t-c.last) < 0 {
			e.send(c, packet.ACK, c.snd, c.rcv)
			return
		} else if int32(v.seq-c.rcv) <= 0 {
			c.last = t
		}
	}
	if v.flags&packet.RST != 0 {
		if v.seq == c.rcv {
			c.ended = "RST"
		}
		return
	}
	if v.flags&packet.SYN != 0 {
		switch {
		case e.split && v.flags&packet.ACK != 0 && v.ack == c.snd:
			c.open = true // and the client's SYN counts as before
			e.send(c, packet.ACK, c.snd, c.rcv)
		case !c.open && v.seq == c.irs && v.flags&packet.ACK == 0:
			e.send(c, packet.SYN|packet.ACK, c.iss, c.irs+1)
		default:
			e.send(c, packet.ACK, c.snd, c.rcv) // RFC 5961 section 4
		}
		return
	}
	if v.flags&packet.ACK == 0 || int32(v.ack-c.snd) > 0 || int32(v.ack-c.iss) <= 0 {
		return
	}
	c.open = true
	n := uint32(len(v.data))
	if int32(v.seq-c.rcv) > 65535 || int32(v.seq+n-c.rcv) < 0 {
		e.send(c, packet.ACK, c.snd, c.rcv)
		return
	}
	var urgent uint16
	if v.flags&urg != 0 {
		urgent = v.urgent
	}
	c.take(v.seq, v.data, urgent)
	if v.flags&packet.FIN != 0 && v.seq+n == c.rcv {
		c.rcv++
		c.ended = "FIN"
	}
	if n > 0 || c.ended != "" {
		e.send(c, packet.ACK, c.snd, c.rcv)
	}
	if v.dst == dnsHost && v.dport == 53 {
		e.a.answerStream(c)
	}
	for window := int(v.win) - int(c.snd-v.ack); len(c.out) > 0 && window > 0; {
		k := min(len(c.out), window, 1400)
		e.send(c, packet.ACK|packet.PSH, c.snd, c.rcv, c.out[:k]...)
		c.out, window, c.snd = c.out[k:], window-k, c.snd+uint32(k)
	}
}

// take adds data to the stream.
func (c *stream) take(seq uint32, data []byte, urgent uint16) {
	if urgent != 0 && int(urgent) <= len(data) && int32(seq+uint32(urgent)-1-c.rcv) >= 0 {
		c.gone[seq+uint32(urgent)-1] = true
	}
	for i, b := range data {
		at := seq + uint32(i)
		if _, there := c.ahead[at]; !there && int32(at-c.rcv) >= 0 {
			c.ahead[at] = b
		}
	}
	for {
		b, there := c.ahead[c.rcv]
		if !there {
			return
		}
		delete(c.ahead, c.rcv)
		if !c.gone[c.rcv] {
			c.data = append(c.data, b)
		}
		c.rcv++
	}
}

// says has the server send data on a connection.
func (c *stream) says(e *end, data string) {
	e.send(c, packet.ACK|packet.PSH, c.snd, c.rcv, []byte(data)...)
	c.snd += uint32(len(data))
	e.a.run()
}

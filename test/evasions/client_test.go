package evasions

import (
	"encoding/binary"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A client is one end of a connection, which sends nothing by itself.
type client struct {
	a            *arena
	side         side
	src, dst     string
	sport, dport uint16
	seq, ack     uint32 // next to send, next expected
	stamps       bool
	echo         uint32 // of the other end's timestamps, the last
}

// dial opens a connection from a host on a side, and returns nil when the
// firewall or the server does not let it.
func (a *arena) dial(s side, src, dst string, dport uint16) *client {
	return a.dialFrom(s, src, a.next(), dst, dport, 1000, nil)
}

// dialFrom is dial from a port, with a first sequence number and TCP options.
func (a *arena) dialFrom(s side, src string, sport uint16, dst string, dport uint16, isn uint32, opts []byte) *client {
	c := a.half(s, src, sport, dst, dport, isn, opts)
	if c != nil {
		a.put(s, c.seg(packet.ACK, 0))
	}
	return c
}

// dialAll opens n connections at the same time, and returns those that the firewall and the
// server let it.
func (a *arena) dialAll(s side, src, dst string, dport uint16, n int) (cs []*client) {
	var ps []pkt
	for range n {
		c := &client{a: a, side: s, src: src, dst: dst, sport: a.next(), dport: dport, seq: 1001}
		cs, ps = append(cs, c), append(ps, tcp(src, c.sport, dst, dport, packet.SYN, 1000, 0))
	}
	before := len(a.seen[s])
	a.put(s, ps...)
	cs = slices.DeleteFunc(cs, func(c *client) bool { return c.accepted(before) == nil })
	ps = ps[:0]
	for _, c := range cs {
		ps = append(ps, c.seg(packet.ACK, 0))
	}
	a.put(s, ps...)
	return cs
}

// half opens a connection but for the handshake's last segment.
func (a *arena) half(s side, src string, sport uint16, dst string, dport uint16, isn uint32, opts []byte) *client {
	c := &client{a: a, side: s, src: src, dst: dst, sport: sport, dport: dport, seq: isn + 1}
	n := len(a.seen[s])
	p := tcp(src, c.sport, dst, dport, packet.SYN, isn, 0)
	p.opts = opts
	a.put(s, p)
	v := c.accepted(n)
	if v == nil {
		return nil
	}
	_, c.stamps = option(opts, 8)
	if value, ok := option(v.opts, 8); ok && len(value) == 8 {
		c.echo = binary.BigEndian.Uint32(value)
	}
	return c
}

// accepted returns the answer to the client's SYN among what left by its side since the first
// n, or nil, and notes its number.
func (c *client) accepted(n int) *view {
	v := c.heard(n, packet.SYN|packet.ACK)
	if v == nil || v.ack != c.seq {
		return nil
	}
	c.ack = v.seq + 1
	return v
}

// heard returns the last segment for the client among those that left by its
// side since the first n, whose flags include all of flags.
func (c *client) heard(n int, flags uint8) *view {
	for i := len(c.a.seen[c.side]) - 1; i >= n; i-- {
		v := c.a.seen[c.side][i]
		if v.bad == "" && v.proto == packet.TCP && v.src == c.dst && v.sport == c.dport && v.dst == c.src && v.dport == c.sport && v.flags&flags == flags {
			return v
		}
	}
	return nil
}

// seg is a segment at an offset from what is next to be sent.
func (c *client) seg(flags uint8, off int, data ...byte) pkt {
	p := tcp(c.src, c.sport, c.dst, c.dport, flags, c.seq+uint32(off), c.ack, data...)
	if c.stamps {
		p.opts = stampOption(2000, c.echo)
	}
	return p
}

// data is a segment with data.
func (c *client) data(off int, b []byte) pkt { return c.seg(packet.ACK|packet.PSH, off, b...) }

// say sends data, and counts it as sent.
func (c *client) say(b []byte) {
	if c == nil {
		return // it has not been opened: the test sees that nothing arrives
	}
	c.a.put(c.side, c.data(0, b))
	c.seq += uint32(len(b))
}

// server is what the server has of this connection, or nil. Its number of the
// client's port is the firewall's.
func (c *client) server() *stream {
	for i := len(c.a.ends[1-c.side].all) - 1; i >= 0; i-- {
		x := c.a.ends[1-c.side].all[i]
		if x.self == c.dst && x.sport == c.dport || x.self == web && c.dst == fwWAN {
			return x
		}
	}
	return nil
}

// works reports whether data goes both ways.
func (c *client) works() bool {
	s := c.server()
	if s == nil || s.ended != "" {
		return false
	}
	n, m := len(s.data), len(c.a.seen[c.side])
	c.say([]byte("forth"))
	if string(s.data[min(n, len(s.data)):]) != "forth" {
		return false
	}
	s.says(c.a.ends[1-c.side], "back")
	v := c.heard(m, packet.PSH)
	if v == nil || string(v.data) != "back" {
		return false
	}
	c.ack += 4
	c.a.put(c.side, c.seg(packet.ACK, 0))
	return true
}

// connects reports whether a connection can be opened.
func (a *arena) connects(src, dst string, port uint16) bool {
	return a.dial(lan, src, dst, port) != nil
}

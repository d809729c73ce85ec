package router

import (
	"fmt"
	"testing"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Connections that are opened again: by ends that have forgotten the last one, by
// late repetitions, and by who would like to end it.

// states are the states of a connection, and how to get there from the handshake
// on.
var states = []string{"syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close"}

// inState returns a connection in a state. The client has begun with 1000, the
// server with 5000.
func inState(t *testing.T, state string, edit func(*ruleset.Policy)) *conn {
	t.Helper()
	c := newConn(t, edit)
	c.client(fSYN, 1000, 0)
	c.server(fSYN|fACK, 5000, 1001)
	for i, f := range []func(){
		func() { c.client(fACK, 1001, 5001) },
		func() { c.client(fFIN|fACK, 1001, 5001) },
		func() { c.server(fACK, 5001, 1002) },
		func() { c.server(fFIN|fACK, 5001, 1002) },
		func() { c.client(fACK, 1002, 5002) },
		func() { c.server(fRST, 5002, 0) },
	} {
		if state == states[i] {
			break
		}
		f()
	}
	c.state(state)
	return c
}

// TestRFC9293_S3_10_7_1_ReconnectRefused: neither end has the connection any more, and the
// server refuses a new one. In every state the RST reaches the client, and its next attempt
// succeeds. A RST that acknowledges anything else has no effect.
func TestRFC9293_S3_10_7_1_ReconnectRefused(t *testing.T) {
	for _, state := range states {
		for _, data := range []int{0, 100} { // a fast open's
			c := inState(t, state, nil)
			if state == "time_wait" || state == "close" {
				c.client(fSYN, 950, 0, bytesOf(data)) // near the old one: no new flow at once
			} else {
				c.client(fSYN, 700_000, 0, bytesOf(data))
			}
			next := map[bool]uint32{true: 951, false: 700_001}[state == "time_wait" || state == "close"]
			if state == "close" {
				c.server(fRST|fACK, 0, next+uint32(data))
				continue // whether by this entry or a new one
			}
			for _, ack := range []uint32{next - 1, next + uint32(data) + 1461, next + 1<<16, next + 1<<31} {
				c.serverNot(fRST|fACK, 0, ack)
			}
			if data == 0 {
				c.serverNot(fRST|fACK, 0, next+1)
			}
			c.serverNot(fRST, 0, next)
			c.state(state)
			c.server(fRST|fACK, 0, next+uint32(data))
			c.state("close")
			// It tries again, with the same numbers or others.
			for _, isn := range []uint32{next - 1, 900_000} {
				c.client(fSYN, isn, 0)
				c.state("syn_sent")
				c.server(fRST|fACK, 0, isn+1)
				c.state("close")
			}
		}
	}
}

// TestRFC7857_S2_2_RefusedReconnectWasForged: a forged SYN, and its refusal, do not end a
// connection whose ends continue.
func TestRFC7857_S2_2_RefusedReconnectWasForged(t *testing.T) {
	c := inState(t, "established", nil)
	c.client(fSYN, 700_000, 0)
	c.server(fRST|fACK, 0, 700_001)
	c.client(fACK, 1001, 5001, bytesOf(10))
	c.state("established")
	c.server(fACK, 5001, 1011, bytesOf(10))
	// And from the other side.
	c.server(fSYN, 33, 0)
	c.clientNot(fRST|fACK, 0, 35)
	c.client(fRST|fACK, 0, 34)
	c.state("close")
	c.server(fACK, 5011, 1011, bytesOf(10))
	c.state("established")
}

// TestRFC4987_S3_6_EitherSYNACKIsAcknowledged: after SYN-ACKs with different numbers the
// client acknowledges the one that it has received, and data follow with its numbers. Other
// numbers establish nothing.
func TestRFC4987_S3_6_EitherSYNACKIsAcknowledged(t *testing.T) {
	for _, isns := range [][]uint32{{5000, 900_000}, {5000, 5000 + 1<<31}, {5000, 1000}, {5000, 900_000, 77}, {5000, 900_000, 5000, 77, 900_000},
		{10, 20, 30, 40, 50, 60}, {5000, 5010, 5000}, {5000, 900_000, 900_000, 900_000}} {
		known := map[uint32]bool{isns[0]: true}
		last := isns
		if n := len(isns); n > 2 {
			last = isns[n-2:]
		}
		for _, n := range last {
			known[n] = true
		}
		for isn := range known {
			c := newConn(t, nil)
			c.client(fSYN, 1000, 0)
			for _, n := range isns {
				c.server(fSYN|fACK, n, 1001)
				c.clientNot(fACK, 1001, n)
				c.clientNot(fACK, 1001, n+1+1<<16)
			}
			c.clientNot(fACK, 1001+1<<17, isn+1) // not in the window
			c.state("syn_recv")
			c.client(fACK, 1001, isn+1)
			c.state("established")
			c.server(fACK, isn+1, 1001, bytesOf(1000))
			c.client(fACK, 1001, isn+1001, bytesOf(1000))
			c.server(fACK, isn+1001+8192-1400, 2001, bytesOf(1400))
			c.serverNot(fACK, isn+1001+8192, 2001, bytesOf(1)) // beyond the window
			c.clientNot(fACK, 2001, isn+1001+8193)
			for other := range known {
				if d := int32(other - isn); d > 20_000 || d < -200_000 {
					c.clientNot(fACK, 2001, other+1)
					c.server(fSYN|fACK, other, 1001) // late: the client challenges it
				}
			}
			c.state("established")
		}
	}
}

// TestRFC4987_S3_6_SYNACKsWithOtherOptions: and with the windows of the one that
// is acknowledged, though cookies may have no scale.
func TestRFC4987_S3_6_SYNACKsWithOtherOptions(t *testing.T) {
	for first := range 2 {
		for chosen := range 2 {
			c := newConn(t, nil)
			c.client(fSYN, 1000, 0, options(3, 3, 7, 1))
			for i := range 2 {
				o := []byte{3, 3, 7, 1}
				if i == first {
					o = nil
				}
				c.server(fSYN|fACK, uint32(5000+100_000*i), 1001, options(o...), window(uint16(1000*(i+1))))
			}
			isn := uint32(5001 + 100_000*chosen)
			c.client(fACK, 1001+uint32(1000*chosen), isn, bytesOf(1000))
			if chosen != first { // this one is scaled
				c.server(fACK, isn, 1001, window(1000))
				c.client(fACK, 1001+100_000, isn, bytesOf(1000))
			}
		}
	}
}

// TestRFC9293_S3_10_7_4_OldSYNInClose: a late copy of the SYN that began a connection does
// not begin another one after its reset, however much data it has sent; its data in flight
// arrive.
func TestRFC9293_S3_10_7_4_OldSYNInClose(t *testing.T) {
	for _, sent := range []uint32{0, 100, 1 << 20} {
		c := inState(t, "established", nil)
		for n := uint32(0); n < sent; n += 4096 {
			m := min(sent-n, 4096)
			c.client(fACK, 1001+n, 5001, bytesOf(int(min(m, 1400))))
			c.client(fACK, 1001+n+m-1, 5001, bytesOf(1))
			c.server(fACK, 5001, 1001+n+m)
		}
		id := c.e.flows.Shared(0).ID
		c.server(fACK, 5101, 1001+sent, bytesOf(100)) // 100 bytes before it are late
		c.server(fRST, 5201, 0)
		c.state("close")
		for range 2 {
			c.client(fSYN, 1000, 0)
			c.state("close")
		}
		if c.e.flows.Shared(0).ID != id {
			t.Fatal("another flow")
		}
		c.server(fACK, 5001, 1001+sent, bytesOf(100))
		c.client(fACK, 1001+sent, 5201)
		c.state("established")
		c.server(fRST, 5201, 0)
		c.client(fSYN, 700_000, 0) // a new attempt
		c.state("syn_sent")
		if c.e.flows.Shared(0).ID == id {
			t.Fatal("the same flow")
		}
	}
}

// TestRFC9293_S3_5_SameNumbersAfterAReset: a client that begins every connection with the
// same number, as simple ones do after a reboot, succeeds although its SYN looks like an
// old one.
func TestRFC9293_S3_5_SameNumbersAfterAReset(t *testing.T) {
	for _, refused := range []bool{false, true} {
		c := inState(t, "close", nil)
		c.client(fSYN, 1000, 0)
		c.state("close")
		if refused {
			c.server(fRST|fACK, 0, 1001)
			c.client(fSYN, 1000, 0)
		} else {
			c.serverNot(fSYN|fACK, 90_000, 1001)
			c.client(fSYN, 1000, 0)
		}
		c.state("syn_sent")
		c.server(fSYN|fACK, 90_000, 1001)
		c.client(fACK, 1001, 90_001)
		c.state("established")
	}
}

// TestRFC9293_S3_10_7_4_WindowByTheEnd: the end of a segment decides: one that begins far
// before the window and ends in it is acceptable.
func TestRFC9293_S3_10_7_4_WindowByTheEnd(t *testing.T) {
	const slack = 1 << 16
	for _, n := range []uint32{0, 1, 1400} {
		c := inState(t, "established", nil)
		c.server(fACK, 5001, 1001, bytesOf(1400))
		end := uint32(6401)
		c.server(fACK, end-slack-n, 1001, bytesOf(int(n)))
		c.serverNot(fACK, end-slack-n-1, 1001, bytesOf(int(n)))
		c.server(fACK, 5001, 1001, bytesOf(1400)) // all of it again
		c.server(fACK, 5701, 1001, bytesOf(1400)) // half of it
		c.server(fACK, 5000, 1001)                // keep-alives, with and without the old byte
		c.server(fACK, 7100, 1001, bytesOf(1))
		c.server(fFIN|fACK, 5701, 1001, bytesOf(1400))
		c.state("fin_wait")
		c.server(fFIN|fACK, 7101, 1001)
	}
}

// TestRFC9293_S3_5_OldDuplicateSYN: figure 9 of RFC 9293: an old SYN arrives between a
// client's SYN and its answer. Whichever of the two is answered first, the connection is
// established.
func TestRFC9293_S3_5_OldDuplicateSYN(t *testing.T) {
	for _, answered := range []uint32{1000, 90} { // the client's own, and the old one
		for _, real := range []uint32{1000, 90} {
			t.Run(fmt.Sprintf("%d of %d", answered, real), func(t *testing.T) {
				c := newConn(t, nil)
				c.client(fSYN, 1000, 0, options(3, 3, 7, 1))
				c.client(fSYN, 90, 0)
				c.serverNot(fSYN|fACK, 5000, 92)
				c.serverNot(fRST|fACK, 0, 1002)
				c.server(fSYN|fACK, 5000, answered+1, options(3, 3, 7, 1))
				c.state("syn_recv")
				if answered != real {
					c.client(fRST, answered+1, 0)
					c.state("close")
					c.client(fSYN, real, 0, options(3, 3, 7, 1))
					c.server(fSYN|fACK, 7000, real+1, options(3, 3, 7, 1))
					c.client(fACK, real+1, 7001)
				} else {
					c.client(fACK, real+1, 5001)
				}
				c.state("established")
			})
		}
	}
	// The refusal of the old one is not that of the other.
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0)
	c.client(fSYN, 90, 0)
	c.server(fRST|fACK, 0, 1001)
	c.state("syn_sent")
	c.server(fSYN|fACK, 5000, 91)
	c.client(fACK, 91, 5001)
	c.state("established")
}

// TestRFC7857_S2_2_RefusalWasLost: a SYN was duplicated; the server refused the first, and
// answered the second. The RST was lost.
func TestRFC7857_S2_2_RefusalWasLost(t *testing.T) {
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0)
	c.server(fRST|fACK, 0, 1001)
	c.state("close")
	c.serverNot(fSYN|fACK, 5000, 1002)
	c.server(fSYN|fACK, 5000, 1001)
	c.state("syn_recv")
	c.client(fACK, 1001, 5001)
	c.server(fACK, 5001, 1001, bytesOf(10))
	c.state("established")
}

// TestRFC5961_S5_2_BlindRSTOfARefusal: an off-path attacker has to guess all 32 bits of the
// SYN's number even to shorten the timeout of an idle connection.
func TestRFC5961_S5_2_BlindRSTOfARefusal(t *testing.T) {
	c := inState(t, "established", nil)
	c.client(fSYN, 700_000, 0)
	for high := range uint32(1 << 16) {
		if n := high<<16 | 700_001&0xffff; n != 700_001 {
			if across, _ := c.put(wan, c.answer(fRST|fACK, 0, n)); len(across) != 0 {
				t.Fatalf("%d passed", n)
			}
			if high%64 == 0 {
				c.put(wan, c.answer(fSYN|fACK, 99_000, n))
			}
		}
	}
	c.state("established")
}

// TestRFC9293_S3_10_7_4_SimultaneousOpenNeedsItsACK: in a simultaneous open the SYN-ACKs
// acknowledge the other end's SYN, and nothing else.
func TestRFC9293_S3_10_7_4_SimultaneousOpenNeedsItsACK(t *testing.T) {
	c := newConn(t, nil)
	c.client(fSYN, 1000, 0)
	c.server(fSYN, 5000, 0)
	for _, ack := range []uint32{5000, 4000, 5002, 5001 + 1<<31, 1<<32 + 5001 - 1<<16} {
		c.clientNot(fSYN|fACK, 1000, ack)
	}
	for _, ack := range []uint32{1000, 900, 1002, 1001 + 1<<31, 1<<32 + 1001 - 1<<16} {
		c.serverNot(fSYN|fACK, 5000, ack)
	}
	c.client(fSYN|fACK, 1000, 5001)
	c.server(fSYN|fACK, 5000, 1001)
	c.client(fACK, 1001, 5001)
	c.state("established")
}

// TestRFC9293_S3_10_7_3_RefusedAfterLostData: as after a SYN-ACK alone, when the server had
// sent data or its FIN as well, all of which were lost.
func TestRFC9293_S3_10_7_3_RefusedAfterLostData(t *testing.T) {
	for _, flags := range []uint8{fACK, fFIN | fACK} {
		c := newConn(t, nil)
		c.client(fSYN, 1000, 0)
		c.server(fSYN|fACK, 5000, 1001)
		c.server(flags, 5001, 1001, bytesOf(100))
		c.client(fSYN, 1000, 0)
		c.serverNot(fRST|fACK, 0, 1002)
		c.server(fRST|fACK, 0, 1001)
		c.state("close")
		c.server(fRST|fACK, 0, 1001) // twice
		c.client(fSYN, 700_000, 0)
		c.state("syn_sent")
	}
}

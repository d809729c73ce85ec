package hostile

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// guest adds an attack of a guest on its launcher: bad on its first start, good
// as its twin, nil for an honest guest. After both the guest crashes, and must be
// started again and heard.
func guest(name string, bad, good func(m *monitor) error) {
	machine("guest/"+name, bad, good)
}

// machine is guest for any attacker in the machine, and with more arguments for
// the launcher.
func machine(name string, bad, good func(m *monitor) error, args ...string) {
	roles[name] = bad
	run := func(role string) func(t *testing.T) {
		return func(t *testing.T) { launch(t, role, launchOptions{args: args}).restarted() }
	}
	twin := honestTwin
	if good != nil {
		roles[name+" twin"] = good
		twin = run(name + " twin")
	}
	add(attack{name, run(name), twin})
}

// honestTwin is the twin of all that is only not done: it is played once.
var honestTwin = func() func(t *testing.T) {
	var once sync.Once
	failed := true
	return func(t *testing.T) {
		once.Do(func() {
			launch(t, "honest", launchOptions{}).restarted()
			failed = t.Failed()
		})
		if failed {
			t.Error("an honest guest is not served")
		}
	}
}()

// honestStart is rings as they should be, and an event.
func honestStart(m *monitor) error {
	m.front.start()
	m.honest()
	return nil
}

// lay starts with rings that have been laid elsewhere.
func lay(f func(m *monitor), want func(m *monitor)) func(m *monitor) error {
	return func(m *monitor) error {
		f(m)
		m.share()
		func() {
			defer func() { recover() }() //nolint:errcheck // the session may end under it
			m.begin(rx)
			m.begin(tx)
		}()
		want(m)
		return nil
	}
}

func refused(m *monitor) { m.refused() }

// givenUp: the ring is left alone, the monitor is still answered.
func givenUp(m *monitor) {
	time.Sleep(20 * time.Millisecond)
	m.ask(getFeatures, nil)
}

// broken does something to running rings.
func broken(f func(m *monitor)) func(m *monitor) error {
	return func(m *monitor) error {
		m.front.start()
		f(m)
		givenUp(m)
		return nil
	}
}

// Attacks by rings and memory, which the guest chooses.
func init() {
	guest("rings-crossed", lay(func(m *monitor) {
		m.q[rx].used, m.q[tx].used = m.q[tx].avail, m.q[rx].avail
		m.setAvail(rx, 8)
		m.setAvail(tx, 8)
	}, refused), func(m *monitor) error { // next to each other without a gap
		m.q[rx].avail, m.q[rx].used = m.q[rx].desc+16*ringSize, m.q[rx].desc+16*ringSize+0x100
		m.q[tx].desc = m.q[rx].used + 0x300
		m.q[tx].avail, m.q[tx].used = m.q[tx].desc+16*ringSize, m.q[tx].desc+16*ringSize+0x100
		return honestStart(m)
	})
	guest("ring-over-itself", lay(func(m *monitor) { m.q[tx].used = m.q[tx].avail; m.setAvail(tx, 8) }, refused), nil)
	guest("used-over-descriptors", lay(func(m *monitor) { m.q[tx].used = m.q[tx].desc + 16 }, refused), nil)
	guest("one-ring-twice", lay(func(m *monitor) { m.q[tx] = m.q[rx] }, refused), nil)
	guest("ring-outside", lay(func(m *monitor) { m.q[tx].desc = guestBase + memSize }, refused), func(m *monitor) error { // its last byte is the memory's
		m.q[tx].desc = guestBase + memSize - 16*ringSize
		return honestStart(m)
	})
	guest("ring-around", lay(func(m *monitor) { m.q[tx].desc = ^uint64(0) - userBase + guestBase - 16 }, refused), nil)
	guest("ring-not-aligned", lay(func(m *monitor) { m.q[tx].used += 2 }, refused), nil)
	guest("ring-of-63", lay(func(m *monitor) { m.q[tx].size = 63 }, refused), func(m *monitor) error { // the smallest
		m.q[tx].size, m.q[rx].size = 1, 1
		return honestStart(m)
	})
	guest("ring-of-65536", lay(func(m *monitor) {}, func(m *monitor) {
		m.send(setVringNum, words(rx|65536<<32))
		m.send(setVringEnable, words(rx))
		m.send(setVringEnable, words(rx|1<<32))
		m.refused()
	}), func(m *monitor) error { // the largest
		m.q[rx] = queue{size: 32768, desc: guestBase, avail: guestBase + 0x80000, used: guestBase + 0xa0000}
		m.q[tx] = queue{size: 32768, desc: guestBase + 0x100000, avail: guestBase + 0x180000, used: guestBase + 0x1a0000}
		return honestStart(m)
	})

	guest("index-ahead", broken(func(m *monitor) { m.setAvail(tx, 5000); m.kick(tx) }), func(m *monitor) error { // a ring that is full
		m.front.start()
		for n := range uint32(ringSize) {
			b, a := m.room(packetLen)
			copy(b, packet{srcPort: n + 1, op: opRST}.bytes())
			m.describe(tx, int(n), a, packetLen, 0, 0)
			m.offer(tx, uint16(n))
		}
		m.taken(tx)
		m.honest()
		return nil
	})
	guest("descriptor-out-of-range", broken(func(m *monitor) { m.offer(tx, 5000) }), nil)
	guest("chain-loop", broken(func(m *monitor) {
		m.describe(tx, 0, guestBase+bufBase, 1, descNext, 1)
		m.describe(tx, 1, guestBase+bufBase, 1, descNext, 0)
		m.offer(tx, 0)
	}), func(m *monitor) error { // a chain of all descriptors
		m.front.start()
		p := packet{op: opRequest, srcPort: 7}.bytes()
		b, a := m.room(len(p))
		copy(b, p)
		for d := range ringSize {
			n, flags := uint32(0), uint16(descNext)
			if d < len(p) {
				n = 1
			}
			if d == ringSize-1 {
				flags = 0
			}
			m.describe(tx, d, a+uint64(min(d, len(p)-1)), n, flags, uint16(d+1))
		}
		m.offer(tx, 0)
		m.taken(tx)
		if op, port, _ := m.hear(); port != 7 || op != opResponse && op != opRST {
			return fmt.Errorf("operation %d for port %d", op, port)
		}
		m.honest()
		return nil
	})
	guest("indirect", broken(func(m *monitor) { m.describe(tx, 0, guestBase+bufBase, 64, 4, 0); m.offer(tx, 0) }), nil)
	guest("buffer-outside", broken(func(m *monitor) { m.describe(tx, 0, 1<<60, 64, 0, 0); m.offer(tx, 0) }), nil)
	guest("buffer-across-the-end", broken(func(m *monitor) { m.describe(tx, 0, guestBase+memSize-10, 64, 0, 0); m.offer(tx, 0) }), nil)
	guest("buffer-around", broken(func(m *monitor) { m.describe(tx, 0, ^uint64(0)-10, 64, 0, 0); m.offer(tx, 0) }), nil)
	guest("buffer-of-4-gb", broken(func(m *monitor) { m.describe(tx, 0, guestBase, 1<<32-1, 0, 0); m.offer(tx, 0) }), nil)
	guest("buffer-order", broken(func(m *monitor) {
		m.describe(tx, 0, guestBase+bufBase, 10, descNext|descWrite, 1)
		m.describe(tx, 1, guestBase+bufBase, 10, 0, 0)
		m.offer(tx, 0)
	}), nil)
	guest("receive-buffer-too-small", broken(func(m *monitor) {
		m.describe(rx, 0, guestBase+bufBase, 10, descWrite, 0)
		m.offer(rx, 0)
		m.say(packet{srcPort: 9, op: opRW, data: []byte("x")})
	}), func(m *monitor) error { // room for a header and a byte
		m.front.start()
		_, a := m.room(packetLen + 1)
		m.describe(rx, 0, a, packetLen+1, descWrite, 0)
		m.offer(rx, 0)
		m.say(packet{srcPort: 9, op: opRW, data: []byte("x")})
		m.taken(rx)
		m.honest()
		return nil
	})
	// What the device writes runs over the ring from which it takes requests.
	guest("receive-buffer-over-a-ring", broken(func(m *monitor) {
		for d := range uint16(ringSize) {
			m.describe(rx, int(d), m.q[tx].avail-36, packetLen, descWrite, 0)
			b, a := m.room(packetLen)
			copy(b, packet{srcPort: uint32(d) + 1, op: opRW}.bytes())
			m.describe(tx, int(d), a, packetLen, 0, 0)
		}
		for d := range uint16(ringSize) {
			m.offer(rx, d)
		}
		m.setAvail(tx, ringSize)
		m.kick(tx)
	}), nil)
	// The rings are filled again as they are emptied.
	guest("never-empty", func(m *monitor) error {
		m.front.start()
		for d := range uint16(ringSize) {
			b, a := m.room(packetLen)
			copy(b, packet{srcPort: 99, op: opRW}.bytes())
			m.describe(tx, int(d), a, packetLen, 0, 0)
			_, a = m.room(packetLen)
			m.describe(rx, int(d), a, packetLen, descWrite, 0)
		}
		for i := range uint16(2) {
			for d := range uint16(ringSize) {
				m.memory(m.q[i].avail)[4+2*d] = byte(d)
			}
		}
		go func() {
			for {
				m.setAvail(rx, m.usedIndex(rx)+ringSize)
				m.setAvail(tx, m.usedIndex(tx)+ringSize)
			}
		}()
		time.Sleep(200 * time.Millisecond)
		m.kick(tx)
		m.kick(rx)
		time.Sleep(300 * time.Millisecond)
		return nil
	}, nil)
	guest("changes-its-descriptors", broken(func(m *monitor) {
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					m.describe(tx, 0, guestBase+bufBase, 64, 0, 0)
					m.describe(tx, 0, ^uint64(0)-3, 1<<31, descNext, 60000)
				}
			}
		}()
		defer close(stop)
		for range 200 {
			m.setAvail(tx, m.usedIndex(tx)+1)
			m.kick(tx)
			time.Sleep(time.Millisecond)
		}
	}), nil)
}

// Attacks by what a guest sends through honest rings.
func init() {
	through := func(f func(m *monitor)) func(m *monitor) error {
		return func(m *monitor) error {
			m.front.start()
			f(m)
			return nil
		}
	}
	honestAfter := func(f func(m *monitor)) func(m *monitor) error {
		return through(func(m *monitor) { f(m); m.honest() })
	}
	guest("wrong-addresses", honestAfter(func(m *monitor) {
		for _, p := range []packet{{src: 9, op: opRequest}, {dst: 4, op: opRequest}, {op: 99}, {typ: 2, op: opRequest}, {op: opRW, len: 1 << 31}} {
			m.say(p)
		}
	}), nil)
	guest("other-ports", honestAfter(func(m *monitor) {
		for _, port := range []uint32{22, 80, 9001, 1<<32 - 1, 0xffffff} {
			m.say(packet{srcPort: port, dstPort: port, op: opRequest})
			if op, _, _ := m.hear(); op != opRST {
				panic(fmt.Errorf("port %d: operation %d", port, op))
			}
		}
	}), nil)
	guest("beyond-its-credit", honestAfter(func(m *monitor) {
		m.connect(5)
		for range 200 { // faster than the reader takes it, or not: both must be borne
			m.say(packet{srcPort: 5, op: opRW, data: make([]byte, 64<<10)})
		}
	}), nil)
	guest("lies-about-what-it-took", honestAfter(func(m *monitor) {
		m.connect(5)
		m.say(packet{srcPort: 5, op: opCredit, fwd: 1 << 30})
		if op, _, _ := m.hear(); op != opRST {
			panic(fmt.Errorf("operation %d", op))
		}
	}), nil)
	guest("opens-many", through(func(m *monitor) {
		for port := range uint32(1000) {
			m.connect(port + 1)
		}
		if files, _ := m.open(); files > 2*64+60 { // both ends are the launcher's
			panic(fmt.Errorf("%d descriptors", files))
		}
	}), through(func(m *monitor) { // as many as are allowed to it, one after the other
		for port := range uint32(20) {
			if !m.connect(port + 1) {
				panic(fmt.Errorf("connection %d is refused", port+1))
			}
			m.say(packet{srcPort: port + 1, op: opRST})
		}
		m.honest()
	}))
	guest("forgets-many", through(func(m *monitor) {
		for port := range uint32(1000) {
			m.connect(port + 1)
			m.say(packet{srcPort: port + 1, op: opRW, data: make([]byte, 60<<10)})
			m.say(packet{srcPort: port + 1, op: opRST})
		}
		if files, _ := m.open(); files > 2*64+60 {
			panic(fmt.Errorf("%d descriptors", files))
		}
	}), nil)
	guest("asks-again-on-one-port", through(func(m *monitor) {
		for range 2000 {
			m.say(packet{srcPort: 5, op: opRequest})
		}
	}), nil)
	guest("takes-no-answers", through(func(m *monitor) {
		for port := range uint32(20_000) {
			m.say(packet{srcPort: port + 1, op: opRW})
		}
	}), nil)
	guest("asks-for-credit", through(func(m *monitor) {
		m.connect(5)
		for range 20_000 {
			m.say(packet{srcPort: 5, op: opAsk})
		}
	}), nil)
	guest("nothing-in-each", through(func(m *monitor) {
		m.connect(5)
		for range 20_000 {
			m.say(packet{srcPort: 5, op: opRW})
		}
	}), nil)
	guest("half-closed", honestAfter(func(m *monitor) {
		for port := range uint32(50) {
			m.connect(port + 1)
			m.say(packet{srcPort: port + 1, op: opShutdown, flags: 1 + port%3})
			m.say(packet{srcPort: port + 1, op: opRST})
		}
	}), nil)
	guest("line-without-end", through(func(m *monitor) {
		m.connect(5)
		x := []byte(strings.Repeat("x", 32<<10))
		for range 2000 { // 64 MB
			m.say(packet{srcPort: 5, op: opRW, data: x})
			if op, ok := m.heard(); ok && op == opRST {
				return
			}
		}
	}), nil)
}

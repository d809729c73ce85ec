package hostile

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Attacks on the launcher's descriptors, and on the demonstration.

func init() {
	// The guest takes all connections that it gets and keeps them.
	roles["descriptors/keeps-all"] = func(m *monitor) error {
		m.front.start()
		for port := range uint32(100) {
			m.connect(port + 1)
		}
		time.Sleep(300 * time.Millisecond)
		return nil
	}
	limited := func(role string, n int) func(t *testing.T) {
		return func(t *testing.T) { launch(t, role, launchOptions{stop: n}).restarted() }
	}
	add(attack{"descriptors/keeps-all", limited("descriptors/keeps-all", 48), limited("honest", 48)})
	// A limit that may be raised is: what a guest is allowed fits.
	roles["descriptors/soft-limit"] = func(m *monitor) error {
		m.front.start()
		made := 0
		for port := range uint32(60) {
			if m.connect(port + 1) {
				made++
			}
		}
		if made < 60 {
			return fmt.Errorf("%d connections of 60", made)
		}
		return nil
	}
	add(attack{"descriptors/soft-limit", limited("descriptors/soft-limit", -48), limited("honest", -48)})
	// Processes of the same user connect as followers, and do not read.
	add(attack{"descriptors/followers", func(t *testing.T) { followers(t, 200) }, func(t *testing.T) { followers(t, 5) }})

	both := []string{"--lan", "demo", "--wan", "demo"}
	deep := strings.Repeat("a.", 1000)
	machine("demo/forged-events", func(m *monitor) error {
		for i := range 1000 {
			m.print(`thurward: event {"event.action":"accept","%sx%d":{"b.c":[%s1%s]},"source.ip":"10.0.0.2"}`, deep, i, strings.Repeat("[", 300), strings.Repeat("]", 300))
			m.print(`thurward: event {"event.action":%d}`, i)
			m.print(`thurward: event {"event":{"action":"drop\u001b[2J\u009b2J"},"source.ip":"\u202e"}`)
		}
		return honestStart(m)
	}, honestStart, both...)
	machine("demo/frames", func(m *monitor) error {
		for i := range 100_000 {
			m.frame(1, syn(uint32(i), uint16(i), byte(i)))
			m.frame(0, syn(uint32(i), uint16(i), byte(i)))
		}
		return honestStart(m)
	}, func(m *monitor) error { m.frame(1, syn(1, 1, 5)); return honestStart(m) }, both...)
}

// followers: many connect to the stream and take nothing, while a guest is heard
// by one who does.
func followers(t *testing.T, n int) {
	l := launch(t, "honest", launchOptions{stop: 100})
	l.await("the socket", func() bool {
		c, err := net.Dial("unix", l.socket+"_tail")
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	var conns []net.Conn
	for range n {
		c, err := net.Dial("unix", l.socket+"_tail")
		if err != nil {
			break // its queue is full: nobody is waited for
		}
		conns = append(conns, c)
	}
	if len(conns) == 0 {
		t.Error("no connection came about")
	}
	l.await("a crash is followed by a start", func() bool { _, ok := l.note(2); return ok })
	for _, c := range conns {
		c.Close()
	}
	l.restarted()
}

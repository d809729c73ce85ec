package hostile

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guest adds an attack of a guest on its launcher: bad on its first start, good
// as its twin. After both the guest crashes, and must be started again and heard.
func guest(name string, bad, good func(m *monitor) error) {
	roles[name], roles[name+" twin"] = bad, good
	play := func(role string) func(t *testing.T) {
		return func(t *testing.T) { launch(t, role, launchOptions{}).restarted() }
	}
	add(attack{name, play(name), play(name + " twin")})
}

// honestStart is a twin: rings as they should be, and an event.
func honestStart(m *monitor) error {
	m.front.start()
	m.honest()
	return nil
}

func init() {
	guest("guest/rings-crossed", func(m *monitor) error {
		m.q[rx].used, m.q[tx].used = m.q[tx].avail, m.q[rx].avail
		m.setAvail(rx, 8)
		m.setAvail(tx, 8)
		m.share()
		m.begin(rx)
		m.begin(tx)
		m.refused()
		return nil
	}, honestStart)
	guest("guest/memory-cut-short", func(m *monitor) error {
		m.front.start()
		m.honest()
		if unix.Ftruncate(m.fd, 0) == nil {
			m.kick(tx)
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	}, honestStart)
}

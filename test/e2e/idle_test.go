package e2e

import (
	"testing"
	"time"
)

// TestIdleImage: without traffic the image leaves the host's CPU alone. QEMU's
// threads are counted together, its own among them.
func TestIdleImage(t *testing.T) {
	const during = 3 * time.Second
	eachAlone(t, func(t *testing.T, kvm bool) {
		boot(t, kvm)
		h := &hostWatch{}
		h.find(t)
		ran := func() (sum time.Duration) {
			for _, tid := range threads(h.main) {
				if d, _, err := schedstat(h.main, tid); err == nil {
					sum += d
				}
			}
			return sum
		}
		time.Sleep(time.Second) // announcements, the first collection
		before := ran()
		time.Sleep(during)
		took := ran() - before
		t.Logf("QEMU ran for %v of %v", took, during)
		if took > during/20 {
			t.Errorf("QEMU ran for %v of %v, want at most a twentieth", took, during)
		}
	})
}

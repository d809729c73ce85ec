package service

import (
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
)

// A Status is what there is to tell about a firewall. Its fields are those of status --json.
type Status struct {
	Name string `json:"name"`
	// State is running, starting, changing the image, waiting to start again, or down.
	State string `json:"state"`
	// Healthy: the rules are live, they are those of the current image, and the last sign of
	// life is not long ago.
	Healthy bool `json:"healthy"`
	deploy.Record
	Running *Running `json:"running,omitempty"` // the machine, where there is one
}

// Running is what is known of a machine that runs.
type Running struct {
	Image      string    `json:"image"`
	Version    string    `json:"version,omitempty"` // of the program
	Policy     string    `json:"policy,omitempty"`
	Since      time.Time `json:"since"`
	Starts     int       `json:"starts"` // of machines, by this service
	Ready      bool      `json:"ready"`
	Gateway    bool      `json:"gateway"`                     // heard
	LastSign   *float64  `json:"last_sign_seconds,omitempty"` // how long ago; none where the stream is not seen
	SamePolicy bool      `json:"same_policy"`                 // as its image
}

// Status returns what there is to tell now.
func (s *Service) Status() Status {
	s.mu.Lock()
	m, doing, starts := s.active, s.doing, s.starts
	st := Status{State: "down", Record: s.record}
	s.mu.Unlock()
	if m == nil || m.over() {
		if doing != "" {
			st.State = doing
		}
		return st
	}
	now := s.c.now()
	r := &Running{Image: m.entry.Image, Since: m.began.UTC().Truncate(time.Second), Starts: starts, Ready: closed(m.Ready()), Gateway: closed(m.Gateway())}
	st.Running, st.State = r, "starting"
	if r.Ready {
		st.State = "running"
		r.Version, r.Policy = m.Info().Version, m.Info().Policy
		r.SamePolicy = r.Policy == m.plan.Policy
	}
	if doing != "" {
		st.State = doing
	}
	alive := true
	if ago, seen := m.lastSign(now); seen {
		sec := ago.Round(time.Millisecond).Seconds()
		r.LastSign, alive = &sec, ago <= silence
	}
	st.Healthy = r.Ready && r.SamePolicy && alive && r.Image == st.Current.Image
	return st
}

// lastSign returns how long ago the last sign of life was, as far as anybody has looked.
func (m *machine) lastSign(now time.Time) (ago time.Duration, seen bool) {
	n, seen := m.Signs()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n != m.signs {
		m.signs, m.heard = n, now
	}
	return now.Sub(m.heard), seen
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

package vhostuser

import (
	"fmt"
	"time"
)

func (s *session) startAll() error {
	for i := range s.vring {
		if err := s.start(i); err != nil {
			return err
		}
	}
	return nil
}

// start starts a ring if all of it has been set.
func (s *session) start(i int) error {
	v := &s.vring[i]
	if v.ring != nil || s.mem == nil || !v.hasAddr || v.num == 0 || v.kick == nil ||
		s.feat&featProtocol != 0 && !v.enabled {
		return nil
	}
	desc, used, avail, all, err := s.places(v)
	if err != nil || !all {
		return err
	}
	var r *Ring
	err = s.mem.Guard(func() (err error) {
		r, err = newRing(s.mem, v.num, desc, used, avail, v.base, s.feat&FeatureEventIdx != 0)
		return err
	})
	if err != nil {
		return err
	}
	for j := range s.vring {
		if o := s.vring[j].ring; o != nil {
			if err := r.apart(o); err != nil {
				return err
			}
		}
	}
	if err := v.kick.SetReadDeadline(time.Time{}); err != nil { // stop may have set one
		return fmt.Errorf("vhost-user: ring %d: %w", i, err)
	}
	r.Index, r.kick, r.call, r.tlb = i, v.kick, v.call, s.tlb
	if v.call != nil {
		if r.signal, err = v.call.SyscallConn(); err != nil {
			return fmt.Errorf("vhost-user: ring %d: %w", i, err)
		}
	}
	v.ring = r
	s.h.Start(r)
	return nil
}

// stop stops a ring, and keeps its position. If the handler does not stop it in time
// the session ends, and the ring and its memory stay with the handler.
func (s *session) stop(i int) error {
	v := &s.vring[i]
	if s.stuck != nil {
		return errStuck
	}
	if v.ring == nil {
		return nil
	}
	r := v.ring
	v.ring = nil
	r.end()
	done := make(chan struct{})
	go func() { defer close(done); s.h.Stop(r) }()
	late := time.NewTimer(stopLimit)
	defer late.Stop()
	select {
	case <-done:
		v.base = r.next
		return nil
	case <-late.C:
		s.stuck = done
		return errStuck
	}
}

func (s *session) stopAll() error {
	for i := range s.vring {
		if err := s.stop(i); err != nil {
			return err
		}
	}
	return nil
}

// Package demo sends traffic through a firewall in a simulated network, and prints
// each request, the firewall's verdict and its reason, and the result.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
)

const (
	// stepLimit is how long a step may take; it takes milliseconds.
	stepLimit = 10 * time.Second
	// noAnswer is how long a step waits for an answer that must not arrive, after
	// the event that the firewall dropped the request.
	noAnswer = 100 * time.Millisecond
)

// A Stage is the network, the firewall and the output of a demonstration.
type Stage struct {
	Network *netlab.Network
	Feed    *Feed // the firewall's events
	Out     Printer

	limit time.Duration // of a step; 0: stepLimit
}

// A step is one part of the demonstration.
type step struct {
	title string
	play  func(*Stage, context.Context) error
}

// steps are the parts of the demonstration in order.
var steps = []step{
	{"alice asks for the address of the web server (DNS, udp/53)", (*Stage).resolve},
	{"alice fetches a page (HTTP, tcp/80)", (*Stage).fetch},
	{"alice and bob fetch at the same time", (*Stage).together},
	{"alice pings the web server", (*Stage).ping},
	{"alice tries to send mail directly (tcp/25), which no rule allows", (*Stage).blocked},
	{"mallory, on the WAN, tries to reach alice (tcp/22)", (*Stage).intruder},
}

// Topology draws the network.
func (s *Stage) Topology() {
	w := s.Network
	s.Out.linef("")
	s.Out.linef("  alice %-11v ─┐                    ┌─ mallory %v", w.Alice.Addr, w.Mallory.Addr)
	s.Out.linef("                     [LAN]─ thurward ─[WAN]")
	s.Out.linef("  bob   %-11v ─┘                    └─ router %v ─ internet ─┬─ web %v",
		w.Bob.Addr, w.Gateway, w.Web.Addr)
	s.Out.linef("  inside %-12v outside %-15v              %*s └─ dns %v",
		w.LAN.Addr(), w.WAN.Addr(), len(w.Gateway.String()), "", w.DNS.Addr)
	s.Out.linef("")
}

// Play plays all steps, also after one that failed. The error names those that did not
// go as they should.
func (s *Stage) Play(ctx context.Context) error {
	var errs []error
	limit := s.limit
	if limit == 0 {
		limit = stepLimit
	}
	for i, st := range steps {
		s.Out.linef("%s", s.Out.paint(bold, fmt.Sprintf("%d. %s", i+1, st.title)))
		c, cancel := context.WithTimeout(ctx, limit)
		err := st.play(s, c)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.Out.linef("   %s", s.Out.paint(red, "did not go as it should: "+err.Error()))
			errs = append(errs, fmt.Errorf("step %d (%s): %w", i+1, st.title, err))
		}
	}
	return errors.Join(errs...)
}

// An awaitEvent waits for an event until the context ends.
type awaitEvent = func(context.Context) (ecs.Event, error)

// expect begins to wait for the verdict on a flow's first packet.
func (s *Stage) expect(transport, direction string, src, dst netip.Addr, port uint16) awaitEvent {
	return s.Feed.Expect(func(e ecs.Event) bool {
		to, action := e.Destination(), e.Str(ecs.EventAction)
		return e.Str(ecs.NetworkTransport) == transport && e.Str(ecs.NetworkDirection) == direction &&
			e.Source().Addr() == src && to.Addr() == dst && (port == 0 || to.Port() == port) &&
			(action == ecs.Accept || action == ecs.Drop)
	})
}

// decided prints a verdict and checks it.
func (s *Stage) decided(ctx context.Context, wait awaitEvent, action string) (ecs.Event, error) {
	e, err := wait(ctx)
	if err != nil {
		return e, fmt.Errorf("no event of the firewall: %w", err)
	}
	s.Out.linef("   %s", s.Out.style().Verdict(e))
	if got := e.Str(ecs.EventAction); got != action {
		return e, fmt.Errorf("verdict %s by %s (%s); the policy of the demonstration says %s",
			got, e.Str(ecs.RuleID), e.Str(ecs.EventReason), action)
	}
	return e, nil
}

func (s *Stage) resolve(ctx context.Context) error {
	w := s.Network
	wait := s.expect("udp", "egress", w.Alice.Addr, w.DNS.Addr, 53)
	var a netip.Addr
	asked := async(func() (err error) { a, err = w.Alice.Resolve(ctx, w.DNS.Addr, w.WebName()); return err })
	e, err := s.decided(ctx, wait, ecs.Accept)
	if err := errors.Join(err, <-asked); err != nil {
		return err
	}
	s.Out.linef("   answer: %s is %v; the server was asked by %v", w.WebName(), a, last(w.DNS.Requests()))
	return s.translated(e, last(w.DNS.Requests()))
}

func (s *Stage) fetch(ctx context.Context) error {
	w := s.Network
	wait := s.expect("tcp", "egress", w.Alice.Addr, w.Web.Addr, 80)
	var page string
	got := async(func() (err error) { page, err = get(ctx, w.Alice, w.Web.Addr, "/"); return err })
	e, err := s.decided(ctx, wait, ecs.Accept)
	if err := errors.Join(err, <-got); err != nil {
		return err
	}
	s.Out.linef("   the server says: %s", strings.TrimSpace(page))
	return s.translated(e, last(w.Web.Requests()))
}

// translated checks that a server saw the source that the event has.
func (s *Stage) translated(e ecs.Event, seen netip.AddrPort) error {
	if seen.Addr() != s.Network.WAN.Addr() || e.Translated() != seen {
		return fmt.Errorf("the server saw %v, the firewall's event says %v", seen, e.Translated())
	}
	return nil
}

func (s *Stage) together(ctx context.Context) error {
	w := s.Network
	var wg sync.WaitGroup
	var errs [2]error
	hosts := []*netlab.Host{w.Alice, w.Bob}
	waits := []awaitEvent{
		s.expect("tcp", "egress", w.Alice.Addr, w.Web.Addr, 80), s.expect("tcp", "egress", w.Bob.Addr, w.Web.Addr, 80)}
	for i, h := range hosts {
		// Neither request is answered before both have arrived.
		wg.Go(func() { _, errs[i] = get(ctx, h, w.Web.Addr, "/meet/2") })
	}
	for i, wait := range waits {
		_, err := s.decided(ctx, wait, ecs.Accept)
		errs[i] = errors.Join(errs[i], err)
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	r := w.Web.Requests()
	s.Out.linef("   the server had both at once: %v and %v", r[len(r)-2].Source, r[len(r)-1].Source)
	return nil
}

func (s *Stage) ping(ctx context.Context) error {
	w := s.Network
	wait := s.expect("icmp", "egress", w.Alice.Addr, w.Web.Addr, 0)
	var rtt time.Duration
	got := async(func() (err error) { rtt, err = w.Alice.Ping(ctx, w.Web.Addr); return err })
	_, err := s.decided(ctx, wait, ecs.Accept)
	if err := errors.Join(err, <-got); err != nil {
		return err
	}
	s.Out.linef("   reply after %v", rtt.Round(10*time.Microsecond))
	return nil
}

func (s *Stage) blocked(ctx context.Context) error {
	w := s.Network
	return s.refused(ctx, w.Alice, netip.AddrPortFrom(w.Web.Addr, 25), "egress", w.WANSwitch)
}

func (s *Stage) intruder(ctx context.Context) error {
	w := s.Network
	return s.refused(ctx, w.Mallory, netip.AddrPortFrom(w.Alice.Addr, 22), "ingress", w.LANSwitch)
}

// refused connects to a listener, and checks that the firewall drops the request and
// that nothing of it is on the far side.
func (s *Stage) refused(
	ctx context.Context, from *netlab.Host, dst netip.AddrPort, direction string, far *netlab.Switch,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var leaked atomic.Int64
	far.Tap(func(_ string, f []byte) {
		// IPv4, to this address and port, no options (RFC 791, RFC 9293).
		if len(f) >= 38 && f[12] == 8 && f[13] == 0 && f[14] == 0x45 && netip.AddrFrom4([4]byte(f[30:34])) == dst.Addr() &&
			uint16(f[36])<<8|uint16(f[37]) == dst.Port() {
			leaked.Add(1)
		}
	})
	wait := s.expect("tcp", direction, from.Addr, dst.Addr(), dst.Port())
	connected := async(func() error {
		c, err := from.DialTCP(ctx, dst)
		if err != nil {
			return nil
		}
		c.Close()
		return errors.New("the connection was established")
	})
	_, err := s.decided(ctx, wait, ecs.Drop)
	if err != nil {
		cancel()
		return errors.Join(err, <-connected)
	}
	select {
	case err = <-connected:
	case <-time.After(noAnswer):
		cancel()
		err = <-connected
	}
	if n := leaked.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets passed", n))
	}
	if err == nil {
		s.Out.linef("   no answer, and nothing on the other side: %s never learns that anybody is there", from.Name)
	}
	return err
}

// Idle sends a request every two seconds until ctx ends.
func (s *Stage) Idle(ctx context.Context) {
	w := s.Network
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	for i := 0; ; i++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		c, cancel := context.WithTimeout(ctx, time.Second)
		switch i % 5 {
		case 0:
			w.Alice.Resolve(c, w.DNS.Addr, w.WebName()) //nolint:errcheck // the verdict is printed
		case 1:
			get(c, w.Bob, w.Web.Addr, "/") //nolint:errcheck // as above
		case 2:
			w.Bob.Ping(c, w.Web.Addr) //nolint:errcheck // as above
		case 3:
			get(c, w.Alice, w.Web.Addr, "/") //nolint:errcheck // as above
		case 4:
			if conn, err := w.Mallory.DialTCP(c, netip.AddrPortFrom(w.Bob.Addr, 22)); err == nil {
				conn.Close()
			}
		}
		cancel()
	}
}

// get fetches a page of the web server.
func get(ctx context.Context, from *netlab.Host, server netip.Addr, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+netip.AddrPortFrom(server, 80).String()+path, nil)
	if err != nil {
		return "", err
	}
	r, err := from.HTTP().Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	return string(b), err
}

// async runs f in a goroutine.
func async(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

func last(r []netlab.Request) netip.AddrPort {
	if len(r) == 0 {
		return netip.AddrPort{}
	}
	return r[len(r)-1].Source
}

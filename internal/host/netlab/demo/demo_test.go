package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// stage returns a stage with the data plane itself, under the given policy,
// between the two sides.
func stage(t *testing.T, src string, out *bytes.Buffer) *Stage {
	t.Helper()
	w, err := netlab.New(netlab.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	seg := policytest.Compile(t, src)
	pool := framebuf.NewPool(make([]byte, 1024*framebuf.Size), 0)
	wake := make(chan struct{}, 1)
	lan := netlab.NewPoolPort(w.LANSwitch, "vm", pool, wake)
	wan := netlab.NewPoolPort(w.WANSwitch, "vm", pool, wake)
	ring := event.NewRing(1024)
	e, err := router.New(router.Config{Policy: seg, Pool: pool, Events: ring, Secret: [32]byte{1},
		Ports: []router.PortConfig{{Role: ruleset.LAN, Port: lan, MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500},
			{Role: ruleset.WAN, Port: wan, MAC: [6]byte{2, 0, 0, 0, 0, 2}, MTU: 1500}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Stage{Network: w, Feed: &Feed{}, Out: Printer{W: out}}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	t.Cleanup(func() { stop(); <-over })
	go func() {
		defer close(over)
		poll(ctx, e, wake, ring, func(r *event.Record) {
			line := export.AppendEvent(nil, r, &export.Context{Policy: seg, Clock: "none"})
			ev, err := ecs.Parse(string(line))
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			s.Feed.Add(ev)
		})
	}()
	return s
}

// poll runs the data plane on the wall clock until ctx ends.
func poll(ctx context.Context, e *router.Engine, wake <-chan struct{}, ring *event.Ring, tell func(*event.Record)) {
	start := time.Now()
	var r event.Record
	for ctx.Err() == nil {
		now := int64(time.Since(start))
		n := e.Poll(now)
		for ring.Get(&r) {
			tell(&r)
		}
		if n > 0 {
			continue
		}
		wait := time.NewTimer(min(time.Second, max(0, time.Duration(e.NextDeadline()-now))))
		select {
		case <-wake:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

func rules(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// port stands for any port or duration in the narration.
var port = regexp.MustCompile(`:\d{4,5}\b|after \S+|as 203\.0\.113\.10:\d+`)

// TestPlay: under the repository's rules.yaml every step succeeds, and the narration has
// its verdicts.
func TestPlay(t *testing.T) {
	var out bytes.Buffer
	s := stage(t, rules(t), &out)
	s.Topology()
	if err := s.Play(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"ACCEPT  egress  udp   10.0.0.2:P → 198.51.100.53:53  rule allow-dns, P",
		"ACCEPT  egress  tcp   10.0.0.2:P → 198.51.100.80:80  rule allow-web, P",
		"ACCEPT  egress  tcp   10.0.0.3:P → 198.51.100.80:80  rule allow-web, P",
		"ACCEPT  egress  icmp  10.0.0.2 → 198.51.100.80 echo  rule allow-ping",
		"DROP    egress  tcp   10.0.0.2:P → 198.51.100.80:25  default-deny (no_matching_allow_rule)",
		"DROP    ingress tcp   203.0.113.2:P → 10.0.0.2:22  default-deny (no_matching_allow_rule)",
		"the server says: hello from 198.51.100.80, you are 203.0.113.10:P",
	} {
		got := port.ReplaceAllStringFunc(out.String(), func(s string) string {
			if s[0] == ':' {
				return ":P"
			}
			return "P"
		})
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("colour without a terminal")
	}
}

// TestPlayNamesTheStepThatFails: under other policies the demonstration names the steps
// that fail.
func TestPlayNamesTheStepThatFails(t *testing.T) {
	yes := rules(t)
	for name, c := range map[string]struct {
		policy string
		failed []string
	}{
		"no dns":  {strings.Replace(yes, "destination_port: 53 ", "destination_port: 54 ", 1), []string{"step 1"}},
		"mail":    {strings.Replace(yes, "[80, 443]", "[80, 25]", 1), []string{"step 5"}},
		"no ping": {strings.Replace(yes, "protocol: icmp", "protocol: udp, destination_port: 9", 1), []string{"step 4"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := stage(t, c.policy, &out)
			s.limit = time.Second
			err := s.Play(t.Context())
			if err == nil {
				t.Fatalf("every step went well:\n%s", out.String())
			}
			for _, f := range c.failed {
				if !strings.Contains(err.Error(), f) {
					t.Errorf("%v; want %s", err, f)
				}
			}
			if n := strings.Count(out.String(), "did not go as it should"); n != len(c.failed) {
				t.Errorf("%d steps failed, want %v:\n%s", n, c.failed, out.String())
			}
		})
	}
}

func TestPlayEndsWithItsContext(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	var out bytes.Buffer
	if err := stage(t, rules(t), &out).Play(ctx); err != why {
		t.Errorf("%v, want %v", err, why)
	}
}

func TestFeed(t *testing.T) {
	var f Feed
	event := func(from, to string) ecs.Event {
		return ecs.Event{ecs.SourcePort: json.Number(from), ecs.DestinationPort: json.Number(to)}
	}
	web := func(e ecs.Event) bool { return e.Destination().Port() == 80 }
	first, second := f.Expect(web), f.Expect(web)
	if f.Add(event("1", "53")) {
		t.Error("an event was taken that nobody waits for")
	}
	f.Add(event("1", "80"))
	f.Add(event("2", "80"))
	if f.Add(event("3", "80")) {
		t.Error("a third event was taken")
	}
	for i, wait := range []func(context.Context) (ecs.Event, error){first, second} {
		if e, err := wait(t.Context()); err != nil || int(e.Source().Port()) != i+1 {
			t.Errorf("%d: %+v, %v", i, e, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Expect(web)(ctx); err == nil {
		t.Error("an event was found although none was added")
	}
	if f.Add(event("1", "80")) {
		t.Error("an event was taken by a wait that has ended")
	}
}

func TestColour(t *testing.T) {
	var out bytes.Buffer
	p := Printer{W: &out, Color: true}
	p.Event(time.Now(), ecs.Event{ecs.EventAction: ecs.Drop})
	if s := out.String(); !strings.Contains(s, red) || !strings.Contains(s, reset) {
		t.Errorf("%q", s)
	}
}

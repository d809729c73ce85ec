package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
)

// A readerMode is whether run reads the firewall's stream itself.
type readerMode string

// The modes.
const (
	readerAuto readerMode = "auto" // unless another process does
	readerNone readerMode = "none"
)

// defaultPage is the address of the page and the metrics. The collector serves its
// metrics at the same address, so that Prometheus' configuration does not depend on
// which of them runs.
const defaultPage = "127.0.0.1:9464"

// retakePause is the interval in which run tries to take over the stream.
const retakePause = 2 * time.Second

// startReader starts to read the firewall's stream, to serve followers (thurward
// events and thurward top) and the page. While another process reads the stream, a
// collector or another run, it waits for that process's end. The function that it
// returns stops it; reads is whether this process or another one reads the stream.
func (l *launch) startReader(ctx context.Context) (stop func(), reads bool) {
	if l.vsock.Path == "" || l.reader == readerNone {
		return func() {}, false
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	st, err := l.openReader()
	if err != nil {
		l.sayReader(err)
	}
	reads = err == nil || errors.Is(err, ingest.ErrInUse)
	wg.Go(func() {
		for first := err; ; first = err {
			if st != nil {
				l.sayReading(st)
				if err := st.Run(ctx); err != nil {
					l.say("reading the firewall's stream: %v", err)
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(retakePause):
			}
			if first != nil && !errors.Is(first, ingest.ErrInUse) {
				return // trying again would not help
			}
			st, err = l.openReader()
		}
	})
	return func() { cancel(); wg.Wait() }, reads
}

// openReader opens the sockets. If the page's address is in use it gets another port.
func (l *launch) openReader() (*dashboard.Receiver, error) {
	path, token := l.vsock.Path, l.pageToken
	if token == "" {
		token = dashboard.TokenPath(path)
	}
	open := func(page string) (*dashboard.Receiver, error) {
		st := &dashboard.Receiver{
			Guest: "unix:" + l.vsock.Socket(), Tail: "unix:" + ingest.TailSocket(path),
			Page: page, Web: l.web, Insecure: l.pageInsecure, Token: token, Say: l.say, More: l.restarts.WriteMetrics, Policies: &l.policies,
		}
		if err := st.Open(); err != nil {
			return nil, err
		}
		return st, nil
	}
	st, err := open(l.page)
	if errors.Is(err, syscall.EADDRINUSE) && dashboard.CheckPage(l.page) == nil {
		l.say("%s is taken; the page gets another port", l.page)
		st, err = open("127.0.0.1:0")
	}
	return st, err
}

func (l *launch) sayReader(err error) {
	if errors.Is(err, ingest.ErrInUse) {
		l.say("another process reads the stream already (thurward-collector, or another run): " +
			"thurward events and thurward top follow that one")
		return
	}
	l.say("the stream is not read here: %v", err)
}

// sayReading prints where the firewall can be watched.
func (l *launch) sayReading(st *dashboard.Receiver) {
	socket := ""
	if l.vsock.Path != ingest.DefaultPath() {
		socket = " --socket " + ingest.TailSocket(l.vsock.Path)
	}
	at := ""
	if u := st.PageURL(); u != "" && l.journal == nil { // the journal has other readers
		at = "; page " + u
	}
	if u := st.MetricsURL(); u != "" {
		if st.AsksItself() {
			at += fmt.Sprintf(" (for you only: it holds a token), Prometheus metrics %s with the token in %s", u, st.Token)
		} else {
			at += fmt.Sprintf(", Prometheus metrics %s, both by --page-config", u)
		}
	}
	l.say("watch it with thurward events%s or thurward top%s%s", socket, socket, at)
}

// parseReader checks the flags of the reader. web is nil without a web configuration.
func parseReader(mode, page string, web *dashboard.Web, insecure bool) (readerMode, string, error) {
	switch readerMode(mode) {
	case readerAuto, readerNone:
	default:
		return "", "", fmt.Errorf("--reader: unknown value %q (want auto or none)", mode)
	}
	if page == "none" {
		return readerMode(mode), "", nil
	}
	if err := dashboard.CheckPageFor(page, web, insecure); err != nil {
		return "", "", fmt.Errorf("--page: %w (for other hosts: --page-config, or --page-insecure)", err)
	}
	return readerMode(mode), page, nil
}

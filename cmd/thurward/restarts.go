package main

import (
	"io"
	"sync"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

// restarts counts the restarts of the firewall by reason. It is safe for concurrent use.
type restarts struct {
	mu     sync.Mutex
	counts map[vmm.Reason]uint64
}

func (r *restarts) add(why vmm.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[vmm.Reason]uint64{}
	}
	r.counts[why]++
}

// WriteMetrics writes the counts in Prometheus' text format.
func (r *restarts) WriteMetrics(w io.Writer) {
	const name = "thurward_launcher_restarts_total"
	printable.Fprintf(w, "# HELP %s Restarts of the firewall since its launcher was started, by reason.\n# TYPE %s counter\n", name, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reason := range vmm.Reasons {
		printable.Fprintf(w, "%s{reason=\"%s\"} %d\n", name, string(reason), r.counts[reason])
	}
}

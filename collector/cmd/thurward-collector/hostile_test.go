package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// memoryLimit is limit_mib of default.yaml.
const memoryLimit = 512 << 20

// TestWorstOfAll: captured guests that send all they can, ever new series and
// events of the largest size, do not make the collector pass its limit, and
// neither what an honest firewall tells is lost nor its metrics.
func TestWorstOfAll(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(heapGoal)) // as run does
	r := startDefault(t)
	honest := &guesttest.Guest{Boot: "aa", WAN: "203.0.113.10/24", Start: time.Now().Add(-time.Hour)}
	send, _ := guesttest.Dial(t, ingest.GuestSocket(r.path))
	send(honest.Hello(time.Now()))
	send(honest.Snapshot()...)
	stop := make(chan struct{})
	var peak uint64
	var watch, guests sync.WaitGroup
	watch.Go(func() {
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	for g := range 6 {
		guests.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestGuestOfTheWorst$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", worstGuest, g))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("guest %d: %v\n%s", g, err, out)
			}
		})
	}
	send(strings.Replace(honest.Event(time.Now()), "allow-web", "honest-word", 1))
	send(honest.Snapshot()...)
	guests.Wait()
	until(t, "the honest event", func() bool {
		files, _ := filepath.Glob(filepath.Join(r.state, "logs*.json"))
		for _, f := range files {
			if b, _ := os.ReadFile(f); bytes.Contains(b, []byte("honest-word")) {
				return true
			}
		}
		return false
	})
	until(t, "the honest metrics", func() bool {
		return strings.Contains(get("http://"+r.metrics+"/metrics"), `thurward_conntrack_capacity{instance="203.0.113.10",job="thurward"} 65536`)
	})
	close(stop)
	watch.Wait()
	if peak > memoryLimit {
		t.Errorf("the heap had %d MB", peak>>20)
	}
	t.Logf("the heap had %d MB at most", peak>>20)
}

const worstGuest = "THURWARD_WORST_GUEST"

// TestGuestOfTheWorst is a captured guest, in a process of its own.
func TestGuestOfTheWorst(t *testing.T) {
	g := os.Getenv(worstGuest)
	if g == "" {
		t.Skip("a part of TestWorstOfAll")
	}
	c, err := guesttest.Conn(ingest.GuestSocket(os.Getenv("THURWARD_SOCKET")), "worst"+g+"-"+fmt.Sprint(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(60 * time.Second)) //nolint:errcheck // a test
	w := bufio.NewWriter(c)
	fmt.Fprintf(w, `# HELLO {"service.instance.id":"b%s","firewall.wan.address":"198.51.100.%s/24"}`+"\n", g, g)
	for round := range 3 {
		fmt.Fprint(w, "# METRIC # SNAPSHOT x\n")
		for i := range 30000 {
			fmt.Fprintf(w, "# METRIC thurward_rule_accepts_total{rule_id=\"%d-%0*d\"} 1\n", round, ingest.MaxLabelValue-2, i)
		}
		fmt.Fprint(w, "# METRIC # EOF\n")
		for i := range 500 {
			fmt.Fprintf(w, `{"event.action":"drop","event.reason":"rule","source.ip":"10.0.0.%d","destination.domain":"%s"}`+"\n", i, strings.Repeat("n", 15000))
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

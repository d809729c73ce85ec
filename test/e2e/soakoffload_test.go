package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// bulk is both ends of connections that carry 8 MB one way and then the other, by digest: the
// server's with "serve", the client's with an address and for how many seconds it makes new ones.
// The client says how many it made.
const bulk = `
import hashlib, os, socket, socketserver, sys, time
def read(c):
    b = bytearray()
    while part := c.recv(1 << 18):
        b += part
    return bytes(b)
class Serve(socketserver.BaseRequestHandler):
    def handle(self):
        b = read(self.request)
        self.request.sendall(hashlib.sha256(b).digest() + b)
if sys.argv[1] == "serve":
    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
    Server(("", 80), Serve).serve_forever()
b, end, n = os.urandom(8 << 20), time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    try:
        c = socket.create_connection((sys.argv[1], 80), 60)
    except ConnectionRefusedError:
        if n > 0:
            raise
        time.sleep(0.1) # it does not listen yet
        continue
    try:
        rest = memoryview(b)
        while rest: # 60 seconds without progress, not for all of it
            rest = rest[c.send(rest):]
        c.shutdown(socket.SHUT_WR)
        got = read(c)
    except TimeoutError:
        print("connection %d, port %d, %d bytes not sent" % (n, c.getsockname()[1], len(rest)), flush=True)
        os.execvp("ss", ["ss", "-tino"])
    if got != hashlib.sha256(b).digest() + b:
        sys.exit("connection %d: other bytes than were sent" % n)
    c.close()
    n += 1
print(n)
`

// TestSoakOffloads is TestSoak over TAP devices between two Linux hosts, so that most packets come
// and go in large segments: what arrives is what was sent, nothing stands still or grows, no device
// is set up again, and no frame is taken for malformed.
func TestSoakOffloads(t *testing.T) {
	eachAlone(t, func(t *testing.T, kvm bool) {
		h := newHosts(t)
		l, r := watched(t, kvm, func(c *vmm.Config) {
			c.Append += " GODEBUG=gctrace=1"
			for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
				b, err := vmm.NewBackend(s, vmm.Network{Queues: vmm.Queues(processors())})
				if err != nil {
					t.Skip(err)
				}
				c.NICs[i].Backend = b
			}
		})
		server := exec.Command("ip", "netns", "exec", h.wan, "python3", "-c", bulk, "serve")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			server.Process.Kill() //nolint:errcheck // it may have ended
			server.Wait()         //nolint:errcheck // killed
		}()
		g := watchGaps(r)
		before, idle := r.busy()
		host := watchHost(t, *soakStall > 0)
		began := time.Now()
		seconds := strconv.Itoa(int(soakFor.Seconds()))
		var wg sync.WaitGroup
		var pings string
		done := make([]int, 3)
		for i := range done {
			wg.Go(func() {
				out, err := h.in(bounded(t, *soakFor+2*time.Minute), h.lan, "python3", "-c", bulk, "198.51.100.80", seconds)
				if done[i], _ = strconv.Atoi(strings.TrimSpace(out)); err != nil || done[i] == 0 {
					t.Errorf("client %d: %v: %s", i, err, out)
				}
			})
		}
		wg.Go(func() {
			var err error
			if pings, err = h.in(bounded(t, *soakFor+time.Minute), h.lan, "ping", "-q", "-i", "0.05", "-w", seconds, "198.51.100.80"); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
		wg.Wait()
		after, busy := r.busy()
		host.end()
		most := *soakStall
		if most == 0 {
			most = time.Second / 2
		}
		s := &soak{t: t, lab: l, began: began}
		s.stalls(follow(l), host, g, most)
		whole := after["thurward_large_forwarded_total"] - before["thurward_large_forwarded_total"]
		if whole == 0 {
			t.Error("no large segment has passed")
		}
		for series, n := range after {
			if strings.HasPrefix(series, "thurward_drops_total") && n != before[series] {
				t.Logf("%s: %d", series, n-before[series])
			}
			for _, bad := range []string{"thurward_interface_receive_malformed_total", "thurward_interface_resets_total", "thurward_device_violations_total"} {
				if strings.HasPrefix(series, bad) && n != before[series] {
					t.Errorf("%s: %d, %d before", series, n, before[series])
				}
			}
		}
		if !kvm && processors() > 1 {
			shared(t, after, idle, busy, time.Since(began))
		}
		first, last, n := l.heap()
		if n > 4 && last > first+4 {
			t.Errorf("the live heap grew from %d to %d MB", first, last)
		}
		if len(l.ready) > 0 {
			t.Error("the machine has started again")
		}
		total := done[0] + done[1] + done[2]
		t.Logf("%v: %d connections with %d MB each way, %d large segments whole; %d collections, live heap %d MB, then %d MB; ping:%s",
			*soakFor, total, 8*total, whole, n, first, last, pings[strings.LastIndex(pings, "---")+3:])
	})
}

// shared requires that each of several workers had a tenth of an equal share of the work at least,
// that none had more than there was time for, and that packets were handed over.
func shared(t *testing.T, m map[string]uint64, before, after map[string]float64, took time.Duration) {
	t.Helper()
	if m["thurward_workers"] < 2 || len(after) != int(m["thurward_workers"]) {
		t.Errorf("%d workers, busy: %v", m["thurward_workers"], after)
	}
	all, over := 0.0, uint64(0)
	for series, v := range after {
		all += v - before[series]
	}
	for series, v := range after {
		if v -= before[series]; v < all/float64(10*len(after)) || v > took.Seconds() {
			t.Errorf("%s: %.3f of %.3f s, in %v", series, v, all, took)
		}
	}
	for series, n := range m {
		if strings.HasPrefix(series, "thurward_worker_handed_over_total") {
			over += n
			t.Logf("%s: %d", series, n)
		}
	}
	if over == 0 {
		t.Error("no packet was handed over")
	}
	t.Logf("busy, in seconds: %v, %v before", after, before)
}

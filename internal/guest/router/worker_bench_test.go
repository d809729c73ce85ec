package router

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// threadCPU returns the processor time of the calling thread.
func threadCPU() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	_ = syscall.Getrusage(thread, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loopsOf makes n workers with flows established flows, and ports that receive one frame of
// each in random order, at the worker whose it is or, with astray, at any.
func loopsOf(b testing.TB, n, flows int, astray bool, edit func(p *ruleset.Policy)) (*lab, []*loop, []*loop) {
	l := withWorkers(b, n, func(p *ruleset.Policy) {
		if p.Settings.MaxFlows = 128 << 10; edit != nil {
			edit(p)
		}
	}, "accept egress", established)
	l.e.events = nil
	var in, out []*loop
	for k, e := range l.engines() {
		e.events = nil
		in, out = append(in, &loop{pool: e.pool, size: 60}), append(out, &loop{pool: e.pool})
		l.one(lan, udp(host, uint16(2000+2*k), web, 53)) // worker k asks for the gateway
		e.port[wan].neigh.Find(ip("203.0.113.1")).Expires = math.MaxInt64
	}
	frames := make([][]byte, n)
	for i := range flows {
		f := template(i, 60)
		k := 0
		if n > 1 {
			var p packet.Packet
			packet.ParseIPv4(f, &p)
			key := keyOf(&p)
			k = l.e.w.steer.FromLAN(&key)
		}
		frames[k] = append(frames[k], f...)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for k, e := range l.engines() {
		for i := range r.Perm(len(frames[k]) / 60) {
			j := r.IntN(len(frames[k]) / 60)
			var t [60]byte
			copy(t[:], frames[k][i*60:])
			copy(frames[k][i*60:][:60], frames[k][j*60:])
			copy(frames[k][j*60:], t[:])
		}
		in[k].frames = append(huge(len(frames[k]), true)[:0], frames[k]...)
		e.port[lan].Port, e.port[wan].Port = in[k], out[k]
		for in[k].left = len(frames[k]) / 60; in[k].left > 0; {
			e.Poll(1e9)
		}
	}
	if astray {
		for k := range in {
			in[k].frames = append(huge(len(frames[1-k]), true)[:0], frames[1-k]...)
		}
	}
	return l, in, out
}

// together has all workers handle some packets each, at once, and returns the processor time
// of all.
func (l *lab) together(in, out []*loop, each int, poll func(e *Engine, in *loop)) (sum time.Duration) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent := 0
	for k := range in {
		in[k].left = each
		sent += each + out[k].sent
	}
	for k, e := range l.engines() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			start := threadCPU()
			poll(e, in[k])
			mu.Lock()
			sum += threadCPU() - start
			mu.Unlock()
		}()
	}
	wg.Wait()
	return sum
}

// BenchmarkWorkers compares one worker with two that run at once, by turns, by the processor
// time that each takes for a packet: what two cost more than one is what they share. The
// result is how many times as much two processors do as one.
func BenchmarkWorkers(b *testing.B) {
	const flows = 60 << 10
	now := [3]int64{0, 1e9, 1e9}
	for _, c := range []struct {
		name string
		new  bool
	}{{"established", false}, {"new", true}} {
		b.Run(c.name, func(b *testing.B) {
			var labs [3]*lab
			var in, out [3][]*loop
			for n := 1; n <= 2; n++ {
				labs[n], in[n], out[n] = loopsOf(b, n, flows, false, nil)
			}
			var cost [3]time.Duration
			var done [3]int
			b.ResetTimer()
			for total := 0; total < b.N; total += flows {
				for n := 1; n <= 2; n++ {
					each := flows / n
					if c.new {
						now[n] += 121 * second
						for _, e := range labs[n].engines() {
							e.tick = now[n] + second // no sweep: the look-ups do its work
						}
					} else {
						now[n] += 1e6
					}
					cost[n] += labs[n].together(in[n], out[n], each, func(e *Engine, in *loop) {
						for in.left > 0 {
							e.Poll(now[n])
						}
					})
					done[n] += each * n
				}
			}
			b.StopTimer()
			for n := 1; n <= 2; n++ {
				sent := 0
				for _, o := range out[n] {
					sent += o.sent
				}
				if sent < done[n] {
					b.Fatalf("%d workers: %d of %d sent", n, sent, done[n])
				}
				if inserts := uint64(0); c.new {
					for _, e := range labs[n].engines() {
						inserts += e.flows.C.Inserts
					}
					if inserts < uint64(done[n]) {
						b.Fatalf("%d workers: %d flows for %d packets", n, inserts, done[n])
					}
				}
			}
			one, two := cost[1].Seconds()/float64(done[1]), cost[2].Seconds()/float64(done[2])
			b.ReportMetric(one*1e9, "ns/packet-1")
			b.ReportMetric(two*1e9, "ns/packet-2")
			b.ReportMetric(2*one/two, "times")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkHandover hands every packet over: two workers get each other's.
func BenchmarkHandover(b *testing.B) {
	const flows = 60 << 10
	l, in, out := loopsOf(b, 2, flows, true, nil)
	for _, o := range out {
		o.sent = 0
	}
	b.ReportAllocs()
	b.ResetTimer()
	cost := time.Duration(0)
	for n := 0; n < b.N; n += flows {
		start := cpu()
		for in[0].left, in[1].left = flows/2, flows/2; in[0].left+in[1].left > 0; {
			for _, e := range l.engines() {
				e.Poll(1e9)
			}
		}
		cost += cpu() - start
	}
	b.StopTimer()
	for range 10 {
		for _, e := range l.engines() {
			e.Poll(1e9)
		}
	}
	if lost := l.e.c.DropReasons; out[0].sent+out[1].sent < b.N {
		b.Fatalf("%d of %d sent: %v", out[0].sent+out[1].sent, b.N, lost)
	}
	b.ReportMetric(float64(b.N)/cost.Seconds()/1e6, "Mpps/cpu")
}

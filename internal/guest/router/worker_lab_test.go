package router

import (
	"encoding/binary"
	"flag"
	"hash/fnv"
	"os"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// workers is how many workers a lab has: go test -workers 4 runs every scenario with four.
var workers = 1

func TestMain(m *testing.M) {
	n := flag.Int("workers", 1, "workers of each lab: 1, 2, 4 or 8")
	flag.Parse()
	if workers = *n; workers > 1 {
		skip := ""
		for _, names := range oneOnly {
			skip += "|" + strings.ReplaceAll(names, " ", "|")
		}
		if err := flag.Set("test.skip", "^("+skip[1:]+")$"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// oneOnly are the tests that are not about several workers, by what they do.
var oneOnly = map[string]string{
	"they look into, or change, the first worker alone": "TestHeldSYNQuotes TestAnswersWithoutBuffers TestOwnMessages TestRFC5508_REQ2a_TheTimerIsConfigurable " +
		"TestDoTWithoutClock TestEventsOfQueries TestEachMetricIsItsCounter TestRFC4787_REQ1_ServerToItsOwnClient TestRFC5382_REQ4_HeldIsBounded " +
		"TestS15_HalfOpenIsReclaimedFirst TestS20_ForwardedPortsAreReserved TestS15_SYNFlood TestS15_SourceFlows TestShares_Ports " +
		"TestShares_HeldSYNs TestSweepCatchesUp TestTranslationsAreCounted TestIdentifications TestOwnMessagesWithoutBuffers " +
		"TestShares_WaitingFrames TestFastPathTakes TestFastPathCounts TestBothWaysAreFastAfterSettling TestWhoseIdentification TestARP_WithoutBuffers TestReseed TestExpect TestNumbersAreDrawnAnew",
	"they count batches, or calls of a port": "TestDeviceThatTakesNothing TestPollCountsFrames TestReceiveWaitsForRoom TestBatchesLeaveTogether",
	"they expect an order between flows, or between their events": "TestEventsSayAll TestFastPathRuns TestBatchOfAllKinds TestTwoSlowPackets " +
		"TestRFC1122_S2_3_2_2_ADatagramWaitsWhole TestManyAtOnce TestLargeIsItsSegments TestUntranslatedEvents",
	"they fill what each worker has a part of": "TestS15_TableFull TestRestartCountsForItsOwnSource TestARP_UnresolvedGivesUp TestShares_Flows TestSNIHolds",
	"their harness allocates":                  "TestAllocations TestAllocationsOfRarePackets",
	"they look at documents":                   "TestReasonsAreDocumented TestPromisedNames TestWorkersRunScenarios",
}

// A queue is one of several queues of a wire, that of one worker. Which frames it gets is
// arbitrary, except that those between two hosts keep their order.
type queue struct {
	w    *wire
	pool *framebuf.Pool
	k, n int
	salt uint64
}

// mine reports whether a frame comes to this queue.
func (q *queue) mine(f []byte) bool {
	h := fnv.New64a()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], q.salt)
	h.Write(b[:])
	if len(f) >= packet.EthLen+packet.MinIPv4 {
		h.Write(f[packet.EthLen+12 : packet.EthLen+20])
	}
	return int(h.Sum64()>>8)&(q.n-1) == q.k
}

func (q *queue) Receive(dst []framebuf.Frame) int {
	n := 0
	if len(q.w.large) > 0 && q.k == 0 {
		n = q.w.receiveLarge(dst)
	}
	var rest [][]byte
	for i, f := range q.w.in {
		if n == len(dst) {
			rest = append(rest, q.w.in[i:]...)
			break
		}
		if !q.mine(f) {
			rest = append(rest, f)
			continue
		}
		b, ok := q.pool.Get()
		if !ok {
			rest = append(rest, q.w.in[i:]...)
			break
		}
		k := copy(q.pool.Buffer(b)[framebuf.Headroom:], f)
		dst[n] = framebuf.Frame{Buf: b, Len: uint32(k)}
		n++
	}
	q.w.in = rest
	return n
}

func (q *queue) HasRoom(n int) bool { return q.w.HasRoom(n) }

func (q *queue) Transmit(src []framebuf.Frame) int {
	was := q.w.pool
	q.w.pool = q.pool
	n := q.w.Transmit(src)
	q.w.pool = was
	return n
}

// labLong is how many long buffers each of several workers of a lab has.
const labLong = 3

// newWorkersLab makes a lab of several workers, of which the first is its engine. After each
// poll the counters of the others are added to its, so that tests see sums.
func newWorkersLab(t testing.TB, alloc conntrack.Alloc, p *ruleset.Policy, n int) *lab {
	l := &lab{t: t, policy: p, now: 1e9}
	_, span := Buffers(LargestMTU(p, 0, 0))
	all := framebuf.NewPoolOf(alloc(n*2048*span*framebuf.Size, true), 0, span)
	all.AddLong(alloc(n*labLong*framebuf.LongSize, true), 0)
	pools := all.Split(n)
	l.pool = pools[0]
	for i := range l.port {
		l.port[i] = &wire{pool: l.pool}
	}
	h := fnv.New64a()
	h.Write([]byte(t.Name()))
	var each []Worker
	for k := range n {
		q := [2]*queue{}
		for i := range q {
			q[i] = &queue{w: l.port[i], pool: pools[k], k: k, n: n, salt: h.Sum64() + uint64(i)}
		}
		l.rings = append(l.rings, event.NewRing(4096))
		each = append(each, Worker{Pool: pools[k], Ports: portsOf(q[lan], q[wan]), Events: l.rings[k]})
	}
	l.events = l.rings[0]
	engines, err := NewWorkers(Config{ClockSet: true, Alloc: alloc, Policy: p, Secret: [32]byte{1, 2, 3, 9: 7, 17: 5, 25: 3}}, each)
	if err != nil {
		t.Fatal(err)
	}
	l.e, l.others = engines[0], engines[1:]
	return l
}

// poll polls all workers once, and then while one has something for another. It returns the
// number of frames.
func (l *lab) poll() int {
	n := l.e.Poll(l.now)
	if l.others == nil {
		return n
	}
	for _, e := range l.others {
		e.plain, e.defrag = l.e.plain, l.e.defrag
		if l.e.events == nil {
			e.events = nil
		}
	}
	for round, again := 0, true; again && round < 8; round++ { // a port without room holds some up
		for _, e := range l.others {
			n += e.Poll(l.now)
		}
		again = false
		for _, e := range l.engines() {
			for _, r := range e.w.in {
				again = again || r != nil && !r.Empty()
			}
		}
		if again {
			n += l.e.Poll(l.now)
		}
	}
	for _, e := range l.others {
		l.e.c.Add(&e.c)
		zero(&e.c)
	}
	return n
}

// hear takes the events out of a ring.
func (l *lab) hear(q *event.Ring) {
	for {
		var r event.Record
		name, ok := q.GetNamed(&r, nil)
		if !ok {
			break
		}
		l.seen = append(l.seen, r)
		l.names = append(l.names, string(name))
	}
}

// engines are all workers.
func (l *lab) engines() []*Engine { return append([]*Engine{l.e}, l.others...) }

func zero(c *Counters) {
	clear(c.Accepts)
	clear(c.Drops)
	clear(c.Shadows)
	*c = Counters{Accepts: c.Accepts, Drops: c.Drops, Shadows: c.Shadows}
}

// buffersOfWorkers checks that no buffer is lost, wherever it is, and that each worker has
// what it began with, up to what it is owed.
func (l *lab) buffersOfWorkers() {
	l.t.Helper()
	all, owed := 0, make([]int, 1+len(l.others))
	for _, e := range l.engines() {
		for to, n := range e.w.owes {
			owed[to] += n
		}
	}
	for k, e := range l.engines() {
		has := e.pool.Free() + e.frags.Held() + e.sni.Segments()
		for i := range e.port {
			has += e.port[i].neigh.Waiting()
		}
		for _, n := range e.w.owes {
			has -= n
		}
		if has+owed[k] != e.pool.Cap()/len(owed) {
			l.t.Fatalf("worker %d has %d buffers and is owed %d, of %d", k, has, owed[k], e.pool.Cap()/len(owed))
		}
		all += has + owed[k]
	}
	if all != l.pool.Cap() {
		l.t.Fatalf("%d buffers of %d", all, l.pool.Cap())
	}
	long := 0
	for k, e := range l.engines() {
		has := e.pool.FreeLong()
		for _, o := range l.engines() {
			has += o.w.long[k]
		}
		for _, n := range e.w.long {
			has -= n
		}
		if has != labLong {
			l.t.Fatalf("worker %d has %d long buffers, of %d", k, has, labLong)
		}
		long += has
	}
	if long != labLong*(1+len(l.others)) {
		l.t.Fatalf("%d long buffers", long)
	}
}

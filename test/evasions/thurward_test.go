package evasions

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// thurward is the data plane in process, in virtual time.
type thurward struct {
	fw  *replay.Firewall
	out [2][][]byte
}

// compiled is the policy of an attack.
func compiled(t testing.TB, at *attack) *ruleset.Policy {
	t.Helper()
	text := strings.NewReplacer("SET", cmp.Or(at.set, "max_flows: 4096"), "PREFIX", cmp.Or(at.prefix, "24"),
		"PORTS", cmp.Or(at.ports, "1024-65535")).Replace(policyText)
	return policytest.Compile(t, text)
}

func newThurward(t testing.TB, at *attack) *thurward {
	t.Helper()
	x := &thurward{}
	var err error
	x.fw, err = replay.NewFirewall(replay.Config{Policy: compiled(t, at), Seed: 1, Buffers: 2048,
		Sent: func(s replay.Side, _ int64, f []byte) { x.out[s] = append(x.out[s], bytes.Clone(f)) }})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *thurward) put(s side, f []byte) { x.fw.Receive(replay.Side(s), x.fw.Now(), f) }

func (x *thurward) settle() [2][][]byte {
	out := x.out
	x.out = [2][][]byte{}
	return out
}

func (x *thurward) pass(d time.Duration) { x.fw.Advance(x.fw.Now() + int64(d)) }

func (x *thurward) mac(s side) [6]byte { return x.fw.MAC(replay.Side(s)) }

func (*thurward) begin() (port, id uint16) { return 20000, 100 }

func (x *thurward) note() string {
	var s []string
	for r, n := range x.fw.Engine().Counters().DropReasons {
		if n > 0 {
			s = append(s, fmt.Sprintf("%v=%d", verdict.Reason(r), n))
		}
	}
	slices.Sort(s)
	return fmt.Sprint("drops: ", s)
}

// inCounter is why an attack that counter is asked about cannot be run elsewhere.
const inCounter = "it is seen in a counter of thurward's"

// counter is a metric of the data plane's, all its series together.
func counter(a *arena, name string) (n uint64) {
	x, ok := a.fw.(*thurward)
	if !ok {
		a.t.Fatal("only thurward in process has counters to look at")
	}
	for _, f := range x.fw.Engine().Metrics() {
		if f.Name == name {
			v := make([]uint64, max(f.N, 1))
			f.Fill(v)
			for _, x := range v {
				n += x
			}
		}
	}
	return n
}

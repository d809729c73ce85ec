package importer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manyRules are rule sets of n rules that say something different each.
var manyRules = map[string]func(b *strings.Builder, n int) (nat, filter string){
	"forwards by port": func(b *strings.Builder, n int) (string, string) {
		for i := range n {
			fmt.Fprintf(b, "-A PREROUTING -i eth0 -d 203.0.113.10/32 -p tcp --dport %d -j DNAT --to-destination 10.0.0.5:%d\n", i+1, i+1)
		}
		return b.String() + masquerade, answers + "-A FORWARD -i eth0 -d 10.0.0.5 -j ACCEPT\n"
	},
	"forwards by source": func(b *strings.Builder, n int) (string, string) {
		for i := range n {
			fmt.Fprintf(b, "-A PREROUTING -i eth0 -s 198.%d.%d.%d -d 203.0.113.10/32 -p tcp --dport 443 -j DNAT --to-destination 10.0.0.5:443\n",
				18+i>>16, i>>8&255, i&255)
		}
		return b.String() + masquerade, answers + "-A FORWARD -i eth0 -d 10.0.0.5 -j ACCEPT\n"
	},
	"drops": func(b *strings.Builder, n int) (string, string) {
		for i := range n {
			fmt.Fprintf(b, "-A FORWARD -i eth0 -s 198.%d.%d.%d -p tcp --dport %d -j DROP\n", 18+i>>16, i>>8&255,
				i&255, i%60000+1)
		}
		return masquerade, answers + b.String() + "-A FORWARD -i eth1 -j ACCEPT\n"
	},
	"conditions without counterpart": func(b *strings.Builder, n int) (string, string) {
		for i := range n {
			fmt.Fprintf(b, "-A FORWARD -i eth1 -s 10.0.0.%d -m mark --mark %d -p tcp --dport %d -j DROP\n", i%250, i,
				i%60000+1)
		}
		return masquerade, answers + b.String() + "-A FORWARD -i eth1 -j ACCEPT\n"
	},
	"returns": func(b *strings.Builder, n int) (string, string) {
		b.WriteString("-A FORWARD -j c\n")
		for i := range n {
			fmt.Fprintf(b, "-A c -i eth1 -s 10.0.0.%d -p tcp --dport %d -j RETURN\n", i%250, i%60000+1)
		}
		return masquerade, answers + b.String() + "-A FORWARD -i eth1 -j ACCEPT\n"
	},
	"chains that end in each other": func(b *strings.Builder, n int) (string, string) {
		for i := range n {
			fmt.Fprintf(b, "-A FORWARD -p tcp --dport %d -j c%d\n-A c%d -s 10.0.0.%d -j c%d\n", i%60000+1, i, i,
				i%250, i/2)
		}
		return masquerade, answers + b.String()
	},
}

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mostTimes is how much longer six times as many rules may take, and leastTime a time below which
// a collection of garbage more or less says more than the rules do: what takes less counts as
// taking that. Six times the rules in 36 times the time are noticed from 12 ms on.
const (
	mostTimes = 9
	leastTime = 50 * time.Millisecond
)

// mostWhole is how long a rule set of 6 MB may take, whole how long it would where one of size bytes takes d:
// 19 s have been measured where a neighbour had half of the processor's core.
const mostWhole = 30 * time.Second

func whole(d time.Duration, size int) time.Duration {
	return d * time.Duration(6<<20) / time.Duration(size)
}

// TestManyRules: a rule set of six times as many rules takes no more than nine times the processor time, and
// one of 6 MB no more than 30 s of it. What else the machine does makes each of them slower, never faster: the
// least of some runs counts.
func TestManyRules(t *testing.T) {
	for name, of := range manyRules {
		used := func(n int) (d time.Duration, size int) {
			var b strings.Builder
			src := tables(of(&b, n))
			o := router
			o.Partial = true
			began := processorTime(t)
			r, err := IPTables([]byte(src), o)
			d = processorTime(t) - began
			if err != nil && !strings.Contains(err.Error(), "more than 100000 rules") {
				t.Errorf("%s, %d: %v", name, n, err)
			}
			if err == nil && len(r.YAML) == 0 {
				t.Errorf("%s, %d: no policy", name, n)
			}
			return d, len(src)
		}
		var few, many time.Duration
		var size int
		for i := range 5 {
			f, _ := used(2000)
			m, n := used(12000)
			if i == 0 {
				few, many, size = f, m, n
			}
			few, many = min(few, f), min(many, m)
			if many <= mostTimes*max(few, leastTime) && whole(many, size) <= mostWhole {
				break
			}
		}
		t.Logf("%s: 2,000 rules %v, 12,000 (%d bytes) %v, %.1f times", name, few, size, many, float64(many)/float64(few))
		if many > mostTimes*max(few, leastTime) || whole(many, size) > mostWhole {
			t.Errorf("%s: 2,000 rules take %v, 12,000 (%d bytes) %v", name, few, size, many)
		}
	}
}

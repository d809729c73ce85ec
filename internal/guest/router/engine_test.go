package router

import (
	"math"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// plainPolicy is a policy as the compiler makes it, which New takes.
func plainPolicy() *ruleset.Policy {
	return &ruleset.Policy{
		Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 64},
		Strings:  []byte("insideoutside"),
		Interfaces: []ruleset.Interface{
			{Role: ruleset.LAN, Address: ip("10.0.0.1").To16(), PrefixLen: 24, Name: ruleset.Text{Off: 0, Len: 6}},
			{Role: ruleset.WAN, Address: ip("203.0.113.10").To16(), PrefixLen: 24, Gateway: ip("203.0.113.1").To16(), Name: ruleset.Text{Off: 6, Len: 7}},
		},
	}
}

// plainConfig is what New takes with that policy.
func plainConfig(t *testing.T, p *ruleset.Policy) Config {
	t.Helper()
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	pool := framebuf.NewPool(make([]byte, 64*framebuf.Size), 0)
	return Config{Policy: p, Pool: pool, Ports: portsOf(&wire{pool: pool}, &wire{pool: pool})}
}

// TestNewRefuses: a configuration that cannot work is an error that names what is wrong
// with it, and its twin is none.
func TestNewRefuses(t *testing.T) {
	six := ruleset.Addr{0: 0x20, 1: 1, 15: 1}
	for _, x := range []struct {
		name   string
		policy func(p *ruleset.Policy)
		config func(c *Config)
		want   string // in the error; "": none
	}{
		{"as it is", nil, nil, ""},
		{"no policy", nil, func(c *Config) { c.Policy = nil }, "a policy and a pool"},
		{"no pool", nil, func(c *Config) { c.Pool = nil }, "a policy and a pool"},
		{"no LAN port", nil, func(c *Config) { c.Ports = c.Ports[wan:] }, "two ports"},
		{"no WAN port", nil, func(c *Config) { c.Ports = c.Ports[:wan] }, "two ports"},
		{"two LANs", nil, func(c *Config) { c.Ports[wan].Role = ruleset.LAN }, "two ports"},
		{"two WANs", nil, func(c *Config) { c.Ports[lan].Role = ruleset.WAN }, "two ports"},
		{"three ports", nil, func(c *Config) { c.Ports = append(c.Ports, c.Ports[lan]) }, "two ports"},
		{"a port without a device", nil, func(c *Config) { c.Ports[wan].Port = nil }, "without a device"},
		{"a role that is none", nil, func(c *Config) { c.Ports[wan].Role = 7 }, "no invalid interface"},
		{"no LAN", func(p *ruleset.Policy) { p.Interfaces = p.Interfaces[1:] }, nil, "no LAN interface"},
		{"no WAN", func(p *ruleset.Policy) { p.Interfaces = p.Interfaces[:1] }, nil, "no WAN interface"},
		{"LAN of IPv6", func(p *ruleset.Policy) { p.Interfaces[0].Address = six }, nil, "interface inside has no IPv4 address"},
		{"WAN of IPv6", func(p *ruleset.Policy) { p.Interfaces[1].Address = six }, nil, "interface outside has no IPv4 address"},
		{"prefix of 33 bits", func(p *ruleset.Policy) { p.Interfaces[0].PrefixLen = 33 }, nil, "interface inside has no IPv4 address"},
		{"prefix of 32 bits", func(p *ruleset.Policy) { p.Interfaces[0].PrefixLen = 32 }, nil, ""},
		{"gateway of IPv6", func(p *ruleset.Policy) { p.Interfaces[1].Gateway = six }, nil, "gateway of outside is not IPv4"},
		{"no gateway", func(p *ruleset.Policy) { p.Interfaces[1].Gateway = ruleset.Addr{} }, nil, ""},
		{"rules without a classifier", nil, func(c *Config) {
			p := *c.Policy
			p.Rules, p.Matches, p.Classifier = make([]ruleset.Rule, 1), make([]ruleset.Match, 1), ruleset.Classifier{}
			c.Policy = &p
		}, "filter: the policy has rules but no classifier"},
		{"translation of IPv6", func(p *ruleset.Policy) {
			p.SNAT = []ruleset.SNAT{{Interface: 1, External: six, PortLo: 1024, PortHi: 2048}}
		}, nil, "nat"},
		{"upstream of IPv6", func(p *ruleset.Policy) { p.Upstreams = []ruleset.Upstream{{Address: six, Port: 53}} }, nil, "endpoint: dnsproxy"},
		{"a name that is none", func(p *ruleset.Policy) {
			p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: 53}}
			p.Names = []ruleset.Name{nameOf(p, "a..b")}
		}, nil, "fqdn: a..b is not a name"},
		{"upstream", func(p *ruleset.Policy) {
			p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: 53}}
		}, nil, ""},
	} {
		p := plainPolicy()
		if x.policy != nil {
			x.policy(p)
		}
		c := plainConfig(t, p)
		if x.config != nil {
			x.config(&c)
		}
		e, err := New(c)
		switch {
		case x.want == "" && (err != nil || e == nil):
			t.Errorf("%s: %v", x.name, err)
		case x.want != "" && (err == nil || e != nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: error %v, want one with %q", x.name, err, x.want)
		}
	}
}

// TestNewPorts: what the interfaces of a policy and the devices determine.
func TestNewPorts(t *testing.T) {
	for _, x := range []struct {
		device   [2]int    // MTU
		small    bool      // buffers, where devices say more
		policy   [2]uint16 // MTU
		flags    uint32
		mtu      [2]int
		mss      uint16
		prefix   uint8
		mask     packet.Addr
		snat     []string
		external [][2]string // of DNAT: external, to
		further  []string
	}{
		{mtu: [2]int{1500, 1500}, mss: 1460, prefix: 24, mask: 0xffffff00},
		{device: [2]int{9000, 1400}, mtu: [2]int{9000, 1400}, mss: 1360, prefix: 0, mask: 0},
		{device: [2]int{1400, 9000}, small: true, mtu: [2]int{1400, 1958}, mss: 1360, prefix: 0, mask: 0},
		{device: [2]int{65535, 0}, mtu: [2]int{ruleset.MaxMTU, 1500}, mss: 1460, prefix: 0, mask: 0},
		{policy: [2]uint16{9000, 9000}, mtu: [2]int{9000, 9000}, mss: 8960, prefix: 24, mask: 0xffffff00},
		{device: [2]int{1500, 8999}, policy: [2]uint16{9000, 9000}, mtu: [2]int{1500, 8999}, mss: 1460, prefix: 24, mask: 0xffffff00},
		{policy: [2]uint16{9000, 0}, mtu: [2]int{9000, 1500}, mss: 1460, prefix: 24, mask: 0xffffff00},
		{device: [2]int{1400, 9000}, policy: [2]uint16{1450, 1450}, mtu: [2]int{1400, 1450}, mss: 1360, prefix: 32, mask: 0xffffffff},
		{policy: [2]uint16{1280, 1279}, mtu: [2]int{1280, 1279}, mss: 1239, prefix: 1, mask: 0x80000000},
		{policy: [2]uint16{1279, 1280}, mtu: [2]int{1279, 1280}, mss: 1239, prefix: 31, mask: 0xfffffffe},
		{flags: ruleset.FlagNoMSSClamp, mtu: [2]int{1500, 1500}, mss: 0, prefix: 24, mask: 0xffffff00},
		{mtu: [2]int{1500, 1500}, mss: 1460, prefix: 24, mask: 0xffffff00, snat: []string{"203.0.113.12", "203.0.113.11"},
			external: [][2]string{{"203.0.113.14", "10.0.0.5"}, {"203.0.113.10", "10.0.0.5"}, {"203.0.113.13", "10.0.0.5"}, {"203.0.113.14", "10.0.0.5"}},
			further:  []string{"203.0.113.11", "203.0.113.12", "203.0.113.13", "203.0.113.14"}},
	} {
		p := plainPolicy()
		p.Settings.Flags = x.flags
		for i := range p.Interfaces {
			p.Interfaces[i].MTU, p.Interfaces[i].PrefixLen = x.policy[i], x.prefix
		}
		for _, a := range x.snat {
			p.SNAT = append(p.SNAT, ruleset.SNAT{Interface: 1, External: ip(a).To16(), PortLo: 1024, PortHi: 2048})
		}
		for i, a := range x.external {
			p.DNAT = append(p.DNAT, dnat(packet.TCP, a[0], uint16(100+i), uint16(100+i), a[1], 80))
		}
		c := plainConfig(t, p)
		c.Ports[lan].MTU, c.Ports[wan].MTU = x.device[lan], x.device[wan]
		if _, span := Buffers(LargestMTU(p, x.device[lan], x.device[wan])); !x.small {
			c.Pool = framebuf.NewPoolOf(make([]byte, 64*span*framebuf.Size), 0, span)
		}
		e, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if e.mss != x.mss {
			t.Errorf("%+v: MSS %d", x, e.mss)
		}
		for i := range e.port {
			q := &e.port[i]
			if q.mtu != x.mtu[i] || q.mask != x.mask || q.net != q.addr&x.mask || q.n != i || len(q.defend) != len(q.further)+1 {
				t.Errorf("%+v: port %d: MTU %d, mask %x, net %x, %d own addresses", x, i, q.mtu, q.mask, q.net, len(q.defend))
			}
			if want := []packet.Addr{0, ip("203.0.113.1")}[i]; q.gateway != want {
				t.Errorf("port %d: gateway %x", i, q.gateway)
			}
		}
		if e.port[lan].mac != lanMAC || e.port[wan].mac != wanMAC {
			t.Error("the ports have the wrong addresses")
		}
		var further []packet.Addr
		for _, a := range x.further {
			further = append(further, ip(a))
		}
		if got := e.port[wan].further; len(got) != len(further) || len(e.port[lan].further) != 0 {
			t.Errorf("own addresses %v, want %v", got, further)
		} else {
			for i := range got {
				if got[i] != further[i] {
					t.Errorf("own addresses %v, want %v", got, further)
				}
			}
		}
	}
}

// TestSecretKeepsRunsApart: unpredictable numbers depend on the secret, and on nothing
// else.
func TestSecretKeepsRunsApart(t *testing.T) {
	made := func(s [32]byte) *Engine {
		c := plainConfig(t, plainPolicy())
		c.Secret = s
		e, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	k := conntrack.Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Proto: 6}
	a := made([32]byte{1})
	for i := range 32 {
		s := [32]byte{1}
		s[i] ^= 0x10
		b := made(s)
		if a.random() == b.random() || a.ids == b.ids {
			t.Errorf("byte %d of the secret: the same numbers", i)
		}
		if same := a.rndKey == b.rndKey; same != (i < 24) {
			t.Errorf("byte %d of the secret: the key of hashes is the same: %v", i, same)
		}
		if same := a.flows.Hash(&k) == b.flows.Hash(&k); same != (i >= 16) {
			t.Errorf("byte %d of the secret: the hash of flows is the same: %v", i, same)
		}
		if b.rndKey&1 == 0 {
			t.Error("the key of hashes is even")
		}
		a = made([32]byte{1})
	}
	if b := made([32]byte{1}); b.random() != a.random() || b.rndKey != a.rndKey || b.ids == [len(b.ids)]uint16{} {
		t.Error("the same secret makes something else")
	}
}

// TestTimeouts: each setting is that of its state, in seconds, and 0 is the
// default of docs/policy.md.
func TestTimeouts(t *testing.T) {
	of := func(s ruleset.Settings) (v [conntrack.NumStates]int64) {
		d := timeouts(&s)
		for i := range v {
			v[i] = d[i] / second
			if d[i]%second != 0 {
				t.Fatalf("state %d lasts %d ns", i, d[i])
			}
		}
		return v
	}
	usual := of(ruleset.Settings{})
	for state, want := range map[conntrack.State]int64{conntrack.SynSent: 240, conntrack.SynRecv: 240, conntrack.Established: 7440, conntrack.FinWait: 240, conntrack.CloseWait: 240,
		conntrack.LastAck: 240, conntrack.TimeWait: 240, conntrack.Close: 240, conntrack.UDPReplied: 300, conntrack.Echo: 60,
		conntrack.UDPBrief: 30, conntrack.UDPQuery: 30, conntrack.UDPUnreplied: 120, conntrack.UDPAnswered: 120} {
		if usual[state] != want {
			t.Errorf("state %v lasts %d s, want %d", state, usual[state], want)
		}
	}
	for i, set := range []struct {
		s     ruleset.Settings
		state conntrack.State
	}{
		{ruleset.Settings{TCPSynSent: 7}, conntrack.SynSent}, {ruleset.Settings{TCPSynRecv: 7}, conntrack.SynRecv}, {ruleset.Settings{TCPEstablished: 7}, conntrack.Established},
		{ruleset.Settings{TCPFinWait: 7}, conntrack.FinWait}, {ruleset.Settings{TCPCloseWait: 7}, conntrack.CloseWait}, {ruleset.Settings{TCPLastAck: 7}, conntrack.LastAck},
		{ruleset.Settings{TCPTimeWait: 7}, conntrack.TimeWait}, {ruleset.Settings{TCPClose: 7}, conntrack.Close}, {ruleset.Settings{ICMPEcho: 7}, conntrack.Echo},
	} {
		want := usual
		want[set.state] = 7
		if got := of(set.s); got != want {
			t.Errorf("setting %d: %v, want %v", i, got, want)
		}
	}
	// Of UDP one setting bears on another (RFC 4787 REQ-5).
	for _, x := range []struct{ unreplied, idle, brief, query, waiting, replied uint32 }{
		{0, 20, 30, 20, 30, 20}, {0, 100, 30, 30, 100, 100}, {0, 500, 30, 30, 120, 500}, {200, 0, 200, 200, 200, 300},
		{200, 100, 200, 100, 200, 100}, {400, 0, 400, 300, 400, 300}, {5, 0, 5, 5, 120, 300}, {5, 4, 5, 4, 5, 4}, {120, 120, 120, 120, 120, 120}, {math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32},
	} {
		got := of(ruleset.Settings{UDPUnreplied: x.unreplied, UDPIdle: x.idle})
		if got[conntrack.UDPBrief] != int64(x.brief) || got[conntrack.UDPQuery] != int64(x.query) || got[conntrack.UDPUnreplied] != int64(x.waiting) ||
			got[conntrack.UDPAnswered] != int64(x.waiting) || got[conntrack.UDPReplied] != int64(x.replied) {
			t.Errorf("%+v: brief %d, query %d, unreplied %d, replied %d", x, got[conntrack.UDPBrief], got[conntrack.UDPQuery], got[conntrack.UDPUnreplied], got[conntrack.UDPReplied])
		}
	}
}

// TestOwnPorts: a port of the firewall's own is not used otherwise until it is given back,
// for its protocol only.
func TestOwnPorts(t *testing.T) {
	l := newLab(t, "accept egress")
	inUse := func() (n [2]int) {
		for _, p := range l.e.Pools() {
			n[0] += p.InUse(packet.TCP)
			n[1] += p.InUse(packet.UDP)
		}
		return n
	}
	port, ok := l.e.nat.Own().Take(packet.TCP, l.e.random())
	if !ok || inUse() != [2]int{1, 0} {
		t.Fatalf("port %d, in use %v", port, inUse())
	}
	if again, _ := l.e.nat.Own().Take(packet.TCP, l.e.random()); again == port {
		t.Fatal("the same port twice")
	} else {
		l.e.nat.Own().Give(packet.TCP, again)
	}
	l.e.nat.Own().Give(packet.UDP, port) // another's
	if inUse() != [2]int{1, 0} {
		t.Fatalf("in use %v", inUse())
	}
	if v := l.one(lan, syn(host, port, web, 80)); v.SrcPort == port {
		t.Fatal("a flow has the port")
	}
	l.e.nat.Own().Give(packet.TCP, port)
	if v := l.one(lan, syn("10.0.0.3", port, web, 80)); v.SrcPort != port {
		t.Fatal("the port was not given back")
	}
	l.invariants()
}

// TestPoolsAndFlowsAreTheEngines: what the accessors return is what packets use.
func TestPoolsAndFlowsAreTheEngines(t *testing.T) {
	l := newLab(t, "accept egress")
	l.one(lan, udp(host, 4000, web, 53))
	if l.e.Flows().Len() != 1 || len(l.e.Pools()) != 1 || l.e.Pools()[0].InUse(packet.UDP) != 1 || l.e.Counters().Translations[nat.SNAT] != 1 {
		t.Errorf("%d flows, pools %v", l.e.Flows().Len(), l.e.Pools())
	}
	if l.e.host.DNS() != nil || l.e.host.Conns() != nil || l.e.Names() != nil || l.e.host.Links() != nil || l.e.host.Working() {
		t.Error("names without an upstream")
	}
	if d := newDNSLab(t, nil); d.e.host.DNS() == nil || d.e.host.Conns() == nil || d.e.Names() == nil || d.e.host.Links() != nil || d.e.host.Working() {
		t.Error("no names with one")
	}
}

// TestAllocOfPorts: the mappings of external ports are in memory of Config.Alloc.
func TestAllocOfPorts(t *testing.T) {
	taken := func(hi uint16) (n int) {
		newLabIn(t, func(bytes int, _ bool) []byte {
			n += bytes
			return make([]byte, bytes)
		}, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 2000, hi }, "accept egress")
		return n
	}
	if few, many := taken(2000), taken(60000); many-few < 3*58000*16 {
		t.Errorf("%d bytes for a port, %d for 58,001", few, many)
	}
}

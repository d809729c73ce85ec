package importer

import (
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Bounds of one import, whatever is in the file: processor time, and memory at any time.
const (
	hostileTime  = 20 * time.Second
	hostileBytes = 3 << 29
)

// watchMemory looks at the heap until it is told to stop, and returns the most that it had.
func watchMemory() (stop func() uint64) {
	var most atomic.Uint64
	end, ended := make(chan struct{}), make(chan struct{})
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	go func() {
		defer close(ended)
		for {
			metrics.Read(s)
			most.Store(max(most.Load(), s[0].Value.Uint64()))
			select {
			case <-end:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(end); <-ended; return most.Load() }
}

// A hostile is a rule set that is made to take long, or much memory, or to be taken for another.
type hostile struct {
	name string
	read func([]byte, Options) (*Result, error)
	make func(b *strings.Builder)
	want string // in the error; "": it is read
}

const forwardOnly = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"

// nested are chains each of which jumps to the next in several ways.
func nested(b *strings.Builder, depth, wide int, verb string) {
	b.WriteString(forwardOnly)
	for i := range depth {
		fmt.Fprintf(b, ":c%d - [0:0]\n", i)
	}
	fmt.Fprintf(b, "-A FORWARD -j c0\n")
	for i := range depth - 1 {
		for j := range wide {
			fmt.Fprintf(b, "-A c%d -m mark --mark %d %s c%d\n", i, j, verb, i+1)
		}
	}
	fmt.Fprintf(b, "-A c%d -s 10.0.0.9/32 -j ACCEPT\nCOMMIT\n", depth-1)
}

// nftDoc writes a document of nft's with a set of n elements, and rules about it.
func nftDoc(b *strings.Builder, n, rules int, element func(i int) string, rule string) {
	b.WriteString(`{"nftables":[{"table":{"family":"ip","name":"t","handle":1}},` +
		`{"chain":{"family":"ip","table":"t","name":"f","handle":1,"type":"filter","hook":"forward","prio":0,"policy":"drop"}},` +
		`{"set":{"family":"ip","table":"t","name":"s","type":"ipv4_addr","handle":2,"flags":["interval"],"elem":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(element(i))
	}
	b.WriteString("]}}")
	for i := range rules {
		b.WriteString(`,{"rule":{"family":"ip","table":"t","chain":"f","handle":` + fmt.Sprint(i+3) + `,"expr":[` +
			strings.ReplaceAll(rule, "%d", fmt.Sprint(i%60000+1)) + "]}}")
	}
	b.WriteString("]}")
}

func oneAddress(i int) string { return fmt.Sprintf(`"198.%d.%d.%d"`, 18+i>>15, i>>7&255, i&127*2) }

const opnTop = `<?xml version="1.0"?><opnsense><interfaces><wan><enable>1</enable><if>a</if><ipaddr>203.0.113.10</ipaddr><subnet>24</subnet></wan>` +
	`<lan><enable>1</enable><if>b</if><ipaddr>10.0.0.1</ipaddr><subnet>24</subnet></lan></interfaces>`

// aliases are aliases each of which names the next many times.
func aliases(b *strings.Builder, depth, wide int, kind, last, rule string) {
	b.WriteString(opnTop + "<OPNsense><Firewall><Alias><aliases>")
	for i := range depth {
		content := strings.Repeat(fmt.Sprintf("a%d\n", i+1), wide)
		if i == depth-1 {
			content = last
		}
		fmt.Fprintf(b, "<alias><enabled>1</enabled><name>a%d</name><type>%s</type><content>%s</content></alias>", i, kind, content)
	}
	b.WriteString("</aliases></Alias></Firewall></OPNsense><filter>" + rule + "</filter></opnsense>")
}

const opnRule = "<rule><type>pass</type><interface>lan</interface><protocol>tcp</protocol><source><any/></source><destination><address>%s</address>%s</destination></rule>"

var hostiles = []hostile{
	{"jumps that double at each step", IPTables, func(b *strings.Builder) { nested(b, 15, 2, "-j") }, ""},
	{"jumps that are many at each step", IPTables, func(b *strings.Builder) { nested(b, 15, 40, "-j") }, "more than 100000 rules"},
	{"jumps deeper than any", IPTables, func(b *strings.Builder) { nested(b, 4000, 1, "-j") }, ""},
	{"gotos that double at each step", IPTables, func(b *strings.Builder) { nested(b, 15, 2, "-g") }, ""},
	{"gotos that are many at each step", IPTables, func(b *strings.Builder) { nested(b, 15, 40, "-g") }, "more than 100000 rules"},
	{"a chain that goes to itself", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly + ":a - [0:0]\n:b - [0:0]\n-A FORWARD -g a\n-A a -p tcp -g b\n-A b -g a\nCOMMIT\n")
	}, ""},
	{"a chain that jumps to itself", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly + ":a - [0:0]\n-A FORWARD -j a\n" + strings.Repeat("-A a -p tcp -j a\n", 30) + "COMMIT\n")
	}, "more than 100000 rules"},
	{"returns that double what follows", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly)
		for i := range 14 {
			fmt.Fprintf(b, ":c%d - [0:0]\n", i)
		}
		b.WriteString("-A FORWARD -j c0\n")
		for i := range 13 {
			for j := range 20 {
				fmt.Fprintf(b, "-A c%d -m mark --mark %d -j RETURN\n-A c%d -s 10.0.%d.0/24 -j c%d\n", i, j, i, j, i+1)
			}
		}
		b.WriteString("COMMIT\n")
	}, "more than 100000 rules"},
	{"a million rules", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly + strings.Repeat("-A FORWARD -j X\n", 1_000_000) + "COMMIT\n")
	}, "1000000 rules; at most 100000 are read"},
	{"as many rules as are read", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly)
		for i := range 100_000 {
			fmt.Fprintf(b, "-A FORWARD -s 10.%d.%d.%d/32 -p tcp --dport %d -j ACCEPT\n", i>>16, i>>8&255, i&255, i%65535+1)
		}
		b.WriteString("COMMIT\n")
	}, "more than 100000 rules"},
	{"as many chains as fit", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly)
		for i := range 300_000 {
			fmt.Fprintf(b, ":c%d - [0:0]\n", i)
		}
		b.WriteString("COMMIT\n")
	}, ""},
	{"as many lines that say nothing as fit", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly + strings.Repeat("x\n", 7<<20) + "COMMIT\n")
	}, "more than 20000 lines that are not understood"},
	{"a line without end", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly + "-A FORWARD -m comment --comment \"" + strings.Repeat("a", 15<<20))
	}, "the line has more than 1048576 bytes"},
	{"many ports in many rules", IPTables, func(b *strings.Builder) {
		b.WriteString(forwardOnly)
		var ports []string
		for i := range 9000 {
			ports = append(ports, fmt.Sprint(i*7+1))
		}
		list := strings.Join(ports, ",")
		for i := range 60 {
			fmt.Fprintf(b, "-A FORWARD -s 10.0.0.%d/32 -p tcp -m multiport --dports %s -j DROP\n", i, list)
		}
		b.WriteString("-A FORWARD -j ACCEPT\nCOMMIT\n")
	}, ""},
	{"a set that many rules name", NFT, func(b *strings.Builder) {
		nftDoc(b, 9000, 3000, oneAddress, `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},`+
			`{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":%d}},{"drop":null}`)
	}, "when maps and sets are written out"},
	{"a set that some rules name", NFT, func(b *strings.Builder) {
		nftDoc(b, 9000, 30, oneAddress, `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},`+
			`{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":%d}},{"drop":null}`)
	}, ""},
	{"the opposite of a set that many rules name", NFT, func(b *strings.Builder) {
		nftDoc(b, 9000, 3000, oneAddress, `{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},`+
			`{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":%d}},{"accept":null}`)
	}, "when maps and sets are written out"},
	{"a set too large", NFT, func(b *strings.Builder) {
		nftDoc(b, 200_000, 3, oneAddress, `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},{"drop":null}`)
	}, ""},
	{"a set in a set in a set", NFT, func(b *strings.Builder) {
		nftDoc(b, 1, 1, func(int) string {
			return strings.Repeat(`{"set":[`, 9000) + `"10.0.0.1"` + strings.Repeat(`]}`, 9000)
		}, `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},{"drop":null}`)
	}, "exceeded max depth"},
	{"a set of itself", NFT, func(b *strings.Builder) {
		nftDoc(b, 3, 3, func(int) string { return `"@s"` },
			`{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},{"drop":null}`)
	}, ""},
	{"a set whose elements are itself", NFT, func(b *strings.Builder) {
		b.WriteString(`{"nftables":[{"chain":{"family":"ip","table":"t","name":"f","type":"filter","hook":"forward","prio":0}},` +
			`{"set":{"family":"ip","table":"t","name":"s","type":"ipv4_addr","elem":"@s"}},` +
			`{"rule":{"family":"ip","table":"t","chain":"f","handle":1,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},{"drop":null}]}}]}`)
	}, ""},
	{"maps that multiply each other", NFT, func(b *strings.Builder) {
		var kv []string
		for i := range 60 {
			kv = append(kv, fmt.Sprintf(`[%d,{"accept":null}]`, i+1))
		}
		m := `{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":{"set":[` + strings.Join(kv, ",") + `]}}}`
		nftDoc(b, 1, 1, oneAddress, m+","+m+","+m+","+m)
	}, "more than 100000 rules"},
	{"braces without end", NFT, func(b *strings.Builder) { b.WriteString(strings.Repeat(`{"nftables":[`, 1<<20)) }, "not the output of nft"},
	{"a list without end", NFT, func(b *strings.Builder) {
		b.WriteString(`{"nftables":[` + strings.Repeat(`{"x":1},`, 1<<20) + "{}]}")
	}, "more than 100000 items"},
	{"an entity of entities", OPNsense, func(b *strings.Builder) {
		b.WriteString(`<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><opnsense>&b;</opnsense>`)
	}, "entity"},
	{"elements deeper than any", OPNsense, func(b *strings.Builder) { b.WriteString(strings.Repeat("<a>", 1<<20)) }, "too deep"},
	{"elements without number", OPNsense, func(b *strings.Builder) {
		b.WriteString("<opnsense>" + strings.Repeat("<a/>", 3<<20) + "</opnsense>")
	}, "too many elements"},
	{"text in pieces", OPNsense, func(b *strings.Builder) {
		b.WriteString(opnTop + "<x>" + strings.Repeat("a<!---->", 1900_000) + "</x></opnsense>")
	}, ""},
	{"an attribute without end", OPNsense, func(b *strings.Builder) {
		b.WriteString(`<opnsense x="` + strings.Repeat("a", 15<<20) + `"></opnsense>`)
	}, ""},
	{"aliases of aliases", OPNsense, func(b *strings.Builder) {
		aliases(b, 8, 200, "host", "10.0.0.9", fmt.Sprintf(opnRule, "a0", ""))
	}, ""},
	{"aliases of ports of aliases", OPNsense, func(b *strings.Builder) {
		aliases(b, 8, 200, "port", "80", fmt.Sprintf(opnRule, "10.9.9.9", "<port>a0</port>"))
	}, ""},
	{"an alias of itself", OPNsense, func(b *strings.Builder) {
		aliases(b, 1, 0, "host", strings.Repeat("a0 ", 100), fmt.Sprintf(opnRule, "a0", ""))
	}, ""},
	{"an alias that many rules name", OPNsense, func(b *strings.Builder) {
		var c strings.Builder
		for i := range 9000 {
			c.WriteString(strings.Trim(oneAddress(i), `"`) + "\n")
		}
		aliases(b, 1, 0, "host", c.String(), strings.Repeat(fmt.Sprintf(opnRule, "a0", "<port>80</port>"), 1000))
	}, "more than 4000000 addresses and ports"},
	{"as many interfaces as rules", OPNsense, func(b *strings.Builder) {
		b.WriteString(strings.TrimSuffix(opnTop, "</interfaces>"))
		for i := range 40_000 {
			fmt.Fprintf(b, "<opt%d><enable>1</enable><if>x%d</if></opt%d>", i, i, i)
		}
		b.WriteString("</interfaces><filter>")
		for i := range 40_000 {
			fmt.Fprintf(b, "<rule><type>pass</type><interface>opt%d</interface><source><any/></source><destination><any/></destination></rule>", i)
		}
		b.WriteString("</filter></opnsense>")
	}, "40002 interfaces; at most 1000 are read"},
	{"as many forwards as fit", OPNsense, func(b *strings.Builder) {
		b.WriteString(opnTop + "<nat>")
		for i := range 40_000 {
			fmt.Fprintf(b, "<rule><protocol>tcp</protocol><interface>wan</interface><target>10.0.0.5</target><local-port>%d</local-port>"+
				"<associated-rule-id>pass</associated-rule-id><source><any/></source><destination><network>wanip</network><port>%d</port></destination></rule>", i+1, i+1)
		}
		b.WriteString("</nat></opnsense>")
	}, "more than 100000 rules"},
}

// TestHostileRuleSets: no file makes an import take more than 20 s of a processor, or more than 1.5 GB, and it ends in a policy or says what is too much.
func TestHostileRuleSets(t *testing.T) {
	for _, h := range hostiles {
		t.Run(h.name, func(t *testing.T) {
			var b strings.Builder
			h.make(&b)
			debug.FreeOSMemory()
			began, memory := processorTime(t), watchMemory()
			r, err := h.read([]byte(b.String()), Options{File: "hostile", LAN: "eth1", WAN: "eth0", Partial: true})
			d, n := processorTime(t)-began, memory()
			t.Logf("%d bytes: %v, %d MB, %v", b.Len(), d.Round(time.Millisecond), n>>20, err)
			if d > hostileTime || n > hostileBytes {
				t.Errorf("it took %v and %d MB", d, n>>20)
			}
			switch {
			case err == nil && h.want != "":
				t.Errorf("it was read, want an error with %q", h.want)
			case err == nil:
				result(t, r, nil)
			case h.want == "" || !strings.Contains(err.Error(), h.want):
				t.Errorf("%v, want %q", err, h.want)
			}
		})
	}
}

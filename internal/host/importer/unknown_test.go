package importer

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/diff"
)

// accepts has a rule for each kind of statement that is understood, all of
// which accept something: whoever takes one for a rule that matches more, lets
// more through.
const accepts = `{"nftables":[
{"metainfo":{"version":"1.0.6","release_name":"x","json_schema_version":1}},
{"table":{"family":"inet","name":"f","handle":1}},
{"set":{"family":"inet","table":"f","name":"servers","type":"ipv4_addr","handle":2,"flags":["interval"],"elem":[{"prefix":{"addr":"198.51.100.0","len":24}},{"elem":{"val":"192.0.2.9","comment":"x"}}]}},
{"map":{"family":"inet","table":"f","name":"byport","type":"inet_service","map":"verdict","handle":3,"elem":[[80,{"accept":null}],[81,{"drop":null}],[{"elem":{"val":82,"comment":"y"}},{"accept":null}]]}},
{"chain":{"family":"inet","table":"f","name":"forward","handle":4,"type":"filter","hook":"forward","prio":0,"policy":"drop"}},
{"chain":{"family":"inet","table":"f","name":"more","handle":5}},
{"chain":{"family":"inet","table":"f","name":"post","handle":6,"type":"nat","hook":"postrouting","prio":100,"policy":"accept"}},
{"chain":{"family":"inet","table":"f","name":"pre","handle":7,"type":"nat","hook":"prerouting","prio":-100,"policy":"accept"}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":10,"comment":"answers","expr":[{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"counter":{"packets":1,"bytes":2}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":11,"expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lan"}},{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"@servers"}},{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"set":[443,{"range":[8000,8010]}]}}},{"log":{"prefix":"x"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":12,"expr":[{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"udp"}},{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"10.0.0.128","len":25}}}},{"jump":{"target":"more"}}]}},
{"rule":{"family":"inet","table":"f","chain":"more","handle":13,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"10.0.0.7"}},{"return":null}]}},
{"rule":{"family":"inet","table":"f","chain":"more","handle":14,"expr":[{"match":{"op":">=","left":{"payload":{"protocol":"udp","field":"dport"}},"right":60000}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":15,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":9000}},{"reject":{"type":"tcp reset"}}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":16,"expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"lan"}},{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":"@byport"}}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":17,"expr":[{"match":{"op":"==","left":{"concat":[{"payload":{"protocol":"ip","field":"saddr"}},{"payload":{"protocol":"tcp","field":"dport"}}]},"right":{"set":[{"concat":["10.0.0.5",25]},{"elem":{"val":{"concat":["10.0.0.6",26]},"counter":{"packets":0,"bytes":0}}}]}}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":18,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"icmp","field":"type"}},"right":"echo-request"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":19,"expr":[{"match":{"op":"==","left":{"meta":{"key":"nfproto"}},"right":"ipv4"}},{"match":{"op":"==","left":{"payload":{"protocol":"th","field":"dport"}},"right":53}},{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"range":["192.0.2.1","192.0.2.3"]}}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"post","handle":20,"expr":[{"match":{"op":"==","left":{"meta":{"key":"oifname"}},"right":"wan"}},{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"10.0.0.0","len":24}}}},{"masquerade":null}]}},
{"rule":{"family":"inet","table":"f","chain":"pre","handle":21,"expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"wan"}},{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":443}},{"dnat":{"addr":"10.0.0.5","port":8443,"family":"ip"}}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":22,"expr":[{"match":{"op":"in","left":{"ct":{"key":"status"}},"right":"dnat"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"f","chain":"forward","handle":23,"expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"wan"}},{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"10.0.0.5"}},{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":8443}},{"accept":null}]}}
]}`

// known says what would be guessed otherwise, from rules that a change may cost.
var known = Options{File: "x", LAN: "lan", WAN: "wan", LANAddress: netip.MustParsePrefix("10.0.0.1/24"),
	WANAddress: netip.MustParsePrefix("203.0.113.2/24")}

func decode(t testing.TB, src []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(src, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// changed returns copies of a document, each with one change: a member that
// nobody knows in an object, or a statement that nobody knows in a list of
// statements. The names say where.
func changed(v any, yield func(where string, doc any)) {
	var walk func(v any, path string, put func(any) any)
	walk = func(v any, path string, put func(any) any) {
		switch v := v.(type) {
		case map[string]any:
			for _, value := range []any{nil, "x", map[string]any{"y": 1.0}} {
				c := maps.Clone(v)
				c["unknown"] = value
				yield(path, put(c))
			}
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(v[k], path+"/"+k, func(x any) any {
					c := maps.Clone(v)
					c[k] = x
					return put(c)
				})
			}
		case []any:
			for i := range v {
				walk(v[i], fmt.Sprintf("%s[%d]", path, i), func(x any) any {
					c := slices.Clone(v)
					c[i] = x
					return put(c)
				})
			}
			if len(v) > 0 && len(path) > 5 && path[len(path)-5:] == "/expr" {
				for i := range len(v) + 1 {
					for _, s := range []any{
						map[string]any{"unknown": nil},
						map[string]any{"xt": map[string]any{"type": "match", "name": "recent"}},
						map[string]any{"xt": nil},
						map[string]any{"limit": map[string]any{"rate": 1.0}},
						map[string]any{"ct helper": "ftp"},
						map[string]any{"tproxy": map[string]any{"port": 1.0}},
						"accept", nil, 7.0,
						map[string]any{"match": nil}, map[string]any{"match": map[string]any{"op": "==",
							"left": map[string]any{"osf": map[string]any{"key": "name"}}, "right": "x"}},
						map[string]any{"counter": map[string]any{"unknown": 1.0}}, map[string]any{"log": "x"},
						map[string]any{"drop": nil}, map[string]any{"accept": map[string]any{"if": "raining"}},
					} {
						yield(fmt.Sprintf("%s before %d", path, i), put(slices.Insert(slices.Clone(v), i, s)))
					}
				}
			}
		}
	}
	walk(v, "", func(x any) any { return x })
}

// loadResult returns what was imported, nil where nothing would be printed.
func loadResult(r *Result, err error) *policy.Policy {
	if err != nil || r.Permissive() {
		return nil
	}
	p, _ := policy.Load("imported", r.YAML)
	return p
}

// noMore fails where a policy accepts what another one does not.
func noMore(t *testing.T, where string, before, after *policy.Policy) {
	t.Helper()
	d, err := diff.Compare(before, after, 0, 1)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for _, c := range d.Traffic {
		if c.To.Action == "accept" && c.From.Action != "accept" {
			t.Errorf("%s: %+v is accepted by %s (%s), and was not by %s", where, c.Example, c.To.Rule, c.To.Place,
				c.From.Rule)
		}
	}
}

// TestUnknownIsNotMore: what nobody knows, at whatever place of a rule set, never
// makes a policy that accepts more.
func TestUnknownIsNotMore(t *testing.T) {
	o := known
	base := loadResult(NFT([]byte(accepts), o))
	if base == nil {
		t.Fatal("the rule set is not imported")
	}
	if got := len(base.Rules); got < 10 {
		t.Fatalf("only %d rules are imported", got)
	}
	tried, printed := 0, 0
	changed(decode(t, []byte(accepts)), func(where string, doc any) {
		src, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		tried++
		if p := loadResult(NFT(src, o)); p != nil {
			printed++
			noMore(t, where, base, p)
		}
	})
	if tried < 1000 || printed < 300 {
		t.Errorf("%d changes, %d of which gave a policy: too few to show anything", tried, printed)
	}
}

const acceptsIPTables = `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.0.0.5:8443
-A POSTROUTING -s 10.0.0.0/24 -o wan -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
:more - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -i lan -d 198.51.100.0/24 -p tcp -m multiport --dports 443,8000:8010 -j ACCEPT
-A FORWARD -i lan -p udp -j more
-A FORWARD -p tcp --dport 9000 -j REJECT --reject-with tcp-reset
-A FORWARD -i lan -p tcp -m iprange --src-range 10.0.0.5-10.0.0.9 -m comment --comment "mail" -j ACCEPT
-A FORWARD -i lan -p icmp --icmp-type echo-request -j ACCEPT
-A FORWARD -i wan -d 10.0.0.5 -p tcp --dport 8443 -j ACCEPT
-A more -s 10.0.0.7 -j RETURN
-A more -p udp ! --dport 1:59999 -j ACCEPT
COMMIT
`

// TestUnknownWordIsNotMore is TestUnknownIsNotMore for iptables-save.
func TestUnknownWordIsNotMore(t *testing.T) {
	o := known
	base := loadResult(IPTables([]byte(acceptsIPTables), o))
	if base == nil || len(base.Rules) < 7 {
		t.Fatal("the rule set is not imported")
	}
	lines := strings.Split(acceptsIPTables, "\n")
	tried, printed := 0, 0
	for n, line := range lines {
		if !strings.HasPrefix(line, "-A") {
			continue
		}
		words := strings.Fields(line)
		for i := 2; i <= len(words); i++ {
			for _, add := range []string{"-m recent", "-m recent --rcheck --name x", "--unknown", "--unknown x",
				"! --unknown x", "! !", "! -m recent", "x", "-j DROP", "-j RETURN", "-j ACCEPT", "-j LOG", "-j nosuch", "-g more", "--ctdir ORIGINAL", "--tcp-flags SYN,RST SYN", "\"\""} {
				c := slices.Clone(lines)
				c[n] = strings.Join(slices.Insert(slices.Clone(words), i, add), " ")
				tried++
				if p := loadResult(IPTables([]byte(strings.Join(c, "\n")), o)); p != nil {
					printed++
					noMore(t, c[n], base, p)
				}
			}
		}
	}
	if tried < 1000 || printed < 300 {
		t.Errorf("%d changes, %d of which gave a policy: too few to show anything", tried, printed)
	}
}

// TestUnknownEffects: what a rule set says that is not known is told, with the
// effect that leaving its rule out has.
func TestUnknownEffects(t *testing.T) {
	const head = `{"nftables":[{"table":{"family":"ip","name":"f"}},{"chain":{"family":"ip","table":"f","name":"c","type":"filter","hook":"forward","policy":"drop"}},`
	rule := func(expr string) string {
		return `{"rule":{"family":"ip","table":"f","chain":"c","handle":1,"expr":[` + expr + `]}}`
	}
	set := func(more string) string {
		return `{"set":{"family":"ip","table":"f","name":"s","type":"ipv4_addr","elem":["192.0.2.1"]` + more + `}},` +
			rule(`{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@s"}},{"accept":null}`)
	}
	for _, c := range []struct {
		name, doc string
		effect    Effect // "": nothing is said
	}{
		{"recent then accept", rule(`{"xt":{"type":"match","name":"recent"}},{"accept":null}`), Stricter},
		{"recent then drop", rule(`{"xt":{"type":"match","name":"recent"}},{"drop":null}`), Permissive},
		{"accept alone", rule(`{"accept":null}`), ""},
		{"counter then accept", rule(`{"counter":{"packets":0,"bytes":0}},{"accept":null}`), ""},
		{"unknown alone", rule(`{"nosuch":null}`), Permissive},
		{"offload alone", rule(`{"flow":{"op":"add","flowtable":"@x"}}`), ""},
		{"two verdicts", rule(`{"drop":null},{"accept":null}`), Permissive},
		{"untracked", rule(`{"notrack":null},{"accept":null}`), Differs},
		{"port of a protocol that is a range",
			rule(`{"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":{"range":[1,17]}}},{"drop":null}`), Permissive},
		{"family by number", rule(`{"match":{"op":"==","left":{"meta":{"key":"nfproto"}},"right":2}},{"drop":null}`),
			Permissive},
		{"interface by number", rule(`{"match":{"op":"==","left":{"meta":{"key":"iif"}},"right":2}},{"drop":null}`),
			Permissive},
		{"set", set(``), ""},
		{"set that packets fill", set(`,"flags":["dynamic"]`), Stricter},
		{"set whose elements expire", set(`,"flags":["timeout"],"timeout":60`), Stricter},
	} {
		h := head
		if !strings.Contains(c.doc, "accept") || strings.Contains(c.doc, "drop") {
			h = strings.Replace(h, `"policy":"drop"`, `"policy":"accept"`, 1)
		}
		r, err := NFT([]byte(h+c.doc+"]}"), sides)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var effects []Effect
		for _, n := range r.Notes {
			effects = append(effects, n.Effect)
		}
		if c.effect == "" && len(effects) > 0 || c.effect != "" && !slices.Contains(effects, c.effect) {
			t.Errorf("%s: notes %v, want %q", c.name, r.Notes, c.effect)
		}
	}
	for name, doc := range map[string]string{
		"table that sleeps":           `{"nftables":[{"table":{"family":"ip","name":"f","flags":"dormant"}},{"chain":{"family":"ip","table":"f","name":"c","type":"filter","hook":"forward","policy":"accept"}}]}`,
		"chain that cannot be read":   `{"nftables":[{"chain":{"family":"ip","table":"f","name":"c","type":"filter","hook":"forward","policy":7}}]}`,
		"chain with an unknown thing": `{"nftables":[{"chain":{"family":"ip","table":"f","name":"c","type":"filter","hook":"forward","policy":"accept","when":"dark"}}]}`,
		"jump to a missing chain":     head + rule(`{"jump":{"target":"gone"}}`) + "]}",
	} {
		if r, err := NFT([]byte(doc), sides); err != nil || !r.Permissive() {
			t.Errorf("%s: %v, %v", name, err, r)
		}
	}
}

// FuzzUnknown changes one place of a rule set, chosen by the input, and puts what
// the input says there.
func FuzzUnknown(f *testing.F) {
	f.Add(uint16(3), "unknown", []byte(`null`))
	f.Add(uint16(40), "timeout", []byte(`60`))
	f.Add(uint16(70), "right", []byte(`{"set":[{"prefix":{"addr":"0.0.0.0","len":0}}]}`))
	o := known
	base := loadResult(NFT([]byte(accepts), o))
	understood := map[string]bool{}
	for _, k := range []string{"family", "table", "name", "handle", "type", "hook", "prio", "policy", "flags", "elem",
		"chain", "comment", "expr", "match", "op", "left", "right", "payload", "protocol", "field", "meta", "ct", "key",
		"data", "set", "concat", "range", "prefix", "addr", "len", "val", "accept", "drop", "return", "jump", "goto", "target", "reject", "masquerade", "dnat", "snat", "redirect", "port", "vmap", "map", "counter", "log", "nftables",
		"rule", "elem ", "|", "packets", "bytes", "level", "group", "snaplen", "queue-threshold", "index", "size", "dev", "auto-merge", "metainfo", "version", "release_name", "json_schema_version", "flowtable", "quota", "limit",
		"element", "ct helper", "ct timeout", "ct expectation", "secmark", "synproxy", "chain "} {
		understood[k] = true
	}
	f.Fuzz(func(t *testing.T, at uint16, name string, value []byte) {
		var v any
		if understood[name] || json.Unmarshal(value, &v) != nil || base == nil {
			t.Skip()
		}
		doc := decode(t, []byte(accepts))
		var objects []map[string]any
		var walk func(any)
		walk = func(v any) {
			switch v := v.(type) {
			case map[string]any:
				objects = append(objects, v)
				for _, k := range slices.Sorted(maps.Keys(v)) {
					walk(v[k])
				}
			case []any:
				for _, e := range v {
					walk(e)
				}
			}
		}
		walk(doc)
		objects[int(at)%len(objects)][name] = v
		src, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if p := loadResult(NFT(src, o)); p != nil {
			noMore(t, name, base, p)
		}
	})
}

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// SchemaFile is the schema of policies.
const SchemaFile = "../../../schemas/rules.schema.json"

// CompileSchema compiles the schema of policies.
func CompileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(SchemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Validate checks a YAML document as an editor does.
func Validate(s *jsonschema.Schema, src []byte) error {
	var v any
	if err := yaml.Load(src, &v); err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

var (
	index     = regexp.MustCompile(`\[\d+\]`)
	ifaceName = regexp.MustCompile(`^interfaces\.(lan|wan)[^.]*`)
)

// TestSchemaHasTheKeysOfTheLoader: the schema and the loader know the same keys
// in the same places, and the policy with all of them is accepted by both.
func TestSchemaHasTheKeysOfTheLoader(t *testing.T) {
	a, err := txtar.ParseFile("testdata/full.txt")
	if err != nil {
		t.Fatal(err)
	}
	src := a.Files[0].Data
	known := map[string]map[string]bool{}
	note := func(path, key string) {
		path = ifaceName.ReplaceAllString(index.ReplaceAllString(path, ""), "interfaces.*")
		if known[path] == nil {
			known[path] = map[string]bool{}
		}
		known[path][key] = true
	}
	l := &loader{Report: Report{File: "full.yaml"}, p: &Policy{}}
	l.keys = func(path string, fs []field) {
		for _, f := range fs {
			note(path, f.name)
		}
	}
	root, ok := l.parseYAML(src)
	if !ok {
		t.Fatal(l.ds)
	}
	l.document(root)
	if l.ds.HasErrors() {
		t.Fatal(l.ds)
	}
	var used func(n *node, path string)
	there := map[string]bool{}
	used = func(n *node, path string) {
		for i, k := range n.keys {
			there[ifaceName.ReplaceAllString(join(path, k.text), "interfaces.*")] = true
			used(n.items[i], join(path, k.text))
		}
		if n.kind == list {
			for _, v := range n.items {
				used(v, path)
			}
		}
	}
	used(root, "")
	for path, keys := range known {
		for k := range keys {
			if p := join(path, k); !there[p] && p != "defaults.upstream_dns" { // dns.upstreams is its long form
				t.Errorf("testdata/full.txt does not use %s", p)
			}
		}
	}

	b, err := os.ReadFile(SchemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	described := map[string]map[string]bool{}
	var walk func(s map[string]any, path string)
	walk = func(s map[string]any, path string) {
		if r, ok := s["$ref"].(string); ok {
			walk(schema["$defs"].(map[string]any)[strings.TrimPrefix(r, "#/$defs/")].(map[string]any), path)
		}
		for _, k := range []string{"anyOf", "allOf"} {
			all, _ := s[k].([]any)
			for _, v := range all {
				walk(v.(map[string]any), path)
			}
		}
		if v, ok := s["items"].(map[string]any); ok {
			walk(v, path)
		}
		if ps, ok := s["patternProperties"].(map[string]any); ok {
			for _, v := range ps {
				walk(v.(map[string]any), path+".*")
			}
		}
		ps, ok := s["properties"].(map[string]any)
		if !ok {
			return
		}
		if s["additionalProperties"] != false {
			t.Errorf("%s: the schema lets unknown keys through", path)
		}
		for k, v := range ps {
			if described[path] == nil {
				described[path] = map[string]bool{}
			}
			described[path][k] = true
			if d, _ := v.(map[string]any)["description"].(string); len(d) < 8 && v.(map[string]any)["$ref"] == nil {
				t.Errorf("%s has no description", join(path, k))
			}
			walk(v.(map[string]any), join(path, k))
		}
	}
	walk(schema, "")
	delete(described, "groups.addresses") // names of the user's own
	for _, path := range slices.Sorted(maps.Keys(known)) {
		for _, k := range slices.Sorted(maps.Keys(known[path])) {
			if !described[path][k] {
				t.Errorf("the schema does not have %s", join(path, k))
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(described)) {
		for _, k := range slices.Sorted(maps.Keys(described[path])) {
			if !known[path][k] {
				t.Errorf("the loader does not know %s", join(path, k))
			}
		}
	}
	timeouts := schema["properties"].(map[string]any)["defaults"].(map[string]any)["properties"].(map[string]any)["conntrack_timeouts"].(map[string]any)["properties"].(map[string]any)
	for _, v := range Timeouts {
		if got := timeouts[v.Name].(map[string]any)["default"]; got != float64(v.Default) {
			t.Errorf("the schema's default of %s is %v, want %d", v.Name, got, v.Default)
		}
	}
	if len(known) < 12 {
		t.Errorf("only %d places: %v", len(known), slices.Sorted(maps.Keys(known)))
	}
	if err := Validate(CompileSchema(t), src); err != nil {
		t.Error(err)
	}
}

// TestSchemaAcceptsWhatTheLoaderDoes: no editor underlines what is right.
func TestSchemaAcceptsWhatTheLoaderDoes(t *testing.T) {
	s := CompileSchema(t)
	n := 0
	check := func(name string, src []byte) {
		if p, _ := Load(name, src); p == nil {
			return
		}
		n++
		if err := Validate(s, src); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	files, _ := filepath.Glob("testdata/*.txt")
	for _, f := range files {
		a, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		check(f, a.Files[0].Data)
	}
	examples, _ := filepath.Glob("../../../examples/*.yaml")
	for _, f := range append(examples, "../../../rules.yaml") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 1<<17 { // a large one has nothing that a small one has not
			check(f, b)
		}
	}
	if n < 12 {
		t.Errorf("only %d policies", n)
	}
}

// TestSchemaRefusesWhatTheLoaderDoes: an editor underlines what is wrong by
// itself, without the rest of the document.
func TestSchemaRefusesWhatTheLoaderDoes(t *testing.T) {
	s := CompileSchema(t)
	const interfaces = "interfaces: { lan0: { address: 10.0.0.1/24 }, wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }\n"
	const defaults = "defaults: { default_action: deny }\n"
	rule := func(r string) string { return interfaces + defaults + "rules:\n  - { " + r + " }\n" }
	with := func(section string) string { return interfaces + defaults + section + "\nrules: []\n" }
	if err := Validate(s, []byte(with(""))); err != nil {
		t.Fatal(err)
	}
	for i, src := range []string{
		"[]\n", "5\n",
		interfaces + "rules: []\n", interfaces + defaults, defaults, "defaults: { default_action: maybe }\nrules: []\n",
		"rules: [ { id: a, action: accept, destination_fqdn: \"*\" } ]\n", "nat: { snat: [ { out_interface: wan0, masquerade: true, port_range: { min: 5 } } ] }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, dns_qps_per_client: 1000001 }\nrules: []\n", interfaces + "defaults: { default_action: deny, conntrack_timeouts: { udp_idle: 2592001 } }\nrules: []\n",
		rule("id: a, action: accept, name: " + strings.Repeat("x", 201)), rule("id: a, action: accept, destination_fqdn: \"*.com\""),
		interfaces + "defaults: {}\nrules: []\n", interfaces + "defaults: { default_action: maybe }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, max_flow: 5000 }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, max_flows: 5 }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, max_flows: \"5000\" }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, flow_trace_sample_drop: 2 }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, icmp_time_exceeded: \"yes\" }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, tcp_mss_clamp: on }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, upstream_dns: dns.example.com }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, conntrack_timeouts: { udp_idle: 0 } }\nrules: []\n",
		interfaces + "defaults: { default_action: deny, conntrack_timeouts: { udp_idle: soon } }\nrules: []\n",
		"interfaces: { lan0: { address: 10.0.0.1/24 } }\n" + defaults + "rules: []\n",
		"interfaces: { lan0: { address: 10.0.0.1 }, wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }\n" + defaults + "rules: []\n",
		"interfaces: { lan0: { address: 10.0.0.1/24 }, wan0: { address: 203.0.113.10/24 } }\n" + defaults + "rules: []\n",
		"interfaces: { lan0: { address: 10.0.0.1/24, gateway: 10.0.0.2 }, wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }\n" + defaults + "rules: []\n",
		"interfaces: { lan0: { address: 10.0.0.1/24, mtu: 100 }, wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }\n" + defaults + "rules: []\n",
		"interfaces: { lan0: { address: 10.0.0.1/24 }, dmz0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }\n" + defaults + "rules: []\n",
		rule("action: accept"), rule("id: a"), rule("id: a b, action: accept"), rule("id: default-deny, action: deny"), rule("id: a, action: allow"),
		rule("id: a, action: accept, proto: tcp"), rule("id: a, action: accept, protocol: sctp"), rule("id: a, action: accept, protocol: []"),
		rule("id: a, action: accept, direction: in"), rule("id: a, action: accept, state: related"), rule("id: a, action: accept, source: 10.0.0.300"),
		rule("id: a, action: accept, source: 10.0.0.0/33"), rule("id: a, action: accept, source: \"2001:db8::/32\""), rule("id: a, action: accept, source: []"),
		rule("id: a, action: accept, protocol: tcp, destination_port: 0"), rule("id: a, action: accept, protocol: tcp, destination_port: 65536"),
		rule("id: a, action: accept, protocol: tcp, destination_port: http"), rule("id: a, action: accept, mode: test"), rule("id: a, action: accept, sni: true"),
		rule("id: a, action: accept, destination_fqdn: \"**.foo.com\""), rule("id: a, action: accept, destination_fqdn: foo.*.com"), rule("id: a, action: accept, destination_fqdn: com"),
		with("groups: { addresses: { a: [x] } }"), with("groups: { ports: { a: [x] } }"), with("groups: { ports: { \"a b\": [1] } }"), with("groups: { names: {} }"),
		with("dns: { queries: some }"), with("dns: { upstreams: [ { port: 53 } ] }"), with("dns: { upstreams: [ { address: 1.1.1.1, tls: true } ] }"),
		with("dns: { upstreams: [ { address: 1.1.1.1, tls: dns.example, ca: [] } ] }"), with("dns: { upstreams: [ 1.1.1.1 ], plain_fallback: 1 }"),
		with("dns: { max_names: 0 }"), with("dns: { block: \"*\" }"), with("dns: { ttl_floor: -1 }"), with("dns: { ttl_grace: 86401 }"), with("dns: { private_names: nas }"), with("dns: { intercept: 1 }"),
		with("nat: { snat: [ { masquerade: true } ] }"), with("nat: { snat: [ { out_interface: wan0, external_ip: [] } ] }"),
		with("nat: { dnat: [ { wan_ip: 203.0.113.10, wan_port: 80, to: \"10.0.0.5\", proto: tcp } ] }"),
		with("nat: { dnat: [ { wan_ip: 203.0.113.10, wan_port: 80, to: \"10.0.0.5:80\", proto: icmp } ] }"),
		with("nat: { dnat: [ { wan_ip: 203.0.113.10, to: \"10.0.0.5:80\", proto: tcp } ] }"),
		with("tests: [ { from: lan, proto: tcp, src: 10.0.0.2, expect: accept } ]"),
		with("tests: [ { from: dmz, proto: tcp, src: 10.0.0.2, dst: \"1.1.1.1:1\", expect: accept } ]"),
		with("tests: [ { from: lan, proto: tcp, src: 10.0.0.2, dst: \"1.1.1.1:1\", expect: drop } ]"),
		with("tests: [ { from: lan, proto: tcp, src: host, dst: \"1.1.1.1:1\", expect: accept } ]"),
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if p, _ := Load("broken.yaml", []byte(src)); p != nil {
				t.Errorf("the loader accepts\n%s", src)
			}
			if Validate(s, []byte(src)) == nil {
				t.Errorf("the schema accepts\n%s", src)
			}
		})
	}
}

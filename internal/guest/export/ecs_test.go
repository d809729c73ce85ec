package export

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// fields are those that events use, with the type that the Elastic Common
// Schema's list of fields gives them (version 8.12). Ours, which it does not
// know, are marked custom and begin with "firewall.", or with
// "network.translated.", which stands beside ECS's source.nat and
// destination.nat.
var fields = map[string]string{
	"@timestamp": "date", "event.start": "date", "event.end": "date",
	"event.kind": "keyword", "event.action": "keyword", "event.outcome": "keyword", "event.reason": "keyword",
	"event.category": "keyword array", "event.type": "keyword array",
	"event.duration": "long", "event.sequence": "long",
	"rule.id": "keyword", "rule.name": "keyword",
	"source.ip": "ip", "source.port": "long", "source.nat.ip": "ip", "source.nat.port": "long", "source.packets": "long", "source.bytes": "long",
	"destination.ip": "ip", "destination.port": "long", "destination.nat.ip": "ip", "destination.nat.port": "long", "destination.packets": "long", "destination.bytes": "long",
	"destination.domain": "keyword",
	"network.transport":  "keyword", "network.iana_number": "keyword", "network.type": "keyword", "network.direction": "keyword", "network.protocol": "keyword",
	"network.packets": "long", "network.bytes": "long",
	"dns.type": "keyword", "dns.question.name": "keyword", "dns.question.type": "keyword", "dns.response_code": "keyword", "dns.resolved_ip": "ip array",
	"trace.id": "keyword", "span.id": "keyword", "error.message": "match_only_text",

	"network.translated.address": "custom ip", "network.translated.port": "custom long",
	"firewall.drop_reason": "custom keyword", "firewall.flow_id": "custom long", "firewall.policy": "custom keyword", "firewall.clock": "custom keyword",
	"firewall.icmp_type": "custom long", "firewall.icmp_code": "custom long", "firewall.ethertype": "custom keyword", "firewall.count": "custom long",
	"firewall.dns_lookup": "custom long", "firewall.dns_bypass": "custom keyword", "firewall.hint": "custom keyword", "firewall.name_expired_seconds": "custom long",
	"firewall.clock_adjustment_ns": "custom long", "firewall.lost_lines": "custom long", "firewall.lost_records": "custom long",
}

// kinds of the values that ECS allows for the fields that have a list of them.
var allowed = map[string][]string{
	"event.kind": {"event"}, "event.category": {"network", "host"}, "event.outcome": {"success", "failure", "unknown"},
	"event.type":        {"access", "allowed", "change", "connection", "denied", "end", "info", "protocol", "start"},
	"network.direction": {"ingress", "egress", "inbound", "outbound", "internal", "external", "unknown"},
}

// TestECSFields: every field of every kind of event is on the list, has the
// type that it says, and is described for users; and the list has no other.
func TestECSFields(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	c := context("Web for everyone")
	var lines [][]byte
	for i := range records {
		r := records[i]
		r.Seq = uint64(i + 1)
		lines = append(lines, AppendNamed(nil, &r, nameOf(&r), c))
	}
	for n := verdict.BypassDNS; n <= verdict.NameExpired; n++ {
		r := records[1]
		r.Hint = n
		lines = append(lines, AppendEvent(nil, &r, c))
	}
	lines = append(lines, appendLoss(nil, &Loss{Lines: 1, Records: 2, Since: 3}, c, 4))
	used := map[string]bool{}
	for _, l := range lines {
		var m map[string]any
		if err := json.Unmarshal(l, &m); err != nil {
			t.Fatal(err)
		}
		for k, v := range m {
			used[k] = true
			if !fits(v, fields[k]) {
				t.Errorf("%s is %v, and is to be %q", k, v, fields[k])
			}
			if a, ok := allowed[k]; ok {
				vs, many := v.([]any)
				if !many {
					vs = []any{v}
				}
				for _, x := range vs {
					if !contains(a, x.(string)) {
						t.Errorf("%s may not be %v", k, x)
					}
				}
			}
		}
	}
	for k, typ := range fields {
		if !used[k] {
			t.Errorf("%s is on the list and never used", k)
		}
		custom := strings.HasPrefix(k, "firewall.") || strings.HasPrefix(k, "network.translated.")
		if custom != strings.HasPrefix(typ, "custom ") {
			t.Errorf("%s is %q", k, typ)
		}
		if last := k[strings.LastIndexByte(k, '.')+1:]; !strings.Contains(string(doc), "`"+k) && !strings.Contains(string(doc), "`."+last) {
			t.Errorf("docs/telemetry.md does not describe %s", k)
		}
	}
}

func contains(a []string, s string) bool {
	for _, x := range a {
		if x == s {
			return true
		}
	}
	return false
}

func fits(v any, typ string) bool {
	typ = strings.TrimPrefix(typ, "custom ")
	if one, ok := strings.CutSuffix(typ, " array"); ok {
		a, ok := v.([]any)
		for _, x := range a {
			ok = ok && fits(x, one)
		}
		return ok && len(a) > 0
	}
	s, isText := v.(string)
	switch typ {
	case "keyword", "match_only_text":
		return isText
	case "long":
		f, ok := v.(float64)
		return ok && f == float64(int64(f))
	case "ip":
		_, err := netip.ParseAddr(s)
		return isText && err == nil
	case "date":
		_, err := time.Parse(time.RFC3339Nano, s)
		return isText && err == nil && strings.HasSuffix(s, "Z") && strings.Contains(s, ".")
	}
	return false
}

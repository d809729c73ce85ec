package ecs

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	const at = `"@timestamp":"2026-11-24T12:00:01.2345Z",`
	for _, c := range []struct{ line, text, explain string }{
		{`{` + at + `"event.action":"accept","event.reason":"rule","rule.id":"allow-web","source.ip":"10.0.0.2","source.port":40000,"destination.ip":"198.51.100.80","destination.port":443,"destination.domain":"github.com","network.transport":"tcp","network.direction":"egress","network.translated.address":"203.0.113.10","network.translated.port":40000}`,
			"12:00:01.234  ACCEPT  egress  tcp   10.0.0.2:40000 → 198.51.100.80:443 (github.com)  rule allow-web, as 203.0.113.10:40000",
			"thurward explain --from lan --proto tcp --src 10.0.0.2:40000 --dst 198.51.100.80:443 --fqdn github.com"},
		{`{` + at + `"event.action":"drop","event.reason":"no_matching_allow_rule","rule.id":"default-deny","source.ip":"192.0.2.1","source.port":53,"destination.ip":"203.0.113.10","destination.port":5353,"network.transport":"udp","network.direction":"ingress","firewall.count":1000}`,
			"12:00:01.234  DROP    ingress udp   192.0.2.1:53 → 203.0.113.10:5353  default-deny (no_matching_allow_rule)  × 1000",
			"thurward explain --from wan --proto udp --src 192.0.2.1:53 --dst 203.0.113.10:5353"},
		{`{` + at + `"event.action":"drop","event.reason":"ipv6_unsupported","rule.id":"default-deny","firewall.ethertype":"0x86dd","network.direction":"egress"}`,
			"12:00:01.234  DROP    egress        a frame of EtherType 0x86dd  ipv6_unsupported", ""},
		{`{` + at + `"event.action":"accept","event.reason":"rule","rule.id":"p","source.ip":"10.0.0.2","destination.ip":"1.1.1.1","network.transport":"icmp","firewall.icmp_type":8,"network.direction":"egress"}`,
			"12:00:01.234  ACCEPT  egress  icmp  10.0.0.2 → 1.1.1.1 echo  rule p",
			"thurward explain --from lan --proto icmp --src 10.0.0.2 --dst 1.1.1.1"},
		{`{` + at + `"event.action":"flow-end","event.reason":"rule","rule.id":"w","source.ip":"10.0.0.2","source.port":1,"destination.ip":"1.1.1.1","destination.port":2,"network.transport":"tcp","network.direction":"egress","network.packets":10,"network.bytes":5000,"event.duration":3000000000}`,
			"12:00:01.234  END     egress  tcp   10.0.0.2:1 → 1.1.1.1:2  rule w, 10 packets, 5.0 kB in 3s",
			"thurward explain --from lan --proto tcp --src 10.0.0.2:1 --dst 1.1.1.1:2"},
		{`{` + at + `"event.action":"would-drop","event.reason":"explicit_deny","rule.id":"s","source.ip":"10.0.0.2","source.port":1,"destination.ip":"1.1.1.1","destination.port":53,"network.transport":"udp","network.direction":"egress"}`,
			"12:00:01.234  SHADOW  egress  udp   10.0.0.2:1 → 1.1.1.1:53  rule s would drop",
			"thurward explain --from lan --proto udp --src 10.0.0.2:1 --dst 1.1.1.1:53"},
		{`{` + at + `"event.action":"dns-query","event.reason":"blocked","source.ip":"10.0.0.2","dns.question.name":"ads.example","dns.question.type":"A","dns.response_code":"NXDOMAIN","event.duration":12345678}`,
			"12:00:01.234  DNS     10.0.0.2  ads.example A  blocked (NXDOMAIN) in 12.3ms", ""},
		{`{"event.action":"lines-lost","firewall.lost_lines":12,"firewall.lost_records":5}`,
			"--:--:--.---  LOST    12 lines, 5 events unread, in the firewall", ""},
	} {
		e := parse(t, c.line)
		if got := (Style{}).Text(e.Time(), e); got != c.text {
			t.Errorf("got  %s\nwant %s", got, c.text)
		}
		if got := Explain(e); got != c.explain {
			t.Errorf("got  %s\nwant %s", got, c.explain)
		}
		if !strings.Contains(Style{Color: true}.Text(e.Time(), e), "\x1b[") {
			t.Error("no colour")
		}
	}
}

// TestRemedy: the text of a drop with an expired name has the time since, and the
// setting that would have let the packet through; other drops have neither.
func TestRemedy(t *testing.T) {
	const drop = `{"event.action":"drop","event.reason":"no_matching_allow_rule","rule.id":"default-deny","source.ip":"10.0.0.2","source.port":1,"destination.ip":"192.0.2.1","destination.port":443,"destination.domain":"github.com","network.transport":"tcp","network.direction":"egress"`
	for _, c := range []struct{ more, text, remedy string }{
		{`,"firewall.hint":"name_expired","firewall.name_expired_seconds":75`, ", its name expired 1m15s ago",
			"# 10.0.0.2 had this address as github.com until 1m15s before, and uses it longer than its TTL; dns.ttl_grace, longer by 75, would let it through (docs/dns.md says what that costs)"},
		{`,"firewall.hint":"name_expired","firewall.name_expired_seconds":1e300`, "", ""},
		{`,"firewall.hint":"name_expired","firewall.name_expired_seconds":9000000000000000000`, ", its name expired 1193046h28m15s ago", "# 10.0.0.2"},
		{`,"firewall.hint":"name_expired","firewall.name_expired_seconds":-5`, "", ""},
		{`,"firewall.hint":"name_expired"`, "", ""}, // of an earlier version
		{`,"firewall.hint":"name_resolved_by_other_client","firewall.name_expired_seconds":75`, "", ""},
		{``, "", ""},
	} {
		e := parse(t, drop+c.more+"}")
		text, remedy := (Style{}).Text(e.Time(), e), Remedy(e)
		if !strings.Contains(text, c.text) || (c.text == "") == strings.Contains(text, "expired") {
			t.Errorf("%s: %s", c.more, text)
		}
		if !strings.HasPrefix(remedy, c.remedy) || (c.remedy == "") != (remedy == "") {
			t.Errorf("%s: %s", c.more, remedy)
		}
	}
	e := parse(t, `{"event.action":"drop","source.ip":"a\u001bb\nc","destination.domain":"\u202e\u009b\nrm","firewall.hint":"name_expired","firewall.name_expired_seconds":1}`)
	if r := Remedy(e); strings.ContainsAny(r, "\x1b\n\u202e\u009b") || r == "" {
		t.Errorf("%q drives the terminal", r)
	}
}

// TestExplainAnswer: the command for an answer has its state, and there is no command
// for verdicts that depend on earlier packets.
func TestExplainAnswer(t *testing.T) {
	answer := parse(t, `{"event.action":"accept","event.reason":"rule","source.ip":"198.51.100.80","source.port":80,"destination.ip":"10.0.0.3","destination.port":50018,"network.transport":"tcp","network.direction":"ingress","network.translated.address":"203.0.113.10","firewall.answer":true}`)
	const cmd = "thurward explain --from wan --proto tcp --src 198.51.100.80:80 --dst 10.0.0.3:50018"
	if got := Explain(answer); got != cmd+" --state established" {
		t.Error(got)
	}
	delete(answer, "firewall.answer")
	if got := Explain(answer); got != cmd {
		t.Error(got)
	}
	for _, reason := range []string{"tx_full", "conntrack_full", "conntrack_invalid", "malformed_packet", "sni_refused"} {
		answer["event.reason"] = reason
		if got := Explain(answer); got != "" {
			t.Error(got)
		}
	}
	answer["network.transport"] = "47"
	delete(answer, "source.port")
	delete(answer, "destination.port")
	answer["event.reason"] = "conntrack_invalid"
	if got := Explain(answer); got != "thurward explain --from wan --proto 47 --src 198.51.100.80 --dst 10.0.0.3" {
		t.Error(got)
	}
}

// TestExplainNames: the command has the state of the name: expired, or resolved by
// another host.
func TestExplainNames(t *testing.T) {
	e := parse(t, `{"event.action":"drop","event.reason":"no_matching_allow_rule","source.ip":"10.0.0.2","source.port":1,"destination.ip":"192.0.2.1","destination.port":443,"destination.domain":"a.example","firewall.hint":"name_expired","firewall.name_expired_seconds":12,"network.transport":"tcp","network.direction":"egress"}`)
	const cmd = "thurward explain --from lan --proto tcp --src 10.0.0.2:1 --dst 192.0.2.1:443 --fqdn a.example"
	if got := Explain(e); got != cmd+" --expired 12s" {
		t.Error(got)
	}
	e["firewall.hint"] = "name_resolved_by_other_client"
	if got := Explain(e); got != cmd+" --by-other" {
		t.Error(got)
	}
}

// TestTextIsSafe: a name from the network can control neither the terminal nor a
// shell.
func TestTextIsSafe(t *testing.T) {
	e := Event{"event.action": "drop", "network.direction": "egress", "network.transport": "tcp", "source.ip": "10.0.0.2", "destination.ip": "1.1.1.1",
		"destination.domain": "x\x1b]0;pwned\a'; rm -rf ~; '\u202e", "rule.id": strings.Repeat("r\n", 50000), "event.reason": "explicit_deny"}
	s := Style{}.Text(e.Time(), e)
	if strings.ContainsAny(s, "\x1b\a\n\u202e") || len(s) > 2000 {
		t.Errorf("%q", s)
	}
	if got := Explain(e); !strings.Contains(got, `--fqdn 'x·]0;pwned·'\''; rm -rf ~; '\''·'`) {
		t.Error(got)
	}
}

func parse(t *testing.T, s string) Event {
	t.Helper()
	e, err := Parse(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return e
}

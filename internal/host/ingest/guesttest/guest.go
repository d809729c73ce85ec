// Package guesttest is a firewall's end of the stream for tests: it says what
// a firewall with some traffic would say, the same every time.
package guesttest

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A Guest makes lines. The zero Guest needs a Boot and a WAN.
type Guest struct {
	Boot  string    // service.instance.id
	WAN   string    // address with prefix length
	Start time.Time // when it booted
	n     int       // snapshots so far
	seq   int       // events so far
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// Policy is the digest of the policy that it runs.
const Policy = "sha256:ab00000000000000000000000000000000000000000000000000000000000000"

// Hello returns the first line of a connection.
func (g *Guest) Hello(now time.Time) string {
	return fmt.Sprintf(`# HELLO {"stream.version":1,"@timestamp":"%s","service.name":"thurward","service.version":"1.0","service.instance.id":%q,"firewall.git_sha":"0123456789abcdef0123456789abcdef01234567","firewall.policy":"%s","firewall.clock":"kvmclock","firewall.lan.name":"lan0","firewall.lan.mac":"52:54:00:74:68:01","firewall.lan.address":"10.0.0.1/24","firewall.wan.name":"wan0","firewall.wan.mac":"52:54:00:74:68:02","firewall.wan.address":%q,"firewall.rules":4,"firewall.max_flows":65536,"firewall.uptime_ns":%d,"firewall.connection":1,"firewall.lost_lines":0}`,
		stamp(now), g.Boot, Policy, g.WAN, now.Sub(g.Start).Nanoseconds())
}

// Rules are the ids of the rules that it counts.
var Rules = []string{"allow-web", "allow-dns", "allow-ping", "allow-established", "default-deny"}

// Snapshot returns the lines of the next snapshot of metrics, the last of which
// is the end mark. Every counter of the n-th is n times what it counts in ten
// seconds; gauges go up and down.
func (g *Guest) Snapshot() []string {
	g.n++
	n := float64(g.n)
	l := []string{"# METRIC # SNAPSHOT " + stamp(g.Start.Add(time.Duration(10*g.n)*time.Second))}
	family := func(name, typ, help string, samples ...string) {
		l = append(l, "# METRIC # HELP "+name+" "+help, "# METRIC # TYPE "+name+" "+typ)
		for _, s := range samples {
			l = append(l, "# METRIC "+name+s)
		}
	}
	v := func(labels string, per float64) string { return fmt.Sprintf("%s %.0f", labels, per*n) }
	at := func(labels string, x float64) string { return fmt.Sprintf("%s %.0f", labels, x) }
	wave := 1 + 0.5*float64(g.n%7)/7
	family("thurward_build_info", "gauge", "The build and the policy that run.", fmt.Sprintf(`{version="1.0",git_sha="0123456789abcdef0123456789abcdef01234567",schema_sha="",rules_sha=%q} 1`, Policy))
	family("thurward_clock_info", "gauge", "Where time comes from.", `{source="kvmclock"} 1`)
	accepts, drops := []string{}, []string{}
	for i, r := range Rules {
		accepts = append(accepts, v(fmt.Sprintf(`{rule_id=%q}`, r), []float64{52000, 900, 30, 61000, 0}[i]))
		drops = append(drops, v(fmt.Sprintf(`{rule_id=%q}`, r), []float64{0, 0, 0, 0, 420}[i]))
	}
	family("thurward_rule_accepts_total", "counter", "Packets that a rule accepted.", accepts...)
	family("thurward_rule_drops_total", "counter", "Packets that a rule dropped.", drops...)
	family("thurward_drops_total", "counter", "Packets dropped, by reason.", v(`{drop_reason="no_matching_allow_rule"}`, 420), v(`{drop_reason="ipv6_unsupported"}`, 60), v(`{drop_reason="malformed_packet"}`, 3), v(`{drop_reason="tx_full"}`, 0))
	family("thurward_interface_receive_packets_total", "counter", "Frames received.", v(`{interface="lan"}`, 53000), v(`{interface="wan"}`, 61500))
	family("thurward_interface_receive_bytes_total", "counter", "Bytes received.", v(`{interface="lan"}`, 9e6), v(`{interface="wan"}`, 71e6))
	family("thurward_interface_transmit_packets_total", "counter", "Frames sent.", v(`{interface="lan"}`, 61000), v(`{interface="wan"}`, 52500))
	family("thurward_interface_transmit_bytes_total", "counter", "Bytes sent.", v(`{interface="lan"}`, 70e6), v(`{interface="wan"}`, 8.9e6))
	family("thurward_conntrack_entries", "gauge", "Flows in the table.", at("", 21000*wave))
	family("thurward_conntrack_capacity", "gauge", "Flows that the table holds at most.", at("", 65536))
	family("thurward_conntrack_inserts_total", "counter", "Flows that began.", v("", 2400))
	family("thurward_conntrack_evictions_total", "counter", "Flows that left the table, by cause.", v(`{reason="expired"}`, 2300))
	family("thurward_nat_port_pool_in_use", "gauge", "External ports in use.", at(`{external_ip="203.0.113.10",proto="tcp"}`, 18000*wave), at(`{external_ip="203.0.113.10",proto="udp"}`, 3000*wave))
	family("thurward_nat_port_pool_size", "gauge", "External ports that there are.", at(`{external_ip="203.0.113.10",proto="tcp"}`, 64511), at(`{external_ip="203.0.113.10",proto="udp"}`, 64511))
	family("thurward_nat_translations_total", "counter", "Flows that were translated, by kind.", v(`{kind="snat"}`, 2400))
	family("thurward_dns_queries_total", "counter", "Queries of clients, by outcome.", v(`{outcome="answered"}`, 800), v(`{outcome="nxdomain"}`, 90), v(`{outcome="blocked"}`, 40))
	family("thurward_dns_lookup_duration_seconds", "histogram", "Time from a query to its answer.", v(`_bucket{le="0.001"}`, 100), v(`_bucket{le="0.025"}`, 700), v(`_bucket{le="1"}`, 890), v(`_bucket{le="+Inf"}`, 930),
		fmt.Sprintf("_sum %g", 12.5*n), v("_count", 930))
	family("thurward_fqdn_set_size", "gauge", "Names and addresses learned at the moment.", at("", 350*wave))
	family("thurward_fqdn_set_evictions_total", "counter", "Names forgotten, by cause.", v(`{reason="expired"}`, 50))
	family("thurward_vsock_send_queue_depth", "gauge", "Lines that wait to be sent.", at("", 3))
	family("thurward_vsock_dropped_lines_total", "counter", "Lines dropped from the queue.", v("", 0))
	return append(l, "# METRIC # EOF")
}

// Event returns the next event.
func (g *Guest) Event(now time.Time) string {
	g.seq++
	i := g.seq
	common := fmt.Sprintf(`{"@timestamp":"%s","event.kind":"event","event.category":["network"],"event.sequence":%d,`, stamp(now), i)
	tail := fmt.Sprintf(`,"firewall.clock":"kvmclock","firewall.policy":"%s"}`, Policy)
	switch i % 4 {
	case 1:
		return common + fmt.Sprintf(`"event.type":["connection","allowed"],"event.action":"accept","event.outcome":"success","event.reason":"rule","rule.id":"allow-web","rule.name":"Web for the LAN","source.ip":"10.0.0.%d","source.port":%d,"destination.ip":"198.51.100.80","destination.port":443,"network.transport":"tcp","network.iana_number":"6","network.type":"ipv4","destination.domain":"github.com","network.direction":"egress","network.translated.address":"203.0.113.10","network.translated.port":%d,"source.nat.ip":"203.0.113.10","source.nat.port":%d,"firewall.flow_id":%d,"trace.id":"c98f79adb21ba1d906524c7dab23fbff","span.id":"62b4f107077272db"`, 2+i%5, 40000+i%20000, 40000+i%20000, 40000+i%20000, i) + tail
	case 2:
		return common + fmt.Sprintf(`"event.type":["connection","denied"],"event.action":"drop","event.outcome":"failure","event.reason":"no_matching_allow_rule","firewall.drop_reason":"no_matching_allow_rule","rule.id":"default-deny","rule.name":"Default action: deny","source.ip":"10.0.0.%d","source.port":%d,"destination.ip":"198.51.100.%d","destination.port":8443,"network.transport":"tcp","network.iana_number":"6","network.type":"ipv4","destination.domain":"%s","network.direction":"egress","firewall.count":%d,"event.start":"%s","event.end":"%s"`,
			2+i%3, 50000+i%10000, i%200, []string{"telemetry.example", "ads.example", "tracker.example"}[i/4%3], 1+i%9, stamp(now.Add(-time.Second)), stamp(now)) + tail
	case 3:
		return common + fmt.Sprintf(`"event.type":["protocol","info"],"event.action":"dns-query","event.outcome":"success","event.reason":"answered","source.ip":"10.0.0.2","source.port":5353,"destination.ip":"10.0.0.1","destination.port":53,"network.transport":"udp","network.iana_number":"17","network.type":"ipv4","network.protocol":"dns","network.direction":"egress","dns.type":"answer","dns.question.name":"github.com","dns.question.type":"A","dns.response_code":"NOERROR","dns.resolved_ip":["198.51.100.80"],"event.duration":12000000,"firewall.dns_lookup":%d`, i) + tail
	}
	return common + fmt.Sprintf(`"event.type":["connection","end"],"event.action":"flow-end","event.outcome":"success","event.reason":"rule","rule.id":"allow-web","rule.name":"Web for the LAN","source.ip":"10.0.0.2","source.port":40000,"destination.ip":"198.51.100.80","destination.port":443,"network.transport":"tcp","network.iana_number":"6","network.type":"ipv4","network.direction":"egress","firewall.flow_id":%d,"network.packets":10,"network.bytes":5000,"source.packets":6,"source.bytes":800,"destination.packets":4,"destination.bytes":4200,"event.duration":3000000000`, i) + tail
}

// Span returns a flow's span that ends at now.
func (g *Guest) Span(now time.Time) string {
	return fmt.Sprintf(`# SPAN {"traceId":"c98f79adb21ba1d906524c7dab23fbff","spanId":"62b4f107077272db","name":"flow","kind":1,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[{"key":"source.address","value":{"stringValue":"10.0.0.2"}},{"key":"source.port","value":{"intValue":"40000"}},{"key":"firewall.rule_id","value":{"stringValue":"allow-web"}}],"links":[{"traceId":"3ca93c22c7276ea33becb9f117f06080","spanId":"a762e5f5652e02cf"}],"status":{}}`, now.Add(-3*time.Second).UnixNano(), now.UnixNano())
}

var guests atomic.Int64

// Dial connects to a receiver's Unix socket as a machine of its own and returns
// a function that sends lines. The connection ends with the test.
func Dial(t testing.TB, path string) (send func(lines ...string), end func()) {
	t.Helper()
	return DialAs(t, path, fmt.Sprintf("guest%d-%d", os.Getpid(), guests.Add(1)))
}

// Conn connects to a receiver's Unix socket as a machine: connections of the
// same machine are the same peer to the receiver, whatever is said over them.
func Conn(path, machine string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.UnixAddr{Name: fmt.Sprintf("@thurward/%s/%d", machine, guests.Add(1)), Net: "unix"}}
	return d.Dial("unix", path)
}

// DialAs is Dial as a certain machine.
func DialAs(t testing.TB, path, machine string) (send func(lines ...string), end func()) {
	t.Helper()
	c, err := Conn(path, machine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func(lines ...string) {
		t.Helper()
		c.SetWriteDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a test
		if _, err := c.Write([]byte(strings.Join(lines, "\n") + "\n")); err != nil {
			t.Fatal(err)
		}
	}, func() { c.Close() }
}

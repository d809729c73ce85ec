package router

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	lines "github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// What the published design promises: reasons of verdicts, and metrics with the
// names of their labels.
const promisedReasons = `rule default_action no_matching_allow_rule explicit_deny malformed_packet fragmented_ipv4 ipv6_unsupported
	ethertype_unsupported martian ttl_expired conntrack_full conntrack_invalid nat_port_pool_exhausted dnat_no_backend
	hairpin_unsupported rate_limit_dns rate_limit_flows neighbour_unresolved tx_full`

var promisedMetrics = map[string]string{
	"thurward_rule_accepts_total":               "rule_id",
	"thurward_rule_drops_total":                 "rule_id",
	"thurward_drops_total":                      "drop_reason",
	"thurward_conntrack_entries":                "",
	"thurward_conntrack_capacity":               "",
	"thurward_conntrack_inserts_total":          "",
	"thurward_conntrack_evictions_total":        "reason",
	"thurward_nat_port_pool_in_use":             "external_ip proto",
	"thurward_nat_translations_total":           "kind",
	"thurward_dns_queries_total":                "outcome",
	"thurward_dns_lookup_duration_seconds":      "",
	"thurward_fqdn_set_size":                    "",
	"thurward_fqdn_set_evictions_total":         "reason",
	"thurward_vsock_send_queue_depth":           "",
	"thurward_vsock_dropped_lines_total":        "",
	"thurward_interface_receive_packets_total":  "interface",
	"thurward_interface_receive_bytes_total":    "interface",
	"thurward_interface_transmit_packets_total": "interface",
	"thurward_interface_transmit_bytes_total":   "interface",
	"thurward_build_info":                       "version git_sha schema_sha rules_sha",
	"thurward_clock_info":                       "source",
}

// TestPromisedNames: what the design promises is there under its name, with its
// labels, and what is there beside it is what docs/telemetry.md lists.
func TestPromisedNames(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n## Stable names\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("docs/telemetry.md has no section of stable names")
	}
	// rows are the values that a row of the section lists.
	rows := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`[^|]*\\|([^|]*)\\|").FindAllStringSubmatch(section, -1) {
		for _, v := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(m[2], -1) {
			rows[m[1]] = append(rows[m[1]], v[1])
		}
	}
	for name, labels := range promisedMetrics {
		m := lines.NamedMetric(name)
		if m == nil || strings.Join(m.Labels, " ") != labels {
			t.Errorf("%s {%s} is not there as promised: %+v", name, labels, m)
		}
	}
	promised := strings.Fields(promisedReasons)
	var all, more []string
	for r := verdict.Reason(1); r < verdict.NumReasons; r++ {
		if all = append(all, r.String()); !slices.Contains(promised, r.String()) {
			more = append(more, r.String())
		}
	}
	for _, r := range promised {
		if !slices.Contains(all, r) {
			t.Errorf("the reason %s is promised and not there", r)
		}
	}
	same := func(what string, have []string) {
		t.Helper()
		listed := slices.Clone(rows[what])
		slices.Sort(have)
		slices.Sort(listed)
		if !slices.Equal(have, listed) {
			t.Errorf("%s: the image has %v, docs/telemetry.md lists %v", what, have, listed)
		}
	}
	same("drop_reason", more)
	for _, f := range newDNSLab(t, nil).e.Metrics() {
		switch f.Name {
		case "thurward_dns_queries_total", "thurward_conntrack_evictions_total", "thurward_fqdn_set_evictions_total", "thurward_nat_translations_total":
			var have []string
			for i := range max(f.N, 1) {
				for _, v := range regexp.MustCompile(`="([^"]*)"`).FindAllStringSubmatch(string(f.Labels(nil, i)), -1) {
					have = append(have, v[1])
				}
			}
			same(f.Name, have)
		}
	}
}

package thurwardreceiver

import (
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
)

// scopeName is the instrumentation scope of all that is received.
const scopeName = "github.com/thurward/thurward"

// instance returns a firewall's service.instance.id. Firewalls that send the same one
// are distinguished by a suffix that they do not choose.
func (c *Config) instance(h *ingest.Hello) string {
	switch c.Instance {
	case byBoot:
		if h.Boot != "" {
			return h.Boot + h.Suffix
		}
	case byWANMAC:
		if m := h.Fields.Str(ecs.WANMAC); m != "" {
			return m + h.Suffix
		}
	}
	return h.Name()
}

// claims returns further names of a firewall that must be unique, beside those that
// package ingest checks. The hardware address is one only if the configuration asks for
// it, since many firewalls have the default one.
func (c *Config) claims(h *ingest.Hello) []string {
	if m := h.Fields.Str(ecs.WANMAC); m != "" && c.Instance == byWANMAC {
		return []string{m}
	}
	return nil
}

// fill writes the resource of a firewall, by OpenTelemetry's semantic
// conventions where they have a name.
func (c *Config) fill(r pcommon.Resource, h *ingest.Hello) {
	a := r.Attributes()
	put := func(name, value string) {
		if value != "" {
			a.PutStr(name, value)
		}
	}
	put("service.name", "thurward")
	put("service.instance.id", c.instance(h))
	put("service.version", h.Fields.Str(ecs.ServiceVersion))
	put("host.id", h.Fields.Str(ecs.WANMAC))
	list := func(name string, convert func(string) string, fields ...string) {
		var s pcommon.Slice
		for i, f := range fields {
			v := convert(h.Fields.Str(f))
			if v == "" {
				continue
			}
			if i == 0 || s == (pcommon.Slice{}) {
				s = a.PutEmptySlice(name)
			}
			s.AppendEmpty().SetStr(v)
		}
	}
	list("host.mac", func(m string) string { return strings.ToUpper(strings.ReplaceAll(m, ":", "-")) }, ecs.LANMAC, ecs.WANMAC)
	list("host.ip", func(p string) string { ip, _, _ := strings.Cut(p, "/"); return ip }, ecs.LANAddress, ecs.WANAddress)
	put("vcs.ref.head.revision", h.Fields.Str(ecs.GitSHA))
	put("firewall.policy", h.Fields.Str(ecs.Policy))
	put("firewall.clock", h.Fields.Str(ecs.Clock))
	put("firewall.boot", h.Boot)
}

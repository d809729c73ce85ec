package ecs

import (
	"fmt"
	"strings"
	"time"
)

// Explain returns the command that asks the policy for the same verdict, "" if
// the policy alone does not decide it.
func Explain(e Event) string {
	src, dst, proto := e.Str(SourceIP), e.Str(DestinationIP), e.Str(NetworkTransport)
	from := map[string]string{"egress": "lan", "ingress": "wan"}[e.Str(NetworkDirection)]
	switch e.Str(EventAction) {
	case Accept, Drop, FlowEnd, WouldAccept, WouldDrop:
	default:
		return ""
	}
	if src == "" || dst == "" || from == "" || !explained(e.Str(EventReason), proto) {
		return ""
	}
	cmd := []string{"thurward", "explain", "--from", from, "--proto", shell(proto),
		"--src", shell(hostPort(src, e.Str(SourcePort))), "--dst", shell(hostPort(dst, e.Str(DestinationPort)))}
	if n := e.Str(DestinationDomain); n != "" {
		cmd = append(cmd, "--fqdn", shell(n))
		// With the name the verdict would have been another one: the sender had
		// not resolved it, or its answer had expired.
		switch e.Str(Hint) {
		case hintExpired:
			cmd = append(cmd, "--expired", fmt.Sprintf("%ds", expired(e)/time.Second))
		case hintOther:
			cmd = append(cmd, "--by-other")
		}
	}
	if e.Str(Answer) == "true" {
		cmd = append(cmd, "--state", "established")
	}
	return strings.Join(cmd, " ")
}

// Remedy returns on one line, as a comment for a shell, what would have let a
// dropped packet through, or "".
func Remedy(e Event) string {
	ago, name := expired(e), Clean(e.Str(DestinationDomain))
	if ago == 0 || name == "" {
		return ""
	}
	return fmt.Sprintf("# %s had this address as %s until %s before, and uses it longer than its TTL;"+
		" dns.ttl_grace, longer by %d, would let it through (docs/dns.md says what that costs)",
		Clean(e.Str(SourceIP)), name, ago, ago/time.Second)
}

// explained reports whether thurward explain knows why a packet of a protocol
// got this reason: the policy alone decides it, not the packets before.
func explained(reason, proto string) bool {
	switch reason {
	case "rule", "martian", "hairpin_unsupported", "no_local_service", "untranslated_destination":
		return true
	case "conntrack_invalid": // of a protocol that has no flows
		return proto != "tcp" && proto != "udp" && proto != "icmp"
	}
	return ruleDecided(reason)
}

// plainWord is what needs no quotes in a shell. Brackets would be a pattern.
const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/"

// shell quotes a word for a shell if necessary.
func shell(s string) string {
	if s != "" && len(s) <= maxText && strings.Trim(s, plainWord) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(Clean(s), "'", `'\''`) + "'"
}

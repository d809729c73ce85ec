package image

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// The firewall's program comes in two variants of one source, cmd/firewall,
// told apart by a build tag: TLS is linked only into images whose policy asks
// for it (ADR 0010).
const (
	Plain = "firewall.elf"     // without TLS
	DoT   = "firewall-dot.elf" // with DNS over TLS: go build -tags dot
)

// dotTag is the build tag of DoT.
const dotTag = "dot"

// ProgramFor returns the variant that a policy needs, by the name of its file.
func ProgramFor(p *ruleset.Policy) string {
	for i := range p.Upstreams {
		if p.Upstreams[i].TLS != 0 {
			return DoT
		}
	}
	return Plain
}

// checkVariant returns an error if a program lacks what the policy needs. Data that is
// not a ruleset is not checked here; the program refuses it when it starts.
func checkVariant(program, policy []byte) error {
	p, err := ruleset.Open(policy)
	if err != nil || ProgramFor(p) == Plain {
		return nil
	}
	if tags, err := buildTags(program); err != nil {
		return fmt.Errorf("program: the policy has an upstream with tls, and it is unknown whether the program has TLS: %w (want %s)", err, DoT)
	} else if !tags[dotTag] {
		return fmt.Errorf("program: is built without DNS over TLS, and the policy has an upstream with tls (want %s, which make build/%s makes)", DoT, DoT)
	}
	return nil
}

// buildTags returns the build tags of a Go program. They are part of its loaded data,
// which linker flags and stripping do not remove.
func buildTags(program []byte) (map[string]bool, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	tags := map[string]bool{}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			for t := range strings.SplitSeq(s.Value, ",") {
				tags[t] = true
			}
		}
	}
	return tags, nil
}

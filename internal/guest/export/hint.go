package export

import (
	"strconv"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// appendHint appends a hint's fields.
func appendHint(b []byte, h verdict.Hint, ago uint32) []byte {
	if by := h.Bypass(); by != "" {
		return append(append(append(b, `,"firewall.dns_bypass":"`...), by...), '"')
	}
	if name := h.Name(); name != "" {
		b = append(append(append(b, `,"firewall.hint":"`...), name...), '"')
	}
	if h == verdict.NameExpired {
		b = strconv.AppendUint(append(b, `,"firewall.name_expired_seconds":`...), uint64(ago), 10)
	}
	return b
}

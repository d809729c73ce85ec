package router

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestReasonsAreDocumented: the table of reasons has them all.
func TestReasonsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/architecture/02-packet-path.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "## Reasons")
	if !ok {
		t.Fatal("no section of reasons")
	}
	for r := verdict.Reason(1); r < verdict.NumReasons; r++ {
		if !strings.Contains(table, "`"+r.String()+"`") {
			t.Errorf("%v is not documented", r)
		}
	}
}

// TestJoinedIsDocumented: docs/icmp-and-fragments.md states how long a datagram to the
// firewall itself may be.
func TestJoinedIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/icmp-and-fragments.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("datagrams up to %d bytes", framebuf.MaxLen-packet.EthLen); !strings.Contains(string(doc), want) {
		t.Errorf("docs/icmp-and-fragments.md does not say %q", want)
	}
}

package ingest

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestGiven: a launcher names its firewall; what the firewall says of itself does not
// change that, and an address that is no name is none.
func TestGiven(t *testing.T) {
	for from, want := range map[string]string{
		GivenAddress("ci-17", "1"):                 "ci-17",
		GivenAddress("A.b_c-9", "1.2"):             "A.b_c-9",
		GivenAddress(strings.Repeat("x", 32), "1"): strings.Repeat("x", 32),
		GivenAddress(strings.Repeat("x", 33), "1"): "203.0.113.10",
		GivenAddress("", "1"):                      "203.0.113.10",
		GivenAddress("a#2", "1"):                   "203.0.113.10",
		GivenAddress("a b", "1"):                   "203.0.113.10",
		"@thurward=ci-17":                          "203.0.113.10",
		"@thurward/machine/1":                      "203.0.113.10",
		fmt.Sprintf("@other=%p/x", t):              "203.0.113.10",
		"":                                         "203.0.113.10",
	} {
		d := newDesk(t)
		var dialer net.Dialer
		if from != "" {
			dialer.LocalAddr = &net.UnixAddr{Name: from, Net: "unix"}
		}
		c, err := dialer.Dial("unix", d.path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, wan, "aa", "203.0.113.10/24")
		d.wait(t, " is "+want, 1)
		if d.count(" is "+want+"#") != 0 {
			t.Errorf("%q: %q", from, d.said)
		}
		c.Close()
	}
	for _, good := range []string{"a", "ci-17", "A.b_c"} {
		if err := CheckGiven(good); err != nil {
			t.Error(err)
		}
	}
	if err := CheckGiven("ä"); err == nil || !strings.Contains(err.Error(), "want 1 to 32 letters") {
		t.Error(err)
	}
}

// TestFollowGiven: a follower knows it by that name too, of which there may be two.
func TestFollowGiven(t *testing.T) {
	for from, want := range map[string][2]string{
		"ci-17": {"ci-17", "ci-17"}, "ci-17#2": {"ci-17", "ci-17#2"}, "203.0.113.10#3": {"", "203.0.113.10#3"}, "203.0.113.10": {"", "203.0.113.10"},
	} {
		var b bytes.Buffer
		fmt.Fprintf(&b, "# FROM %s\n", from)
		fmt.Fprintf(&b, wan, "aa", "203.0.113.10/24")
		s, _, err := NewFollower(&b).Next()
		if err != nil || s.Hello.Given != want[0] || s.Hello.Name() != want[1] {
			t.Errorf("%s: %q, %q, %v", from, s.Hello.Given, s.Hello.Name(), err)
		}
	}
}

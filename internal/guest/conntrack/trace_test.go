package conntrack

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

var update = flag.Bool("update", false, "write testdata/tcp.golden anew; read the difference")

// more are conversations whose verdicts are in the trace alone. "S" is SYN, "A" ACK, "F"
// FIN, "R" RST; ">" is from the client, whose first SYN is 1000 unless given.
var more = map[string]string{
	"SYN again, with data":                "> S 1000; > S 1000 n=10; > S 1000 n=5; > S 1000; < SA 5000 a=1011; > A 1011 a=5001",
	"SYN again, larger window":            "> S 1000 w=100; > S 1000 w=200; > S 1000 w=150; < SA 5000 a=1001 w=300; > A 1001 a=5001",
	"SYN again, other scales":             "> S 1000 o=3.3.2; > S 1000 o=3.3.7; > S 1000 o=3.3.4; > S 1000; < SA 5000 a=1001 o=3.3.1; > A 1001 a=5001 w=10; < A 5001 a=1001 w=10",
	"SYN again, now with a scale":         "> S 1000; > S 1000 o=3.3.3; < SA 5000 a=1001 o=3.3.1; > A 1001 a=5001 w=10; < A 5001 a=1001 w=10",
	"a scale of the client only":          "> S 1000 o=3.3.3; < SA 5000 a=1001; > A 1001 a=5001 w=20000; < A 5001 a=1001 w=20000",
	"a scale of the server only":          "> S 1000; < SA 5000 a=1001 o=3.3.3; > A 1001 a=5001 w=20000; < A 5001 a=1001 w=20000",
	"fast open, data taken":               "> S 1000 n=100; < SA 5000 a=1101; > A 1101 a=5001",
	"fast open, data not taken":           "> S 1000 n=100; < SA 5000 a=1001; > A 1001 a=5001 n=100; < A 5001 a=1101",
	"fast open, part taken":               "> S 1000 n=100; < SA 5000 a=1000; < SA 5000 a=1050; > A 1050 a=5001",
	"fast open, more than was sent":       "> S 1000 n=100; < SA 5000 a=1102; < SA 5000 a=1101 n=50; > A 1101 a=5051",
	"fast open, refused":                  "> S 1000 n=100; < RA 0 a=1000; < RA 0 a=1102; < RA 0 a=1050",
	"fast open, refused at the end":       "> S 1000 n=100; < RA 0 a=1101; < SA 5000 a=1101",
	"fast open, given up":                 "> S 1000 n=100; > R 1002; > R 1001; > S 1000",
	"fast open, given up behind it":       "> S 1000 n=100; > R 1101; < SA 5000 a=1000; < SA 5000 a=1102; < SA 5000 a=1001; > A 1101 a=5001",
	"late answer to a refused SYN":        "> S 1000; < RA 0 a=1001; < SA 5000 a=1002; < SA 5000 a=1000; < SA 5000 a=1001; > R 1001",
	"late SYN of the server after that":   "> S 1000; < RA 0 a=1001; < S 5000",
	"another attempt":                     "> S 1000 n=7 w=9000 o=3.3.7; > S 3000 w=100 o=3.3.2; < SA 5000 a=1008 w=50 o=3.3.1; > A 1008 a=5001 w=3",
	"another attempt with data":           "> S 1000 w=10; > S 3000 n=9 w=20; < SA 5000 a=3010; > A 3010 a=5001",
	"another attempt, first refused":      "> S 1000 n=7; > S 3000; < RA 0 a=1000; < RA 0 a=1001; < RA 0 a=1008; < RA 0 a=2461; < RA 0 a=2462; < RA 0 a=3001",
	"three attempts":                      "> S 1000; > S 3000; > S 9000; < SA 5000 a=1001; < SA 5000 a=3001; < SA 6000 a=9001; > A 9001 a=6001",
	"the attempt before, then the last":   "> S 1000; > S 3000; < SA 5000 a=1001; < SA 6000 a=3001; > A 3001 a=6001; < RA 0 a=3001; > A 1001 a=5001",
	"a SYN with data noted, then without": "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > S 9000 n=5; < RA 0 a=9100; > S 9000; < RA 0 a=9002; < RA 0 a=9001",
	"challenge and reset":                 "> S 1000; < A 5000 a=77; > R 78; > R 77; > S 1000; < SA 5000 a=1001; > A 1001 a=5001",
	"challenge with data":                 "> S 1000; < A 5000 a=77 n=1; < FA 5000 a=77; > A 1001 a=5000; > R 0; > R 1001",
	"answers grow the window":             "> S 1000; < SA 5000 a=1001 w=100; < SA 5000 a=1001 w=300; < SA 5000 a=1001 w=200; > A 1001 a=5001 n=300; > A 1301 a=5001 n=1",
	"the client grows its window":         "> S 1000 w=100; < SA 5000 a=1001; > S 1000 w=300; < A 5001 a=1001 n=300; < A 5301 a=1001 n=1; > S 1000 w=50",
	"data before the client's ACK":        "> S 1000; < SA 5000 a=1001; < A 5001 a=1001 n=100; < FA 5101 a=1001; > A 1001 a=5102; > FA 1001 a=5102; < A 5102 a=1002",
	"data before it, other SYN-ACK":       "> S 1000; < SA 5000 a=1001; < A 5001 a=1001 n=100; < SA 5000 a=1001; < SA 5001 a=1001; < SA 4999 a=1001; < SA 5100 a=1001; > A 1001 a=5001",
	"SYN-ACKs with old numbers":           "> S 1000; < SA 5000 a=1001; > A 1001 a=5001 n=9; < A 5001 a=1010; < SA 5000 a=1001; < SA 5000 a=1010; < SA 5000 a=1011; < SA 5000 a=999; < SA 5002 a=1001; < SA 77 a=1001; < SA 77 a=1002",
	"SYN-ACKs far away":                   "> S 100000; < SA 500000 a=100001; > A 100001 a=500001; < SA 434464 a=100001; < SA 434465 a=100001; < SA 434463 a=100001; < SA 500001 a=34465; < SA 500001 a=34464; < SA 434463 a=77; < SA 434464 a=34464",
	"the client's SYN-ACK":                "> S 1000; < SA 5000 a=1001; > SA 1000 a=5001; > SA 1000 a=5002; > SA 1000 a=5000; > SA 1001 a=5001; > SA 999 a=5001; > A 1001 a=5001",
	"both begin":                          "> S 1000 o=3.3.7; < S 5000 o=3.3.2; > SA 1000 a=5001; < SA 5000 a=1001; > A 1001 a=5001 w=9; < A 5001 a=1001 w=9",
	"both begin, ACKs only":               "> S 1000; < S 5000; > A 1001 a=5001; < A 5001 a=1001",
	"both begin, then SYN cookies":        "> S 1000; < S 5000; < SA 6000 a=1001; < SA 7000 a=1000; > A 1001 a=6001; < A 6001 a=1001",
	"both begin, larger windows":          "> S 1000 w=10; < S 5000 w=20; > SA 1000 a=5001 w=30; < SA 5000 a=1001 w=40; > A 1001 a=5001 n=40",
	"both begin, and refuse":              "> S 1000; < S 5000; < RA 0 a=1001",
	"both begin, other numbers":           "> S 1000; < S 5000; > S 1000; < S 5000; < S 5001; > S 1001; < SA 5000 a=1001; > A 1001 a=5001",
	"three answers, the first":            "> S 1000; < SA 5000 a=1001 w=500; < SA 60000 a=1001 w=100; < SA 70000 a=1001 w=50; > A 1001 a=5001 n=10; < A 5001 a=1011; < SA 60000 a=1001; < SA 5000 a=1001",
	"three answers, the second":           "> S 1000; < SA 5000 a=1001 o=3.3.4; < SA 60000 a=1001; < SA 70000 a=1001; > A 1001 a=60001; < A 60001 a=1001 w=7",
	"three answers, the third":            "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < SA 70000 a=1001; > A 1001 a=70001; < A 70001 a=1001",
	"four answers":                        "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < SA 70000 a=1001; < SA 80000 a=1001; > A 1001 a=60001; > A 1001 a=5001",
	"two answers again":                   "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < SA 5000 a=1001; < SA 60000 a=1001; < SA 60000 a=1001; > A 1001 a=5001",
	"answers with scales":                 "> S 1000 o=3.3.1; < SA 5000 a=1001 o=3.3.7; < SA 60000 a=1001 o=3.3.2; > A 1001 a=60001 w=5; < A 60001 a=1001 w=5",
	"answers, and a client's SYN-ACK":     "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; > SA 1000 a=60001; > SA 1000 a=5001; > A 1001 a=5001; > A 1001 a=60001",
	"answers to data":                     "> S 1000 n=50; < SA 5000 a=1001; < SA 60000 a=1051; < SA 70000 a=1050; < SA 70000 a=1051; > A 1051 a=60001 n=20; < A 60001 a=1071",
	"answers, and a client out of reach":  "> S 1000; < SA 5000 a=1001 w=10; < SA 60000 a=1001 w=20; > A 1100 a=5001; > A 1001 a=5001 n=21; > A 1001 a=5001 n=20",
	"answers, and a reset":                "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; > R 1001; > S 1000; > S 2000",
	"answers, and refused":                "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < RA 0 a=1002; < RA 60001 a=1001; < SA 60000 a=1001",
	"answers, the server's reset":         "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < R 5001; < R 60001; < R 60001",
	"refused while it closes":             "> S 1000; < SA 5000 a=1001; < RA 0 a=1001; < RA 0 a=1001; < SA 5000 a=1001; > A 1001 a=5001",
	"forgotten, with data in the SYN":     "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > S 9000 n=20; < SA 7000 a=9000; < SA 7000 a=9021; > S 9000 n=20",
	"forgotten, too much data":            "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > S 9000 n=20; < SA 7000 a=10461; < SA 7000 a=10462; > A 1001 a=5001",
	"forgotten by the client":             "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; < S 9000; > SA 4000 a=9001; < S 9000",
	"close by the client":                 "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > FA 1001 a=5001; < A 5001 a=1001; < A 5001 a=1002; < FA 5001 a=1002; > A 1002 a=5001; > A 1002 a=5002; < A 5002 a=1002",
	"close by the server":                 "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; < FA 5001 a=1001; > A 1001 a=5002; < A 5002 a=1001; > FA 1001 a=5002; < A 5002 a=1002",
	"close by both":                       "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > FA 1001 a=5001; < FA 5001 a=1001; > A 1002 a=5002; < A 5002 a=1001; < A 5002 a=1002",
	"close with the answer":               "> S 1000; < SA 5000 a=1001; > FA 1001 a=5001 n=9; < FA 5001 a=1011; > A 1011 a=5002",
	"FIN before the handshake's end":      "> S 1000; < SA 5000 a=1001; < FA 5001 a=1001; < A 5002 a=1001; > FA 1001 a=5002; < A 5002 a=1002",
	"FIN again, and data behind it":       "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > FA 1001 a=5001; > FA 1001 a=5001; > A 1002 a=5001 n=5; < A 5001 a=1007",
	"reset in the window":                 "> S 1000; < SA 5000 a=1001 w=50; > A 1001 a=5001 w=60; < A 5001 a=1001; > R 1000; > R 1051; > R 1052; > R 1010; > R 1001",
	"reset of what is under way":          "> S 1000; < SA 5000 a=1001; > A 1001 a=5001 n=100; > R 1101; > R 1001; < A 5001 a=1101",
	"reset, and what it overtook":         "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > R 1001; > A 1001 a=5001 n=10; < A 5001 a=1011 n=3; > A 1011 a=5004",
	"reset, and the other goes on":        "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > R 1001; < A 5001 a=1001; > A 1001 a=5001; > R 1001; > R 1001",
	"reset before the ACK, going on":      "> S 1000; < SA 5000 a=1001; < R 5001; > A 1001 a=5001; < A 5001 a=1001",
	"resets of both":                      "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > R 1001; < R 5001; < RA 5001 a=1001; < A 5001 a=1001; > A 1001 a=5001",
	"reset in TIME-WAIT":                  "> S 1000; < SA 5000 a=1001; > FA 1001 a=5001; < FA 5001 a=1002; > A 1002 a=5002; < R 5002; > S 1000; > S 1002",
	"the server opens again":              "> S 1000; < SA 5000 a=1001; > FA 1001 a=5001; < FA 5001 a=1002; > A 1002 a=5002; < S 5000; < S 5001; < S 5002",
	"SYN of a reset connection":           "> S 1000; < SA 5000 a=1001; > A 1001 a=5001 n=100; < R 5001; > S 1000; < RA 0 a=1001; > S 1000",
	"SYN of a reset connection, near":     "> S 1000; < SA 5000 a=1001; > A 1001 a=5001 n=100; < R 5001; > S 1100",
	"SYN of the server, noted, reopened":  "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; < S 9000; > R 1001; < S 5000; < S 5001",
	"noted, and own again":                "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > S 9000; > S 1000; > R 1001; > S 1000; > S 9000; > S 100000",
	"forgotten twice":                     "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > S 9000; < SA 7000 a=9001; < SA 7000 a=9001; < SA 5000 a=1001; < SA 77 a=1001",
	"numbers far from each other":         "> S 100000; < SA 500000 a=100001; > A 100001 a=500001; > SA 100000 a=500001; < SA 500000 a=100001; < R 500001; > SA 100000 a=500001",
	"the client's SYN-ACK, refused":       "> S 1000; < RA 0 a=1001; > SA 1000 a=0; > SA 77 a=77",
	"own SYN no longer known":             "> S 100000; < SA 500000 a=100001; > S 33; > S 100001; > S 34463; > S 34464; > S 100000; < SA 500000 a=100001; > A 100001 a=500001",
	"answers and data, and an answer":     "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < A 60001 a=1001 n=100; < SA 60050 a=1001; < SA 60000 a=1001; > A 1001 a=60001",
	"fast open, then no data taken":       "> S 1000 n=100; < SA 5000 a=1101; < SA 5000 a=1000; < SA 5000 a=1001; > A 1001 a=5001",
	"fast open, own SYN not known":        "> S 100000 n=100; < SA 5000 a=100101; > S 33; < SA 5000 a=100102; < SA 5000 a=98640; < SA 5000 a=98641; > A 100101 a=5001",
	"both begin, own SYN not known":       "> S 1000; < S 5000; > S 33; < SA 5000 a=1000; < SA 5000 a=1002; < SA 5000 a=1001; > A 1001 a=5001",
	"data before the handshake":           "> S 1000; < A 4294967295 a=1001 n=1; < FA 4294967295 a=1001; > A 1001 a=0; > A 1001 a=0 n=9; > FA 1000 a=0",
	"data of a connection refused":        "> S 1000; < RA 0 a=1001; < A 4294967295 a=1001 n=1; < FA 4294967295 a=1001; > A 1001 a=0; > FA 1000 a=0; > A 1001 a=4294967295",
	"both begin, the server is first":     "> S 1000; < S 5000; > SA 1000 a=5001; < A 5001 a=1001 n=3; > A 1001 a=5004",
	"both begin, with data":               "> S 1000 n=50; < S 5000 n=20; > SA 1000 a=5001; < SA 5000 a=1001; > A 1001 a=5001 n=50; < A 5001 a=1051 n=20",
	"both begin, then another SYN-ACK":    "> S 1000; < S 5000; > SA 1000 a=5001; < SA 5000 a=1001; < SA 90000 a=1001; > A 1001 a=5001",
	"both begin, a SYN-ACK of nothing":    "> S 1000; < S 5000; < SA 90000 a=0; < SA 90000 a=1001; > A 1001 a=90001",
	"RST without ACK of another attempt":  "> S 1000; > S 3000; < R 0 a=1001; < R 1001 a=1001; < RA 0 a=1001",
	"RST without ACK of a SYN noted":      "> S 1000; < SA 5000 a=1001; > A 1001 a=5001; > S 9000; < R 0 a=9001; < RA 0 a=9001",
	"RST without ACK in the handshake":    "> S 1000; < SA 5000 a=1001; < R 0 a=1001; < RA 0 a=1001; < RA 0 a=1001",
	"SYN without ACK that answers":        "> S 1000; < SA 5000 a=1001; < S 90000 a=1001; > A 1001 a=90001; > A 1001 a=5001",
	"three answers, the client's SYN-ACK": "> S 1000; < SA 5000 a=1001; < SA 60000 a=1001; < SA 70000 a=1001; > SA 1000 a=70001; > A 1001 a=70001",
	"far answers, the client's SYN-ACK":   "> S 1000; < SA 5000 a=1001; < SA 200000 a=1001; > SA 1000 a=200001; > A 1001 a=5001; > A 1001 a=200001",
	"far answers, acknowledged":           "> S 1000; < SA 5000 a=1001; < SA 200000 a=1001; < SA 400000 a=1001; > A 1001 a=0; > A 1001 a=300000; > A 1001 a=200001; > A 1001 a=5001",
	"two answers, none acknowledged":      "> S 1000; < SA 500000 a=1001; < SA 700000 a=1001; > A 1001 a=0; > A 1001 a=1; > A 1001 a=500001",
	"cookies without the data":            "> S 1000 n=100; < SA 5000 a=1001; < SA 60000 a=1001; < SA 70000 a=1050; < SA 80000 a=1101; > A 1001 a=60001",
	"an attempt noted between answers":    "> S 1000; < SA 5000 a=1001; > S 33; < SA 60000 a=1001; < RA 0 a=34",
	"a blind SYN after one answer":        "> S 1000; < SA 5000 a=1001; < S 33; > A 1001 a=5001; < SA 5000 a=1001; < A 5001 a=1001",
	"far ahead":                           "> S 4294967290 n=3; < SA 4294967295 a=4294967294; > A 4294967294 a=0 n=100; < A 0 a=98 n=9; > FA 98 a=9; < FA 9 a=99; > A 99 a=10",
	"windows of nothing":                  "> S 1000 w=0; < SA 5000 a=1001 w=0; > A 1001 a=5001 w=0 n=1; < A 5001 a=1002 w=0 n=1; > A 1002 a=5002 w=0 n=2",
	"odd bits":                            "> SU 1000; < SAPE 5000 a=1001; > AUPEC 1001 a=5001; < AP 5001 a=1001 n=3",
}

var bitOf = map[rune]uint8{'F': packet.FIN, 'S': packet.SYN, 'R': packet.RST, 'P': packet.PSH, 'A': packet.ACK, 'U': 0x20, 'E': 0x40, 'C': 0x80}

// A heard is a segment of more.
type heard struct {
	from Ref
	p    packet.Packet
	o    []byte
}

func parse(t *testing.T, s string) (l []heard) {
	for part := range strings.SplitSeq(s, "; ") {
		f := strings.Fields(part)
		h := heard{p: packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Window: 8192}}
		if f[0] == "<" {
			h.from = 1
		}
		for _, c := range f[1] {
			h.p.Flags |= bitOf[c]
		}
		number := func(s string, to any) {
			if _, err := fmt.Sscan(s, to); err != nil {
				t.Fatalf("%q: %v", part, err)
			}
		}
		number(f[2], &h.p.Seq)
		for _, x := range f[3:] {
			switch v := x[2:]; x[0] {
			case 'a':
				number(v, &h.p.Ack)
			case 'n':
				number(v, &h.p.Payload)
			case 'w':
				number(v, &h.p.Window)
			case 'o':
				for b := range strings.SplitSeq(v, ".") {
					var n uint8
					number(b, &n)
					h.o = append(h.o, n)
				}
			}
		}
		l = append(l, h)
	}
	return l
}

// flagNames are a side's flags as the trace writes them.
var flagNames = []string{"seen", "scale", "fin", "acked", "finack", "reset", "challenge", "syn", "syndata", "own", "over", "more"}

func (f *Shared) trace() string {
	s := ""
	for r := range Ref(2) {
		x := &f.tcp[r]
		var flags []string
		for i, n := range flagNames {
			if x.flags>>i&1 != 0 {
				flags = append(flags, n)
			}
		}
		s += fmt.Sprintf(" | end %d limit %d window %d ack %d syn %d scale %d %s", x.end, x.limit, x.window, x.ack, f.syn(r), x.scale(), strings.Join(flags, ","))
	}
	return s
}

// TestTCPTrace: the state of both ends, and the verdict, after each segment of some
// conversations, as testdata/tcp.golden has it. Where a change of the state machine changes
// the trace, the difference shows for whom.
func TestTCPTrace(t *testing.T) {
	var b strings.Builder
	run := func(name string, l []heard) {
		fmt.Fprintf(&b, "%s\n", name)
		tab := New(1, [2]uint64{1, 2}, Timeouts{}, dirty)
		k := Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Proto: packet.TCP}
		r := tab.Insert(&k, &packet.Rewrite{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4}, Close, outward, 1)
		for i, h := range l {
			v := "begins"
			if i == 0 {
				tab.StartTCP(r, &h.p, h.o)
			} else {
				v = [...]string{"pass", "invalid", "restart", "quiet"}[tab.TCP(r|h.from, &h.p, h.o)]
			}
			flags := ""
			for _, c := range "SFRPAUEC" {
				if h.p.Flags&bitOf[c] != 0 {
					flags += string(c)
				}
			}
			if tab.Dir(r).State != tab.Dir(r^1).State || tab.Sent(r) != tab.Shared(r).tcp[0].end || tab.Acknowledged(r^1) != tab.Shared(r).tcp[0].ack || tab.Sent(r^1) != tab.Shared(r).tcp[1].end || tab.Acknowledged(r) != tab.Shared(r).tcp[1].ack {
				t.Fatalf("%s: the two directions", name)
			}
			fmt.Fprintf(&b, "%s %s %d ack %d len %d: %s, %v%s\n", [...]string{">", "<"}[h.from], flags, h.p.Seq, h.p.Ack, h.p.Payload, v, tab.Dir(r).State, tab.Shared(r).trace())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		run(name, parse(t, more[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(guards)) {
		c := guards[name]
		l := []heard{{p: packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: fSYN, Seq: 1000, Window: 8192}, o: c.opts[0]}}
		for _, s := range c.said {
			h := heard{from: s.from, p: packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: s.flags, Seq: s.seq, Ack: s.ack, Payload: s.n, Window: s.win}}
			if s.win == 0 {
				h.p.Window = 8192
			}
			if s.flags&fSYN != 0 {
				h.o = c.opts[s.from]
			}
			l = append(l, h)
		}
		run("guard: "+name, l)
	}
	const path = "testdata/tcp.golden"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	wants := strings.Split(string(want), "\n")
	for i, line := range strings.Split(b.String(), "\n") {
		if !strings.HasPrefix(line, ">") && !strings.HasPrefix(line, "<") {
			name = line
		}
		if i >= len(wants) || line != wants[i] {
			t.Fatalf("%s:%d, %s:\n%s\nwant\n%s", path, i+1, name, line, wants[min(i, len(wants)-1)])
		}
	}
	if len(wants) != strings.Count(b.String(), "\n")+1 {
		t.Fatalf("%s has more", path)
	}
}

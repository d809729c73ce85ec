package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// The caches that are simulated: those of a small server's core, with the second level left
// out. Prefetches are not simulated, so a miss is a line that is read or written for the
// first time in a while, whether somebody waits for it or not.
const (
	cacheI1 = "32768,8,64"
	cacheD1 = "32768,8,64"
	cacheLL = "8388608,16,64"
)

// A cost is what a function has executed, with all that it calls.
type cost struct {
	instructions int
	d1           int // data misses of the first level
	ll           int // of these, those of the last
}

func (c cost) plus(o cost, n int) cost {
	return cost{c.instructions + n*o.instructions, c.d1 + n*o.d1, c.ll + n*o.ll}
}

// count runs a scenario of this program under callgrind. Now and then that follows the program
// onto another stack, takes this for a return, and counts nothing: then once more.
func count(program string, s *scenario) (costs map[string]cost, err error) {
	for range 3 {
		if costs, err = countOnce(program, s); !errors.Is(err, errNothing) {
			break
		}
	}
	return costs, err
}

// errNothing is the error of an output without a poll.
var errNothing = errors.New("callgrind: nothing was counted of " + poll)

func countOnce(program string, s *scenario) (map[string]cost, error) {
	dir, err := os.MkdirTemp("", "cycles")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out")
	cmd := exec.Command("valgrind", "--tool=callgrind", "--cache-sim=yes", "--I1="+cacheI1, "--D1="+cacheD1, "--LL="+cacheLL,
		"--toggle-collect=main.(*machine).measured", "--toggle-collect=main.(*machine).ending",
		"--compress-strings=no", "--compress-pos=no", "--callgrind-out-file="+out, program, "-run", s.name, "-part", strconv.Itoa(max(s.part, 1)))
	// One thread, and nobody interrupts it: valgrind loses track of a stack that changes.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1", "GOGC=off")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("valgrind: %w\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return parse(b)
}

// module is left out of the names of functions.
const module = "github.com/thurward/thurward/internal/"

// short returns the name of a function without the path of its package.
func short(name string) string {
	name = strings.TrimPrefix(name, module)
	if _, after, ok := strings.Cut(name, "/"); ok {
		return after // guest, or shared
	}
	return name
}

// parse reads what callgrind writes: of each function its own lines, and after each line
// with calls= what these calls cost, which is also returned as "caller > called".
func parse(b []byte) (map[string]cost, error) {
	costs := map[string]cost{}
	var events []string
	calling := false // the next line is what calls cost
	name, called := "", ""
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l := lines.Text()
		key, rest, ok := strings.Cut(l, "=")
		switch {
		case strings.HasPrefix(l, "events:"):
			events = strings.Fields(l)[1:]
		case ok && key == "fn":
			name = short(rest)
		case ok && key == "cfn":
			called = short(rest)
		case ok && key == "calls":
			calling = true
		case ok || l == "" || l[0] < '0' || l[0] > '9':
		default:
			var c cost
			for i, f := range strings.Fields(l)[1:] {
				n, err := strconv.Atoi(f)
				if err != nil || i >= len(events) {
					return nil, fmt.Errorf("callgrind: %q", l)
				}
				switch events[i] {
				case "Ir":
					c.instructions += n
				case "D1mr", "D1mw":
					c.d1 += n
				case "DLmr", "DLmw":
					c.ll += n
				}
			}
			costs[name] = costs[name].plus(c, 1)
			if calling {
				costs[name+" > "+called] = costs[name+" > "+called].plus(c, 1)
			}
			calling = false
		}
	}
	if costs[poll].instructions == 0 {
		return nil, errNothing
	}
	return costs, lines.Err()
}

// split divides the costs among a scenario's stages; the last one is what is left.
func (s *scenario) split(costs map[string]cost) (parts []cost, err error) {
	rest := costs[poll]
	for _, st := range s.stages {
		var c cost
		for _, f := range st.in {
			if costs[f].instructions == 0 {
				return nil, fmt.Errorf("%s: nothing was counted of %s", st.name, f)
			}
			c = c.plus(costs[f], 1)
		}
		for _, f := range st.not {
			c = c.plus(costs[f], -1)
		}
		parts = append(parts, c)
		rest = rest.plus(c, -1)
	}
	return append(parts, rest), nil
}

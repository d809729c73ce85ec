// Command density measures what a firewall for each of N sandboxes costs: the time until
// all are ready, memory, and processor time when idle, beside a network namespace with
// nftables and dnsmasq for each. Both by scripts that people can copy.
//
//	go run ./bench/density -n 1,10,100
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// bounds of one measurement.
const (
	readyLimit = 2 * time.Minute
	settle     = 5 * time.Second
	idleFor    = 10 * time.Second
)

// A way is how sandboxes get a firewall. The ways take turns, so that what else the host
// does meets all of them.
type way struct {
	name   string
	script string
	env    []string
	logs   bool   // it is ready when its logs say so
	work   string // a process that is the firewall, by the beginning of its name
	needs  string // a program
}

func main() {
	counts := flag.String("n", "1,10,100", "numbers of sandboxes")
	thurward := flag.String("thurward", "bin/thurward", "the command")
	policy := flag.String("policy", "examples/sandbox/rules.yaml", "the policy")
	only := flag.String("only", "firecracker,qemu,nftables", "which ways")
	flag.Parse()
	if err := run(*counts, *thurward, *policy, *only); err != nil {
		fmt.Fprintln(os.Stderr, "density:", err)
		os.Exit(1)
	}
}

func run(counts, thurward, policy, only string) error {
	dir, err := os.MkdirTemp("", "thurward-density-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if thurward, err = filepath.Abs(thurward); err != nil {
		return err
	}
	img := filepath.Join(dir, "sandbox.img")
	began := time.Now()
	if out, err := exec.Command(thurward, "build", "-f", policy, "-o", img).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	fmt.Printf("%s; image of %s built in %d ms. Load averages before: %s\n\n", machine(), policy, time.Since(began).Milliseconds(), load())
	closeReceiver, err := receive(filepath.Join(dir, "vsock"))
	if err != nil {
		return err
	}
	defer closeReceiver()
	env := []string{"THURWARD=" + thurward, "IMAGE=" + img, "VSOCK=" + filepath.Join(dir, "vsock"), "STATE=" + filepath.Join(dir, "state"), "PREFIX=dty"}
	ways := []way{
		{"Firecracker", "examples/sandbox/sandboxes.sh", append(slices.Clone(env), "VMM=firecracker"), true, "firecracker", "firecracker"},
		{"Firecracker from a snapshot", "examples/sandbox/sandboxes.sh", append(slices.Clone(env), "VMM=firecracker", "SNAPSHOT="+filepath.Join(dir, "saved")), true, "firecracker", "firecracker"},
		{"QEMU microvm, KVM", "examples/sandbox/sandboxes.sh", append(slices.Clone(env), "VMM=qemu", "RUN_FLAGS=--accel kvm"), true, "qemu-system", "qemu-system-x86_64"},
		{"nftables and dnsmasq", "bench/density/nftables.sh", append(slices.Clone(env), "POLICY="+policy), false, "dnsmasq", "dnsmasq"},
	}
	fmt.Println("| for each sandbox | N | all ready | firewall RSS, PSS | launcher RSS, PSS | idle: firewall, launcher |")
	fmt.Println("| --- | --- | --- | --- | --- | --- |")
	ways = slices.DeleteFunc(ways, func(w way) bool {
		if !strings.Contains(only, strings.Fields(strings.ToLower(w.name))[0]) {
			return true
		}
		_, err := exec.LookPath(w.needs)
		if err != nil {
			fmt.Printf("| %s | – | not measured: %s is not on the PATH | | | |\n", w.name, w.needs)
		}
		return err != nil
	})
	var notes []string
	for i := range ways {
		if w := &ways[i]; strings.Contains(w.name, "snapshot") { // the machine is saved beforehand
			t := time.Now()
			if err := w.do("up", "1"); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			notes = append(notes, fmt.Sprintf("Booting, saving and starting the first from the snapshot took %.1f s.", time.Since(t).Seconds()))
			if err := w.do("down"); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	for _, c := range strings.Split(counts, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 {
			return fmt.Errorf("-n: %q is no number of sandboxes", c)
		}
		for _, w := range ways {
			line, err := measure(&w, n, filepath.Join(dir, "state"), stop)
			if err != nil {
				return fmt.Errorf("%s, %d: %w", w.name, n, err)
			}
			fmt.Println(line)
		}
	}
	fmt.Printf("\n%s It took %d s in all; load averages after: %s\n", strings.Join(notes, " "), int(time.Since(began).Seconds()), load())
	return nil
}

// receive takes the streams of all, and throws them away.
func receive(path string) (closeAll func(), err error) {
	l, err := net.Listen("unix", ingest.GuestSocket(path))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c) //nolint:errcheck // until its end
		}
	}()
	return func() { l.Close() }, nil
}

// script runs a way's script.
func (w *way) do(args ...string) error {
	c := exec.Command(w.script, args...)
	c.Env = append(os.Environ(), w.env...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", w.script, args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// measure starts n sandboxes, and returns a line of the table.
func measure(w *way, n int, state string, stop chan os.Signal) (line string, err error) {
	began := time.Now()
	defer func() {
		if e := w.do("down"); err == nil {
			err = e
		}
		time.Sleep(2 * time.Second)
	}()
	if err := w.do("up", strconv.Itoa(n)); err != nil {
		return "", err
	}
	for w.logs {
		late := notReady(state)
		if len(late) == 0 {
			break
		}
		if time.Since(began) > readyLimit {
			said, _ := os.ReadFile(late[0])
			return "", fmt.Errorf("%d of %d are not ready after %v; one says: %s", len(late), n, readyLimit, said)
		}
		select {
		case <-stop:
			return "", fmt.Errorf("interrupted")
		case <-time.After(10 * time.Millisecond):
		}
	}
	took := time.Since(began)
	time.Sleep(settle)
	work, held := processes(state, w.work)
	if len(work) != n {
		return "", fmt.Errorf("%d processes of %s, want %d", len(work), w.work, n)
	}
	a, b := ticks(work), ticks(held)
	t := time.Now()
	select {
	case <-stop:
		return "", fmt.Errorf("interrupted")
	case <-time.After(idleFor):
	}
	share := func(before, after int64) string {
		return fmt.Sprintf("%.2f %%", float64(after-before)/100/time.Since(t).Seconds()/float64(n)*100)
	}
	rss, pss := memory(work)
	lrss, lpss := memory(held)
	per := func(kb int64) float64 { return float64(kb) / 1024 / float64(n) }
	launcher := fmt.Sprintf("%.1f, %.1f MB", per(lrss), per(lpss))
	idle := share(a, ticks(work)) + ", " + share(b, ticks(held))
	if len(held) == 0 {
		launcher, idle = "–", share(a, ticks(work))
	}
	return fmt.Sprintf("| %s | %d | %.2f s | %.1f, %.1f MB | %s | %s |",
		w.name, n, took.Seconds(), per(rss), per(pss), launcher, idle), nil
}

// notReady returns the logs of sandboxes whose rules are not live.
func notReady(state string) (late []string) {
	logs, _ := filepath.Glob(filepath.Join(state, "*.log"))
	for _, l := range logs {
		b, _ := os.ReadFile(l)
		if !bytes.Contains(b, []byte("\nthurward: ready ")) {
			late = append(late, l)
		}
	}
	return late
}

// processes finds the firewalls, and the launchers that hold them: those whose numbers the
// script wrote, and their children.
func processes(state, name string) (work, held []int) {
	files, _ := filepath.Glob(filepath.Join(state, "*.pid"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.HasPrefix(string(comm), name) {
			work = append(work, pid)
			continue
		}
		held = append(held, pid)
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, l := range lists {
			b, _ := os.ReadFile(l)
			for _, c := range strings.Fields(string(b)) {
				child, _ := strconv.Atoi(c)
				work = append(work, child)
			}
		}
	}
	return work, held
}

// memory sums up resident and proportional memory in KB.
func memory(pids []int) (rss, pss int64) {
	for _, p := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		rss += field(b, "Rss:")
		pss += field(b, "Pss:")
	}
	return rss, pss
}

// field returns the number after a name at the beginning of a line.
func field(b []byte, name string) int64 {
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// ticks sums up the processor time of processes, in hundredths of a second.
func ticks(pids []int) (n int64) {
	for _, p := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 13 {
			continue
		}
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		n += user + system
	}
	return n
}

func machine() string {
	var u syscall.Utsname
	syscall.Uname(&u) //nolint:errcheck // empty then
	release := ""
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		release += string(rune(c))
	}
	cpus, _ := os.ReadFile("/proc/cpuinfo")
	return fmt.Sprintf("%d processors, Linux %s", bytes.Count(cpus, []byte("\nprocessor"))+1, strings.SplitN(release, "-", 2)[0])
}

func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(b))[:3], ", ")
}

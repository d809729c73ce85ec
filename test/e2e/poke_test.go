package e2e

import (
	"bufio"
	"bytes"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// jumpToItself is an instruction: the processor stays there.
var jumpToItself = []byte{0xeb, 0xfe}

// poke writes to the machine's memory, or its registers, at a physical address, as a device
// would: what the emulator has translated of it is translated anew.
func (m *monitored) poke(at uint64, b []byte) {
	m.t.Helper()
	m.qtestDo(fmt.Sprintf("write %#x %#x 0x%x", at, len(b), b))
}

// slot returns where the registers of an interface's device are on microvm.
func (m *monitored) slot(r vmm.Role) uint64 {
	m.t.Helper()
	mac, err := net.ParseMAC(vmm.DefaultMAC(r))
	if err != nil {
		m.t.Fatal(err)
	}
	const first, step, slots = 0xfeb00000, 0x200, 24
	for i := range uint64(slots) {
		at := first + i*step
		if m.peek(at+8) == 1 && m.peek(at+0x102) == uint64(binary.LittleEndian.Uint32(mac[2:])) {
			return at
		}
	}
	m.t.Fatalf("there is no device of the %s", r)
	return 0
}

// vsockSlot finds the registers of the vsock device.
func (m *monitored) vsockSlot() uint64 {
	m.t.Helper()
	for at := uint64(0xfeb00000); at < 0xfeb00000+24*0x200; at += 0x200 {
		if m.peek(at+8) == 19 {
			return at
		}
	}
	m.t.Fatal("there is no vsock device")
	return 0
}

// peek reads a register or a word of the machine's memory.
func (m *monitored) peek(at uint64) uint64 {
	m.t.Helper()
	v, err := strconv.ParseUint(strings.TrimPrefix(m.qtestDo(fmt.Sprintf("readl %#x", at)), "0x"), 16, 64)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

// breakQueue makes an interface's receive queue one that no driver can have made, at which the
// device asks for a reset.
func (m *monitored) breakQueue(r vmm.Role) {
	m.t.Helper()
	var devices struct{ Return []struct{ Path, Name string } }
	m.ask("x-query-virtio", "", &devices)
	for _, d := range devices.Return {
		if d.Name != "virtio-net" {
			continue
		}
		var q struct {
			Return struct {
				Avail uint64 `json:"vring-avail"`
			}
		}
		var mac struct{ Return string }
		m.ask("qom-get", fmt.Sprintf(`{"path":%q,"property":"mac"}`, d.Path), &mac)
		if mac.Return != vmm.DefaultMAC(r) {
			continue
		}
		m.ask("x-query-virtio-queue-status", fmt.Sprintf(`{"path":%q,"queue":0}`, d.Path), &q)
		m.poke(q.Return.Avail+2, []byte{0x34, 0x92}) // the index
		return
	}
	m.t.Fatalf("there is no device of the %s among %v", r, devices)
}

// awaitLine waits for a line of the console that has s.
func (m *monitored) awaitLine(s string) {
	m.t.Helper()
	for until := time.Now().Add(limit); !m.said(s); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			m.t.Fatalf("the console does not say %q", s)
		}
	}
}

// qtestDo gives QEMU a command of its test protocol.
func (m *monitored) qtestDo(command string) string {
	m.t.Helper()
	c, err := net.Dial("unix", m.qtest)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit)) //nolint:errcheck // reads fail then
	if _, err := fmt.Fprintln(c, command); err != nil {
		m.t.Fatal(err)
	}
	for r := bufio.NewReader(c); ; {
		switch l, err := r.ReadString('\n'); {
		case err != nil:
			m.t.Fatal(err)
		case strings.HasPrefix(l, "OK"):
			return strings.TrimSpace(strings.TrimPrefix(l, "OK"))
		case !strings.HasPrefix(l, "IRQ"):
			m.t.Fatalf("%s: %s", command, l)
		}
	}
}

// function returns where a function of the firewall is, by the end of its name.
func (m *monitored) function(name string) uint64 {
	m.t.Helper()
	in, err := parts()
	if err != nil {
		m.t.Fatal(err)
	}
	a, err := functionOf(in.Program, name)
	if err != nil {
		m.t.Fatal(err)
	}
	return a
}

// functionOf finds a function in a stripped program by Go's own table.
func functionOf(program []byte, name string) (uint64, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return 0, err
	}
	text, table := f.Section(".text"), f.Section(".gopclntab")
	if text == nil || table == nil {
		return 0, fmt.Errorf("the program has no table of functions")
	}
	b, err := table.Data()
	if err != nil {
		return 0, err
	}
	t, err := gosym.NewTable(nil, gosym.NewLineTable(b, text.Addr))
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(t.Funcs, func(f gosym.Func) bool { return strings.HasSuffix("/"+f.Name, "/"+name) })
	if i < 0 {
		return 0, fmt.Errorf("there is no function %s", name)
	}
	return t.Funcs[i].Entry, nil
}

// told keeps how a machine ended.
func (m *monitored) told(e vmm.End) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ends = append(m.ends, e)
	m.t.Logf("%s: %s\n  %s\n  %s", e.Reason, e.Text, strings.Join(e.Registers, "\n  "), strings.Join(e.Stack, "\n  "))
}

// kernelFunction returns where a function of the kernel is.
func (m *monitored) kernelFunction(name string) uint64 {
	m.t.Helper()
	in, err := parts()
	if err != nil {
		m.t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(in.Kernel))
	if err != nil {
		m.t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, s := range syms {
		if s.Name == name || s.Name == name+".abi0" {
			return s.Value
		}
	}
	m.t.Fatalf("the kernel has no function %s", name)
	return 0
}

// ended checks how the last machine ended, and that its stack has these functions, in order.
func (m *monitored) ended(want vmm.Reason, stack ...string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ends) == 0 {
		m.t.Fatal("no end was told")
	}
	e := m.ends[len(m.ends)-1]
	if e.Reason != want {
		m.t.Errorf("it ended for %s, want %s", e.Reason, want)
	}
	i := 0
	for _, s := range e.Stack {
		if i < len(stack) && strings.Contains(s, stack[i]) {
			i++
		}
	}
	if i < len(stack) {
		m.t.Errorf("%q is not on the stack:\n%s", stack[i], strings.Join(e.Stack, "\n"))
	}
	if len(stack) > 0 && len(e.Registers) < 4 {
		m.t.Errorf("registers %q", e.Registers)
	}
}

// TestFunctionOf: a function is found by the end of its name, and what is none is not.
func TestFunctionOf(t *testing.T) {
	in, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := functionOf(in.Program, "main.loop"); err != nil || a < 0x400000 {
		t.Errorf("%#x, %v", a, err)
	}
	if _, err := functionOf(in.Program, "main.none"); err == nil {
		t.Error("there is a main.none")
	}
}

package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

// load loads an XDP program, where that is permitted.
func load(t *testing.T, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(spec)
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%+v", refused)
	}
	if err != nil {
		t.Skip("XDP programs need root and a kernel with BPF:", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestGeneratorIsStream: the program makes the stream's frames, in its order,
// also in a buffer that a firewall has changed.
func TestGeneratorIsStream(t *testing.T) {
	for _, size := range []int{60, 590, 1514, 0} {
		for _, fresh := range []bool{false, true} {
			for _, flows := range []int{1, 16, 65536, 1 << 20} {
				for _, first := range []uint64{0, 12, endpoints - 5, 65536 - 5, 1<<20 - 5, 1<<32 - 5} {
					next, err := nextMap(first)
					if err != nil {
						t.Skip("BPF maps need root and a kernel with BPF:", err)
					}
					defer next.Close()
					st := newStream(flows, size, fresh, [6]byte{2, 1}, [6]byte{2, 2})
					st.next = first
					p := load(t, generatorProgram(st, next, 1, pause))
					in := bytes.Clone(st.template[:st.frameRoom()])
					for i := range 26 {
						for j := range in[:42] {
							in[j] ^= byte(i * j)
						}
						var b [2048]byte
						want := b[:st.fill(b[:])]
						verdict, got, err := p.Test(in)
						if err != nil {
							t.Fatal(err)
						}
						const redirect = 4 // XDP_REDIRECT
						if verdict != redirect || !bytes.Equal(got, want) {
							t.Fatalf("size %d, %d flows, fresh %v, frame %d from %d: verdict %d\n%x, want\n%x", size, flows, fresh, i, first, verdict, got, want)
						}
					}
				}
			}
		}
	}
}

func TestSinkCounts(t *testing.T) {
	count, err := countMap()
	if err != nil {
		t.Skip("BPF maps need root and a kernel with BPF:", err)
	}
	defer count.Close()
	sink, pass := load(t, sinkProgram(count)), load(t, passProgram())
	frame := make([]byte, 60)
	for range 5 {
		if v, _, err := sink.Test(frame); err != nil || v != xdpDrop {
			t.Fatalf("sink: %d, %v", v, err)
		}
		if v, _, err := pass.Test(frame); err != nil || v != xdpPass {
			t.Fatalf("pass: %d, %v", v, err)
		}
	}
	if n, err := total(count); err != nil || n != 5 {
		t.Errorf("%d frames counted, %v", n, err)
	}
}

// Package inspect reads what an image says of itself: which build it is, which policy it
// has, and what it is made of. Nothing is run.
package inspect

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/shared/abi"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/stamp"
)

// A Report describes an image. Digests are SHA-256, in 64 hexadecimal digits.
type Report struct {
	Size   int    `json:"size"` // bytes
	Digest string `json:"sha256"`

	Version   string `json:"version"`
	Commit    string `json:"commit"`    // "" if not known
	Schema    string `json:"schema"`    // digest of the schema of policies; "" if not known
	Toolchain string `json:"toolchain"` // as go1.26.8
	Program   string `json:"program"`   // image.Plain or image.DoT

	Policy     string      `json:"policy"` // digest of rules.yaml
	Rules      []string    `json:"rules"`  // their ids, in order
	Interfaces []Interface `json:"interfaces"`
	Cmdline    string      `json:"cmdline"` // boot arguments that are built in

	Packages []string `json:"packages"` // of which code is linked into the firewall's program
	Layout   []Part   `json:"layout"`
}

// An Interface is one side of the firewall.
type Interface struct {
	Role    string `json:"role"` // lan or wan
	Name    string `json:"name"`
	Address string `json:"address"` // with the length of the prefix
	Gateway string `json:"gateway,omitempty"`
	MAC     string `json:"mac,omitempty"` // where the policy sets one
}

// A Part is a range of the image's file, and where it is loaded.
type Part struct {
	Name    string `json:"name"`
	Offset  uint64 `json:"offset"`  // in the file
	Size    uint64 `json:"size"`    // in the file
	Address uint64 `json:"address"` // virtual; 0: not loaded
	Access  string `json:"access"`  // of the pages, as r-x
}

// errNotOurs says that a file is a kernel or program of someone else.
var errNotOurs = errors.New("not an image of thurward build")

// Image reads an image.
func Image(b []byte) (*Report, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOurs, err)
	}
	digest := sha256.Sum256(b)
	r := &Report{Size: len(b), Digest: hex.EncodeToString(digest[:])}
	headers := uint64(64 + 56*len(f.Progs))
	r.Layout = []Part{{Name: "ELF headers", Size: min(headers, uint64(len(b))), Access: "---"}}
	var policy *ruleset.Policy
	var record []byte
	var program [][]byte
	for _, p := range f.Progs {
		if p.Off+p.Filesz < p.Off || p.Off+p.Filesz > uint64(len(b)) {
			return nil, fmt.Errorf("truncated: a part ends at byte %d, the file at %d", p.Off+p.Filesz, len(b))
		}
		data := b[p.Off : p.Off+p.Filesz]
		part := Part{Offset: p.Off, Size: p.Filesz, Address: p.Vaddr, Access: access(p.Flags)}
		switch {
		case p.Type != elf.PT_LOAD:
			part.Name, part.Access = "PVH note", "---"
		case bytes.HasPrefix(data, []byte(ruleset.Magic)):
			part.Name = "policy"
			if policy, err = image.OpenPolicy(data); err != nil {
				return nil, err
			}
		case p.Vaddr >= abi.KernelEnd && p.Vaddr < 1<<32:
			part.Name = "program " + part.Access
			program = append(program, data)
		default:
			part.Name = partName(p.Vaddr, part.Access)
		}
		if p.Vaddr == abi.BootPage && p.Type == elf.PT_LOAD {
			record = data
		}
		r.Layout = append(r.Layout, part)
	}
	if end := r.end(); end < len(b) {
		r.Layout = append(r.Layout, Part{Name: "kernel's symbols", Offset: uint64(end), Size: uint64(len(b) - end), Access: "---"})
	}
	if policy == nil || program == nil {
		return nil, fmt.Errorf("%w: it has no policy, or no program", errNotOurs)
	}
	r.policy(policy)
	r.cmdline(b, f, record)
	return r, r.program(program)
}

// end returns where the last part ends in the file.
func (r *Report) end() int {
	end := uint64(0)
	for _, p := range r.Layout {
		end = max(end, p.Offset+p.Size)
	}
	return int(end)
}

// partName names a part by its address.
func partName(addr uint64, access string) string {
	switch addr {
	case abi.EntryPage:
		return "entry code"
	case abi.DescPage:
		return "descriptor tables"
	case abi.BootPage:
		return "boot record"
	case abi.ClockPage:
		return "clock"
	case abi.VDSOPage:
		return "vDSO"
	case abi.InfoPage:
		return "machine's description"
	case abi.SharedPage:
		return "shared page"
	case abi.MonitorPage:
		return "monitor's state"
	case abi.LocalPage:
		return "monitor's state of a processor"
	}
	if addr >= abi.KernelBase && addr < abi.KernelEnd {
		return "kernel " + access
	}
	return "page tables"
}

func access(f elf.ProgFlag) string {
	b := []byte("---")
	for i, bit := range []elf.ProgFlag{elf.PF_R, elf.PF_W, elf.PF_X} {
		if f&bit != 0 {
			b[i] = "rwx"[i]
		}
	}
	return string(b)
}

// policy fills in what the policy says.
func (r *Report) policy(p *ruleset.Policy) {
	r.Policy = hex.EncodeToString(p.Digest[:])
	r.Program = image.ProgramFor(p)
	r.Rules = []string{}
	for i := range p.Rules {
		r.Rules = append(r.Rules, p.Text(p.Rules[i].ID))
	}
	for _, role := range []ruleset.Role{ruleset.LAN, ruleset.WAN} {
		f := p.Interface(role)
		if f == nil {
			continue
		}
		i := Interface{Role: "lan", Name: p.Text(f.Name)}
		i.Address = netip.PrefixFrom(netip.AddrFrom16(f.Address).Unmap(), int(f.PrefixLen)).String()
		if role == ruleset.WAN {
			i.Role = "wan"
			if g := netip.AddrFrom16(f.Gateway).Unmap(); !g.IsUnspecified() {
				i.Gateway = g.String()
			}
		}
		if f.HasMAC != 0 {
			i.MAC = net.HardwareAddr(f.MAC[:]).String()
		}
		r.Interfaces = append(r.Interfaces, i)
	}
}

// cmdline fills in the boot arguments, by the boot record.
func (r *Report) cmdline(b []byte, f *elf.File, record []byte) {
	var rec abi.BootRecord
	if err := binary.Read(bytes.NewReader(record), binary.LittleEndian, &rec); err != nil {
		return
	}
	for _, p := range f.Progs {
		at := rec.Cmdline - p.Vaddr
		if p.Type == elf.PT_LOAD && rec.Cmdline >= p.Vaddr && at <= p.Filesz && rec.CmdLen <= p.Filesz-at {
			r.Cmdline = string(b[p.Off+at:][:rec.CmdLen])
		}
	}
}

// program fills in what the program's data says: its stamp and its toolchain are in
// data that is loaded, which stripping does not remove.
func (r *Report) program(parts [][]byte) error {
	found := map[stamp.Build]bool{}
	for _, data := range parts {
		for rest := data; ; {
			i := bytes.Index(rest, []byte(stamp.Prefix))
			if i < 0 {
				break
			}
			if s, ok := stamp.Parse(string(rest[i:min(len(rest), i+512)])); ok {
				found[s] = true
			}
			rest = rest[i+1:]
		}
		if v := goVersion(data); v != "" {
			r.Toolchain = v
		}
		r.Packages = append(r.Packages, packages(data)...)
	}
	if len(found) > 1 {
		return fmt.Errorf("the program names %d different builds", len(found))
	}
	r.Version = "dev"
	for s := range found {
		r.Version, r.Commit, r.Schema = s.Version, s.Commit, s.Schema
	}
	return nil
}

// Package doctor looks at a host before a firewall runs on it: what is there, what is
// missing, what will be slow, and what to do about each.
//
//	doctor.go    findings, and the order of the checks
//	host.go      what is looked at: files, devices, programs, addresses
//	machine.go   KVM, accelerator, kernel modules, memory
//	network.go   bridges, TAP devices, filters of bridged packets, addresses in use
//	programs.go  hypervisors, tools for signatures
//
// Nothing is changed, and nothing outside the host is asked.
package doctor

import (
	"fmt"
	"strings"
)

// A Status says how bad a finding is.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Info    Status = "info"    // to know; nothing is wrong
	Warning Status = "warning" // it works, but slower or in part
	Error   Status = "error"   // no firewall can run
)

// A Finding is the result of one check. Name is stable, for programs.
type Finding struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Text   string `json:"text"`             // what was found
	Remedy string `json:"remedy,omitempty"` // what to do, where something is to be done
}

// maxText bounds a finding's text in bytes: names on the host may be long and many.
const maxText = 400

func finding(name string, s Status, remedy, format string, a ...any) Finding {
	text := fmt.Sprintf(format, a...)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return Finding{Name: name, Status: s, Text: text, Remedy: remedy}
}

// Examine makes all checks, in the order in which a person should read them.
func Examine(h *Host) (all []Finding) {
	all = append(all, h.hypervisors()...)
	all = append(all, h.kvm(), h.accelerator(), h.tun(), h.vhostNet(), h.vhostVsock(), h.memory())
	all = append(all, h.bridges(), h.taps(), h.bridgeFilter())
	all = append(all, h.page(), h.stream())
	return append(all, h.signatures(), h.parts())
}

// Worst returns the worst status of findings.
func Worst(all []Finding) Status {
	worst, rank := OK, map[Status]int{OK: 0, Info: 1, Warning: 2, Error: 3}
	for _, f := range all {
		if rank[f.Status] > rank[worst] {
			worst = f.Status
		}
	}
	return worst
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/service"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// deployed takes the folder of a firewall whose image is deployed, "" for none.
func (l *launch) deployed(state string) error {
	if state == "" {
		return nil
	}
	path, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	if l.name == "" {
		l.name = filepath.Base(path)
	}
	if err := deploy.CheckName(l.name); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	if l.lan.Kind == vmm.Demo || l.wan.Kind == vmm.Demo {
		return errors.New("--state is for a firewall with networks (want --lan and --wan with bridge:NAME, tap:NAME, …)")
	}
	l.state = path
	return nil
}

// serve runs the firewall of a name, whose image is changed by thurward deploy.
func (l *launch) serve(ctx context.Context) error {
	store, err := deploy.Open(l.state, false)
	if errors.Is(err, os.ErrNotExist) {
		err = deploy.ErrNone
	}
	if err != nil {
		return l.notDeployed(err)
	}
	defer store.Close()
	rec, err := store.Record()
	if err != nil {
		return l.notDeployed(err)
	}
	h, err := l.hypervisor()
	if err != nil {
		return err
	}
	kvm, why, err := l.try(ctx, h, store, &rec.Current)
	if err != nil {
		return err
	}
	l.say("%s: running its current image, sha256:%.12s…, on %s with %s (%s)", l.name, rec.Current.Image, l.machineName(h, kvm), name(kvm), why)
	if l.confined != "" {
		l.say("the hypervisor is %s", l.confined)
	}
	stop, _ := l.startReader(ctx)
	defer stop()
	notify := newNotifier(l.say)
	defer notify.stopOn(ctx)()
	opts := l.options()
	opts.OnLine = l.shower()
	opts = notify.attach(opts)
	s := service.New(service.Config{
		Store:   store,
		Inspect: l.plan,
		Start: func(path string, image []byte, gate *vmm.Gate) (service.Guest, error) {
			return l.start(h, kvm, opts, path, image, gate)
		},
		Free: freeMB, Options: opts,
	})
	return l.notDeployed(s.Run(ctx))
}

// try chooses the accelerator with the current image, as far as that may be booted.
func (l *launch) try(ctx context.Context, h vmm.Hypervisor, store *deploy.Store, e *deploy.Entry) (kvm bool, why string, err error) {
	b, err := store.Image(e)
	if err == nil {
		err = l.check(store.ImagePath(e), b)
	}
	if err != nil {
		return false, "", fmt.Errorf("the image sha256:%.12s…: %w (thurward rollback takes the previous one)", e.Image, err)
	}
	boots, done, err := l.verified(store.ImagePath(e), b)
	if err != nil {
		return false, "", err
	}
	defer done()
	l.image = boots
	return l.accelerate(ctx, h)
}

// start starts a machine of an image that plan has checked.
func (l *launch) start(h vmm.Hypervisor, kvm bool, opts vmm.RunOptions, path string, image []byte, gate *vmm.Gate) (service.Guest, error) {
	img, err := vmm.ParseImage(path, image)
	if err != nil {
		return nil, err
	}
	if err := l.tell(img); err != nil {
		return nil, err
	}
	nics, err := l.nics(img.Policy, topology(img.Policy), nil)
	if err != nil {
		return nil, err
	}
	boots, done, err := l.verified(path, image)
	if err != nil {
		return nil, err
	}
	cfg := l.machineConfig(boots, kvm, nics)
	cfg.Gate = gate
	g, err := vmm.Start(h, cfg, opts)
	if err != nil {
		done()
		return nil, err
	}
	return copied{g, done}, nil
}

// notDeployed adds the remedy to the error of a folder without an image.
func (l *launch) notDeployed(err error) error {
	if errors.Is(err, deploy.ErrNone) {
		return fmt.Errorf("%s: %w (thurward deploy IMAGE --name %s)", l.name, err, l.name)
	}
	return err
}

// plan checks an image as far as that is possible before it is started: that it can be
// booted, that who must have signed it has, that its policy can be read, and that its networks
// are there.
func (l *launch) plan(path string, b []byte) (service.Plan, error) {
	if err := l.check(path, b); err != nil {
		return service.Plan{}, err
	}
	img, err := vmm.ParseImage(path, b)
	if err != nil {
		return service.Plan{}, err
	}
	if img.PolicyErr != nil {
		return service.Plan{}, fmt.Errorf("the image's policy: %w", img.PolicyErr)
	}
	nics, err := l.nics(img.Policy, topology(img.Policy), nil)
	if err != nil {
		return service.Plan{}, err
	}
	p := service.Plan{Policy: digestOf(img.Policy), MemoryMB: l.memoryMB}
	for i := range p.MACs {
		p.MACs[i] = nics[i].MAC
	}
	return p, nil
}

// check refuses an image that those who must have signed it have not.
func (l *launch) check(path string, b []byte) error {
	if l.signed == nil {
		return nil
	}
	r, err := verify.Verify(path, *l.signed)
	if err == nil && !bytes.Equal(r.Bytes, b) {
		err = fmt.Errorf("%s has changed meanwhile", path)
	}
	if err != nil {
		return fmt.Errorf("refusing to boot: %w", err)
	}
	return nil
}

// digestOf returns a policy's digest as the ready line has it.
func digestOf(p *ruleset.Policy) string { return "sha256:" + hex.EncodeToString(p.Digest[:]) }

// freeMB returns how many megabytes of memory the host has for new programs (proc_meminfo(5),
// MemAvailable).
func freeMB() (int, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) > 1 && w[0] == "MemAvailable:" {
			kb, err := strconv.Atoi(w[1])
			return kb >> 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}

package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// probeLimit is how long an image may take to boot under KVM before TCG is used
// instead.
const probeLimit = 3 * time.Second

// probeArg makes an image power off as soon as its kernel is up.
const probeArg = "thurward.probe=1"

// Accel is the user's choice of accelerator.
type Accel string

// The choices.
const (
	Auto Accel = "auto"
	KVM  Accel = "kvm"
	TCG  Accel = "tcg"
)

// ParseAccel reads the value of --accel.
func ParseAccel(s string) (Accel, error) {
	switch a := Accel(s); a {
	case Auto, KVM, TCG:
		return a, nil
	}
	return "", fmt.Errorf("%q is not an accelerator (want auto, kvm or tcg)", s)
}

// KVMError returns why KVM cannot be used on this host, nil if it can be opened.
func KVMError() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// Choose decides between KVM and TCG for an image, and returns why. For auto it boots
// the image under KVM until its kernel is up: a host may have /dev/kvm and not be
// able to run the image.
func (q *QEMU) Choose(ctx context.Context, a Accel, image string, memoryMB int) (kvm bool, why string, err error) {
	openErr := KVMError()
	switch {
	case a == TCG:
		return false, "asked for", nil
	case a == KVM && openErr != nil:
		return false, "", fmt.Errorf("KVM: %w (take --accel tcg, or gain access: usermod -aG kvm $USER)", openErr)
	case a == KVM:
		return true, "asked for", nil
	case openErr != nil:
		return false, "KVM cannot be used: " + openErr.Error(), nil
	}
	took, software, err := q.probe(ctx, image, memoryMB)
	if ctx.Err() != nil {
		return false, "", ctx.Err()
	}
	if err != nil {
		return false, "the image did not come up under KVM: " + err.Error(), nil
	}
	why = fmt.Sprintf("a probe boot took %d ms", took.Milliseconds())
	if software {
		why += "; this KVM emulates ring 0 in software, so the image runs in its cooperative mode"
	}
	return true, why, nil
}

// probe boots the image under KVM with probeArg. It reports how long that took
// and whether the image found a KVM that emulates ring 0 in software.
func (q *QEMU) probe(ctx context.Context, image string, memoryMB int) (took time.Duration, software bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	start := time.Now()
	ok, refused := false, ""
	m, err := q.Start(Config{Image: image, KVM: true, MemoryMB: memoryMB, CPUs: 1, Append: probeArg}, func(l Line) {
		switch l.Kind {
		case ProbeOK:
			ok, software = true, strings.TrimSpace(l.Rest) == "software-kvm"
		case Refused, Crashed:
			refused = l.Text
		}
	})
	if err != nil {
		return 0, false, err
	}
	defer context.AfterFunc(ctx, m.Stop)()
	err = m.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, false, fmt.Errorf("its kernel was not up within %v", probeLimit)
	case err != nil:
		return 0, false, err
	case ok:
		return time.Since(start), software, nil
	case refused != "":
		return 0, false, errors.New(refused)
	}
	return 0, false, errors.New("it ended without printing why")
}

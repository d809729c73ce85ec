package vmm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// A Jail is Firecracker's jailer, and the user that Firecracker becomes in it.
type Jail struct {
	Path     string // of the jailer
	User     string // as it was given
	UID, GID int
}

// FindJail finds the jailer and its user: a name, or UID:GID.
func FindJail(as string) (*Jail, error) {
	j := &Jail{User: as}
	if _, err := fmt.Sscanf(as, "%d:%d", &j.UID, &j.GID); err != nil {
		u, err := user.Lookup(as)
		if err != nil {
			return nil, fmt.Errorf("%w (want a user's name, or UID:GID)", err)
		}
		j.UID, _ = strconv.Atoi(u.Uid)
		j.GID, _ = strconv.Atoi(u.Gid)
	}
	if j.UID <= 0 || j.GID <= 0 {
		return nil, fmt.Errorf("%q is root, or has its group: a jail needs a user of its own", as)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may make a jail")
	}
	var err error
	if j.Path, err = exec.LookPath("jailer"); err != nil {
		return nil, errors.New("jailer is not on the PATH (it comes with Firecracker)")
	}
	return j, nil
}

// jailed is the program that is jailed: the folder of the jail has its name.
const jailed = "firecracker"

// makeRoot makes the folder that will be the jail's root, below base.
func (j *Jail) makeRoot(base, id string) (string, error) {
	root := filepath.Join(base, jailed, id, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	return root, os.Chown(root, j.UID, j.GID)
}

// held is a command that runs another as its only child and takes it along when it
// is killed, being the first process of a PID namespace: the signal that a process
// gets when its parent dies is lost when it becomes another user, as in the jail.
// SIGTERM is passed on.
func held(command []string) *exec.Cmd {
	const script = `trap 't=1; [ "$p" ] && kill $p' TERM; "$@" & p=$!; [ "$t" ] && kill $p
wait $p; s=$?; while kill -0 $p 2>/dev/null; do wait $p; s=$?; done; exit $s`
	c := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, command...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	return c
}

// command returns the command that runs a program in the jail.
func (j *Jail) command(id, base, program string, args []string) []string {
	return append([]string{j.Path, "--id", id, "--exec-file", program, "--uid", strconv.Itoa(j.UID), "--gid", strconv.Itoa(j.GID), "--chroot-base-dir", base, "--"}, args...)
}

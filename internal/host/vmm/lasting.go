package vmm

import (
	"os/exec"
	"runtime"
	"sync"
)

// startLasting starts a command on a thread that lasts as long as this process. A hypervisor
// asks to be ended when its parent dies, and for Linux that is the thread that started it
// (prctl(2), PR_SET_PDEATHSIG). Go ends a thread with the goroutine that is locked to it,
// and such a goroutine may run where another one started a command before.
func startLasting(c *exec.Cmd) error {
	done := make(chan error)
	lasting() <- func() { done <- c.Start() }
	return <-done
}

// lasting returns the channel of what the thread is to do.
var lasting = sync.OnceValue(func() chan<- func() {
	do := make(chan func())
	go func() {
		runtime.LockOSThread() // and never unlocked: nothing else runs there, which could end it
		for f := range do {
			f()
		}
	}()
	return do
})

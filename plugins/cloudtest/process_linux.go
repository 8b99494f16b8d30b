package cloudtest

import "syscall"

// processAttributes: an interrupt at the terminal is for the caller, which then closes the
// server; and the kernel ends the server with a caller that could not.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

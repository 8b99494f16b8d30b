//go:build !linux

package cloudtest

import "syscall"

// processAttributes: an interrupt at the terminal is for the caller, which then closes the
// server.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

//go:build !linux

package peer

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// tune asks the kernel to probe quiet connections.
func tune(tcp *net.TCPConn, timeout time.Duration) error {
	return tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: time.Second, Interval: time.Second, Count: keepAliveCount(timeout),
	})
}

// writable cannot tell here; a beat may have to wait.
func writable(syscall.RawConn) bool { return true }

// sendFile is not there: files are read and written.
func sendFile(syscall.RawConn, *os.File, int64, int64) (int64, error) {
	return 0, errors.ErrUnsupported
}

package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tune sets up a connection so that the kernel notices a dead peer, too: it
// probes when nothing is in flight, and gives up when nothing is acknowledged.
// The latter also ends a connection whose other end lives but does not read,
// because its disk stalls for example, so it is given much more time.
func tune(tcp *net.TCPConn, timeout time.Duration) error {
	err := tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: time.Second, Interval: time.Second, Count: keepAliveCount(timeout),
	})
	if err != nil {
		return fmt.Errorf("set keep-alive: %w", err)
	}
	sys, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("set user timeout: %w", err)
	}
	var set error
	err = sys.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(10*timeout/time.Millisecond))
	})
	if err = errors.Join(err, set); err != nil {
		return fmt.Errorf("set user timeout: %w", err)
	}
	return nil
}

// writable says whether a few bytes can be written without waiting.
func writable(sys syscall.RawConn) bool {
	ok := true
	err := sys.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		ok = err == nil && n > 0
	})
	return ok && err == nil
}

// sendFile sends n bytes of a file from off on to a socket, without a copy
// through this process. It does not move the file's own offset. It returns
// errors.ErrUnsupported, with nothing sent, for files that it cannot send so.
func sendFile(sys syscall.RawConn, f *os.File, off, n int64) (sent int64, err error) {
	in, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("send file: %w", err)
	}
	var sendErr, waitErr error
	err = in.Control(func(inFD uintptr) {
		waitErr = sys.Write(func(outFD uintptr) bool {
			for sent < n {
				m, err := unix.Sendfile(int(outFD), int(inFD), &off, int(min(n-sent, 1<<30)))
				switch {
				case errors.Is(err, unix.EINTR):
				case errors.Is(err, unix.EAGAIN):
					return false
				case err != nil:
					sendErr = err
					return true
				case m == 0:
					sendErr = fmt.Errorf("the file ends %d bytes early", n-sent)
					return true
				}
				sent += int64(max(m, 0))
			}
			return true
		})
	})
	if sent == 0 && (errors.Is(sendErr, unix.EINVAL) || errors.Is(sendErr, unix.ENOSYS)) {
		return 0, errors.ErrUnsupported
	}
	if err = errors.Join(err, waitErr, sendErr); err != nil {
		return sent, fmt.Errorf("send file: %w", err)
	}
	return sent, nil
}

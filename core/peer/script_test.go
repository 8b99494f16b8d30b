package peer

import (
	"bytes"
	"log/slog"
	"net"
	"sync"
	"time"
)

// script is a connection on which the other end says what is written down, and
// listens to nothing. If asked is set it waits until it was told something.
type script struct {
	in    *bytes.Reader
	asked chan struct{}
	once  sync.Once
}

func (s *script) Read(p []byte) (int, error) {
	if s.asked != nil {
		<-s.asked
	}
	return s.in.Read(p)
}

func (s *script) Write(p []byte) (int, error) {
	s.hear()
	return len(p), nil
}

func (s *script) Close() error {
	s.hear()
	return nil
}

func (s *script) hear() {
	if s.asked != nil {
		s.once.Do(func() { close(s.asked) })
	}
}

func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

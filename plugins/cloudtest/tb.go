package cloudtest

import (
	"context"
	"errors"
)

// TB is what [Serve] and [ServeProxy] use of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Cleanup(f func())
	Context() context.Context
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Serve is [Start] for a test, which closes the server at its end and shows the
// server's log if it failed. Where the program is not installed it skips the
// test, which the gate of CI makes a failure.
func Serve(t TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if errors.Is(err, ErrNoProgram) {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if log := s.Log(); t.Failed() && log != "" {
			t.Logf("%s wrote:\n%s", s.Kind().Program(), log)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return s
}

// ServeProxy is [StartProxy] for a test, before a server, which closes the proxy
// at its end.
func ServeProxy(t TB, s *Server) *Proxy {
	t.Helper()
	p, err := StartProxy(ProxyOptions{Kind: s.Kind(), Upstream: s.URL()})
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return p
}

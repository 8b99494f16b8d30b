package natsbus

import (
	"fmt"
	"log/slog"
	"sync"
)

// serverLog passes on what the embedded server says, one level lower than it
// says it: its elections and reconnects are no concern of an operator as long
// as the bus works, and whether it works is ours to say.
type serverLog struct {
	log *slog.Logger

	mu    sync.Mutex
	first error // what the server called fatal
}

func newServerLog(l *slog.Logger, generation uint64) *serverLog {
	return &serverLog{log: l.With("component", "nats", "generation", generation)}
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats server", "line", fmt.Sprintf(format, v...))
}

func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Info("nats server", "line", fmt.Sprintf(format, v...))
}

func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Warn("nats server", "line", fmt.Sprintf(format, v...))
}

func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

// Fatalf is called where a NATS server of its own would exit.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = fmt.Errorf(format, v...)
	}
}

// fatal returns what the server called fatal.
func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/shoalstore/shoal/core"
)

// bank is a StreamHandler that keeps streams by header, and fails on demand.
type bank struct {
	// Each, if set, may fail or block; n is the number of bytes so far.
	onOpen, onCommit func(ctx context.Context, name string) error
	onWrite          func(ctx context.Context, name string, n int) error
	onRead           func(ctx context.Context, name string, off int64) error
	// wrap, if set, replaces sinks and sources.
	wrapSink   func(WriteStream) WriteStream
	wrapSource func(ReadStream) ReadStream
	drop       bool // bytes are counted, not kept

	mu                 sync.Mutex
	kept               map[string][]byte
	sinks, sources     int // open ones
	opened, aborted    int
	lastWrite, written int
}

var errBank = errors.New("the bank says no")

func (b *bank) put(name string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept == nil {
		b.kept = map[string][]byte{}
	}
	b.kept[name] = data
}

func (b *bank) get(name string) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.kept[name]
	return d, ok
}

// state returns the numbers of open sinks and sources, of aborted sinks and of
// bytes written.
func (b *bank) state() (sinks, sources, aborted, written int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sinks, b.sources, b.aborted, b.written
}

func (b *bank) OpenWrite(ctx context.Context, _ core.NodeID, header []byte) (WriteStream, error) {
	if b.onOpen != nil {
		if err := b.onOpen(ctx, string(header)); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sinks++
	b.opened++
	var s WriteStream = &sink{b: b, ctx: ctx, name: string(header)}
	if b.wrapSink != nil {
		s = b.wrapSink(s)
	}
	return s, nil
}

type sink struct {
	b         *bank
	ctx       context.Context
	name      string
	data      []byte
	n         int
	committed bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.b.onWrite != nil {
		if err := s.b.onWrite(s.ctx, s.name, s.n); err != nil {
			return 0, err
		}
	}
	s.n += len(p)
	s.b.mu.Lock()
	s.b.lastWrite = len(p)
	s.b.written += len(p)
	s.b.mu.Unlock()
	if !s.b.drop {
		s.data = append(s.data, p...)
	}
	return len(p), nil
}

func (s *sink) Commit(ctx context.Context) ([]byte, error) {
	if s.b.onCommit != nil {
		if err := s.b.onCommit(ctx, s.name); err != nil {
			return nil, err
		}
	}
	s.committed = true
	s.b.put(s.name, s.data)
	return fmt.Appendf(nil, "%d bytes", s.n), nil
}

func (s *sink) Close() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.sinks--
	if !s.committed {
		s.b.aborted++
	}
	return nil
}

func (b *bank) OpenRead(ctx context.Context, _ core.NodeID, header []byte) (ReadStream, error) {
	if b.onOpen != nil {
		if err := b.onOpen(ctx, string(header)); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.kept[string(header)]
	if !ok {
		return nil, fmt.Errorf("%q: %w", header, core.ErrNotFound)
	}
	b.sources++
	var s ReadStream = &source{b: b, name: string(header), data: data}
	if b.wrapSource != nil {
		s = b.wrapSource(s)
	}
	return s, nil
}

type source struct {
	b    *bank
	name string
	data []byte
}

func (s *source) Meta() []byte { return fmt.Appendf(nil, "%d", len(s.data)) }

func (s *source) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if s.b.onRead != nil {
		if err := s.b.onRead(ctx, s.name, off); err != nil {
			return 0, err
		}
	}
	return bytes.NewReader(s.data).ReadAt(p, off)
}

func (s *source) Close() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.sources--
	return nil
}

// readerFromSink takes the stream itself.
type readerFromSink struct{ WriteStream }

func (s readerFromSink) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s.WriteStream}, r)
}

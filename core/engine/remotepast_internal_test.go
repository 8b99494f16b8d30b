package engine

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// TestPieceIsLent: the memory of pieces is used again, and whoever still reads the
// body of a request that has ended does not get the next one's bytes.
func TestPieceIsLent(t *testing.T) {
	const size = 16 << 10
	n := &Node{clock: stillClock{}, remotes: &remotes{past: newBlockMemory(size, size)}}
	p := &passing{node: n, src: &pastSource{}, rec: &core.Record{}, giveUp: func(error) {}}
	var late io.ReadCloser
	piece := func(fill byte, send func(body io.ReadCloser)) {
		t.Helper()
		err := p.piece(t.Context(), bytes.NewReader(bytes.Repeat([]byte{fill}, size)), 0, size, func(o core.RemotePut) error {
			body, err := o.Open(t.Context())
			if err == nil {
				send(body)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	piece('a', func(body io.ReadCloser) {
		late = body
		if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
			t.Error(err)
		}
	})
	piece('b', func(body io.ReadCloser) {
		if k, err := late.Read(make([]byte, 100)); k > 0 || !errors.Is(err, errLentNoMore) {
			t.Errorf("read %d bytes of the next piece, %v", k, err)
		}
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{'b'}, size)) {
			t.Errorf("got %d other bytes, %v", len(got), err)
		}
	})
	if m := n.remotes.past; m.free != size || len(m.mapped) != 1 {
		t.Errorf("%d bytes are free, %d buffers are kept, want %d and 1", m.free, len(m.mapped), size)
	}
}

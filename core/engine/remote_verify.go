package engine

import (
	"bytes"
	"crypto/md5" //nolint:gosec // what remotes have
	"encoding/base64"
	"fmt"
	"hash"

	"github.com/shoalstore/shoal/core"
)

// heldBack is how many of the last bytes of an object nobody is given before the
// whole was verified.
const heldBack = 1 << 10

// summer computes the checksum of an object whose blocks come in one session, in
// order. It gives up when a block had to go before its turn.
type summer struct {
	on   bool // readers wait for it
	next int  // the block whose turn it is
	hash hash.Hash
	want []byte
	what string
}

// newSummer chooses what to verify of an object, if anything.
func newSummer(o *core.RemoteObject) summer {
	if len(o.MD5) == md5.Size {
		return summer{on: true, hash: md5.New(), want: o.MD5, what: "MD5"} //nolint:gosec // what remotes have
	}
	if h := newChecksum(o.Checksum.Algorithm); h != nil && !o.Checksum.Composite {
		if want, err := base64.StdEncoding.DecodeString(o.Checksum.Value); err == nil && len(want) == h.Size() {
			return summer{on: true, hash: h, want: want, what: o.Checksum.Algorithm}
		}
	}
	return summer{}
}

// verify sums the blocks as they come, until all are, or it is given up.
func (s *fetchSession) verify() {
	for {
		s.mu.Lock()
		changed := s.changed
		if !s.sum.on || s.err != nil || s.ended {
			s.mu.Unlock()
			return
		}
		b := s.blocks[s.sum.next]
		if b == nil || !b.full {
			s.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-s.life.Done():
				return
			}
		}
		s.use(b)
		s.mu.Unlock()
		_, _ = s.sum.hash.Write(b.buf)
		s.mu.Lock()
		b.hashed = true
		s.sum.next++
		s.done(b)
		last := int64(s.sum.next)*s.block >= s.rec.Size
		s.mu.Unlock()
		s.wake()
		if last {
			s.verified()
			return
		}
	}
}

// verified compares the sum of all blocks.
func (s *fetchSession) verified() {
	if got := s.sum.hash.Sum(nil); !bytes.Equal(got, s.sum.want) {
		s.fail(fmt.Errorf("%s: the remote's bytes have another %s than it says: %x, not %x: %w", s, s.sum.what, got, s.sum.want, core.ErrCorrupt), true)
		return
	}
	s.mu.Lock()
	s.stopSumming()
	s.mu.Unlock()
	s.wake()
}

// stopSumming ends what readers wait for: the sum is right, or cannot be had any
// more. The caller holds mu.
func (s *fetchSession) stopSumming() {
	s.sum.on = false
	s.tell()
	for _, b := range s.blocks {
		if b.users == 0 {
			s.settle(b)
		}
	}
}

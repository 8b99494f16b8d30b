package schemetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// Fuzz compares a coder with plain bytes: random sizes, losses, damage and
// ranges. Whatever can be read is right; and all can be read if at most M shards
// are lost, else there is an error.
func Fuzz(f *testing.F, create New, schemes ...core.Scheme) {
	for i := range schemes {
		f.Add(uint8(i), uint32(1), uint64(1))
		f.Add(uint8(i), uint32(3*Chunk), uint64(2))
		f.Add(uint8(i), uint32(3*Chunk+1), uint64(3))
	}
	f.Fuzz(func(t *testing.T, which uint8, size uint32, seed uint64) {
		s := schemes[int(which)%len(schemes)]
		rng := rand.New(rand.NewPCG(seed, 0))
		c, err := create(s, shardio.Options{Clock: Clock{}, ChunkSize: 4096 << rng.IntN(5), Hedge: -1})
		if err != nil {
			t.Fatal(err)
		}
		r := NewRig(c)
		n := int(size)%(8*Chunk) + 1
		data := Data(n, seed)
		w := r.Spec()
		w.Size = int64(rng.IntN(2*n+2) - 1)
		e, err := c.Write(t.Context(), w, iotest.HalfReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		lost := rng.Perm(r.Width)[:rng.IntN(s.M+2)]
		spec := r.spec(e)
		for _, i := range lost {
			ways := losses()
			ways[rng.IntN(len(ways))].do(r, &spec, i)
		}
		for range 10 {
			off := rng.IntN(n)
			length := rng.IntN(n-off) + 1
			got, err := r.Read(t.Context(), spec, int64(off), int64(length))
			switch {
			case err != nil && len(lost) <= s.M:
				t.Fatalf("%v, %d bytes, lost %v: read %d at %d: %v", s, n, lost, length, off, err)
			case err != nil && !errors.Is(err, core.ErrUnavailable) && !errors.Is(err, core.ErrCorrupt):
				t.Fatalf("%v, %d bytes, lost %v: read %d at %d: got error %v", s, n, lost, length, off, err)
			case !bytes.Equal(got, data[off:off+min(length, len(got))]) || err == nil && len(got) < length:
				t.Fatalf("%v, %d bytes, lost %v: read %d at %d: got %d bytes, wrong or too few, and error %v", s, n, lost, length, off, len(got), err)
			}
		}
	})
}

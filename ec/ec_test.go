package ec_test

import (
	"bytes"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/schemetest"
	"github.com/shoalstore/shoal/core/shardio"
	"github.com/shoalstore/shoal/ec"
)

func newCoder(s core.Scheme, o shardio.Options) (core.Coder, error) { return ec.New(s, o) }

func TestConformance(t *testing.T) {
	schemetest.Run(t, newCoder,
		core.ErasureCoded(2, 1), core.ErasureCoded(3, 1), core.ErasureCoded(4, 2), core.ErasureCoded(2, 3), core.ErasureCoded(16, 8))
}

// TestBytesRebuilt wants a rebuilt range to cost K times its length, and nothing to
// be read twice.
func TestBytesRebuilt(t *testing.T) {
	c, err := ec.New(core.ErasureCoded(4, 2), ec.Options{Clock: schemetest.Clock{}, Hedge: -1})
	if err != nil {
		t.Fatal(err)
	}
	r := schemetest.NewRig(c)
	data := schemetest.Data(3<<20, 1)
	e := r.Write(t, data)
	unit := int64(e.Unit)
	for _, test := range []struct {
		name       string
		lost       []int
		off, n     int64
		want       int64
		fromParity int64
	}{
		{"within the lost unit", []int{0}, 1000, 500, 4 * 500, 500},
		{"the lost unit and half of the next", []int{0}, 0, unit + unit/2, 4 * unit, unit},
		{"half of the lost unit and the next", []int{0}, unit / 2, unit + unit/2, 4*unit - unit/2 - unit, unit / 2},
		{"beside the lost unit", []int{0}, unit, unit, unit, 0},
		{"parity lost", []int{4, 5}, 0, 4 * unit, 4 * unit, 0},
		{"two lost units", []int{1, 2}, 0, 4 * unit, 4 * unit, 2 * unit},
		{"everything", []int{0, 3}, 0, 3 << 20, 3 << 20, 3 << 19},
	} {
		spec := core.ReadSpec{Extent: e, Src: r.Sources(e)}
		for _, i := range test.lost {
			spec.Src[i] = nil
		}
		count := func() (total, parity int64) {
			for i := range 6 {
				n := r.Disks[i].Stats().Read
				total += n
				if i >= 4 {
					parity += n
				}
			}
			return total, parity
		}
		total, parity := count()
		got, err := r.Read(t.Context(), spec, test.off, test.n)
		if err != nil || !bytes.Equal(got, data[test.off:test.off+test.n]) {
			t.Errorf("%s: got %d bytes and error %v", test.name, len(got), err)
		}
		t2, p2 := count()
		if t2-total != test.want || p2-parity != test.fromParity {
			t.Errorf("%s: %d bytes were read, %d of them parity; want %d and %d", test.name, t2-total, p2-parity, test.want, test.fromParity)
		}
	}
}

func BenchmarkEC(b *testing.B) {
	for _, s := range []core.Scheme{core.ErasureCoded(4, 2), core.ErasureCoded(8, 4), core.ErasureCoded(16, 8)} {
		b.Run(s.String(), func(b *testing.B) { schemetest.Bench(b, newCoder, s) })
	}
}

func FuzzEC(f *testing.F) {
	schemetest.Fuzz(f, newCoder, core.ErasureCoded(2, 1), core.ErasureCoded(3, 2), core.ErasureCoded(4, 2), core.ErasureCoded(11, 4), core.ErasureCoded(16, 8))
}

package ec_test

import (
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

func BenchmarkEC(b *testing.B) {
	for _, s := range []core.Scheme{core.ErasureCoded(4, 2), core.ErasureCoded(8, 4), core.ErasureCoded(16, 8)} {
		b.Run(s.String(), func(b *testing.B) { schemetest.Bench(b, newCoder, s) })
	}
}

func FuzzEC(f *testing.F) {
	schemetest.Fuzz(f, newCoder, core.ErasureCoded(2, 1), core.ErasureCoded(3, 2), core.ErasureCoded(4, 2), core.ErasureCoded(11, 4), core.ErasureCoded(16, 8))
}

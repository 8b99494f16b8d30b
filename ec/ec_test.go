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

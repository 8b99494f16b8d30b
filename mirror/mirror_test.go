package mirror_test

import (
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/schemetest"
	"github.com/shoalstore/shoal/core/shardio"
	"github.com/shoalstore/shoal/mirror"
)

func newCoder(s core.Scheme, o shardio.Options) (core.Coder, error) { return mirror.New(s, o) }

func TestConformance(t *testing.T) {
	schemetest.Run(t, newCoder, core.None(), core.Mirror(2), core.Mirror(3), core.Mirror(10))
}

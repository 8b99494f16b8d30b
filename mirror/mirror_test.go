package mirror_test

import (
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/memstore"
	"github.com/shoalstore/shoal/core/schemetest"
	"github.com/shoalstore/shoal/core/shardio"
	"github.com/shoalstore/shoal/mirror"
)

func newCoder(s core.Scheme, o shardio.Options) (core.Coder, error) { return mirror.New(s, o) }

func TestConformance(t *testing.T) {
	schemetest.Run(t, newCoder, core.None(), core.Mirror(2), core.Mirror(3), core.Mirror(10))
}

func BenchmarkMirror(b *testing.B) {
	for _, s := range []core.Scheme{core.None(), core.Mirror(3)} {
		b.Run(s.String(), func(b *testing.B) { schemetest.Bench(b, newCoder, s) })
	}
}

func FuzzMirror(f *testing.F) {
	schemetest.Fuzz(f, newCoder, core.None(), core.Mirror(2), core.Mirror(5))
}

func TestNew(t *testing.T) {
	for _, s := range []core.Scheme{core.ErasureCoded(4, 2), core.Mirror(0), core.Mirror(11), {K: 2, M: 1}} {
		if _, err := mirror.New(s, mirror.Options{}); err == nil {
			t.Errorf("a coder for %+v was made, want an error", s)
		}
	}
	c, err := mirror.New(core.Scheme{}, mirror.Options{})
	if err != nil || c.Scheme() != core.None() {
		t.Errorf("the zero scheme: got %v, %v; want none", c.Scheme(), err)
	}
}

// TestSpread wants reads from the local replica, else from all of them in turn.
func TestSpread(t *testing.T) {
	c, err := mirror.New(core.Mirror(3), mirror.Options{Clock: schemetest.Clock{}})
	if err != nil {
		t.Fatal(err)
	}
	r := schemetest.NewRig(c)
	data := schemetest.Data(1000, 1)
	e := r.Write(t, data)
	reads := func() (n [3]int) {
		for i := range n {
			n[i] = r.Disks[i].Stats().Reads
		}
		return n
	}
	for range 30 {
		r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
	}
	if got := reads(); got != [3]int{10, 10, 10} {
		t.Errorf("30 reads went to the replicas as %v, want 10 each", got)
	}
	r.Disks[1].SetLocal(true)
	for range 30 {
		r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
	}
	if got := reads(); got != [3]int{10, 40, 10} {
		t.Errorf("30 more with the second local: %v, want all of them there", got)
	}
	r.Disks[1].Inject(memstore.Fault{Op: memstore.Read})
	for range 30 {
		r.Check(t, core.ReadSpec{Extent: e, Src: r.Sources(e)}, data)
	}
	if got := reads(); got != [3]int{25, 40, 25} {
		t.Errorf("30 more with the local one failing: %v, want the others to share", got)
	}
}

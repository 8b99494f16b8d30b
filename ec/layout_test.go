package ec

import (
	"bytes"
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// shards lays data out as the specification in layout.go says, byte by byte, and
// computes the parity in GF(2^8) by schoolbook multiplication.
func shards(k, m, unit int, data []byte) [][]byte {
	out := make([][]byte, k+m)
	for len(data) > 0 {
		u := unit
		if len(data) < k*unit {
			u = (len(data) + k - 1) / k
			for u%64 != 0 {
				u++
			}
		}
		stripe := make([]byte, k*u)
		n := copy(stripe, data)
		data = data[n:]
		matrix := encodingMatrix(k, m)
		for r := range k + m {
			for p := range u {
				var b byte
				for c := range k {
					b ^= mul(matrix[r][c], stripe[c*u+p])
				}
				out[r] = append(out[r], b)
			}
		}
	}
	return out
}

// mul multiplies in GF(2^8) with polynomial 0x11d.
func mul(a, b byte) (p byte) {
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		high := a & 0x80
		a <<= 1
		if high != 0 {
			a ^= 0x1d
		}
	}
	return p
}

func inverse(a byte) byte {
	for b := range 256 {
		if mul(a, byte(b)) == 1 {
			return byte(b)
		}
	}
	panic("zero has no inverse")
}

// encodingMatrix is V * inverse(upper K rows of V), V[r][c] = r^c.
func encodingMatrix(k, m int) [][]byte {
	rows := make([][]byte, k+m)
	for r := range rows {
		rows[r] = make([]byte, k)
		power := byte(1)
		for c := range k {
			rows[r][c] = power
			power = mul(power, byte(r))
		}
	}
	// Column operations that make the upper square the identity do the same to
	// all rows as multiplying by its inverse.
	for d := range k {
		for c := d; rows[d][d] == 0; c++ {
			for r := range rows {
				rows[r][d], rows[r][c] = rows[r][c], rows[r][d]
			}
		}
		f := inverse(rows[d][d])
		for r := range rows {
			rows[r][d] = mul(rows[r][d], f)
		}
		for c := range k {
			if f := rows[d][c]; c != d && f != 0 {
				for r := range rows {
					rows[r][c] ^= mul(f, rows[r][d])
				}
			}
		}
	}
	return rows
}

// capture is a store that keeps what is written.
type capture struct{ content bytes.Buffer }

func (c *capture) Create(context.Context, core.ShardMeta, int64) (core.ShardWriter, error) {
	return captured{&c.content}, nil
}

func (c *capture) Open(context.Context, core.ShardID) (core.ShardReader, error) {
	return nil, core.ErrNotFound
}
func (c *capture) Delete(context.Context, core.ShardID) error { return nil }

type captured struct{ *bytes.Buffer }

func (captured) Commit(context.Context) error { return nil }
func (captured) Close() error                 { return nil }

// frozen is a clock that stands still.
type frozen struct{}

func (frozen) Now() time.Time     { return time.Time{} }
func (frozen) Boot() core.Instant { return 0 }
func (frozen) Wait(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return ctx.Err()
}

// write returns the shards that a coder makes of data, and the unit.
func write(t *testing.T, s core.Scheme, chunk int64, data []byte) ([][]byte, int) {
	t.Helper()
	c, err := New(s, Options{Clock: frozen{}, ChunkSize: chunk})
	if err != nil {
		t.Fatal(err)
	}
	w := core.WriteSpec{Size: -1}
	for i := range s.Width() {
		w.Dst = append(w.Dst, core.Target{Disk: core.DiskID(i + 1), Store: new(capture)})
	}
	e, err := c.Write(t.Context(), w, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	out := make([][]byte, s.Width())
	for i := range out {
		out[i] = w.Dst[i].Store.(*capture).content.Bytes()
	}
	return out, e.Unit
}

func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// TestFormat holds the shards to the specification.
func TestFormat(t *testing.T) {
	for _, s := range []core.Scheme{
		core.ErasureCoded(2, 1), core.ErasureCoded(3, 1), core.ErasureCoded(4, 2), core.ErasureCoded(2, 8),
		core.ErasureCoded(10, 4), core.ErasureCoded(11, 3), core.ErasureCoded(16, 8),
	} {
		for _, n := range []int{1, 64, 65, 1000, 4096, 3*4096 + 1, 5*4096 - 1} {
			data := numbered(n)
			got, unit := write(t, s, 4096, data)
			want := shards(s.K, s.M, unit, data)
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("%v, %d bytes in units of %d: shard %d differs from the specification", s, n, unit, i)
				}
			}
			l := layout{k: s.K, m: s.M, unit: int64(unit), size: int64(n)}
			if got := l.shardSize(); got != int64(len(want[0])) {
				t.Errorf("%v, %d bytes in units of %d: shard size is %d, want %d", s, n, unit, got, len(want[0]))
			}
			var joined []byte
			l.runs(0, int64(n), func(r run) { joined = append(joined, want[r.shard][r.lo:r.hi]...) })
			if !bytes.Equal(joined, data) {
				t.Errorf("%v, %d bytes in units of %d: the runs do not make up the data", s, n, unit)
			}
		}
	}
}

// TestFormatIsForever pins bytes that are on disks.
func TestFormatIsForever(t *testing.T) {
	got, _ := write(t, core.ErasureCoded(4, 2), 0, []byte(strings.Repeat("Shoal keeps what it has acknowledged. ", 13)))
	for i, want := range []string{
		"53686f616c206b656570732077686174",
		"6174206974206861732061636b6e6f77",
		"6f776c65646765642e2053686f616c20",
		"6c206b65657073207768617420697420",
		"a53fee99759e4e2ad7ca9957cfb61ab5",
		"31840ca13bec33b37eca4bcb249460bc",
	} {
		if h := hex.EncodeToString(got[i][:16]); h != want || len(got[i]) != 128 {
			t.Errorf("shard %d has %d bytes and begins with %s, want 128 and %s", i, len(got[i]), h, want)
		}
	}
}

func TestOverhead(t *testing.T) {
	for _, c := range []struct {
		s    core.Scheme
		most float64
	}{{core.ErasureCoded(4, 2), 1.52}, {core.ErasureCoded(3, 1), 1.36}, {core.ErasureCoded(16, 8), 1.52}} {
		unit := unitSize(c.s.K, c.s.M, 1<<20)
		for size := int64(1<<20 + 1); size < 1<<40; size += size/17 + 1 {
			l := layout{k: c.s.K, m: c.s.M, unit: unit, size: size}
			if got := float64(l.shardSize()*int64(c.s.Width())) / float64(size); got > c.most {
				t.Fatalf("%v: %d bytes take %.4f times as much, want %.2f at most", c.s, size, got, c.most)
			}
		}
	}
}

func TestUnits(t *testing.T) {
	for k := core.MinData; k <= core.MaxData; k++ {
		for m := 1; m <= core.MaxParity; m++ {
			unit := unitSize(k, m, 1<<20)
			if unit%(64<<10) != 0 || unit < 64<<10 || unit > 256<<10 || int64(k+m)*unit > 3<<20 {
				t.Errorf("%d+%d: unit is %d", k, m, unit)
			}
		}
	}
}

func TestNew(t *testing.T) {
	for _, s := range []core.Scheme{core.None(), core.Mirror(3), core.ErasureCoded(1, 1), core.ErasureCoded(17, 1), core.ErasureCoded(4, 0), core.ErasureCoded(4, 9)} {
		if _, err := New(s, Options{Clock: frozen{}}); err == nil {
			t.Errorf("a coder for %+v was made, want an error", s)
		}
	}
}

func TestBadUnits(t *testing.T) {
	c, err := New(core.ErasureCoded(2, 1), Options{Clock: frozen{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []int{0, -64, 63, 100, maxUnit + 64} {
		e := core.Extent{Size: 1, Scheme: c.Scheme(), Unit: unit, Places: make([]core.Place, 3)}
		if _, err := c.Open(t.Context(), core.ReadSpec{Extent: e, Src: make([]core.Store, 3)}); err == nil {
			t.Errorf("an extent with units of %d was opened", unit)
		}
	}
}

// FuzzLayout compares spans with a walk over the single bytes.
func FuzzLayout(f *testing.F) {
	f.Add(uint8(4), uint16(1), uint16(1000), uint16(0), uint16(1000))
	f.Add(uint8(3), uint16(2), uint16(129), uint16(100), uint16(29))
	f.Fuzz(func(t *testing.T, k8 uint8, unit16, size16, from, length uint16) {
		k := int(k8)%15 + 2
		l := layout{k: k, m: 1, unit: (int64(unit16)%4 + 1) * align, size: int64(size16) + 1}
		lo := int64(from) % l.size
		hi := min(l.size, lo+int64(length))
		data := numbered(int(l.size))
		want := shards(k, 1, int(l.unit), data)
		var got []byte
		last := span{}
		l.runs(lo, hi, func(r run) {
			if r.empty() || r.shard >= k || r.hi > l.shardSize() {
				t.Fatalf("run %+v", r)
			}
			got = append(got, want[r.shard][r.lo:r.hi]...)
			last = r.span
		})
		if !slices.Equal(got, data[lo:hi]) {
			t.Fatalf("%+v: runs of %d to %d, up to %+v, do not make up the data", l, lo, hi, last)
		}
	})
}

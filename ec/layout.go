package ec

// How an extent lies in its shards. This is a format on disk; Size and Unit of
// the extent and K and M of its scheme are all that a reader needs.
//
// The data of an extent is cut into stripes of K units. The units of stripe s
// are its bytes in order: unit 0 goes to shard 0, unit 1 to shard 1, and so on;
// M parity units computed from them go to shards K to K+M-1. Each shard is the
// concatenation of its units, so byte p of shard i is byte p mod Unit of unit i
// of stripe p div Unit.
//
// All stripes have units of Unit bytes, except for one: what is left when as
// many whole stripes as possible are cut off, R bytes with 0 < R < K*Unit, is
// the last stripe. Its units have ceil(R/K) bytes, rounded up to a multiple of
// 64. Its data is filled up with zeros to K such units. (So a small object is a
// single short stripe, and shards hold at most 64 bytes in excess. A zero fill
// may take up whole units.) All K+M shards of an extent have the same size:
//
//	Size div (K*Unit) * Unit + unit of the last stripe
//
// The parity is systematic Reed-Solomon over GF(2^8) with polynomial 0x11d. Its
// matrix is the Vandermonde matrix V[r][c] = r^c (0^0 = 1) of K+M rows and K
// columns, multiplied with the inverse of its upper K rows; that is the default of
// github.com/klauspost/reedsolomon, and a test holds it to that. Parity byte p of
// a stripe depends on byte p of each of its data units only, so that any range
// of a unit can be rebuilt from the same range of K others.
type layout struct {
	k, m int
	unit int64
	size int64
}

// align is the granularity of the last stripe's unit, for the sake of the
// vector instructions that compute the parity.
const align = 64

// maxUnit is the largest unit that a reader accepts, so that a damaged record
// cannot ask for unbounded memory.
const maxUnit = 16 << 20

// unitSize is the unit, in bytes, with which a scheme writes: a quarter of the
// chunk size (so 256 KiB), or what of an eighth and a sixteenth keeps a stripe
// with its parity below two chunks.
func unitSize(k, m int, chunk int64) int64 {
	unit := chunk / 4
	for unit > chunk/16 && int64(k+m)*unit > 2*chunk {
		unit /= 2
	}
	return unit
}

// tailUnit is the unit of a stripe of n bytes that is not whole.
func tailUnit(n int64, k int) int64 {
	per := (n + int64(k) - 1) / int64(k)
	return (per + align - 1) / align * align
}

// stripe is the number of data bytes in a whole stripe.
func (l layout) stripe() int64 { return int64(l.k) * l.unit }

// whole is the number of whole stripes.
func (l layout) whole() int64 { return l.size / l.stripe() }

// shardSize is the size of each shard.
func (l layout) shardSize() int64 {
	return l.whole()*l.unit + tailUnit(l.size%l.stripe(), l.k)
}

// locate returns where byte off of the extent is, and the number of bytes from
// there to the end of its unit, those after the extent's end included.
func (l layout) locate(off int64) (shard int, at, run int64) {
	stripe, unit := off/l.stripe(), l.unit
	rest := off % l.stripe()
	if stripe == l.whole() {
		unit = tailUnit(l.size%l.stripe(), l.k)
	}
	return int(rest / unit), stripe*l.unit + rest%unit, unit - rest%unit
}

// run is a piece of a shard.
type run struct {
	shard int
	span
}

// runs calls f for the pieces of shards that make up bytes lo to hi of the
// extent, in order.
func (l layout) runs(lo, hi int64, f func(run)) {
	for lo < hi {
		shard, at, n := l.locate(lo)
		n = min(n, hi-lo)
		f(run{shard, span{at, at + n}})
		lo += n
	}
}

// span is a range of bytes of a shard, hi excluded. Empty spans are all alike.
type span struct{ lo, hi int64 }

func (s span) empty() bool { return s.hi <= s.lo }

func (s span) len() int { return int(s.hi - s.lo) }

// hull is the smallest span that covers both.
func (s span) hull(t span) span {
	switch {
	case s.empty():
		return t
	case t.empty():
		return s
	}
	return span{min(s.lo, t.lo), max(s.hi, t.hi)}
}

func (s span) covers(t span) bool { return t.empty() || s.lo <= t.lo && t.hi <= s.hi }

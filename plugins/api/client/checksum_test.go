package client

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestJoin compares the checksum joined of two runs with that of the whole.
func TestJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := make([]byte, r.IntN(20_000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		cut := r.IntN(len(b) + 1)
		whole := crc(0).add(b)
		first, second := crc(0).add(b[:cut]), crc(0).add(b[cut:])
		if got := first.join(second, int64(len(b)-cut)); got != whole {
			t.Fatalf("%d bytes cut at %d: got %s, want %s", len(b), cut, got, whole)
		}
		if got := first.add(b[cut:]); got != whole {
			t.Fatalf("%d bytes continued at %d: got %s, want %s", len(b), cut, got, whole)
		}
	}
}

// TestChecksumVector holds the value of the algorithm's check string.
func TestChecksumVector(t *testing.T) {
	if got := crc(0).add([]byte("123456789")); uint64(got) != 0xAE8B14860A799888 {
		t.Errorf("got %x, want ae8b14860a799888", uint64(got))
	}
}

func TestPartsFit(t *testing.T) {
	c := &Client{o: Options{PartSize: defaultPart}}
	for _, size := range []int64{c.wholeLimit() + 1, 1 << 30, 160 << 30, 1 << 40, 5 << 40} {
		if n := (size + c.partOf(size, 0) - 1) / c.partOf(size, 0); n > 10000 {
			t.Errorf("%d bytes: %d parts", size, n)
		}
	}
	total := int64(0)
	for i := range 10000 {
		total += c.partOf(-1, i)
	}
	if total < 1<<40 {
		t.Errorf("of unknown size: only %d bytes fit", total)
	}
}

func TestReadPart(t *testing.T) {
	for _, tt := range []struct {
		has, want int
		more      bool
	}{{0, 0, false}, {9, 9, false}, {10, 10, true}, {11, 10, true}} {
		got, more, err := readPart(bytes.NewReader(make([]byte, tt.has)), 10, -1)
		if err != nil || len(got) != tt.want || more != tt.more {
			t.Errorf("of %d: got %d, %v, %v", tt.has, len(got), more, err)
		}
	}
}

// A small object of a known size takes a small buffer, whatever a part may have.
func TestReadPartAllocatesWhatComes(t *testing.T) {
	got, more, err := readPart(bytes.NewReader(make([]byte, 100)), 16<<20, 100)
	if err != nil || more || len(got) != 100 || cap(got) > 4096 {
		t.Errorf("got %d bytes in a buffer of %d, more %t, %v", len(got), cap(got), more, err)
	}
}

package core

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestByteRangeResolve(t *testing.T) {
	for _, c := range []struct {
		r             ByteRange
		size          int64
		start, length int64
		bad           bool
	}{
		{ByteRange{0, 0}, 10, 0, 1, false},
		{ByteRange{0, -1}, 10, 0, 10, false},
		{ByteRange{3, 5}, 10, 3, 3, false},
		{ByteRange{3, 500}, 10, 3, 7, false},
		{ByteRange{9, math.MaxInt64}, 10, 9, 1, false},
		{ByteRange{-1, 4}, 10, 6, 4, false},
		{ByteRange{-1, 40}, 10, 0, 10, false},
		{ByteRange{-1, math.MaxInt64}, 10, 0, 10, false},
		{ByteRange{-1, 0}, 10, 0, 0, true},
		{ByteRange{10, -1}, 10, 0, 0, true},
		{ByteRange{math.MaxInt64, -1}, 10, 0, 0, true},
		{ByteRange{5, 4}, 10, 0, 0, true},
		{ByteRange{0, -1}, 0, 0, 0, true},
		{ByteRange{-1, 1}, 0, 0, 0, true},
	} {
		start, length, err := c.r.Resolve(c.size)
		if errors.Is(err, ErrRange) != c.bad || start != c.start || length != c.length {
			t.Errorf("%+v of %d: got %d, %d, %v; want %d, %d, error %v", c.r, c.size, start, length, err, c.start, c.length, c.bad)
		}
	}
}

func TestConditions(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
	sec := at.Truncate(time.Second)
	before, after := sec.Add(-time.Second), sec.Add(time.Second)
	rec := &Record{ETag: "a", Modified: at}
	for _, c := range []struct {
		name                        string
		c                           Conditions
		read, write, absent, copies error
	}{
		{"none", Conditions{}, nil, nil, nil, nil},
		{"match", Conditions{IfMatch: []string{"b", "a"}}, nil, nil, ErrNotFound, nil},
		{"match any", Conditions{IfMatch: []string{"*"}}, nil, nil, ErrNotFound, nil},
		{"match other", Conditions{IfMatch: []string{"b"}}, ErrPrecondition, ErrPrecondition, ErrNotFound, ErrPrecondition},
		{"none match", Conditions{IfNoneMatch: []string{"a"}}, ErrNotModified, ErrPrecondition, nil, ErrPrecondition},
		{"none match any", Conditions{IfNoneMatch: []string{"*"}}, ErrNotModified, ErrPrecondition, nil, ErrPrecondition},
		{"none match other", Conditions{IfNoneMatch: []string{"b"}}, nil, nil, nil, nil},
		{"modified since before", Conditions{IfModifiedSince: before}, nil, nil, nil, nil},
		{"modified since the same second", Conditions{IfModifiedSince: sec}, ErrNotModified, ErrPrecondition, nil, ErrPrecondition},
		{"unmodified since the same second", Conditions{IfUnmodifiedSince: sec}, nil, nil, nil, nil},
		{"unmodified since before", Conditions{IfUnmodifiedSince: before}, ErrPrecondition, ErrPrecondition, nil, ErrPrecondition},
		{"match overrides date", Conditions{IfMatch: []string{"a"}, IfUnmodifiedSince: before}, nil, ErrPrecondition, ErrNotFound, nil},
		{"none match overrides date", Conditions{IfNoneMatch: []string{"b"}, IfModifiedSince: after}, nil, ErrPrecondition, nil, nil},
	} {
		check := func(what string, got, want error) {
			if !errors.Is(got, want) || (got == nil) != (want == nil) {
				t.Errorf("%s: %s: got %v, want %v", c.name, what, got, want)
			}
		}
		check("read", c.c.CheckRead(rec.ETag, rec.Modified), c.read)
		check("write", c.c.CheckWrite(rec), c.write)
		check("write of an absent key", c.c.CheckWrite(nil), c.absent)
		got := c.c.CheckCopySource(rec.ETag, rec.Modified)
		check("copy source", got, c.copies)
		if errors.Is(got, ErrNotModified) {
			t.Errorf("%s: copy source: got ErrNotModified, want it hidden", c.name)
		}
		if c.c.IsZero() != (c.name == "none") {
			t.Errorf("%s: IsZero: got %v", c.name, c.c.IsZero())
		}
	}
}

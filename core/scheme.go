package core

import (
	"fmt"
	"strconv"
	"strings"
)

// Scheme is how a bucket keeps its data redundant. The zero Scheme is "none".
// K data and M parity shards for erasure coding; K = 1 for replicas, of which
// there are 1+M.
type Scheme struct {
	K, M int
	EC   bool
}

// None keeps one copy.
func None() Scheme { return Scheme{K: 1} }

// Mirror keeps n replicas, n from 2 to 10.
func Mirror(n int) Scheme { return Scheme{K: 1, M: n - 1} }

// ErasureCoded keeps k data and m parity shards (Reed-Solomon).
func ErasureCoded(k, m int) Scheme { return Scheme{K: k, M: m, EC: true} }

// Limits of schemes.
const (
	MaxMirror = 10
	MinData   = 2
	MaxData   = 16
	MaxParity = 8
)

// ParseScheme reads none, mirror-N (2 to 10) or ec-K+M (K 2 to 16, M 1 to 8).
func ParseScheme(s string) (Scheme, error) {
	bad := func() (Scheme, error) {
		return Scheme{}, fmt.Errorf("scheme %q: want none, mirror-N (N 2 to %d) or ec-K+M (K %d to %d, M 1 to %d): %w",
			s, MaxMirror, MinData, MaxData, MaxParity, ErrInvalid)
	}
	if s == "none" {
		return None(), nil
	}
	if t, ok := strings.CutPrefix(s, "mirror-"); ok {
		n, err := parseSmall(t)
		if err != nil || n < 2 || n > MaxMirror {
			return bad()
		}
		return Mirror(n), nil
	}
	t, ok := strings.CutPrefix(s, "ec-")
	ks, ms, plus := strings.Cut(t, "+")
	if !ok || !plus {
		return bad()
	}
	k, err1 := parseSmall(ks)
	m, err2 := parseSmall(ms)
	if err1 != nil || err2 != nil || k < MinData || k > MaxData || m < 1 || m > MaxParity {
		return bad()
	}
	return ErasureCoded(k, m), nil
}

func parseSmall(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || strconv.Itoa(n) != s {
		return 0, ErrInvalid
	}
	return n, nil
}

// String is the stable name that records and users carry.
func (s Scheme) String() string {
	switch {
	case s.EC:
		return fmt.Sprintf("ec-%d+%d", s.K, s.M)
	case s.M == 0:
		return "none"
	}
	return fmt.Sprintf("mirror-%d", s.M+1)
}

// Data is K, at least 1.
func (s Scheme) Data() int { return max(s.K, 1) }

// Width is the number of shards of an object.
func (s Scheme) Width() int { return s.Data() + s.M }

// MinRead is the number of shards from which an object can be read.
func (s Scheme) MinRead() int { return s.Data() }

// MinWrite is the number of shards without which no write is acknowledged
// while fewer failure domains are left than the scheme is wide: K + ceil(M/2).
func (s Scheme) MinWrite() int { return s.Data() + (s.M+1)/2 }

// MinRecordDomains is the number of failure domains that the in-sync set of a
// slot must span for a write under this scheme: 1 + ceil(M/2).
func (s Scheme) MinRecordDomains() int { return 1 + (s.M+1)/2 }

// PerDomain is the largest number of shards that may share a failure domain
// so that the loss of one domain loses nothing: M of K+M, one replica.
func (s Scheme) PerDomain() int {
	if s.EC {
		return s.M
	}
	return 1
}

// MinDomains is the number of failure domains that the scheme needs:
// ceil(Width / PerDomain).
func (s Scheme) MinDomains() int {
	return (s.Width() + s.PerDomain() - 1) / s.PerDomain()
}

// MarshalText and UnmarshalText use the stable name.
func (s Scheme) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseScheme.
func (s *Scheme) UnmarshalText(b []byte) (err error) { *s, err = ParseScheme(string(b)); return err }

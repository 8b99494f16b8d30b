package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// String writes the size with the largest binary unit that divides it.
func (s Size) String() string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i, n := 0, int64(s)
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + units[i]
}

const wantSize = "want bytes, as 65536, 64KiB, 1.5GiB or 10MB"

// ParseSize reads a number of bytes: 65536, 64KiB, 1.5 GiB, 10MB. KiB, MiB,
// GiB, TiB and PiB (or Ki ... Pi) are powers of 1,024; kB, MB, GB, TB and PB
// are powers of 1,000. Case does not matter.
func ParseSize(s string) (Size, error) {
	t := strings.TrimSpace(s)
	end := strings.LastIndexAny(t, "0123456789.") + 1
	num, unit := t[:end], strings.ToLower(strings.TrimSpace(t[end:]))
	factor, err := sizeUnit(unit)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	if n, err := strconv.ParseUint(num, 10, 63); err == nil {
		if n > math.MaxInt64/uint64(factor) {
			return 0, fmt.Errorf("%q: more than %s", s, Size(math.MaxInt64>>50<<50))
		}
		return Size(int64(n) * factor), nil
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || strings.ContainsAny(num, "eExX_") || f < 0 || f*float64(factor) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q: %s", s, wantSize)
	}
	return Size(f * float64(factor)), nil
}

func sizeUnit(unit string) (int64, error) {
	if unit == "" || unit == "b" {
		return 1, nil
	}
	power := strings.IndexByte("kmgtp", unit[0]) + 1
	base := int64(0)
	switch unit[1:] {
	case "i", "ib":
		base = 1024
	case "b":
		base = 1000
	}
	if power == 0 || base == 0 {
		return 0, errors.New(wantSize)
	}
	factor := int64(1)
	for range power {
		factor *= base
	}
	return factor, nil
}

const wantDuration = "want seconds, as 3, or a duration, as 3s, 1m30s, 250ms"

// ParseDuration reads 3 (seconds), 0.5, 3s, 1m30s. Negative ones are refused.
func ParseDuration(s string) (time.Duration, error) {
	t := strings.TrimSpace(s)
	d, err := time.ParseDuration(t)
	if err != nil {
		d, err = time.ParseDuration(t + "s")
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q: %s", s, wantDuration)
	}
	return d, nil
}

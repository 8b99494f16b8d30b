package core

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestSchemes(t *testing.T) {
	for _, c := range []struct {
		name                                     string
		scheme                                   Scheme
		width, read, write, records, per, domain int
	}{
		{"none", None(), 1, 1, 1, 1, 1, 1},
		{"mirror-2", Mirror(2), 2, 1, 2, 2, 1, 2},
		{"mirror-3", Mirror(3), 3, 1, 2, 2, 1, 3},
		{"mirror-10", Mirror(10), 10, 1, 6, 6, 1, 10},
		{"ec-2+1", ErasureCoded(2, 1), 3, 2, 3, 2, 1, 3},
		{"ec-4+2", ErasureCoded(4, 2), 6, 4, 5, 2, 2, 3},
		{"ec-8+3", ErasureCoded(8, 3), 11, 8, 10, 3, 3, 4},
		{"ec-16+8", ErasureCoded(16, 8), 24, 16, 20, 5, 8, 3},
	} {
		s, err := ParseScheme(c.name)
		if err != nil || s != c.scheme || s.String() != c.name {
			t.Errorf("%s: parsed %+v (%v), prints %s", c.name, s, err, s)
		}
		if s.Width() != c.width || s.MinRead() != c.read || s.MinWrite() != c.write || s.MinRecordDomains() != c.records || s.PerDomain() != c.per || s.MinDomains() != c.domain {
			t.Errorf("%s: width %d, read %d, write %d, records %d, per domain %d, domains %d; want %+v",
				c.name, s.Width(), s.MinRead(), s.MinWrite(), s.MinRecordDomains(), s.PerDomain(), s.MinDomains(), c)
		}
	}
	var zero Scheme
	if zero.String() != "none" || zero.Width() != 1 || zero.MinRead() != 1 || zero.MinDomains() != 1 {
		t.Errorf("the zero scheme is %s, width %d", zero, zero.Width())
	}
}

// The promises that placing rests on: the loss of one domain, or of M shards,
// leaves enough to read, and what MinWrite keeps survives half of M.
func TestSchemesSurvive(t *testing.T) {
	var all []Scheme
	for n := 2; n <= MaxMirror; n++ {
		all = append(all, Mirror(n))
	}
	for k := MinData; k <= MaxData; k++ {
		for m := 1; m <= MaxParity; m++ {
			all = append(all, ErasureCoded(k, m))
		}
	}
	for _, s := range all {
		if s.Width()-s.M < s.MinRead() {
			t.Errorf("%s cannot be read after the loss of %d shards", s, s.M)
		}
		if s.PerDomain() > s.M || s.PerDomain()*s.MinDomains() < s.Width() || s.PerDomain()*(s.MinDomains()-1) >= s.Width() {
			t.Errorf("%s: %d per domain, %d domains", s, s.PerDomain(), s.MinDomains())
		}
		if s.MinWrite() > s.Width() || s.MinWrite()-(s.M+1)/2 < s.MinRead() || s.MinRecordDomains() > s.M+1 {
			t.Errorf("%s: writes %d of %d, records %d", s, s.MinWrite(), s.Width(), s.MinRecordDomains())
		}
		if p, err := ParseScheme(s.String()); err != nil || p != s {
			t.Errorf("%s parses to %v, %v", s, p, err)
		}
	}
}

func TestParseSchemeRefuses(t *testing.T) {
	for _, s := range []string{
		"", "None", "none ", "mirror", "mirror-", "mirror-1", "mirror-11", "mirror-02", "mirror-+2", "mirror--2", "mirror-2.0",
		"ec", "ec-", "ec-4", "ec-4+", "ec-+2", "ec-1+1", "ec-17+1", "ec-4+0", "ec-4+9", "ec-04+2", "ec-4+02", "ec-4++2", "ec-4+2+1", "ec-4-2", "EC-4+2", "mirror-99999999999999999999",
	} {
		if got, err := ParseScheme(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, %v; want ErrInvalid", s, got, err)
		}
	}
}

func TestSchemeJSON(t *testing.T) {
	b, err := json.Marshal(ErasureCoded(4, 2))
	if err != nil || string(b) != `"ec-4+2"` {
		t.Fatalf("got %s, %v", b, err)
	}
	var s Scheme
	if err := json.Unmarshal(b, &s); err != nil || s != ErasureCoded(4, 2) {
		t.Errorf("got %v, %v", s, err)
	}
	if err := json.Unmarshal([]byte(`"ec-4"`), &s); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

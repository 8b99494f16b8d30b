package remote

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

func testIntent() *Intent {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return &Intent{
		Operation: Write, Request: core.RequestID{1, 2, 3},
		Conditions: core.Conditions{IfMatch: []string{"a", ""}, IfNoneMatch: []string{"*"}, IfModifiedSince: at, IfUnmodifiedSince: at.Add(time.Second)},
		Before:     Before{Known: true, Version: "v", ETag: "e", Size: 1 << 40, Modified: at},
		Record:     &core.Record{Size: 3, ETag: "x", Scheme: core.Mirror(2), Inline: []byte("abc"), Meta: map[string]string{"a": "b"}},
		Sums:       []core.Checksum{{Algorithm: "MD5", Value: "AA=="}, {Algorithm: "CRC32C", Value: "AA==", Composite: true}},
		Upload:     "u-1",
		Attempts: []Attempt{
			{Request: core.RequestID{1, 2, 3}, If: core.RemoteCondition{Version: "v"}, Until: at, ETag: "e-2", Sum: core.Checksum{Algorithm: "CRC32C", Value: "x"}},
			{Request: core.RequestID{4}, If: core.RemoteCondition{Absent: true}, Until: at.Add(time.Hour)},
		},
	}
}

func TestIntentRoundTrip(t *testing.T) {
	unknown := appendBytes(binary.AppendUvarint(nil, tagEnd+3), []byte("later"))
	for name, in := range map[string]*Intent{
		"write":                testIntent(),
		"delete":               {Operation: Remove, Request: core.RequestID{9}},
		"known to be absent":   {Operation: Remove, Before: Before{Known: true}},
		"attempts only":        {Attempts: testIntent().Attempts},
		"from a later version": {Operation: Remove, Unknown: unknown},
		"in doubt":             {Operation: Remove, Perhaps: true},
		"repeatable":           {Operation: Remove, Perhaps: true, Repeatable: true},
		"empty":                {},
	} {
		b := AppendIntent(nil, in)
		got, err := DecodeIntent(b)
		if err != nil || !reflect.DeepEqual(got, in) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, in)
			continue
		}
		if again := AppendIntent([]byte("front"), got); !bytes.Equal(again, append([]byte("front"), b...)) {
			t.Errorf("%s: written again it differs", name)
		}
	}
}

// The bytes on disk must not change.
func TestIntentGolden(t *testing.T) {
	const want = "01010102100102030000000000000000000000000003190201610001012a86e4d8e4a1deb2c31886f8c3c1a5deb2c31804130176016580" +
		"808080802086e4d8e4a1deb2c318051c0101030201780505010161016208086d6972726f722d320903616263061802034d44350441413d" +
		"3d00064352433332430441413d3d010703752d31084a020102030000000000000000000000000000017686e4d8e4a1deb2c31803652d32" +
		"0643524333324301780004000000000000000000000000000000010086a4bbea84c7b3c31800000000"
	got := hex.EncodeToString(AppendIntent(nil, testIntent()))
	if got != want {
		t.Errorf("the format changed; got\n%s", got)
	}
}

func TestIntentRefuses(t *testing.T) {
	field := func(tag uint64, content ...byte) []byte {
		return appendBytes(binary.AppendUvarint(nil, tag), content)
	}
	for name, b := range map[string][]byte{
		"fields out of order":     append(field(tagUpload, 'x'), field(tagOperation, 2)...),
		"a field twice":           append(field(tagUpload, 'x'), field(tagUpload, 'x')...),
		"a write without record":  field(tagOperation, 1),
		"operation of two bytes":  field(tagOperation, 2, 0),
		"short request":           field(tagRequest, 1, 2),
		"damaged record":          field(tagRecord, 1, 2, 3),
		"more attempts than room": field(tagAttempts, 60, 0),
		"too many attempts":       field(tagAttempts, append([]byte{65}, make([]byte, 65*23)...)...),
		"too many conditions":     field(tagConditions, 0xff, 0xff, 0x7f),
		"length beyond the end":   {tagUpload, 200, 'x'},
		"tag 0":                   field(0, 1),
	} {
		if in, err := DecodeIntent(b); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: got %+v, %v; want ErrCorrupt", name, in, err)
		}
	}
	if _, err := DecodeIntent(field(tagOperation, 7)); !errors.Is(err, core.ErrNewer) {
		t.Errorf("an operation of a later version: got %v, want ErrNewer", err)
	}
}

func TestPendingAndExpired(t *testing.T) {
	now := time.Unix(1000, 0)
	left := &Intent{Attempts: []Attempt{{Until: now.Add(-Slack)}}}
	var none *Intent
	if none.Pending() || left.Pending() || !testIntent().Pending() {
		t.Error("only an intent with an operation is pending")
	}
	if left.Expired(now) || !left.Expired(now.Add(1)) || testIntent().Expired(now.Add(1000*time.Hour)) {
		t.Error("attempts are kept until the end of their time and the slack, pending intents for ever")
	}
}

func FuzzDecodeIntent(f *testing.F) {
	f.Add(AppendIntent(nil, testIntent()))
	f.Add(AppendIntent(nil, &Intent{Operation: Remove}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := slices.Clone(b)
		in, err := DecodeIntent(b)
		if !bytes.Equal(kept, b) {
			t.Fatal("decoding changed its input")
		}
		if err != nil {
			if !errors.Is(err, core.ErrCorrupt) && !errors.Is(err, core.ErrNewer) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		w := AppendIntent(nil, in)
		again, err := DecodeIntent(w)
		if err != nil {
			t.Fatalf("%+v: written, but cannot be read: %v", in, err)
		}
		if w2 := AppendIntent(nil, again); !bytes.Equal(w, w2) {
			t.Fatalf("written twice it differs:\n%x\n%x", w, w2)
		}
		// Whatever was found, a machine says what to do about it.
		if in.Pending() {
			m := Resume(in, Options{Abilities: core.RemoteAbilities{PutIf: true}})
			for range 20 {
				if m.Next(time.Unix(1, 0), Answer{Err: core.ErrUnknownOutcome}).Kind.Ends() {
					break
				}
			}
		}
	})
}

package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func absent() core.RemoteCondition { return core.RemoteCondition{Absent: true} }

func only(v core.RemoteVersion) core.RemoteCondition { return core.RemoteCondition{Version: v} }

// write is a way to write an object under a condition.
type write struct {
	name string
	do   func(t *testing.T, key string, data []byte, c core.RemoteCondition) (core.RemoteObject, error)
}

// writes are all the ways that the backend has.
func (s *suite) writes() []write {
	ws := []write{{"put", func(t *testing.T, key string, data []byte, c core.RemoteCondition) (core.RemoteObject, error) {
		t.Helper()
		return s.tryPut(t, key, data, core.RemotePut{If: c})
	}}}
	if _, ok := s.b.(core.RemoteUploader); ok {
		ws = append(ws, write{"complete", func(t *testing.T, key string, data []byte, c core.RemoteCondition) (core.RemoteObject, error) {
			t.Helper()
			return s.upload(t, key, [][]byte{data}, core.RemotePut{}, c)
		}})
	}
	if cp, ok := s.b.(core.RemoteCopier); ok {
		ws = append(ws, write{"copy", func(t *testing.T, key string, data []byte, c core.RemoteCondition) (core.RemoteObject, error) {
			t.Helper()
			from := fmt.Sprintf("from-%x", md5Of(append(data, key...)))
			v := s.put(t, from, data, core.RemotePut{}).Version
			return cp.Copy(t.Context(), s.bucket, from, v, s.bucket, key, core.RemotePut{If: c})
		}})
	}
	return ws
}

func testPutConditions(t *testing.T, s *suite) {
	for _, w := range s.writes() {
		t.Run(w.name, func(t *testing.T) {
			if !s.b.Abilities().PutIf {
				s.refusesConditions(t, w)
				return
			}
			s.testConditions(t, w)
		})
	}
}

// refusesConditions: what cannot be held to is refused, not ignored.
func (s *suite) refusesConditions(t *testing.T, w write) {
	old := []byte("old")
	v := s.put(t, "key", old, core.RemotePut{}).Version
	for what, c := range map[string]core.RemoteCondition{"absent": absent(), "the version": only(v), "another version": only("other")} {
		_, err := w.do(t, "key", []byte("new"), c)
		wantErr(t, w.name+" if "+what, err, errors.ErrUnsupported)
		s.want(t, "key", old)
		_, err = w.do(t, "new", []byte("new"), c)
		wantErr(t, w.name+" if "+what, err, errors.ErrUnsupported)
		s.gone(t, "new")
	}
}

func (s *suite) testConditions(t *testing.T, w write) {
	one, two, three := []byte("one"), []byte("the second"), []byte("and the third")
	key := "dir/key " + w.name
	_, err := w.do(t, key, one, only("0123456789abcdef0123456789abcdef"))
	wantErr(t, "if a version, of nothing", err, core.ErrPrecondition, core.ErrNotFound, core.ErrInvalid)
	s.gone(t, key)
	first, err := w.do(t, key, one, absent())
	if err != nil {
		t.Fatalf("if absent, of nothing: %v", err)
	}
	s.want(t, key, one)
	_, err = w.do(t, key, two, absent())
	wantErr(t, "if absent, of something", err, core.ErrPrecondition)
	s.want(t, key, one)
	second, err := w.do(t, key, two, only(first.Version))
	if err != nil {
		t.Fatalf("if the version: %v", err)
	}
	if head := s.want(t, key, two); head.Version != second.Version || second.Version == first.Version {
		t.Errorf("versions %q, %q, and %q of HEAD", first.Version, second.Version, head.Version)
	}
	_, err = w.do(t, key, three, only(first.Version))
	wantErr(t, "if a version that was replaced", err, core.ErrPrecondition)
	s.want(t, key, two)
	if err := s.b.Delete(t.Context(), s.bucket, key, core.RemoteCondition{}); err != nil {
		t.Fatal(err)
	}
	_, err = w.do(t, key, three, only(second.Version))
	wantErr(t, "if a version that was deleted", err, core.ErrPrecondition, core.ErrNotFound)
	s.gone(t, key)
	if _, err := w.do(t, key, three, absent()); err != nil {
		t.Errorf("if absent, of what was deleted: %v", err)
	}
}

func testDeleteConditions(t *testing.T, s *suite) {
	data := []byte("data")
	del := func(key string, c core.RemoteCondition) error { return s.b.Delete(t.Context(), s.bucket, key, c) }
	old := s.put(t, "key", []byte("old"), core.RemotePut{}).Version
	v := s.put(t, "key", data, core.RemotePut{}).Version
	if !s.b.Abilities().DeleteIf {
		for _, c := range []core.RemoteCondition{only(v), only(old), absent()} {
			wantErr(t, "delete under a condition", del("key", c), errors.ErrUnsupported, core.ErrInvalid)
			s.want(t, "key", data)
		}
		return
	}
	wantErr(t, "delete of a version that was replaced", del("key", only(old)), core.ErrPrecondition)
	s.want(t, "key", data)
	wantErr(t, "delete if absent", del("key", absent()), core.ErrInvalid)
	s.want(t, "key", data)
	if err := del("key", only(v)); err != nil {
		t.Errorf("delete of the version: %v", err)
	}
	s.gone(t, "key")
	wantErr(t, "delete of a version that is gone", del("key", only(v)), core.ErrPrecondition, core.ErrNotFound)
}

// Of writes at once under the same condition one takes effect.
func testRaces(t *testing.T, s *suite) {
	if s.b.Abilities().PutIf {
		for _, w := range s.writes() {
			if slices.Contains(s.o.Weak, w.name) {
				continue
			}
			t.Run(w.name, func(t *testing.T) { s.testRace(t, w) })
		}
	}
	if s.b.Abilities().DeleteIf && !slices.Contains(s.o.Weak, "delete") {
		t.Run("delete", s.testDeleteRace)
	}
}

const racers = 6

func (s *suite) testRace(t *testing.T, w write) {
	var v core.RemoteVersion
	key := "raced by " + w.name
	for round := range 12 {
		c := only(v)
		if round == 0 {
			c = absent()
		}
		var bodies [racers][]byte
		var objs [racers]core.RemoteObject
		var errs [racers]error
		var wg sync.WaitGroup
		for i := range racers {
			bodies[i] = random(100 + i)
			wg.Go(func() { objs[i], errs[i] = w.do(t, key, bodies[i], c) })
		}
		wg.Wait()
		winner, doubtful := -1, false
		for i, err := range errs {
			switch {
			case errors.Is(err, core.ErrUnknownOutcome):
				doubtful = true // versitygw removes a directory in which another upload begins
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("round %d: two of them took effect", round)
			case !errors.Is(err, core.ErrPrecondition) && !errors.Is(err, core.ErrUnavailable):
				t.Errorf("round %d: got %v", round, err)
			}
		}
		switch {
		case winner >= 0:
			s.want(t, key, bodies[winner])
			v = objs[winner].Version
		case doubtful:
			v = s.put(t, key, bodies[0], core.RemotePut{}).Version
		default:
			t.Fatalf("round %d: none took effect: %v", round, errs)
		}
	}
}

// A delete of a version never removes another one.
func (s *suite) testDeleteRace(t *testing.T) {
	for round := range 30 {
		key := fmt.Sprintf("raced-%d", round)
		v := s.put(t, key, []byte("old"), core.RemotePut{}).Version
		fresh := []byte("new")
		var wg sync.WaitGroup
		var delErr, putErr error
		wg.Go(func() { delErr = s.b.Delete(t.Context(), s.bucket, key, only(v)) })
		wg.Go(func() { _, putErr = s.tryPut(t, key, fresh, core.RemotePut{}) })
		wg.Wait()
		if putErr != nil {
			t.Fatalf("put: %v", putErr)
		}
		if delErr != nil {
			wantErr(t, "delete of a version", delErr, core.ErrPrecondition, core.ErrUnavailable)
		}
		if _, got, err := s.get(t, key, wholeObject()); err != nil || !bytes.Equal(got, fresh) {
			t.Fatalf("round %d: the new object is %q, %v; delete said %v", round, got, err, delErr)
		}
	}
}

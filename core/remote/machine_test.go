package remote

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

// A scenario is a run of steps, one a line: what the machine asks for, and behind the
// arrow what came of it. Conditions and versions are words; x is what was there before.
//
//	put x -> lost
//	head -> ours v2
//	commit v2
//
// Waits name the seconds, rounded; the time then passes. "after 90s: ..." lets it pass
// before the answer comes.

const ourETag = "0cc175b9c0f1b6a831c399e269772661" // of "a"

func ours() *core.Record {
	return &core.Record{Size: 1, ETag: ourETag, Inline: []byte("a"), Meta: map[string]string{"m": "1"}, Scheme: core.None()}
}

func describe(a *Action, now time.Time) string {
	s := a.Kind.String()
	cond := func(c core.RemoteCondition) string {
		switch {
		case c.Absent:
			return " absent"
		case c.Version != "":
			return " " + string(c.Version)
		}
		return ""
	}
	switch a.Kind {
	case Put, Delete, Complete:
		s += cond(a.If)
		if now.After(a.Until) {
			s += " too late"
		}
	case Announce:
		for _, t := range a.Intent.Attempts {
			s += " [" + strings.TrimSpace(cond(t.If)) + "]"
		}
	case Wait:
		s += fmt.Sprintf(" %d", int(a.At.Sub(now).Round(time.Second).Seconds()))
	case Commit:
		switch {
		case a.Record != nil && a.Record.Remote.Version != a.Object.Version:
			s += " of another version"
		case a.Record != nil:
			s += " " + string(a.Record.Remote.Version)
		}
	case Cancel:
		for _, e := range []error{
			core.ErrPrecondition, core.ErrNotFound, core.ErrPermission, core.ErrNoSuchBucket, core.ErrThrottled, core.ErrUnavailable,
		} {
			if errors.Is(a.Err, e) {
				s += " " + e.Error()
				break
			}
		}
		if a.Outdated(&core.Record{Remote: &core.RemoteCopy{Version: "x"}}) {
			s += ", outdated"
		}
	case Drop:
		if !errors.Is(a.Err, core.ErrUnknownOutcome) {
			s += " with " + a.Err.Error()
		}
	}
	if a.Kind.Ends() && a.Left != nil {
		s += fmt.Sprintf(", leaves %d", len(a.Left.Attempts))
	}
	if len(a.Abort) > 0 {
		s += ", aborts " + strings.Join(a.Abort, " ")
	}
	return s
}

func answer(t *testing.T, s string) Answer {
	t.Helper()
	word, arg, _ := strings.Cut(s, " ")
	switch word {
	case "", "ok":
		if arg == "" {
			return Answer{}
		}
		return Answer{Object: core.RemoteObject{Version: core.RemoteVersion(arg)}, Upload: arg}
	case "ours":
		return Answer{Object: core.RemoteObject{Version: core.RemoteVersion(arg), Size: 1, ETag: ourETag, Meta: map[string]string{"M": "1"}}}
	case "has":
		return Answer{Object: core.RemoteObject{Version: core.RemoteVersion(arg), Size: 7, ETag: "etag-" + arg}}
	case "slow":
		d, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatal(err)
		}
		return Answer{Err: throttle(d)}
	}
	errs := map[string]error{
		"lost": core.ErrUnknownOutcome, "412": core.ErrPrecondition, "404": core.ErrNotFound, "503": core.ErrUnavailable, "403": core.ErrPermission,
		"lost503":  fmt.Errorf("%w: %w", core.ErrUnknownOutcome, core.ErrUnavailable),
		"nobucket": core.ErrNoSuchBucket, "noupload": core.ErrNoSuchUpload, "late": ErrLate, "409": core.ErrConflict,
	}
	if errs[word] == nil {
		t.Fatalf("no such answer: %q", s)
	}
	return Answer{Err: errs[word]}
}

func play(t *testing.T, m *Machine, now time.Time, script string) {
	t.Helper()
	var last Answer
	var past []string
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		want, came, _ := strings.Cut(strings.TrimSpace(line), " -> ")
		do := m.Next(now, last)
		got := describe(&do, now)
		past = append(past, got)
		if got != want {
			t.Fatalf("got  %q\nwant %q\nafter\n%s", got, want, strings.Join(past, "\n"))
		}
		if do.Kind == Wait {
			now = do.At
		}
		if after, rest, ok := strings.Cut(came, ": "); ok {
			d, err := time.ParseDuration(strings.TrimPrefix(after, "after "))
			if err != nil {
				t.Fatal(err)
			}
			now, came = now.Add(d), rest
		}
		last = answer(t, came)
	}
	if !m.Pending().Kind.Ends() {
		t.Errorf("the script ends before the machine does")
	}
}

func TestMachine(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	full := core.RemoteAbilities{PutIf: true, DeleteIf: true, MaxParts: 100}
	before := Before{Known: true, Version: "x", ETag: "etag-x", Size: 7}
	absent := core.Conditions{IfNoneMatch: []string{"*"}}
	match := core.Conditions{IfMatch: []string{"etag-x"}}
	attempt := func(c core.RemoteCondition) []Attempt { return []Attempt{{If: c, Until: now.Add(50 * time.Second)}} }
	old := func(c core.RemoteCondition) []Attempt { return []Attempt{{If: c, Until: now.Add(-time.Hour)}} }
	for _, c := range []struct {
		name   string
		in     Intent
		o      Options
		resume bool
		script string
	}{
		{"put over what is known", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> ok v2
			commit v2`},
		{"put where nothing is known", Intent{Operation: Write}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> 412
			head -> has y
			announce [y]
			put y -> ok v2
			commit v2`},
		{"put of what is thought to be there", Intent{Operation: Write}, Options{Abilities: full, HeadFirst: true}, false, `
			announce
			head -> has y
			announce [y]
			put y -> ok v2
			commit v2`},
		{"put of what is thought to be there, and is not", Intent{Operation: Write}, Options{Abilities: full, HeadFirst: true}, false, `
			announce
			head -> 404
			announce [absent]
			put absent -> ok v2
			commit v2`},
		{"put of what is known to be there", Intent{Operation: Write, Before: before}, Options{Abilities: full, HeadFirst: true}, false, `
			announce [x]
			put x -> ok v2
			commit v2`},
		{"put, nothing known and nothing there, a version that the remote does not tell", Intent{Operation: Write}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> ok
			commit`},
		{"put whose answer is lost but which was done", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> ours v2
			commit v2`},
		{"put that was lost on its way", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> has x
			put x -> ok v2
			commit v2, leaves 1`},
		{"put that arrives late, before its repetition", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> has x
			put x -> 412
			head -> ours v2
			commit v2`},
		{"put, lost, and somebody else's object", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> has y
			drop, leaves 1`},
		{"put, lost, and somebody else's removal", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> 404
			drop, leaves 1`},
		{"put over another version than the known one", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> 412
			head -> has y
			announce [y]
			put y -> ok v2
			commit v2`},
		{"put over what is gone", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> 404
			head -> 404
			announce [absent]
			put absent -> ok v2
			commit v2`},
		{"create, and there is one", Intent{Operation: Write, Conditions: absent}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> 412
			cancel precondition failed`},
		{"create, where the cluster has one", Intent{Operation: Write, Conditions: absent, Before: before}, Options{Abilities: full}, false, `
			announce
			head -> has x
			cancel precondition failed`},
		{"create, where the cluster has one that is gone", Intent{Operation: Write, Conditions: absent, Before: before}, Options{Abilities: full}, false, `
			announce
			head -> 404
			announce [absent]
			put absent -> ok v2
			commit v2`},
		{"create, lost but done, and the repetition is refused", Intent{Operation: Write, Conditions: absent}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> ours v2
			commit v2`},
		{"create, lost for good: nobody can tell", Intent{Operation: Write, Conditions: absent}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> 404
			wait 70
			head -> 404
			drop`},
		{"change what is there, lost for good", Intent{Operation: Write, Conditions: match, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> has x
			wait 70
			head -> has x
			announce [x]
			put x -> ok v2
			commit v2`},
		{"an answer that is late says nothing of what came behind the question", Intent{Operation: Write, Conditions: match, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> after 90s: has x
			wait -20
			head -> ours v2
			commit v2`},
		{"change what is there, which the cluster does not know", Intent{Operation: Write, Conditions: match}, Options{Abilities: full}, false, `
			announce
			head -> has x
			announce [x]
			put x -> ok v2
			commit v2`},
		{"change what is not there any more", Intent{Operation: Write, Conditions: match, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> 412
			head -> has y
			cancel precondition failed, outdated`},
		{"change what was removed", Intent{Operation: Write, Conditions: match, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> 404
			head -> 404
			cancel not found, outdated`},
		{"delete what is known", Intent{Operation: Remove, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> ok
			commit`},
		{"delete what is gone", Intent{Operation: Remove, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> 404
			commit`},
		{"delete what is unknown", Intent{Operation: Remove}, Options{Abilities: full}, false, `
			announce []
			delete -> ok
			commit`},
		{"delete what has changed", Intent{Operation: Remove, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> 412
			head -> has y
			announce [y]
			delete y -> ok
			commit`},
		{"delete, lost but done", Intent{Operation: Remove, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> lost
			wait 0
			head -> 404
			commit, leaves 1`},
		{"delete under a condition, lost, and it is gone: by whom?", Intent{Operation: Remove, Conditions: match, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> lost
			wait 0
			head -> 404
			drop, leaves 1`},
		{"delete under a condition what is gone", Intent{Operation: Remove, Conditions: match, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> 404
			cancel not found, outdated`},
		{"delete of the unknown, lost: an unconditional request is waited for", Intent{Operation: Remove}, Options{Abilities: full}, false, `
			announce []
			delete -> lost
			wait 0
			head -> 404
			wait 70
			head -> 404
			commit`},
		{"no preconditions: put, lost, done", Intent{Operation: Write, Before: before}, Options{}, false, `
			announce []
			put -> lost
			wait 0
			head -> ours v2
			commit v2`},
		{"no preconditions: put, lost for good", Intent{Operation: Write, Before: before}, Options{}, false, `
			announce []
			put -> lost
			wait 0
			head -> has x
			wait 70
			head -> has x
			announce []
			put -> ok v2
			commit v2`},
		{"no preconditions: conditions are asked for before", Intent{Operation: Write, Conditions: match, Before: before}, Options{}, false, `
			announce
			head -> has x
			announce []
			put -> 503
			wait 0
			head -> has y
			cancel precondition failed, outdated`},
		{"throttled", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> slow 4s
			wait 4
			put x -> ok v2
			commit v2`},
		{"throttled all along", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> slow 31s
			wait 31
			cancel throttled`},
		{"never reached", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> after 40s: 503
			cancel unavailable`},
		{"time is over before it is sent", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> late
			wait 0
			put x -> ok v2
			commit v2`},
		{"the attempt's time is nearly over", Intent{Operation: Write, Before: before}, Options{Abilities: full, Window: 20 * time.Second}, false, `
			announce [x]
			put x -> slow 12s
			wait 12
			announce [x]
			put x -> ok v2
			commit v2`},
		{"no permission", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> 403
			cancel permission denied`},
		{"the bucket is gone", Intent{Operation: Remove, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			delete x -> nobucket
			cancel no such bucket`},
		{"lost, then no permission", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> has x
			put x -> 403
			head -> has x
			wait 70
			head -> has x
			cancel permission denied`},
		{"lost, then not even a look is permitted", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> 403
			put x -> ok v2
			commit v2, leaves 1`},
		{"lost, then nothing is permitted any more", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> 403
			put x -> 403
			wait 70
			head -> 403
			drop`},
		{"lost, then the bucket is gone", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> nobucket
			wait 70
			head -> nobucket
			drop`},
		{"the remote does not answer for five minutes", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> after 5m: lost
			wait 0
			head -> has x
			cancel unavailable`},
		{"the same content again, lost for good", Intent{Operation: Write, Before: Before{Known: true, Version: ourETag, ETag: ourETag, Size: 1}}, Options{Abilities: full}, false, `
			announce [` + ourETag + `]
			put ` + ourETag + ` -> lost
			wait 0
			head -> ours ` + ourETag + `
			put ` + ourETag + ` -> ok ` + ourETag + `
			commit ` + ourETag + `, leaves 1`},
		{"in parts", Intent{Operation: Write, Before: before}, Options{Abilities: full, Parts: true}, false, `
			announce
			create upload -> ok u1
			announce
			put parts -> ok
			announce [x]
			complete x -> ok v2
			commit v2`},
		{"in parts, the end of the upload is lost but done", Intent{Operation: Write, Before: before}, Options{Abilities: full, Parts: true}, false, `
			announce
			create upload -> ok u1
			announce
			put parts -> 503
			wait 0
			put parts -> ok
			announce [x]
			complete x -> lost
			wait 0
			head -> ours v2
			commit v2`},
		{"in parts, the end of the upload is lost, and so is the upload", Intent{Operation: Write, Before: before}, Options{Abilities: full, Parts: true}, false, `
			announce
			create upload -> ok u1
			announce
			put parts -> ok
			announce [x]
			complete x -> noupload
			wait 0
			create upload -> ok u2
			announce
			put parts -> ok
			announce [x]
			complete x -> ok v2
			commit v2, aborts u1`},
		{"in parts, over another version", Intent{Operation: Write, Before: before}, Options{Abilities: full, Parts: true}, false, `
			announce
			create upload -> ok u1
			announce
			put parts -> ok
			announce [x]
			complete x -> 412
			head -> has y
			announce [y]
			complete y -> ok v2
			commit v2`},
		{"in parts, refused", Intent{Operation: Write, Conditions: absent}, Options{Abilities: full, Parts: true}, false, `
			announce
			create upload -> ok u1
			announce
			put parts -> ok
			announce [absent]
			complete absent -> 412
			cancel precondition failed, aborts u1`},
		{"a new owner, and nothing was sent", Intent{Operation: Write, Before: before, Upload: "u0"}, Options{Abilities: full}, true, `
			announce [x]
			put x -> ok v2
			commit v2, aborts u0`},
		{"a new owner, and it was done", Intent{Operation: Write, Before: before, Attempts: attempt(core.RemoteCondition{Version: "x"})}, Options{Abilities: full}, true, `
			head -> ours v2
			commit v2, leaves 1`},
		{"a new owner, and it was not", Intent{Operation: Write, Before: before, Attempts: attempt(core.RemoteCondition{Version: "x"})}, Options{Abilities: full}, true, `
			head -> has x
			announce [x] [x]
			put x -> ok v2
			commit v2, leaves 1`},
		{"a new owner without preconditions", Intent{Operation: Write, Before: before, Attempts: attempt(core.RemoteCondition{})}, Options{}, true, `
			head -> has x
			wait 60
			head -> has x
			announce []
			put -> ok v2
			commit v2`},
		{"a new owner without preconditions, and it was done", Intent{Operation: Write, Before: before, Attempts: attempt(core.RemoteCondition{})}, Options{}, true, `
			head -> ours v2
			wait 60
			head -> ours v2
			commit v2`},
		{"a new owner, long after: what was refused may have been our own doing", Intent{Operation: Write, Attempts: old(core.RemoteCondition{Absent: true})}, Options{Abilities: full}, true, `
			head -> 404
			announce [absent]
			put absent -> 412
			head -> has y
			drop, leaves 1`},
		{"no preconditions: what the remote said is what was there before", Intent{
			Operation: Write, Conditions: core.Conditions{IfMatch: []string{"etag-y"}}, Before: before,
		}, Options{}, false, `
			announce
			head -> has y
			announce []
			put -> lost
			wait 0
			head -> has y
			wait 70
			head -> has y
			announce []
			put -> ok v2
			commit v2`},
		{"no preconditions: the content that was there, lost for good: nobody can tell", Intent{
			Operation: Write, Conditions: core.Conditions{IfMatch: []string{ourETag}}, Before: Before{Known: true, Version: ourETag, ETag: ourETag, Size: 1},
		}, Options{}, false, `
			announce
			head -> ours ` + ourETag + `
			announce []
			put -> lost
			wait 0
			head -> ours ` + ourETag + `
			wait 70
			head -> ours ` + ourETag + `
			drop`},
		{"an outcome that is unknown is not one of a remote that was away", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost503
			wait 0
			head -> has x
			put x -> ok v2
			commit v2, leaves 1`},
		{"lost, no permission to look, and something else is there", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> 403
			put x -> 412
			wait 70
			head -> has y
			drop`},
		{"in parts, the upload goes while the parts come", Intent{Operation: Write, Before: before}, Options{Abilities: full, Parts: true}, false, `
			announce
			create upload -> ok u1
			announce
			put parts -> noupload
			wait 0
			create upload -> ok u2
			announce
			put parts -> ok
			announce [x]
			complete x -> ok v2
			commit v2, aborts u1`},
		{"the remote says what it has and answers no write", Intent{Operation: Write, Before: before}, Options{Abilities: full}, false, `
			announce [x]
			put x -> lost
			wait 0
			head -> has x
			put x -> after 100s: lost
			wait 0
			head -> has x
			announce [x]
			put x -> after 100s: lost
			wait 0
			head -> has x
			announce [x]
			put x -> after 101s: lost
			wait 0
			head -> has x
			cancel unavailable`},
		{"put where nothing is known, lost, over what was there", Intent{Operation: Write}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> has y
			announce [absent] [y]
			put y -> ok v2
			commit v2, leaves 1`},
		{"put where nothing is known, lost, over what somebody else changes", Intent{Operation: Write}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> has y
			announce [absent] [y]
			put y -> 412
			head -> has z
			announce [absent] [z]
			put z -> ok v2
			commit v2, leaves 1`},
		{"put where nothing is known, lost, and refused after that", Intent{Operation: Write}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> has y
			announce [absent] [y]
			put y -> 403
			head -> has y
			drop, leaves 1`},
		{"create where nothing is known, lost, and there is something else", Intent{Operation: Write, Conditions: absent}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> has y
			drop, leaves 1`},
		{"a new owner, where nothing was known", Intent{Operation: Write, Attempts: attempt(core.RemoteCondition{Absent: true})}, Options{Abilities: full}, true, `
			head -> has y
			announce [absent] [y]
			put y -> ok v2
			commit v2, leaves 1`},
		{"a new owner, long after, where nothing was known", Intent{Operation: Write, Attempts: old(core.RemoteCondition{Absent: true})}, Options{Abilities: full}, true, `
			head -> has y
			announce [y]
			put y -> 403
			drop`},
		{"create, which may be repeated, lost on its way", Intent{Operation: Write, Conditions: absent, Repeatable: true}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> 404
			put absent -> ok v2
			commit v2, leaves 1`},
		{"create, which may be repeated, lost, done, and removed by somebody", Intent{Operation: Write, Conditions: absent, Repeatable: true}, Options{Abilities: full}, false, `
			announce [absent]
			put absent -> lost
			wait 0
			head -> 404
			put absent -> 412
			head -> has y
			drop, leaves 1`},
		{"a new owner, create, which may be repeated", Intent{
			Operation: Write, Conditions: absent, Repeatable: true, Attempts: attempt(core.RemoteCondition{Absent: true}),
		}, Options{Abilities: full}, true, `
			head -> 404
			announce [absent] [absent]
			put absent -> ok v2
			commit v2, leaves 1`},
		{"a new owner, create, which may be repeated, without preconditions", Intent{
			Operation: Write, Conditions: absent, Repeatable: true, Attempts: attempt(core.RemoteCondition{}),
		}, Options{}, true, `
			head -> 404
			wait 60
			head -> 404
			drop`},
		{"a new owner, where an earlier one was in doubt", Intent{Operation: Write, Perhaps: true, Before: before}, Options{Abilities: full}, true, `
			announce [x]
			put x -> 403
			drop`},
		{"a new owner, where it was learnt what there is", Intent{
			Operation: Write, Before: before, Attempts: append(attempt(core.RemoteCondition{Absent: true}), attempt(core.RemoteCondition{Version: "x"})...),
		}, Options{Abilities: full}, true, `
			head -> has x
			announce [absent] [x] [x]
			put x -> ok v2
			commit v2, leaves 2`},
		{"a new owner, where it was learnt what there is, and somebody else wrote", Intent{
			Operation: Write, Before: before, Attempts: append(attempt(core.RemoteCondition{Absent: true}), attempt(core.RemoteCondition{Version: "x"})...),
		}, Options{Abilities: full}, true, `
			head -> has y
			drop, leaves 2`},
		{"a new owner, where it was known that there is nothing", Intent{
			Operation: Write, Before: Before{Known: true}, Attempts: attempt(core.RemoteCondition{Absent: true}),
		}, Options{Abilities: full}, true, `
			head -> has y
			drop, leaves 1`},
		{"a new owner, deletion of the unknown", Intent{Operation: Remove, Attempts: attempt(core.RemoteCondition{})}, Options{Abilities: full}, true, `
			head -> has y
			wait 60
			head -> has y
			announce [y]
			delete y -> ok
			commit`},
		{"a new owner, deletion of the unknown without preconditions", Intent{Operation: Remove, Attempts: attempt(core.RemoteCondition{})}, Options{}, true, `
			head -> has y
			wait 60
			head -> has y
			announce []
			delete -> ok
			commit`},
		{"a new owner, no preconditions, nothing known", Intent{Operation: Write, Attempts: attempt(core.RemoteCondition{})}, Options{}, true, `
			head -> has y
			wait 60
			head -> has y
			announce []
			put -> ok v2
			commit v2`},
		{"a new owner, somebody else's object", Intent{Operation: Write, Before: before, Attempts: attempt(core.RemoteCondition{Version: "x"})}, Options{Abilities: full}, true, `
			head -> has y
			drop, leaves 1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Request = core.RequestID{1}
			for i := range c.in.Attempts {
				c.in.Attempts[i].Request = c.in.Request
			}
			if c.in.Operation == Write {
				c.in.Record = ours()
			}
			m := Resume(&c.in, c.o)
			if !c.resume {
				var err error
				if m, err = Start(nil, c.in, c.o); err != nil {
					t.Fatal(err)
				}
			}
			play(t, m, now, c.script)
		})
	}
}

// A write that leaves the state on which a late request of an earlier one would
// land waits until it cannot.
func TestKeptAttempts(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	o := Options{Abilities: core.RemoteAbilities{PutIf: true, DeleteIf: true}}
	kept := func(c core.RemoteCondition) *Intent {
		return &Intent{Attempts: []Attempt{{Request: core.RequestID{9}, If: c, Until: now.Add(20 * time.Second)}}}
	}
	before := Before{Known: true, Version: "x", ETag: "etag-x"}
	var many []Attempt
	for i := range maxKept {
		many = append(many, kept(core.RemoteCondition{Version: "y"}).Attempts...)
		many[i].Until = many[i].Until.Add(time.Duration(i) * time.Second)
	}
	put := Intent{Operation: Write, Request: core.RequestID{1}, Record: ours(), Before: before}
	remove := Intent{Operation: Remove, Request: core.RequestID{1}, Before: before}
	for _, c := range []struct {
		name    string
		in      Intent
		present *Intent
		script  string
	}{
		{"another content", put, kept(core.RemoteCondition{Version: "y"}), `
			announce [y] [x]
			put x -> ok v2
			commit v2, leaves 1`},
		{"another content, lost but done: it may be another's doing", put, kept(core.RemoteCondition{Version: "y"}), `
			announce [y] [x]
			put x -> lost
			wait 0
			head -> ours v2
			commit v2, leaves 2`},
		{"more than are kept", put, &Intent{Attempts: many}, `
			announce` + strings.Repeat(" [y]", maxKept) + `
			wait 30
			announce` + strings.Repeat(" [y]", maxKept-1) + ` [x]
			put x -> ok v2
			commit v2, leaves ` + fmt.Sprint(maxKept-1) + `
		`},
		{"the same content", put, kept(core.RemoteCondition{Version: ourETag}), `
			announce [` + ourETag + `]
			wait 30
			announce [x]
			put x -> ok v2
			commit v2`},
		{"removal after a creation", remove, kept(core.RemoteCondition{Absent: true}), `
			announce [absent]
			wait 30
			announce [x]
			delete x -> ok
			commit`},
		{"removal after a change", remove, kept(core.RemoteCondition{Version: "y"}), `
			announce [y] [x]
			delete x -> ok
			commit, leaves 1`},
		{"anything after a request without a condition", put, kept(core.RemoteCondition{}), `
			announce []
			wait 30
			announce [x]
			put x -> ok v2
			commit v2`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Start(c.present, c.in, o)
			if err != nil {
				t.Fatal(err)
			}
			play(t, m, now, c.script)
		})
	}
	if _, err := Start(&put, remove, o); !errors.Is(err, core.ErrConflict) {
		t.Errorf("a second write while one is under way: got %v, want ErrConflict", err)
	}
	o.Abilities.ReadOnly = true
	if _, err := Start(nil, remove, o); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a write to what is read only: got %v, want ErrUnsupported", err)
	}
}

// A write without conditions does not follow other writers for ever.
func TestOvertaken(t *testing.T) {
	m, err := Start(nil, Intent{Operation: Write, Record: ours()}, Options{Abilities: core.RemoteAbilities{PutIf: true}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_000_000, 0)
	puts := 0
	do := m.Next(now, Answer{})
	for n := 0; !do.Kind.Ends(); n++ {
		a := Answer{}
		switch do.Kind {
		case Put:
			puts++
			a.Err = core.ErrPrecondition
		case Head:
			a.Object.Version = core.RemoteVersion(fmt.Sprint("v", n))
		}
		do = m.Next(now, a)
	}
	if do.Kind != Cancel || !errors.Is(do.Err, core.ErrUnavailable) || puts != 1+maxOvertaken {
		t.Errorf("after %d attempts: %v, %v", puts, do.Kind, do.Err)
	}
}

func TestWrote(t *testing.T) {
	md5 := plainMD5(ourETag)
	crc := core.Checksum{Algorithm: "CRC32C", Value: "AAAAAA=="}
	base := func(change func(*core.RemoteObject)) *core.RemoteObject {
		o := &core.RemoteObject{Size: 1, Meta: map[string]string{"m": "1"}}
		change(o)
		return o
	}
	in := &Intent{Operation: Write, Request: core.RequestID{1}, Record: ours(), Sums: []core.Checksum{crc}}
	in.Attempts = []Attempt{{Request: core.RequestID{1}, ETag: "parts-2"}, {Request: core.RequestID{2}, ETag: "foreign-2"}}
	for _, c := range []struct {
		name string
		o    *core.RemoteObject
		want bool
	}{
		{"by ETag", base(func(o *core.RemoteObject) { o.ETag = ourETag }), true},
		{"by the ETag of parts", base(func(o *core.RemoteObject) { o.ETag = "parts-2" }), true},
		{"by the ETag of another write's parts", base(func(o *core.RemoteObject) { o.ETag = "foreign-2" }), false},
		{"by MD5", base(func(o *core.RemoteObject) { o.ETag, o.MD5 = "gcs", md5 }), true},
		{"by checksum", base(func(o *core.RemoteObject) { o.ETag, o.Checksum = "gcs", crc }), true},
		{"by nothing", base(func(o *core.RemoteObject) { o.ETag = "opaque" }), false},
		{"another checksum under the same ETag", base(func(o *core.RemoteObject) {
			o.ETag, o.Checksum = ourETag, core.Checksum{Algorithm: "CRC32C", Value: "BBBBBB=="}
		}), false},
		{"one checksum agrees, another does not", base(func(o *core.RemoteObject) {
			o.MD5, o.Checksum = md5, core.Checksum{Algorithm: "CRC32C", Value: "BBBBBB=="}
		}), false},
		{"a checksum of another algorithm", base(func(o *core.RemoteObject) {
			o.Checksum = core.Checksum{Algorithm: "CRC64NVME", Value: "AAAAAA=="}
		}), false},
		{"composite checksum", base(func(o *core.RemoteObject) {
			o.Checksum = core.Checksum{Algorithm: "CRC32C", Value: "AAAAAA==", Composite: true}
		}), false},
		{"another size", base(func(o *core.RemoteObject) { o.ETag, o.Size = ourETag, 2 }), false},
		{"other metadata", base(func(o *core.RemoteObject) { o.ETag, o.Meta = ourETag, map[string]string{"m": "2"} }), false},
		{"no metadata", base(func(o *core.RemoteObject) { o.ETag, o.Meta = ourETag, nil }), false},
		{"more metadata", base(func(o *core.RemoteObject) { o.ETag, o.Meta = ourETag, map[string]string{"M": "1", "n": ""} }), true},
	} {
		if got := in.wrote(c.o); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if (&Intent{Operation: Remove}).wrote(&core.RemoteObject{}) {
		t.Error("a removal writes nothing")
	}
	if got, want := ETagOfParts([][]byte{md5, md5}), "-2"; !strings.HasSuffix(got, want) || plainMD5(strings.TrimSuffix(got, want)) == nil {
		t.Errorf("ETag of parts %q", got)
	}
}

func TestResult(t *testing.T) {
	in := &Intent{Operation: Write, Record: ours()}
	at := time.Unix(5, 0)
	r := in.Result(core.RemoteObject{Version: "v", ETag: "e", Modified: at})
	if r.Remote == nil || r.Remote.Version != "v" || r.ETag != "e" || !r.Modified.Equal(at) || string(r.Inline) != "a" || in.Record.Remote != nil {
		t.Errorf("got %+v", r)
	}
	if b := BeforeOf(r); !b.Known || b.Version != "v" || b.ETag != "e" {
		t.Errorf("before: %+v", b)
	}
	if BeforeOf(nil).Known || BeforeOf(ours()).Known {
		t.Error("what is not a copy says nothing of the remote")
	}
}

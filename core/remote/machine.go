package remote

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoalstore/shoal/core"
)

// The times of a write.
const (
	// Slack is how much later than an attempt's end one of its requests may yet
	// take effect: it covers clocks that differ, and what the remote had in hand.
	Slack = 10 * time.Second
	// Patience is how long a write goes on that surely never reached the remote.
	Patience = 30 * time.Second
	// GiveUp is after how long without any answer a write is not attempted again.
	GiveUp = 5 * time.Minute
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	// maxOvertaken is how often a write without conditions follows other writers.
	maxOvertaken = 8
	// maxKept is how many attempts are kept track of before the oldest is waited for.
	maxKept = 16
)

// Window is how long one attempt to send so many bytes should be given.
func Window(bytes int64) time.Duration {
	const slowest = 512 << 10 // bytes per second
	return time.Minute + time.Duration(bytes/slowest)*time.Second
}

// Options say what a machine can count on.
type Options struct {
	Abilities core.RemoteAbilities
	// Parts: the object is written as a multipart upload.
	Parts bool
	// Window is how long the requests of one attempt may take; see [Window]. 0 is
	// a minute.
	Window time.Duration
	// HeadFirst: if nothing is known of the object the remote is asked before the first
	// attempt, since it probably has one. That costs a request less if so, and one more
	// if not.
	HeadFirst bool

	sabotage sabotage
}

// sabotage switches off single rules, to show that the simulation notices.
type sabotage struct {
	noCondition, noUntil, noHead, noExclusion, noAnnounce, noKept, noSureWait, noFetchCheck, noGuess bool
}

// ActionKind says what a machine asks for.
type ActionKind byte

// The actions. The first group goes to the remote or to the slot and is answered by
// [Answer]; the last one ends the machine.
const (
	// Announce: commit Intent as the key's row, if that is still what this owner
	// committed or found last. If that fails or its outcome is unknown the machine
	// is to be dropped: another owner may be at work. It comes before every new
	// attempt, and first of all from [Start].
	Announce ActionKind = iota + 1
	// Head asks for the object. Answer: Object or Err.
	Head
	// Put writes the object under If. Nothing may be sent at Until or later, and
	// the request is cut off then; if it is too late already, answer [ErrLate].
	Put
	// Delete removes the object under If, cut off at Until.
	Delete
	// CreateUpload begins a multipart upload. Answer: Upload.
	CreateUpload
	// PutParts uploads all parts of Upload. Answer: ETag and Sum of the whole, where
	// they are known.
	PutParts
	// Complete ends Upload under If, cut off at Until.
	Complete
	// Wait: call Next again at the time At, without an answer.
	Wait
	// Commit, in one entry: the record becomes Record, or is removed where that is
	// nil; the intent's row becomes Left, or is removed where that is nil; the answer
	// is success.
	Commit
	// Cancel, in one entry: the intent's row becomes Left; the answer is Err. The write
	// did not and will not take effect. The record stays, unless it is
	// [Action.Outdated].
	Cancel
	// Drop, in one entry: the record is removed, the intent's row becomes Left; the
	// answer is Err, which is [core.ErrUnknownOutcome].
	Drop
)

// Ends says whether the action is a machine's last.
func (k ActionKind) Ends() bool { return k >= Commit }

func (k ActionKind) String() string {
	names := [...]string{"", "announce", "head", "put", "delete", "create upload", "put parts", "complete", "wait", "commit", "cancel", "drop"}
	if int(k) < len(names) {
		return names[k]
	}
	return "?"
}

// Action is what is to be done next.
type Action struct {
	Kind   ActionKind
	Intent *Intent
	If     core.RemoteCondition
	Until  time.Time
	At     time.Time
	Upload string
	Record *core.Record
	Left   *Intent
	Err    error
	// Now is what the remote was found to have, if it was asked.
	Now Before
	// Abort are uploads at the remote that are of no use any more. To abort them is
	// a matter of tidiness.
	Abort []string
	// Object is what the remote said to a Commit of a Write.
	Object core.RemoteObject
}

// Outdated says whether a record is known to be a copy of what is no more.
func (a *Action) Outdated(r *core.Record) bool {
	return r != nil && r.Remote != nil && a.Now.Known && r.Remote.Version != a.Now.Version
}

// Answer is what came of an action.
type Answer struct {
	Object core.RemoteObject
	Upload string
	ETag   string
	Sum    core.Checksum
	Err    error
}

// ErrLate is the answer to a request that was not sent because its time was over.
var ErrLate = fmt.Errorf("the time for the request was over before it was sent: %w", core.ErrUnavailable)

// state is what the remote has, as far as is known.
type state struct {
	known bool
	// sure: the remote has said so in this machine's life.
	sure   bool
	exists bool
	object core.RemoteObject
}

// track is an attempt and what this machine knows of it.
type track struct {
	Attempt
	// own: of this intent. mine: made by this machine, which then knows how many
	// requests are open: sent and without an answer.
	own, mine bool
	open      int
}

// unsure says whether a request of it may have reached the remote, or yet may.
func (t *track) unsure() bool { return !t.mine || t.open > 0 }

// Machine decides the steps of one write of one owner. It is not safe for
// concurrent use.
type Machine struct {
	o      Options
	in     Intent
	tracks []track
	base   state     // what the next attempt is made on top of
	seen   state     // what the remote said since the last request that may have changed it
	seenAt time.Time // when it was asked
	asked  Action
	// committed: the intent's row is there.
	committed bool
	headFirst bool
	began     time.Time
	failing   time.Time // since when nothing was answered; zero: the last request was
	losing    time.Time // the same of requests that write; what was only put off does not count
	pauses    int
	notBefore time.Time
	last      error // of the last request without an answer
	overtaken int
	cause     error // why nothing is attempted any more
	blind     error // why the remote does not say what it has
	upload    string
	uploaded  bool
	expected  Answer
	abort     []string
}

// Start returns the machine of a new write. present is the key's intent, nil if it
// has none; while it is pending it must be settled first, and Start refuses with
// [core.ErrConflict].
func Start(present *Intent, next Intent, o Options) (*Machine, error) {
	if present.Pending() && !o.sabotage.noExclusion {
		return nil, fmt.Errorf("another write of the key is under way: %w", core.ErrConflict)
	}
	if o.Abilities.ReadOnly {
		return nil, fmt.Errorf("the backend cannot be written to: %w", errors.ErrUnsupported)
	}
	next.Attempts, next.Upload = nil, ""
	m := newMachine(next, o)
	m.headFirst = o.HeadFirst && !m.base.known && next.Operation == Write
	if present != nil {
		for _, a := range present.Attempts {
			m.tracks = append(m.tracks, track{Attempt: a, own: a.Request == next.Request})
		}
	}
	return m, nil
}

// Resume returns the machine of an intent that another owner began, or this one in
// an earlier life. It must be pending.
func Resume(in *Intent, o Options) *Machine {
	m := newMachine(*in, o)
	m.committed = true
	for _, a := range in.Attempts {
		m.tracks = append(m.tracks, track{Attempt: a, own: a.Request == in.Request})
	}
	if in.Upload != "" {
		m.abort, m.in.Upload = append(m.abort, in.Upload), ""
	}
	return m
}

func newMachine(in Intent, o Options) *Machine {
	if o.Window == 0 {
		o.Window = time.Minute
	}
	m := &Machine{o: o, in: in}
	if b := in.Before; b.Known {
		m.base = state{known: true, exists: b.Version != ""}
		m.base.object = core.RemoteObject{Version: b.Version, ETag: b.ETag, Size: b.Size, Modified: b.Modified}
	}
	return m
}

// Next takes what came of the action before, nothing at first and after a Wait, and
// returns the next one.
func (m *Machine) Next(now time.Time, a Answer) Action {
	if m.began.IsZero() {
		m.began = now
	}
	ended := m.learn(now, &a)
	if ended.Kind == 0 {
		ended = m.decide(now)
	}
	m.asked = ended
	if ended.Kind == Head {
		m.seenAt = now
	}
	return ended
}

// Pending says what was asked for last.
func (m *Machine) Pending() Action { return m.asked }

// learn takes in an answer. It returns an action where that settles the write.
func (m *Machine) learn(now time.Time, a *Answer) Action {
	switch m.asked.Kind {
	case Announce:
		m.committed = true
	case Head:
		return m.learnHead(now, a)
	case Put, Delete, Complete:
		return m.learnWrite(now, a)
	case CreateUpload:
		if a.Err == nil {
			m.upload, m.uploaded = a.Upload, false
		}
		return m.learnUpload(now, a.Err)
	case PutParts:
		if a.Err == nil {
			m.uploaded, m.expected = true, *a
		}
		return m.learnUpload(now, a.Err)
	}
	return Action{}
}

// kind sorts the errors of a request that writes.
type kind byte

const (
	done    kind = iota // it took effect
	failed              // a precondition did not hold
	nothing             // it surely did nothing; it may later
	refused             // it surely did nothing, and will not
	unknown             // nobody can tell
)

func kindOf(err error) kind {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case err == nil:
		return done
	case is(core.ErrUnknownOutcome):
		return unknown
	case is(core.ErrNoSuchBucket, core.ErrPermission, core.ErrWrongRegion, core.ErrInvalid, core.ErrTooLarge, errors.ErrUnsupported):
		return refused
	case is(core.ErrPrecondition, core.ErrNotFound):
		return failed
	case is(core.ErrUnavailable, core.ErrThrottled, core.ErrConflict, core.ErrNoSuchUpload):
		return nothing
	}
	return unknown
}

// pause puts the next request off after one that came to nothing.
func (m *Machine) pause(now time.Time, err error) {
	d := min(firstPause<<min(m.pauses, 10), maxPause)
	m.pauses++
	if later, ok := errors.AsType[core.RetryAfter](err); ok {
		d = min(max(d, later.RetryAfter()), time.Minute)
	}
	m.notBefore = now.Add(d)
	m.last = err
	if m.failing.IsZero() {
		m.failing = now
	}
}

// answered: the remote has said something definite.
func (m *Machine) answered() { m.failing, m.pauses = time.Time{}, 0 }

func (m *Machine) learnHead(now time.Time, a *Answer) Action {
	switch k := kindOf(a.Err); {
	case k == done:
		m.seen = state{known: true, sure: true, exists: true, object: a.Object}
	case errors.Is(a.Err, core.ErrNotFound) && k == failed:
		m.seen = state{known: true, sure: true}
	case k == refused:
		m.answered()
		return m.learnBlind(now, a.Err)
	default:
		m.pause(now, a.Err)
		return Action{}
	}
	m.answered()
	m.blind = nil
	if !m.unsure() {
		m.base, m.headFirst = m.seen, false
	}
	return Action{}
}

// learnBlind: the remote does not say what it has, and says why.
func (m *Machine) learnBlind(now time.Time, err error) Action {
	if !m.unsure() {
		return m.cancel(now, err)
	}
	if m.blind != nil || !errors.Is(err, core.ErrPermission) || m.careful() {
		m.stop(err)
	}
	m.blind = err
	if _, late := m.lastEnd(m.seenAt, true); !late {
		return m.drop(now, err)
	}
	return Action{}
}

func (m *Machine) learnWrite(now time.Time, a *Answer) Action {
	t := m.track(m.asked.If)
	k := kindOf(a.Err)
	switch k {
	case unknown:
		if m.losing.IsZero() {
			m.losing = now
		}
	case nothing:
		t.open--
	default:
		t.open--
		m.losing = time.Time{}
	}
	if k == failed && m.asked.If.IsZero() && (m.in.Operation != Remove || !errors.Is(a.Err, core.ErrNotFound)) {
		k = refused // there was no condition
	}
	switch k {
	case done:
		m.answered()
		return m.commit(now, a.Object)
	case failed:
		m.answered()
		return m.learnFailed(now, a.Err)
	case refused:
		m.answered()
		if m.unsure() {
			m.stop(a.Err)
			return Action{}
		}
		return m.cancel(now, a.Err)
	case nothing:
		m.pause(now, a.Err)
		if errors.Is(a.Err, core.ErrNoSuchUpload) || errors.Is(a.Err, core.ErrConflict) && m.asked.Kind == Complete {
			m.forgetUpload()
		}
	default:
		m.pause(now, a.Err)
		if m.o.sabotage.noHead {
			t.open--
		}
	}
	return Action{}
}

// learnFailed: the remote had something else than the attempt presumed.
func (m *Machine) learnFailed(now time.Time, err error) Action {
	if m.blind != nil {
		m.stop(m.blind)
	}
	if m.unsure() {
		return Action{} // it may have been ourselves
	}
	if m.in.Perhaps {
		m.track(m.asked.If).open++ // so, too
		return Action{}
	}
	if m.in.Operation == Remove && errors.Is(err, core.ErrNotFound) {
		m.base = state{known: true, sure: true}
		return Action{}
	}
	if m.asked.If.Absent && m.onlyIfAbsent() {
		return m.cancel(now, fmt.Errorf("if-none-match: the remote has such an object: %w", core.ErrPrecondition))
	}
	m.overtaken++
	if m.overtaken > maxOvertaken {
		return m.cancel(now, fmt.Errorf("others write the key all the time: %w", core.ErrUnavailable))
	}
	m.base, m.headFirst = state{}, true
	return Action{}
}

func (m *Machine) learnUpload(now time.Time, err error) Action {
	switch kindOf(err) {
	case done:
		m.answered()
	case refused:
		m.answered()
		if !m.unsure() {
			return m.cancel(now, err)
		}
		m.stop(err)
	default:
		m.pause(now, err)
		if errors.Is(err, core.ErrNoSuchUpload) {
			m.forgetUpload()
		}
	}
	return Action{}
}

func (m *Machine) forgetUpload() {
	m.abort = append(m.abort, m.upload)
	m.upload, m.uploaded, m.in.Upload = "", false, ""
}

// stop ends the attempts; what is there decides.
func (m *Machine) stop(why error) {
	if m.cause == nil {
		m.cause = why
	}
}

// decide says what to do with what is known.
func (m *Machine) decide(now time.Time) Action {
	if !m.committed {
		return m.first(now)
	}
	switch {
	case !m.failing.IsZero() && now.Sub(m.failing) >= GiveUp:
		m.stop(fmt.Errorf("the remote has not answered for %v: %w: %w", GiveUp, core.ErrUnavailable, m.last))
	case !m.losing.IsZero() && now.Sub(m.losing) >= GiveUp:
		m.stop(fmt.Errorf("the remote has not answered any write for %v: %w: %w", GiveUp, core.ErrUnavailable, m.last))
	}
	if !m.unsure() {
		switch {
		case m.cause != nil:
			return m.cancel(now, m.cause)
		case !m.failing.IsZero() && now.Sub(m.began) >= Patience:
			return m.cancel(now, fmt.Errorf("the remote does not take the write: %w", unavailable(m.last)))
		}
	}
	if now.Before(m.notBefore) {
		return Action{Kind: Wait, At: m.notBefore}
	}
	if m.unsure() {
		return m.resolve(now)
	}
	return m.attempt(now)
}

// unavailable makes an error tell that the write may succeed later.
func unavailable(err error) error {
	if errors.Is(err, core.ErrThrottled) || errors.Is(err, core.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", core.ErrUnavailable, err)
}

// first commits the intent, and with it the first attempt where that can be told.
func (m *Machine) first(now time.Time) Action {
	m.committed = true
	do := m.attempt(now)
	m.committed = false
	if do.Kind != Announce {
		do = m.announce(now)
	}
	return do
}

// unsure says whether a request of this intent may have reached the remote, or yet
// may.
func (m *Machine) unsure() bool {
	return slices.ContainsFunc(m.tracks, func(t track) bool { return t.own && t.unsure() })
}

// lastEnd returns when the last request that may yet reach the remote has done so,
// if there is one: of this intent's own, or of others'.
func (m *Machine) lastEnd(now time.Time, own bool) (end time.Time, some bool) {
	for i := range m.tracks {
		t := &m.tracks[i]
		if t.own == own && t.unsure() && t.alive(now) && t.end().After(end) {
			end, some = t.end(), true
		}
	}
	return end, some && !m.o.sabotage.noUntil
}

// careful says whether an attempt must not be made while one before may yet take
// effect: the client asked for a condition, or the remote does not hold to any.
func (m *Machine) careful() bool {
	if m.o.sabotage.noSureWait {
		return false
	}
	return m.once() || m.unconditioned()
}

// once says whether the write must not take effect twice.
func (m *Machine) once() bool { return m.conditional() && !m.in.Repeatable }

// conditional says whether the client asked for a condition.
func (m *Machine) conditional() bool { return !m.in.Conditions.IsZero() }

// unconditioned says whether a request without a condition may yet take effect.
func (m *Machine) unconditioned() bool {
	return slices.ContainsFunc(m.tracks, func(t track) bool { return t.own && t.unsure() && t.If.IsZero() })
}

// holds says whether the remote holds to conditions of this operation.
func (m *Machine) holds() bool {
	if m.in.Operation == Remove {
		return m.o.Abilities.DeleteIf
	}
	return m.o.Abilities.PutIf
}

// onlyIfAbsent says whether the client's only condition is that there is no object.
func (m *Machine) onlyIfAbsent() bool {
	c := &m.in.Conditions
	return slices.Contains(c.IfNoneMatch, "*") && len(c.IfMatch) == 0
}

// resolve finds out what came of attempts of which nobody knows.
func (m *Machine) resolve(now time.Time) Action {
	end, late := m.lastEnd(now, true)
	if !m.seen.known {
		if m.blind != nil {
			switch {
			case m.cause == nil:
				return m.attempt(now)
			case late:
				return Action{Kind: Wait, At: end.Add(time.Millisecond)}
			}
		}
		return Action{Kind: Head}
	}
	s := m.seen
	m.inAttempts()
	// What was late when the remote was asked may have come behind the question.
	end, late = m.lastEnd(m.seenAt, true)
	again := func() Action {
		m.seen = state{}
		return Action{Kind: Wait, At: end.Add(time.Millisecond)}
	}
	switch untouched := m.untouched(&s); {
	case !untouched && s.exists && m.in.wrote(&s.object):
		m.landed(now)
		if end, late := m.lastEnd(now, true); late && m.unconditioned() {
			m.seen = state{}
			return Action{Kind: Wait, At: end.Add(time.Millisecond)}
		}
		return m.commit(now, s.object)
	case !untouched && !s.exists && m.in.Operation == Remove && !m.conditional():
		if late && m.unconditioned() {
			return again()
		}
		return m.commit(now, core.RemoteObject{})
	case untouched && late && (m.careful() || m.cause != nil):
		return again()
	case untouched && m.ambiguous(&s) && (m.cause != nil || m.once() && (!s.exists || m.unconditioned())):
		return m.drop(now, m.why("the remote has what it had before, or again"))
	case untouched:
		if !late {
			m.settleOwn()
			m.in.Perhaps = m.in.Perhaps || m.ambiguous(&s)
		}
		m.base = s
		if m.cause == nil {
			return m.attempt(now)
		}
		return m.cancel(now, m.cause)
	case late && m.unconditioned():
		return again()
	case m.cause == nil && m.guessed(&s):
		if !late {
			m.settleOwn()
			m.in.Perhaps = true
		}
		m.base = s
		return m.attempt(now)
	}
	return m.drop(now, m.why("the remote has what neither was there before nor was written"))
}

// why says what the remote has, and why nothing is attempted any more, if so.
func (m *Machine) why(has string) error {
	if m.cause == nil {
		return errors.New(has)
	}
	return fmt.Errorf("%s: %w", has, m.cause)
}

// guessed says whether the attempts that presumed something else than the remote has
// did so because nothing was known: then what it has was there all the time, if
// nobody else has written, and a write without conditions goes on over it.
func (m *Machine) guessed(s *state) bool {
	if m.conditional() || m.o.sabotage.noGuess {
		return false
	}
	b := &m.in.Before
	for i := range m.tracks {
		t := &m.tracks[i]
		if !t.own || !t.unsure() {
			continue
		}
		guess := !b.Known || t.If.Absent && b.Version != ""
		if !guess && !meets(m.presumed(t), s) {
			return false
		}
	}
	return true
}

// ambiguous says whether an untouched state may as well be one that an attempt has
// changed: others have removed again what it wrote, or what it wrote has the same
// content, and thus the same ETag.
func (m *Machine) ambiguous(s *state) bool {
	return !s.exists || m.in.expects(string(s.object.Version))
}

// untouched says whether the remote has the state that the attempts presumed, so
// that none of them has taken effect.
func (m *Machine) untouched(s *state) bool {
	for i := range m.tracks {
		t := &m.tracks[i]
		if !t.own || !t.unsure() {
			continue
		}
		c := m.presumed(t)
		if c.IsZero() || !meets(c, s) {
			return false
		}
	}
	return true
}

// presumed is what an attempt takes the remote to have; zero if nothing was known.
func (m *Machine) presumed(t *track) core.RemoteCondition {
	if b := m.in.Before; t.If.IsZero() && b.Known {
		return core.RemoteCondition{Absent: b.Version == "", Version: b.Version}
	}
	return t.If
}

// meets says whether a state meets a condition.
func meets(c core.RemoteCondition, s *state) bool {
	switch {
	case c.Absent:
		return !s.exists
	case c.Version != "":
		return s.exists && s.object.Version == c.Version
	}
	return true
}

// landed: the one request that was open has taken effect, so that it will not do so
// again. With more than one nobody can tell which it was.
func (m *Machine) landed(now time.Time) {
	open := 0
	for i := range m.tracks {
		t := &m.tracks[i]
		if t.unsure() && (t.alive(now) || t.own) {
			open++
			if !t.mine || t.open > 1 {
				return
			}
		}
	}
	if open == 1 {
		m.settleOwn()
	}
}

// settleOwn: no request of this intent will reach the remote any more, of those
// made so far.
func (m *Machine) settleOwn() {
	m.tracks = slices.DeleteFunc(m.tracks, func(t track) bool { return t.own && !t.mine })
	for i := range m.tracks {
		if m.tracks[i].own {
			m.tracks[i].open = 0
		}
	}
}

// attempt writes to the remote, on top of what is known to be there.
func (m *Machine) attempt(now time.Time) Action {
	cond, do := m.condition(now)
	if do.Kind != 0 {
		return do
	}
	if end := m.obstacle(now); !end.IsZero() {
		return Action{Kind: Wait, At: end.Add(time.Millisecond)}
	}
	if m.o.Parts && m.in.Operation == Write {
		switch {
		case m.upload == "":
			return Action{Kind: CreateUpload}
		case m.in.Upload != m.upload:
			m.in.Upload = m.upload
			return m.announce(now)
		case !m.uploaded:
			return Action{Kind: PutParts, Upload: m.upload}
		}
	}
	t := m.track(cond)
	if t == nil || t.Until.Sub(now) < m.o.Window/2 {
		return m.announce(now, m.newAttempt(now, cond))
	}
	t.open++
	m.seen = state{}
	do = Action{Kind: Put, If: cond, Until: t.Until}
	switch {
	case m.in.Operation == Remove:
		do.Kind = Delete
	case m.o.Parts:
		do.Kind, do.Upload = Complete, m.upload
	}
	if !m.holds() || m.o.sabotage.noCondition {
		do.If = core.RemoteCondition{}
	}
	return do
}

// condition returns the condition of the next attempt, or what is to be done
// instead.
func (m *Machine) condition(now time.Time) (core.RemoteCondition, Action) {
	head := Action{Kind: Head}
	b := &m.base
	switch {
	case m.headFirst, m.conditional() && !m.holds() && (!b.sure || !m.seen.known):
		return core.RemoteCondition{}, head
	case !b.known && m.conditional() && (m.in.Operation == Remove || !m.onlyIfAbsent()):
		return core.RemoteCondition{}, head
	case b.known && m.conditional():
		if err := m.in.Conditions.CheckWrite(b.record()); err != nil {
			if !b.sure {
				return core.RemoteCondition{}, head
			}
			return core.RemoteCondition{}, m.cancel(now, err)
		}
	}
	if m.in.Operation == Remove && b.sure && !b.exists {
		return core.RemoteCondition{}, m.commit(now, core.RemoteObject{})
	}
	switch {
	case !m.holds():
		return core.RemoteCondition{}, Action{}
	case b.known && b.exists:
		return core.RemoteCondition{Version: b.object.Version}, Action{}
	case m.in.Operation == Write:
		return core.RemoteCondition{Absent: true}, Action{}
	}
	return core.RemoteCondition{}, Action{} // nothing is known: delete what is there
}

// before is the state as an intent has it, if the remote has said so.
func (s *state) before() Before {
	if !s.sure {
		return Before{}
	}
	o := &s.object
	return Before{Known: true, Version: o.Version, ETag: o.ETag, Size: o.Size, Modified: o.Modified}
}

// record is the state as conditions see it.
func (s *state) record() *core.Record {
	if !s.exists {
		return nil
	}
	return &core.Record{ETag: s.object.ETag, Modified: s.object.Modified, Size: s.object.Size}
}

// obstacle returns until when the write must wait, for a request of an earlier one
// which could undo it, or zero.
func (m *Machine) obstacle(now time.Time) (end time.Time) {
	if m.o.sabotage.noKept {
		return end
	}
	later := func(t *track) {
		if t.end().After(end) {
			end = t.end()
		}
	}
	first := -1
	kept := 0
	for i := range m.tracks {
		t := &m.tracks[i]
		if !t.unsure() || !t.alive(now) {
			continue
		}
		kept++
		if first < 0 || t.end().Before(m.tracks[first].end()) {
			first = i
		}
		if t.If.IsZero() || !t.own && m.leaves(t.If) {
			later(t)
		}
	}
	if kept >= maxKept {
		later(&m.tracks[first])
	}
	return end
}

// leaves says whether the write leaves a state that meets the condition.
func (m *Machine) leaves(c core.RemoteCondition) bool {
	if m.in.Operation == Remove {
		return c.Absent
	}
	return c.Version != "" && m.in.expects(string(c.Version))
}

// track returns this machine's newest attempt under a condition.
func (m *Machine) track(c core.RemoteCondition) *track {
	for i := len(m.tracks) - 1; i >= 0; i-- {
		if t := &m.tracks[i]; t.mine && (t.If == c || m.o.sabotage.noCondition) {
			return t
		}
	}
	return nil
}

func (m *Machine) newAttempt(now time.Time, c core.RemoteCondition) track {
	if b := m.base.before(); b.Known {
		m.in.Before = b
	}
	return track{own: true, mine: true, Attempt: Attempt{
		Request: m.in.Request, If: c, Until: now.Add(m.o.Window), ETag: m.expected.ETag, Sum: m.expected.Sum,
	}}
}

// announce commits the intent as it now is, with new attempts. Attempts that are
// through are forgotten.
func (m *Machine) announce(now time.Time, more ...track) Action {
	m.tracks = slices.DeleteFunc(m.tracks, func(t track) bool {
		return t.mine && t.open == 0 || !t.own && !t.alive(now)
	})
	m.tracks = append(m.tracks, more...)
	m.inAttempts()
	in := m.in
	return Action{Kind: Announce, Intent: &in}
}

// inAttempts writes into the intent which attempts there are.
func (m *Machine) inAttempts() {
	m.in.Attempts = nil
	if m.o.sabotage.noAnnounce {
		return
	}
	for i := range m.tracks {
		m.in.Attempts = append(m.in.Attempts, m.tracks[i].Attempt)
	}
}

// left is the row that stays behind: attempts that may yet reach the remote.
func (m *Machine) left(now time.Time) *Intent {
	var out []Attempt
	for i := range m.tracks {
		if t := &m.tracks[i]; t.unsure() && t.alive(now) {
			out = append(out, t.Attempt)
		}
	}
	if len(out) == 0 || m.o.sabotage.noKept {
		return nil
	}
	return &Intent{Attempts: out, Unknown: m.in.Unknown}
}

// uploads are those that no commit made use of.
func (m *Machine) uploads(used bool) []string {
	out := slices.Clone(m.abort)
	if m.upload != "" && !used {
		out = append(out, m.upload)
	}
	return out
}

// commit: the remote has what the intent writes, or has not what it removes.
func (m *Machine) commit(now time.Time, o core.RemoteObject) Action {
	m.inAttempts()
	do := Action{Kind: Commit, Object: o, Left: m.left(now), Abort: m.uploads(true)}
	if m.in.Operation == Write && o.Version != "" {
		do.Record = m.in.Result(o)
	}
	return do
}

func (m *Machine) cancel(now time.Time, err error) Action {
	if m.in.Perhaps {
		return m.drop(now, err)
	}
	return Action{Kind: Cancel, Err: err, Now: m.base.before(), Left: m.left(now), Abort: m.uploads(false)}
}

func (m *Machine) drop(now time.Time, why error) Action {
	if !errors.Is(why, core.ErrUnknownOutcome) {
		why = fmt.Errorf("%w: %w", core.ErrUnknownOutcome, why)
	}
	return Action{Kind: Drop, Err: why, Left: m.left(now), Abort: m.uploads(false)}
}

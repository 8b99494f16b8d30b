package job

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/shoalstore/shoal/core"
)

// What a job could not do, and why, is kept in the cluster in full: a row for each
// such key, the note, beside the books that count it and written with them as one
// entry. So the notes are as exact as the books are. Of a job over slots a note is in
// its key's slot, of one over ranges in that of the job's id; reading goes over all of
// them, in order of keys.

const (
	// errorsKept is how many errors are kept beside the books, to be shown with them.
	errorsKept = 20
	// endErrors is the most errors that are in the status of a job which ended in the
	// middle of its pages: those of keys whose books are in no row.
	endErrors = 256
	// notesTogether is about the most notes that are written as one entry.
	notesTogether = 1000
	// longestNote is up to where the words of an error are kept, in bytes.
	longestNote = 512
)

// The codes of what was not done though nothing went wrong. Of what is present
// already some keys are noted only: they may be nearly all.
const (
	codeSkipped = "skipped"
	codePresent = "present"
)

// failed says whether the key is a failed one, and not just left out.
func (e *Error) failed() bool { return e.Code != codeSkipped && e.Code != codePresent }

// noted adds an error to a list of all that there are.
func noted(list []Error, e Error) []Error {
	if e.Code == codePresent && len(list) >= errorsKept {
		return list
	}
	return append(list, e)
}

// someErrors adds to a list that is shown, up to a bound.
func someErrors(list []Error, most int, more ...Error) []Error {
	k := min(max(most-len(list), 0), len(more))
	return append(slices.Clip(list), more[:k]...)
}

// shortened cuts an error's words.
func shortened(s string) string {
	if len(s) <= longestNote {
		return s
	}
	k := longestNote
	for k > 0 && !utf8.RuneStart(s[k]) {
		k--
	}
	return s[:k] + " ..."
}

// notesOf is the key under which a job's notes are; the id comes second, so that they
// are not among what is read beside the cursors.
func notesOf(id string) string { return "notes/" + id }

// noteRecord is the stored form. The key is the Sub of its row: it need not be valid
// text.
type noteRecord struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// noteRows are the rows of notes.
func noteRows(id string, notes []Error) ([]core.Row, error) {
	out := make([]core.Row, len(notes))
	for i := range notes {
		e := &notes[i]
		b, err := json.Marshal(noteRecord{e.Code, shortened(e.Message)})
		if err != nil {
			return nil, fmt.Errorf("encode note: %w", err)
		}
		out[i] = core.Row{RowKey: core.RowKey{Bucket: core.SystemBucket, Space: core.SpaceCursor, Key: notesOf(id), Sub: e.Key}, Value: b}
	}
	return out, nil
}

// Errors returns the failures and skips of a job, in order of key, those after a key
// only, and whether there are more; limit 0 is a page of a size that suits. Of a job
// that runs they are those known so far.
func (m *Manager) Errors(ctx context.Context, id, after string, limit int) ([]Error, bool, error) {
	j, err := m.asItIs(ctx, id)
	if err != nil {
		return nil, false, err
	}
	extra := j.Status.Errors
	if !j.Status.State.Ended() {
		extra = m.poll(ctx, id).errors
	}
	return m.notes(ctx, id, extra, after, limit, func(*Error) bool { return true })
}

// asItIs is Get, but for a job that has ended a moment ago, which another node knows
// already.
func (m *Manager) asItIs(ctx context.Context, id string) (Job, error) {
	if _, st, _, _, ok := m.snapshot(id); ok && !st.State.Ended() {
		if err := m.fetch(ctx, id); err != nil {
			return Job{}, err
		}
	}
	return m.Get(ctx, id)
}

// notes reads a page of notes that are taken, and the extra ones.
func (m *Manager) notes(ctx context.Context, id string, extra []Error, after string, limit int, takes func(*Error) bool) ([]Error, bool, error) {
	if limit <= 0 {
		limit = pageSize
	}
	// One more than is wanted tells whether there are more.
	out := make([]Error, 0, min(limit, pageSize)+1)
	end, more := after, true
	for more && len(out) <= limit {
		rows, goesOn, err := m.o.Node.RowsAfter(ctx, notesOf(id), end, limit-len(out)+1)
		if err != nil {
			return nil, false, fmt.Errorf("errors of job %s: %w", id, err)
		}
		for i := range rows {
			var r noteRecord
			if err := json.Unmarshal(rows[i].Value, &r); err != nil {
				return nil, false, fmt.Errorf("error of %q in job %s: %w: %w", rows[i].Sub, id, core.ErrCorrupt, err)
			}
			end = rows[i].Sub
			if e := (Error{Key: rows[i].Sub, Code: r.Code, Message: r.Message}); takes(&e) {
				out = append(out, e)
			}
		}
		more = goesOn && len(rows) > 0
	}
	for _, e := range extra {
		// Beyond the end of what was read others would come before it.
		if e.Key > after && (!more || e.Key <= end) && takes(&e) {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b Error) int { return strings.Compare(a.Key, b.Key) })
	out = slices.CompactFunc(out, func(a, b Error) bool { return a.Key == b.Key })
	if len(out) > limit {
		return out[:limit], true, nil
	}
	return out, more, nil
}

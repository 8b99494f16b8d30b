package bus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/shoalstore/shoal/core"
)

// EventKind is what an event is about.
type EventKind string

// The kinds of events.
const (
	EventNode   EventKind = "node"
	EventDisk   EventKind = "disk"
	EventSlot   EventKind = "slot"
	EventJob    EventKind = "job"
	EventBucket EventKind = "bucket"
)

// Event is a notice in the form of CloudEvents 1.0. Its topic is
// "shoal.event.KIND.SUBJECT.WHAT".
type Event struct {
	Kind EventKind
	// Subject names the node, disk, slot, job or bucket.
	Subject string
	// What happened, one word of a-z and '-': "down", "finished".
	What string
	// Source names the sender, a URI reference: "/CLUSTER/nodes/NODE".
	Source string
	// ID is unique per source.
	ID   string
	Time time.Time
	// Data is JSON, or empty.
	Data json.RawMessage
}

// NewEvent makes an event with a fresh id; data is turned into JSON.
func NewEvent(kind EventKind, subject, what, source string, at time.Time, data any) (Event, error) {
	var id [16]byte
	_, _ = rand.Read(id[:])
	e := Event{Kind: kind, Subject: subject, What: what, Source: source, ID: hex.EncodeToString(id[:]), Time: at}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			return Event{}, fmt.Errorf("event %s of %s %q: %w", what, kind, subject, err)
		}
		e.Data = b
	}
	return e, e.check()
}

func (e Event) check() error {
	word := func(s string) bool {
		return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
	}
	if !word(string(e.Kind)) || !word(e.What) || e.Subject == "" || e.Source == "" || e.ID == "" {
		return fmt.Errorf("event %q of %q %q from %q: kind, subject, what, source and id are required, kind and what as one word of a-z: %w",
			e.What, e.Kind, e.Subject, e.Source, core.ErrInvalid)
	}
	return nil
}

const topicPrefix = "shoal.event."

// Topic is the NATS subject of the event. Bytes of its subject that would
// split or confuse a NATS subject are written as %XX.
func (e Event) Topic() string {
	return topicPrefix + string(e.Kind) + "." + escapeToken(e.Subject) + "." + e.What
}

func escapeToken(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if keyByte(c) || c == ':' || c == '@' || c == '+' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// MatchTopic says whether a topic is under a pattern, in which "*" stands for
// one token and ">" for the rest.
func MatchTopic(pattern, topic string) bool {
	p, t := strings.Split(pattern, "."), strings.Split(topic, ".")
	for i, w := range p {
		switch {
		case w == ">":
			return len(t) > i
		case i >= len(t) || w != "*" && w != t[i]:
			return false
		}
	}
	return len(p) == len(t)
}

// cloudEvent is the JSON form (CloudEvents 1.0, JSON event format).
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype,omitempty"`
	Data            json.RawMessage `json:"data,omitempty"`
}

// Encode returns the event as CloudEvents JSON. Its type is
// "shoal.KIND.WHAT".
func (e Event) Encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	c := cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: e.Source, Type: "shoal." + string(e.Kind) + "." + e.What,
		Subject: e.Subject, Time: e.Time, Data: e.Data,
	}
	if len(e.Data) > 0 {
		c.DataContentType = "application/json"
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("event %s of %s %q: %w", e.What, e.Kind, e.Subject, err)
	}
	return b, nil
}

// DecodeEvent is the inverse of Encode. It refuses events that are not
// Shoal's.
func DecodeEvent(b []byte) (Event, error) {
	var c cloudEvent
	if err := json.Unmarshal(b, &c); err != nil {
		return Event{}, fmt.Errorf("event: %w: %w", core.ErrInvalid, err)
	}
	rest, ours := strings.CutPrefix(c.Type, "shoal.")
	kind, what, two := strings.Cut(rest, ".")
	if c.SpecVersion != "1.0" || !ours || !two {
		return Event{}, fmt.Errorf("event of specversion %q and type %q: want 1.0 and shoal.KIND.WHAT: %w", c.SpecVersion, c.Type, core.ErrInvalid)
	}
	e := Event{
		Kind: EventKind(kind), Subject: c.Subject, What: what, Source: c.Source, ID: c.ID, Time: c.Time, Data: c.Data,
	}
	return e, e.check()
}

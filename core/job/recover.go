package job

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/shoalstore/shoal/bus"
)

// Copies are what nodes have copied of a job, for a bus that was lost.
type Copies struct {
	spec   []byte
	status *Status
}

// CopyOf splits the key of what is copied: the job's id, and which part of it.
func CopyOf(key string) (id, what string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix+".")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ".")
}

// Add takes in what nodes have of a part. What is damaged is left out.
func (c *Copies) Add(what string, values [][]byte) {
	for _, v := range values {
		switch what {
		case "spec":
			if c.spec == nil && json.Valid(v) {
				c.spec = v
			}
		case "status":
			st := new(Status)
			if json.Unmarshal(v, st) == nil && st.State != "" && (c.status == nil || st.State.Ended() && !c.status.State.Ended()) {
				c.status = st
			}
		}
	}
}

// Recover returns what is to be on the new bus, nothing if a part is missing. A job that
// had not ended, as far as is known, is stopped, and ran is true: it may have been
// stopped before by somebody, and must not run again.
func (c *Copies) Recover(id string, now time.Time) (entries []bus.KeyValue, ran bool) {
	if c.spec == nil || c.status == nil {
		return nil, false
	}
	if ran = !c.status.State.Ended(); ran {
		c.status.State, c.status.Ended, c.status.Waiting = Stopped, &now, nil
		c.status.Message = "it had not ended when `shoal recover` made the cluster anew; start it again, what is done stays"
	}
	status, err := json.Marshal(c.status)
	if err != nil {
		return nil, false // what was decoded can be encoded
	}
	return []bus.KeyValue{{Key: key(id, "spec"), Value: c.spec}, {Key: key(id, "status"), Value: status}}, ran
}

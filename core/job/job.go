package job

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/etl"
)

// State is where a job is in its life.
type State string

// The states.
const (
	Pending   State = "pending"
	Planning  State = "planning"
	Running   State = "running"
	Waiting   State = "waiting"
	Verifying State = "verifying"
	Done      State = "done"
	Failed    State = "failed"
	Stopped   State = "stopped"
)

// Ended says whether the state is final.
func (s State) Ended() bool { return s == Done || s == Failed || s == Stopped }

// Spec is what a job is to do. It does not change.
type Spec struct {
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	Token string `json:"client_token,omitempty"`

	// FromID and ToID are the buckets as they were when the job began: a
	// bucket created again is another one.
	FromID core.BucketID `json:"from_id,omitempty"`
	ToID   core.BucketID `json:"to_id,omitempty"`

	Prefix   string            `json:"prefix,omitempty"`
	List     []string          `json:"list,omitempty"`
	Template string            `json:"template,omitempty"`
	Regex    string            `json:"regex,omitempty"`
	Prepend  string            `json:"prepend,omitempty"`
	Ext      map[string]string `json:"ext,omitempty"`
	// All takes what is not present, too, where From is a bucket of a remote.
	All bool `json:"all,omitempty"`
	// Latest has the remote asked what it has of each object; Sync also follows what
	// it does not have any more.
	Latest bool `json:"latest,omitempty"`
	Sync   bool `json:"sync,omitempty"`
	// NoCache, of copies, keeps nothing of remote buckets in the cluster.
	NoCache bool `json:"no_cache,omitempty"`
	// DryRun ends the job after planning.
	DryRun bool `json:"dry_run,omitempty"`
	// Workers is the number of objects that a node works on at a time for
	// each of its disks; 0 is a default.
	Workers         int           `json:"num_workers,omitempty"`
	ObjectRate      float64       `json:"object_rate,omitempty"` // per second, in the cluster
	ByteRate        int64         `json:"byte_rate,omitempty"`
	ContinueOnError bool          `json:"cont_on_err,omitempty"`
	Unavailable     time.Duration `json:"unavailable_timeout,omitempty"`
	// Transform, of etl, is the version that the job runs, whatever its name stands for
	// later. Inspect runs it and writes nothing.
	Transform *etl.Spec `json:"transform,omitempty"`
	Inspect   bool      `json:"inspect,omitempty"`
	// RetryOf is the job whose failed objects this one is about, and nothing else.
	RetryOf string `json:"retry_of,omitempty"`
	// KeepMetadata, of evictions, keeps what is known of the objects.
	KeepMetadata bool      `json:"keep_md,omitempty"`
	Created      time.Time `json:"created"`
}

// writes says whether the job writes objects into another bucket.
func (s *Spec) writes() bool { return s.Kind == KindCopy || s.Kind == KindETL && !s.Inspect }

// Amount counts objects and their bytes.
type Amount struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Cloud is what was asked of remotes.
type Cloud struct {
	Requests int64 `json:"requests"`
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

// add returns the sum.
func (c Cloud) add(d Cloud) Cloud {
	return Cloud{c.Requests + d.Requests, c.BytesIn + d.BytesIn, c.BytesOut + d.BytesOut}
}

// atLeast returns the larger of each of the counts.
func (c Cloud) atLeast(d Cloud) Cloud {
	return Cloud{max(c.Requests, d.Requests), max(c.BytesIn, d.BytesIn), max(c.BytesOut, d.BytesOut)}
}

// costs are what each start of a node has asked of remotes for a job, as far as is
// known. They only grow, so whoever knows more is right.
type costs map[string]Cloud

// join returns what is known by both.
func (c costs) join(d costs) costs {
	if len(d) == 0 {
		return c
	}
	out := maps.Clone(c)
	if out == nil {
		out = costs{}
	}
	for who, x := range d {
		out[who] = out[who].atLeast(x)
	}
	return out
}

func (c costs) sum() (out Cloud) {
	for _, x := range c {
		out = out.add(x)
	}
	return out
}

// Add returns the sum.
func (a Amount) Add(b Amount) Amount { return Amount{a.Objects + b.Objects, a.Bytes + b.Bytes} }

func (a *Amount) one(bytes int64) { a.Objects++; a.Bytes += bytes }

// Books are a job's counts. Planned = Done + Skipped + Failed + Dropped holds
// when the job has ended, unless it was a dry run, which only plans.
type Books struct {
	Planned Amount `json:"planned"`
	Done    Amount `json:"done"`
	Skipped Amount `json:"skipped"`
	Failed  Amount `json:"failed"`
	Dropped Amount `json:"dropped"`
	Outputs Amount `json:"outputs"`
	// Found and Passed are, of jobs over ranges, sums of checksums of the keys that
	// were listed and of those that are in Done, Skipped, Failed or Dropped: they are
	// equal if these are the same keys, each as often.
	Found  uint64 `json:"found,omitempty"`
	Passed uint64 `json:"passed,omitempty"`
}

// Add returns the sum.
func (b Books) Add(c Books) Books {
	return Books{
		b.Planned.Add(c.Planned), b.Done.Add(c.Done), b.Skipped.Add(c.Skipped), b.Failed.Add(c.Failed),
		b.Dropped.Add(c.Dropped), b.Outputs.Add(c.Outputs), b.Found + c.Found, b.Passed + c.Passed,
	}
}

// passed counts the objects that are through, whatever the end.
func (b Books) passed() Amount { return b.Done.Add(b.Skipped).Add(b.Failed).Add(b.Dropped) }

// balance says whether all that a listing found is accounted for, each key once.
func (b Books) balance() error {
	if passed := b.passed(); passed.Objects != b.Planned.Objects || b.Found != b.Passed {
		return fmt.Errorf("the listing found %d objects, and %d are accounted for, or others", b.Planned.Objects, passed.Objects)
	}
	return nil
}

// keySum is what a key counts for in Found and Passed.
func keySum(key string) uint64 { return xxh3.HashString(key) }

// Error says why an object failed or was skipped.
type Error struct {
	Key     string `json:"key"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Status is a job's mutable part.
type Status struct {
	// Change counts the changes of the status: of two, the one with more is the newer.
	Change  uint64     `json:"change,omitempty"`
	State   State      `json:"state"`
	Started *time.Time `json:"started"`
	Ended   *time.Time `json:"ended"`
	// Planned is nil until every slot was counted, or the listing is complete: until
	// then Books.Planned is what was found so far.
	Planned *Amount `json:"planned"`
	// Books are final once the job has ended; before that they are those of
	// the last state change.
	Books   Books    `json:"books"`
	Waiting []string `json:"waiting_for,omitempty"`
	Message string   `json:"message,omitempty"`
	// Errors are, of a job that ended in the middle of its work, those that were known
	// then; the books of their keys may be in no row. See Manager.Errors.
	Errors []Error `json:"errors,omitempty"`
	// Stop asks the nodes to stop.
	Stop bool `json:"stop,omitempty"`
	// Costs is what the job has asked of remotes, as far as it was known at the last
	// change of state, by starts of nodes.
	Costs costs `json:"costs,omitempty"`
}

// Job is a job as users see it.
type Job struct {
	Spec   Spec
	Status Status
	// Rate is per second over the last seconds; ETA is zero if not known.
	Rate Rate
	ETA  time.Time
	// Cloud is what the job has asked of remotes.
	Cloud Cloud
	// Listers are the nodes that list what a running job is about, and hand it out,
	// in order; of a job over what the cluster has there are none.
	Listers []core.NodeID
}

// Rate is objects and bytes per second.
type Rate struct{ Objects, Bytes float64 }

// selector decides which keys a job is about.
type selector struct {
	prefix string
	keys   []string // sorted; nil: all
	regex  *regexp.Regexp
}

func newSelector(s *Spec) (*selector, error) {
	sel := &selector{prefix: s.Prefix}
	if s.Regex != "" {
		re, err := regexp.Compile(s.Regex)
		if err != nil {
			return nil, fmt.Errorf("regex %q: %w: %w", s.Regex, core.ErrInvalid, err)
		}
		sel.regex = re
	}
	keys := slices.Clone(s.List)
	if s.Template != "" {
		more, err := Expand(s.Template)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	if keys != nil {
		slices.Sort(keys)
		sel.keys = slices.Compact(keys)
	}
	return sel, nil
}

// Selects returns what decides whether the job is about a key, by prefix, list,
// template and regular expression.
func (s *Spec) Selects() (func(key string) bool, error) {
	sel, err := newSelector(s)
	if err != nil {
		return nil, err
	}
	return sel.takes, nil
}

// takes says whether the job is about a key.
func (s *selector) takes(key string) bool {
	if !strings.HasPrefix(key, s.prefix) || s.regex != nil && !s.regex.MatchString(key) {
		return false
	}
	if s.keys == nil {
		return true
	}
	_, ok := slices.BinarySearch(s.keys, key)
	return ok
}

// destKeyAs is destKey with an extension that a transform chose, which comes in place
// of the last one.
func (s *Spec) destKeyAs(key, ext string) string {
	dir, base := path.Split(key)
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		base = base[:i]
	}
	return s.Prepend + dir + base + "." + ext
}

// destKey is the key under which a source's output is written. Of several
// extensions that fit the longest is replaced.
func (s *Spec) destKey(key string) string {
	longest, dest := "", key
	for from, to := range s.Ext {
		if base, ok := strings.CutSuffix(key, "."+from); ok && len(from) > len(longest) {
			longest, dest = from, base+"."+to
		}
	}
	return s.Prepend + dest
}

// atLeast returns the larger of each of the counts.
func (b Books) atLeast(c Books) Books {
	larger := func(a, b Amount) Amount { return Amount{max(a.Objects, b.Objects), max(a.Bytes, b.Bytes)} }
	return Books{
		Planned: larger(b.Planned, c.Planned), Done: larger(b.Done, c.Done), Skipped: larger(b.Skipped, c.Skipped),
		Failed: larger(b.Failed, c.Failed), Dropped: larger(b.Dropped, c.Dropped), Outputs: larger(b.Outputs, c.Outputs),
	}
}

// shown returns what to show of counts that were taken just now. What is known
// to be planned and done stays so, though the cursors may lag behind for a
// while: an owner that died had counted on. Whole counts say the truth of the
// rest, which a later try may have changed for the better.
func (b Books) shown(known Books, whole bool) Books {
	out := b.atLeast(known)
	if whole {
		out.Skipped, out.Failed, out.Dropped = b.Skipped, b.Failed, b.Dropped
	}
	return out
}

package recovery

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core/etl"
	"github.com/shoalstore/shoal/core/job"
)

// keep puts together what the nodes have copied of what the bus held beside the map.
// A node may have been behind: of a transform the newest registration counts. Of a job
// nobody knows whether it was the newest, so that one which had not ended is stopped.
func keep(found []Found, now time.Time) (entries []bus.KeyValue, transforms, stopped []string) {
	copies := map[string][][]byte{}
	for i := range found {
		for _, e := range found[i].Kept {
			copies[e.Key] = append(copies[e.Key], e.Value)
		}
	}
	jobs := map[string]job.Copies{}
	for _, key := range slices.Sorted(maps.Keys(copies)) {
		if id, what, ok := job.CopyOf(key); ok {
			j := jobs[id]
			j.Add(what, copies[key])
			jobs[id] = j
			continue
		}
		if value, name := etl.Latest(key, copies[key]); value != nil {
			entries = append(entries, bus.KeyValue{Key: key, Value: value})
			if name != "" {
				transforms = append(transforms, name)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(jobs)) {
		j := jobs[id]
		made, ran := j.Recover(id, now)
		entries = append(entries, made...)
		if ran {
			stopped = append(stopped, id)
		}
	}
	slices.SortFunc(entries, func(a, b bus.KeyValue) int { return strings.Compare(a.Key, b.Key) })
	return entries, transforms, stopped
}

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

func (h handler) clusterRoutes() {
	h.get(api.ClusterPath, h.cluster)
	h.get(api.NodesPath, h.nodes)
	h.get(api.NodesPath+"/{node}", h.node)
	h.patch(api.NodesPath+"/{node}", h.setNode)
	h.post(api.NodesPath+"/{node}/{action}", h.nodeAction)
	h.get(api.DisksPath, h.disks)
	h.get(api.DisksPath+"/{node}/{disk}", h.disk)
	h.patch(api.DisksPath+"/{node}/{disk}", h.setDisk)
	h.post(api.DisksPath+"/{node}/{disk}/{action}", h.diskAction)
	h.get(api.MapPath, func(r *http.Request) (any, error) { return h.s.Cluster.Map(r.Context()) })
}

func (h handler) bucketRoutes() {
	const bucket = api.BucketsPath + "/{provider}/{bucket}"
	h.get(api.BucketsPath, h.buckets)
	h.get(api.ResolvePath, func(r *http.Request) (any, error) {
		return h.s.Buckets.Resolve(r.Context(), r.URL.Query().Get("uri"))
	})
	h.get(bucket, h.bucket)
	h.put(bucket, h.createBucket)
	h.patch(bucket, h.setBucket)
	h.remove(bucket, h.deleteBucket)
	h.mux.HandleFunc("GET "+bucket+"/summary", h.summary)
	h.mux.HandleFunc("GET "+bucket+"/objects", h.objects)
}

func (h handler) jobRoutes() {
	const job = api.JobsPath + "/{job}"
	h.get(api.JobsPath, h.jobs)
	h.post(api.JobsPath, h.startJob)
	h.get(api.JobKindsPath, h.jobKinds)
	h.post(api.PreviewPath, h.previewJob)
	h.get(job, h.job)
	h.post(job+"/stop", func(r *http.Request) (any, error) { return h.s.Jobs.StopJob(r.Context(), r.PathValue("job")) })
	h.get(job+"/errors", h.jobErrors)
}

func (h handler) performanceRoutes() {
	h.get(api.PerformancePath, func(r *http.Request) (any, error) { return h.s.Performance.Performance(r.Context()) })
}

func (h handler) transformRoutes() {
	const transform = api.TransformsPath + "/{transform}"
	s := h.s.Transforms
	h.get(api.TransformsPath, h.transforms)
	h.get(transform, func(r *http.Request) (any, error) { return s.Transform(r.Context(), r.PathValue("transform")) })
	h.put(transform, h.putTransform)
	h.remove(transform, func(r *http.Request) (any, error) {
		return nil, s.DeleteTransform(r.Context(), r.PathValue("transform"))
	})
	h.post(transform+"/{action}", h.transformAction)
	h.get(transform+"/errors", h.transformErrors)
	h.get(transform+"/logs", h.transformLogs)
}

func strict(body []byte, in any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return fmt.Errorf("the request's JSON: %w: %w", core.ErrInvalid, err)
	}
	if d.More() {
		return fmt.Errorf("the request has something behind its JSON: %w", core.ErrInvalid)
	}
	return nil
}

func (h handler) cluster(r *http.Request) (any, error) {
	healthy, err := boolean(r, "healthy")
	if err != nil {
		return nil, err
	}
	if !healthy {
		return h.s.Cluster.Cluster(r.Context())
	}
	wait, err := patience(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	return h.s.Cluster.AwaitHealthy(ctx)
}

func (h handler) nodes(r *http.Request) (any, error) {
	nodes, err := h.s.Cluster.Nodes(r.Context())
	return api.Nodes{Nodes: listOf(nodes)}, err
}

// listOf makes an empty list of none, so that JSON has [] instead of null.
func listOf[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func nodeOf(r *http.Request) (core.NodeID, error) {
	n := core.NodeID(r.PathValue("node"))
	return n, n.Validate()
}

func (h handler) node(r *http.Request) (any, error) {
	n, err := nodeOf(r)
	if err != nil {
		return nil, err
	}
	return h.s.Cluster.Node(r.Context(), n)
}

func placement(r *http.Request) (api.Placement, error) {
	p, err := read[api.Placement](r)
	if err == nil && p.Weight != nil && (*p.Weight < 0 || math.IsInf(*p.Weight, 0)) {
		err = fmt.Errorf("weight %v: want a number, 0 or above: %w", *p.Weight, core.ErrInvalid)
	}
	return p, err
}

func (h handler) setNode(r *http.Request) (any, error) {
	n, err := nodeOf(r)
	if err != nil {
		return nil, err
	}
	p, err := placement(r)
	if err != nil {
		return nil, err
	}
	return h.s.Cluster.SetNode(r.Context(), n, p)
}

func (h handler) nodeAction(r *http.Request) (any, error) {
	n, err := nodeOf(r)
	if err != nil {
		return nil, err
	}
	switch a := api.NodeAction(r.PathValue("action")); a {
	case api.MaintenanceStart, api.MaintenanceStop, api.Decommission:
		return h.s.Cluster.NodeAction(r.Context(), n, a)
	default:
		return nil, fmt.Errorf("node %s: no such action as %q: %w", n, a, core.ErrInvalid)
	}
}

func (h handler) disks(r *http.Request) (any, error) {
	disks, err := h.s.Cluster.Disks(r.Context(), core.NodeID(r.URL.Query().Get("node")))
	return api.Disks{Disks: listOf(disks)}, err
}

func (h handler) disk(r *http.Request) (any, error) {
	n, err := nodeOf(r)
	if err != nil {
		return nil, err
	}
	return h.s.Cluster.Disk(r.Context(), n, r.PathValue("disk"))
}

func (h handler) setDisk(r *http.Request) (any, error) {
	n, err := nodeOf(r)
	if err != nil {
		return nil, err
	}
	p, err := placement(r)
	if err != nil {
		return nil, err
	}
	if p.Zone != nil {
		return nil, fmt.Errorf("disk %s/%s: a zone is the node's: %w", n, r.PathValue("disk"), core.ErrInvalid)
	}
	return h.s.Cluster.SetDisk(r.Context(), n, r.PathValue("disk"), p)
}

func (h handler) diskAction(r *http.Request) (any, error) {
	n, err := nodeOf(r)
	if err != nil {
		return nil, err
	}
	switch a := api.DiskAction(r.PathValue("action")); a {
	case api.DetachDisk, api.AttachDisk, api.FormatDisk, api.ForceFormatDisk, api.RebuildDisk:
		return h.s.Cluster.DiskAction(r.Context(), n, r.PathValue("disk"), a)
	default:
		return nil, fmt.Errorf("disk %s/%s: no such action as %q: %w", n, r.PathValue("disk"), a, core.ErrInvalid)
	}
}

func (h handler) buckets(r *http.Request) (any, error) {
	all, err := boolean(r, "all")
	if err != nil {
		return nil, err
	}
	buckets, err := h.s.Buckets.Buckets(r.Context(), core.Provider(r.URL.Query().Get("provider")), all)
	buckets.Buckets = listOf(buckets.Buckets)
	return buckets, err
}

func (h handler) bucket(r *http.Request) (any, error) {
	b, err := bucketName(r)
	if err != nil {
		return nil, err
	}
	return h.s.Buckets.Bucket(r.Context(), b)
}

func (h handler) createBucket(r *http.Request) (any, error) {
	b, err := bucketName(r)
	if err != nil {
		return nil, err
	}
	in, err := read[api.CreateBucket](r)
	if err != nil {
		return nil, err
	}
	return h.s.Buckets.CreateBucket(r.Context(), b, in)
}

func (h handler) setBucket(r *http.Request) (any, error) {
	b, err := bucketName(r)
	if err != nil {
		return nil, err
	}
	in, err := read[api.SetBucket](r)
	if err != nil {
		return nil, err
	}
	return h.s.Buckets.SetBucket(r.Context(), b, in)
}

func (h handler) deleteBucket(r *http.Request) (any, error) {
	b, err := bucketName(r)
	if err != nil {
		return nil, err
	}
	return nil, h.s.Buckets.DeleteBucket(r.Context(), b)
}

// summary answers with one document or, with progress=true, with lines that tell
// how far the counting is.
func (h handler) summary(w http.ResponseWriter, r *http.Request) {
	b, o, lines, err := summaryRequest(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if !lines {
		out, err := h.s.Buckets.Summary(r.Context(), b, o, func(api.SummaryPart) {})
		h.reply(w, r, out, err)
		return
	}
	begun := false
	line := func(p api.SummaryPart) {
		if !begun {
			w.Header().Set("Content-Type", api.ListType)
			begun = true
		}
		err := json.NewEncoder(w).Encode(p)
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			h.finish(r, err)
		}
	}
	out, err := h.s.Buckets.Summary(r.Context(), b, o, line)
	switch {
	case err == nil:
		line(api.SummaryPart{Summary: out, End: true})
	case !begun:
		h.fail(w, r, err)
	default:
		line(api.SummaryPart{End: true, Error: api.FromError(err)})
	}
}

func summaryRequest(r *http.Request) (b core.BucketName, o SummaryOptions, lines bool, err error) {
	if b, err = bucketName(r); err != nil {
		return b, o, lines, err
	}
	if o.Presence, err = presence(r); err != nil {
		return b, o, lines, err
	}
	if o.All, err = boolean(r, "all"); err != nil {
		return b, o, lines, err
	}
	o.After = r.URL.Query().Get("after")
	lines, err = boolean(r, "progress")
	return b, o, lines, err
}

func (h handler) objects(w http.ResponseWriter, r *http.Request) {
	b, o, err := listRequest(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	want := o.Max
	if want > 0 {
		o.Max++ // the last one only says that there is more
	}
	list := api.NewListWriter(w, o.NamesOnly)
	w.Header().Set("Content-Type", api.ListType)
	count := 0
	for object, err := range h.s.Buckets.Objects(r.Context(), b, o) {
		switch {
		case err != nil && count == 0:
			h.fail(w, r, err)
			return
		case err != nil:
			h.finish(r, list.End(false, err))
			return
		case want > 0 && count == want:
			h.finish(r, list.End(true, nil))
			return
		}
		count++
		if err := list.Object(&object); err != nil {
			h.finish(r, err)
			return
		}
	}
	h.finish(r, list.End(false, nil))
}

func (h handler) finish(r *http.Request, err error) {
	if err != nil {
		h.log.DebugContext(r.Context(), "listing not delivered", "path", r.URL.Path, "err", err)
	}
}

func listRequest(r *http.Request) (b core.BucketName, o ListOptions, err error) {
	if b, err = bucketName(r); err != nil {
		return b, o, err
	}
	if o.Presence, err = presence(r); err != nil {
		return b, o, err
	}
	if o.NamesOnly, err = boolean(r, "names"); err != nil {
		return b, o, err
	}
	if o.Max, err = integer(r, "max", 0, math.MaxInt32); err != nil {
		return b, o, err
	}
	q := r.URL.Query()
	o.Prefix, o.After = q.Get("prefix"), q.Get("after")
	return b, o, nil
}

func (h handler) jobs(r *http.Request) (any, error) {
	all, err := boolean(r, "all")
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	jobs, err := h.s.Jobs.Jobs(r.Context(), JobFilter{Kind: q.Get("kind"), Bucket: q.Get("bucket"), All: all})
	return api.Jobs{Jobs: listOf(jobs)}, err
}

func (h handler) startJob(r *http.Request) (any, error) {
	spec, err := read[api.JobSpec](r)
	if err != nil {
		return nil, err
	}
	return h.s.Jobs.StartJob(r.Context(), spec)
}

func (h handler) previewJob(r *http.Request) (any, error) {
	spec, err := read[api.JobSpec](r)
	if err != nil {
		return nil, err
	}
	out, err := h.s.Jobs.PreviewJob(r.Context(), spec)
	out.Objects = listOf(out.Objects)
	return out, err
}

func (h handler) jobKinds(r *http.Request) (any, error) {
	kinds, err := h.s.Jobs.JobKinds(r.Context())
	return api.JobKinds{Kinds: listOf(kinds)}, err
}

func (h handler) job(r *http.Request) (any, error) {
	wait, err := patience(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	return h.s.Jobs.AwaitJob(ctx, r.PathValue("job"))
}

func (h handler) jobErrors(r *http.Request) (any, error) {
	n, err := integer(r, "max", maxPage, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	out, err := h.s.Jobs.JobErrors(r.Context(), r.PathValue("job"), r.URL.Query().Get("after"), min(n, maxPage))
	out.Errors = listOf(out.Errors)
	return out, err
}

func (h handler) transforms(r *http.Request) (any, error) {
	list, err := h.s.Transforms.Transforms(r.Context())
	return api.Transforms{Transforms: listOf(list)}, err
}

func (h handler) putTransform(r *http.Request) (any, error) {
	t, err := read[api.Transform](r)
	if err != nil {
		return nil, err
	}
	t.Name = r.PathValue("transform")
	return h.s.Transforms.PutTransform(r.Context(), t)
}

func (h handler) transformAction(r *http.Request) (any, error) {
	name, action := r.PathValue("transform"), r.PathValue("action")
	if action != "start" && action != "stop" {
		return nil, fmt.Errorf("transform %s: no such action as %q: %w", name, action, core.ErrInvalid)
	}
	return h.s.Transforms.TransformAction(r.Context(), name, action)
}

func (h handler) transformErrors(r *http.Request) (any, error) {
	list, err := h.s.Transforms.TransformErrors(r.Context(), r.PathValue("transform"), r.URL.Query().Get("job"))
	return api.JobErrors{Errors: listOf(list)}, err
}

func (h handler) transformLogs(r *http.Request) (any, error) {
	lines, err := h.s.Transforms.TransformLogs(r.Context(), r.PathValue("transform"))
	return api.TransformLogs{Lines: listOf(lines)}, err
}

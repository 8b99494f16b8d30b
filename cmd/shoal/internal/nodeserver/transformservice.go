package nodeserver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalstore/shoal/bus"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/etl"
	"github.com/shoalstore/shoal/core/job"
	"github.com/shoalstore/shoal/plugins/api"
)

// transformService is api/server's view of transforms.
type transformService struct{ s *server }

// Transforms is part of apiserver.TransformService.
func (t transformService) Transforms(ctx context.Context) ([]api.Transform, error) {
	list, err := t.s.transforms.List(ctx)
	if err != nil {
		return nil, err
	}
	nodes := t.s.nodesTransforms(ctx)
	out := make([]api.Transform, 0, len(list))
	for i := range list {
		out = append(out, transformOf(&list[i], statsOf(nodes, &list[i].Spec)))
	}
	return out, nil
}

// Transform is part of apiserver.TransformService.
func (t transformService) Transform(ctx context.Context, name string) (api.Transform, error) {
	x, err := t.s.transforms.Lookup(ctx, refOf(name))
	if err != nil {
		return api.Transform{}, err
	}
	return transformOf(&x, statsOf(t.s.nodesTransforms(ctx), &x.Spec)), nil
}

// refOf reads name or name@digest.
func refOf(s string) core.TransformRef {
	name, digest, _ := strings.Cut(s, "@")
	return core.TransformRef{Name: name, Digest: digest}
}

// transformOf is a transform as it travels.
func transformOf(x *etl.Transform, stats *api.TransformStats) api.Transform {
	s := &x.Spec
	out := api.Transform{
		Name: s.Name, Type: s.Type, Digest: s.Digest, Size: s.Size, ABI: s.ABI, State: "running", Memory: s.Memory,
		Env: s.Env, Ext: s.Ext, ContentType: s.ContentType, Scope: "object", Isolation: "pooled", Created: &s.Created, Stats: stats,
	}
	for _, k := range slices.Sorted(maps.Keys(s.Args)) {
		out.Args = append(out.Args, k+"="+s.Args[k])
	}
	if s.Timeout > 0 {
		out.Timeout = s.Timeout.String()
	}
	if x.Stopped || stats != nil && len(stats.StoppedOn) > 0 {
		out.State = "stopped"
	}
	if s.Fresh || s.ABI == "wasi" {
		out.Isolation = "fresh"
	}
	if stats != nil {
		out.Calls = stats.Done + stats.Dropped + stats.Failed + stats.Broken
		out.Errors = stats.Failed
	}
	return out
}

// specFrom reads what a client wants registered.
func specFrom(in *api.Transform) (etl.Spec, error) {
	bad := func(format string, args ...any) (etl.Spec, error) {
		return etl.Spec{}, fmt.Errorf("transform %s: %s: %w", in.Name, fmt.Sprintf(format, args...), core.ErrInvalid)
	}
	s := etl.Spec{
		Name: in.Name, Type: cmp.Or(in.Type, etl.WASM), Memory: in.Memory, Env: in.Env, Ext: in.Ext, ContentType: in.ContentType,
	}
	for _, a := range in.Args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return bad("the argument %q: want NAME=VALUE", a)
		}
		if s.Args == nil {
			s.Args = map[string]string{}
		}
		s.Args[k] = v
	}
	if in.Timeout != "" {
		d, err := time.ParseDuration(in.Timeout)
		if err != nil || d <= 0 {
			return bad("the timeout %q: want a duration such as 45s", in.Timeout)
		}
		s.Timeout = d
	}
	switch in.Scope {
	case "", "object":
	case "member", "line":
		return etl.Spec{}, api.NotBuilt("transforms of scope " + in.Scope)
	default:
		return bad("the scope %q: want object", in.Scope)
	}
	switch in.Isolation {
	case "", "pooled":
	case "fresh":
		s.Fresh = true
	default:
		return bad("the isolation %q: want pooled or fresh", in.Isolation)
	}
	return s, nil
}

// PutTransform is part of apiserver.TransformService.
func (t transformService) PutTransform(ctx context.Context, in api.Transform) (api.Transform, error) {
	s, err := specFrom(&in)
	if err != nil {
		return api.Transform{}, err
	}
	switch {
	case in.FromObject != "" && len(in.Code) > 0:
		return api.Transform{}, fmt.Errorf("transform %s: code and from_object exclude each other: %w", in.Name, core.ErrInvalid)
	case in.FromObject != "" && s.Type == etl.WASM:
		if in.Code, err = t.s.objectCode(ctx, in.FromObject); err != nil {
			return api.Transform{}, fmt.Errorf("transform %s: %w", in.Name, err)
		}
	}
	made, smoke, err := t.s.transforms.Register(ctx, s, in.Code)
	if err != nil {
		return api.Transform{}, err
	}
	if in.Digest != "" && in.Digest != made.Spec.Digest {
		return api.Transform{}, fmt.Errorf("transform %s: the code is %s, not %s: %w", in.Name, made.Spec.Digest, in.Digest, core.ErrInvalid)
	}
	out := transformOf(&made, nil)
	out.Smoke = &api.TransformSmoke{Outcome: smoke.Outcome.String(), Log: smoke.Log}
	if smoke.Failure != nil {
		out.Smoke.Message = smoke.Failure.Error()
	}
	return out, nil
}

// DeleteTransform is part of apiserver.TransformService.
func (t transformService) DeleteTransform(ctx context.Context, name string) error {
	return t.s.transforms.Remove(ctx, name)
}

// TransformAction is part of apiserver.TransformService.
func (t transformService) TransformAction(ctx context.Context, name, action string) (api.Transform, error) {
	if action != "start" && action != "stop" {
		return api.Transform{}, fmt.Errorf("transform %s: no such action as %q; there are start and stop: %w", name, action, core.ErrInvalid)
	}
	x, err := t.s.transforms.SetStopped(ctx, name, action == "stop")
	if err != nil {
		return api.Transform{}, err
	}
	return transformOf(&x, statsOf(t.s.nodesTransforms(ctx), &x.Spec)), nil
}

// failedObject is an object that a transform failed on, and where.
type failedObject struct {
	time    time.Time
	node    core.NodeID
	object  string
	class   string
	message string
	log     string
}

// failedObjects are the last ones of a name, whatever it stood for, oldest first.
func (t transformService) failedObjects(ctx context.Context, name string) ([]failedObject, error) {
	if _, err := t.s.transforms.Lookup(ctx, core.TransformRef{Name: name}); err != nil {
		return nil, err
	}
	var out []failedObject
	for node, list := range t.s.nodesTransforms(ctx) {
		for _, x := range list {
			if x.Name != name {
				continue
			}
			for _, f := range x.Stats.Recent {
				out = append(out, failedObject{f.Time, node, f.Bucket + "/" + f.Key, f.Failure.Class, f.Failure.Message, f.Log})
			}
		}
	}
	slices.SortFunc(out, func(a, b failedObject) int { return a.time.Compare(b.time) })
	return out, nil
}

// TransformErrors is part of apiserver.TransformService.
func (t transformService) TransformErrors(ctx context.Context, name, job string) ([]api.JobError, error) {
	if job != "" {
		page, err := jobService(t).JobErrors(ctx, job, "", maxErrors)
		return page.Errors, err
	}
	list, err := t.failedObjects(ctx, name)
	out := make([]api.JobError, 0, len(list))
	for _, f := range list {
		out = append(out, api.JobError{Key: f.object, Code: f.class, Message: withLog(f.message, f.log)})
	}
	return out, err
}

const maxErrors = 1000

// withLog adds the end of a transform's log to what went wrong.
func withLog(message, log string) string {
	if log = strings.TrimSpace(log); log != "" {
		message += "; its log ends: " + log
	}
	return message
}

// TransformLogs is part of apiserver.TransformService.
func (t transformService) TransformLogs(ctx context.Context, name string) ([]api.TransformLog, error) {
	list, err := t.failedObjects(ctx, name)
	out := make([]api.TransformLog, 0, len(list))
	for _, f := range list {
		for line := range strings.Lines(f.log) {
			out = append(out, api.TransformLog{Time: f.time, Node: string(f.node), Object: f.object, Text: strings.TrimRight(line, "\r\n")})
		}
	}
	return out, err
}

// nameRequest names a transform.
type nameRequest struct {
	Name string `json:"name"`
}

// etlSubjects offers transforms over NATS. A module that does not fit into a message
// is registered over HTTP, or put into a bucket and named by from_object.
func (s *server) etlSubjects() bus.Service {
	t := transformService{s}
	act := func(action string) bus.Handler {
		return jsonHandler(func(ctx context.Context, r nameRequest) (any, error) { return t.TransformAction(ctx, r.Name, action) })
	}
	return bus.Service{
		Name: "shoal-etl", Version: serviceVersion, Description: "Register, list, show, start, stop and remove transforms",
		Metadata: map[string]string{"node": s.cfg.Node.Name},
		Limit:    8, // a registration may carry and compile a module
		Endpoints: []bus.Endpoint{
			{Name: "init", Subject: "shoal.etl.init", Handler: jsonHandler(t.PutTransform)},
			{Name: "list", Subject: "shoal.etl.list", Handler: jsonHandler(func(ctx context.Context, _ struct{}) (any, error) {
				list, err := t.Transforms(ctx)
				return api.Transforms{Transforms: list}, err
			})},
			{Name: "show", Subject: "shoal.etl.show", Handler: jsonHandler(func(ctx context.Context, r nameRequest) (any, error) { return t.Transform(ctx, r.Name) })},
			{Name: "remove", Subject: "shoal.etl.remove", Handler: jsonHandler(func(ctx context.Context, r nameRequest) (any, error) {
				return struct{}{}, t.DeleteTransform(ctx, r.Name)
			})},
			{Name: "start", Subject: "shoal.etl.start", Handler: act("start")},
			{Name: "stop", Subject: "shoal.etl.stop", Handler: act("stop")},
		},
	}
}

// The arguments of etl jobs.
const (
	argTransform = "transform"
	argInspect   = "inspect"
	argPrefix    = "arg."
)

// prepareTransform gives the job the version that its transform's name stands for
// now, with the job's own arguments, and takes them out of in.
func (j jobService) prepareTransform(ctx context.Context, in *api.JobSpec, spec *job.Spec) error {
	name := in.Args[argTransform]
	if strings.Contains(name, ">>") {
		return api.NotBuilt("chains of transforms")
	}
	t, err := j.s.transforms.Lookup(ctx, refOf(name))
	if err != nil {
		return err
	}
	rest := map[string]string{}
	version := t.Spec
	version.Args = maps.Clone(version.Args)
	for k, v := range in.Args {
		arg, ok := strings.CutPrefix(k, argPrefix)
		switch {
		case k == argTransform:
		case k == argInspect:
			if spec.Inspect, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("%s: %w: %w", argInspect, core.ErrInvalid, err)
			}
		case ok && arg != "":
			if version.Args == nil {
				version.Args = map[string]string{}
			}
			version.Args[arg] = v
		default:
			rest[k] = v
		}
	}
	if len(spec.Ext) == 0 {
		spec.Ext = version.Ext
	}
	spec.Transform, in.Args = &version, rest
	return nil
}

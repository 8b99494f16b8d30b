package nodeserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/etl"
	"github.com/shoalstore/shoal/placement"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/wasmetl"
)

// CompileCommand is the command of this program that compiles a module: see
// [wasmetl.CompileChild].
const CompileCommand = "compile-module"

const (
	// methodTransform tells a node what a transform's name stands for.
	methodTransform uint16 = 98
	// methodTransforms asks a node what it has done with transforms.
	methodTransforms uint16 = 99
	// maxModule is the size of the largest module that a request can carry.
	maxModule = 47 << 20
)

// newTransforms makes the host of transforms and the registry, which run later.
func (s *server) newTransforms() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("the program that compiles transforms: %w", err)
	}
	s.wasm, err = wasmetl.New(wasmetl.Options{
		Dir: s.state.file("transforms"), Clock: s.clock, Logger: s.log, MaxModule: maxModule,
		Compile: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, self, CompileCommand) },
	})
	if err != nil {
		return err
	}
	s.transforms = etl.New(etl.Options{
		KV: s.bus.Jobs(), Clock: s.clock, Log: s.log, Tell: s.tellTransform,
		Needed:   func() []string { return s.jobs.Transforms() },
		Modules:  etl.Modules{Objects: s.node.Objects(), Bucket: s.systemBucket},
		Runtimes: map[string]etl.Runtime{etl.WASM: wasmRuntime{s.wasm}},
	})
	s.node.Handle(methodTransform, func(_ context.Context, _ core.NodeID, entry []byte) ([]byte, error) {
		return nil, s.transforms.Hear(entry)
	})
	s.node.Handle(methodTransforms, s.serveTransforms)
	return nil
}

// runTransforms keeps transforms ready until ctx ends.
func (s *server) runTransforms(ctx context.Context) error {
	err := s.transforms.Run(ctx)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	return errors.Join(err, s.wasm.Close(end))
}

// systemBucket finds the bucket of what is the cluster's own. With create it is
// made, or given as many copies as the cluster has nodes for by now: three at most.
func (s *server) systemBucket(ctx context.Context, create bool) (core.Bucket, error) {
	objects := s.node.Objects()
	name := core.BucketName{Provider: core.Shoal, Name: core.SystemBucketName}
	b, err := objects.BucketNamed(ctx, name)
	if !create || err != nil && !errors.Is(err, core.ErrNoSuchBucket) {
		return b, err
	}
	m := s.node.Map()
	if m == nil {
		return b, fmt.Errorf("this node knows no map in effect yet: %w", core.ErrUnavailable)
	}
	policy := s.systemPolicy(m)
	if err == nil {
		if b.Policy.Scheme.M < policy.Scheme.M || b.Policy.Domain == core.DomainDisk && policy.Domain == core.DomainNode {
			return objects.SetBucket(ctx, b.ID, func(x *core.Bucket) { x.Policy = policy })
		}
		return b, nil
	}
	made, err := objects.AddBucket(ctx, core.Bucket{Name: name, Alias: core.SystemBucketName, Policy: policy})
	if errors.Is(err, core.ErrExists) {
		return objects.BucketNamed(ctx, name)
	}
	return made, err
}

// systemPolicy is the best policy that the cluster can hold.
func (s *server) systemPolicy(m *core.Map) core.Policy {
	for _, copies := range []int{3, 2} {
		scheme := core.Mirror(copies)
		p := s.node.PolicyFor(&scheme)
		for _, domain := range []core.Domain{core.DomainNode, core.DomainDisk} {
			if _, _, ok := placement.Holds(m, scheme, domain); ok {
				p.Domain = domain
				return p
			}
		}
	}
	none := core.None()
	return s.node.PolicyFor(&none)
}

// tellTransform gives an entry to the other nodes. Those that do not hear it learn
// it from the bus.
func (s *server) tellTransform(ctx context.Context, entry []byte) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range s.otherNodes() {
		wg.Go(func() {
			if _, err := s.node.CallNode(ctx, id, methodTransform, entry); err != nil {
				s.log.Debug("a node was not told of a transform; the bus will", "peer", id, "err", err)
			}
		})
	}
	wg.Wait()
}

// otherNodes are those that should answer.
func (s *server) otherNodes() (ids []core.NodeID) {
	m := s.node.Map()
	if m == nil {
		return nil
	}
	for i := range m.Nodes {
		st := m.Nodes[i].State
		if id := m.Nodes[i].ID; id != s.node.ID() && st != core.NodeDown && st != core.NodeDecommissioned {
			ids = append(ids, id)
		}
	}
	return ids
}

// wasmRuntime is wasmetl as the registry wants it.
type wasmRuntime struct{ *wasmetl.Host }

// specOf is a version's settings as the host wants them.
func specOf(id string, s *etl.Spec) wasmetl.Spec {
	return wasmetl.Spec{Name: id, Memory: s.Memory, Timeout: s.Timeout, Args: s.Args, Env: s.Env, Fresh: s.Fresh}
}

// Check is part of etl.Runtime.
func (w wasmRuntime) Check(s *etl.Spec, code []byte) error {
	if s.Memory == 0 {
		s.Memory = wasmetl.DefaultMemory
	}
	if s.Timeout == 0 {
		s.Timeout = wasmetl.DefaultTimeout
	}
	report, err := wasmetl.Check(code, s.Memory, maxModule)
	if err != nil {
		return err
	}
	s.ABI = report.ABI.String()
	return nil
}

// Install is part of etl.Runtime.
func (w wasmRuntime) Install(ctx context.Context, id string, s *etl.Spec, code []byte) error {
	_, err := w.Host.Install(ctx, specOf(id, s), code)
	return err
}

// RunTransform is part of core.TransformRunner.
func (w wasmRuntime) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	res, err := w.Host.RunTransform(ctx, c)
	if errors.Is(err, wasmetl.ErrStopped) {
		err = etl.ErrBroken
	}
	return res, err
}

// Resume is part of etl.Runtime.
func (w wasmRuntime) Resume(id string) error { return w.Start(id) }

// nodeTransform is what a node has done with a version.
type nodeTransform struct {
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Stopped bool          `json:"stopped,omitempty"` // by the node itself
	Stats   wasmetl.Stats `json:"stats"`
}

func (s *server) serveTransforms(context.Context, core.NodeID, []byte) ([]byte, error) {
	var out []nodeTransform
	for _, t := range s.wasm.List() {
		n := nodeTransform{Stopped: t.Stopped, Stats: t.Stats}
		n.Name, n.Version = etl.NameOf(t.Ref.Name)
		out = append(out, n)
	}
	return json.Marshal(out)
}

// nodesTransforms asks all nodes that should answer; those that do not are left out.
func (s *server) nodesTransforms(ctx context.Context) map[core.NodeID][]nodeTransform {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out := map[core.NodeID][]nodeTransform{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range append(s.otherNodes(), s.node.ID()) {
		wg.Go(func() {
			b, err := s.node.CallNode(ctx, id, methodTransforms, nil)
			var list []nodeTransform
			if err != nil || json.Unmarshal(b, &list) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = list
		})
	}
	wg.Wait()
	return out
}

// statsOf sums up what nodes have done with a version.
func statsOf(nodes map[core.NodeID][]nodeTransform, spec *etl.Spec) *api.TransformStats {
	out := &api.TransformStats{Failures: map[string]int64{}}
	version := spec.Version()
	for id, list := range nodes {
		for _, t := range list {
			if t.Name != spec.Name || t.Version != version {
				continue
			}
			out.Nodes = append(out.Nodes, string(id))
			if t.Stopped {
				out.StoppedOn = append(out.StoppedOn, string(id))
			}
			addStats(out, &t.Stats)
		}
	}
	slices.Sort(out.Nodes)
	slices.Sort(out.StoppedOn)
	return out
}

func addStats(out *api.TransformStats, st *wasmetl.Stats) {
	out.Done += st.Done
	out.Dropped += st.Dropped
	out.Failed += st.Failed
	out.Broken += st.Errors
	for class, n := range st.Failures {
		out.Failures[class] += n
	}
	out.BytesIn += st.BytesIn
	out.BytesOut += st.BytesOut
	out.Outputs += st.Outputs
	out.PoolHits += st.Reused
	out.PeakMemory = max(out.PeakMemory, st.PeakMemory)
	out.WallSeconds += st.WallSum.Seconds()
	out.CPUSeconds += st.CPUSum.Seconds()
	out.QueuedSeconds += st.QueuedSum.Seconds()
	out.WallP50, out.WallP99 = max(out.WallP50, st.WallP50.Seconds()), max(out.WallP99, st.WallP99.Seconds())
	out.CPUP50, out.CPUP99 = max(out.CPUP50, st.CPUP50.Seconds()), max(out.CPUP99, st.CPUP99.Seconds())
}

// objectCode reads the code of a transform from an object.
func (s *server) objectCode(ctx context.Context, uri string) ([]byte, error) {
	u, err := core.ParseURI(uri)
	if err == nil && (u.Key == "" || u.Bucket.System()) {
		err = fmt.Errorf("from_object %q: want an object, as shoal://bucket/upper.wasm: %w", uri, core.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	b, err := s.node.Objects().BucketNamed(ctx, u.Bucket)
	if err != nil {
		return nil, err
	}
	o, err := s.node.Objects().Get(ctx, b, u.Key, core.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", uri, err)
	}
	defer func() { _ = o.Body.Close() }()
	if o.Length > maxModule {
		return nil, fmt.Errorf("%s has %d bytes, at most %d can be a transform: %w", uri, o.Length, maxModule, core.ErrTooLarge)
	}
	code := make([]byte, o.Length)
	if _, err := io.ReadFull(o.Body, code); err != nil {
		return nil, fmt.Errorf("%s: %w", uri, err)
	}
	return code, nil
}

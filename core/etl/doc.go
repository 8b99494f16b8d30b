// Package etl keeps the transforms of a cluster, and has them ready where they
// are wanted. It knows nothing of WebAssembly or containers: a [Runtime] does.
//
//	r := etl.New(etl.Options{KV: bus.Jobs(), Modules: modules, Runtimes: map[string]etl.Runtime{etl.WASM: host}, Clock: clock})
//	go r.Run(ctx)
//	made, err := r.Register(ctx, etl.Spec{Name: "upper", Type: etl.WASM}, code)
//	result, err := r.RunTransform(ctx, core.TransformCall{Transform: core.TransformRef{Name: "upper"}, ...})
//
// What a name stands for, a [Spec], is a small value on the bus, which all nodes
// watch. The code is an object of a bucket that users do not see, under its
// digest; who fetches it verifies that. A node loads what names stand for as soon
// as it hears of it, and at the latest before it runs it. A job carries the spec
// that it began with, so that what happens to the name later does not matter to it;
// code goes when neither a name nor a job has needed it for an hour.
package etl

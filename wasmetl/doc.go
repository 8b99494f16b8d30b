// Package wasmetl runs transforms that are WebAssembly modules: an object's bytes
// go in, others come out. It is built for modules that nobody has looked at: one
// that spins, floods, recurses, grows or lies fails its own object within its
// limits, and does nothing else.
//
//	host, err := wasmetl.New(wasmetl.Options{Dir: dir, Compile: command})
//	ref, err := host.Install(ctx, wasmetl.Spec{Name: "upper"}, module)
//	result, err := host.RunTransform(ctx, core.TransformCall{Transform: ref, Body: body, Output: open})
//
// # How a module becomes a transform
//
// [Check] parses it, says everything that is wrong with it, and which of the two
// interfaces it uses (see [ABI]). [Host.Install] has it metered (package meter)
// and compiled in a child process with limits of its own; the node loads the
// result from the cache of compiled code. One digest is compiled and loaded once,
// whatever names it has; pools of instances belong to a name.
//
// # How a guest is held
//
// Time: the metered module calls a poll every 2^17 steps; the poll and every host
// function end the guest by a panic once its context has ended. Nobody else
// closes an instance than the goroutine that runs it. Memory: guest memories are
// mappings outside of the Go heap, made with their limit and filled as they grow;
// the limits of all live instances, with a reserve for the stack of each, stay
// within the node's budget. CPU: GOMAXPROCS-1 guests run at a time; one that waits
// for its source or output does not count.
package wasmetl

// Package shardio is the part of the data path that the schemes share: buffers,
// the writing of one stream to several shards ([Fanout]), the shards of an
// extent open for reading ([Shards]), and reading ahead ([Ahead], [Stream]).
// Which bytes belong to which shard is the schemes' own business.
//
// Everything here is bounded in memory whatever the size of the object, and
// none of it is held up for ever by a store that does not answer: such a call
// is cancelled, and if it ignores that, left behind. Env.Wait waits for those.
//
//	env := shardio.NewEnv(shardio.Options{Clock: clock})
//	f := env.NewFanout(ctx, shardio.FanoutSpec{...})
//	for more() {
//		if err := f.Push(ctx, chunk()); err != nil {
//			return f.Abort(ctx, err)
//		}
//	}
//	places, err := f.Commit(ctx)
package shardio

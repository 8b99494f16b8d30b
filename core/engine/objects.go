package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
	"github.com/shoalstore/shoal/placement"
)

// inlineInRecord is the size up to which a small object's data is in its record
// itself. Larger inline data has a row of its own, so that listings need not
// read it.
const inlineInRecord = 2 << 10

// Objects is the object layer; see [core.Objects].
type Objects struct{ node *Node }

var _ core.Objects = (*Objects)(nil)

// stored is the data of an object or part as it was stored: a record that has
// everything but headers, and the data row's value, if any.
type stored struct {
	rec  core.Record
	data []byte
	// at is when its shards were stored; see commitWithin.
	at core.Instant
}

// Put writes an object.
func (o *Objects) Put(ctx context.Context, bucket core.Bucket, key string, body io.Reader, opt core.PutOptions) (core.ObjectInfo, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.ObjectInfo{}, err
	}
	as := &bucket
	if err := o.node.writable(&bucket); err != nil {
		return core.ObjectInfo{}, err
	}
	if bucket.Name.Remote() {
		as = plainETag(&bucket)
	} else if err := o.node.early(ctx, &bucket, key, &opt); err != nil {
		return core.ObjectInfo{}, err
	}
	st, err := o.node.store(ctx, as, key, body, &opt, bucket.Policy.Inline)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	st.rec.Headers, st.rec.Meta, st.rec.Tags, st.rec.Origin = opt.Headers, opt.Meta, opt.Tags, opt.Origin
	if bucket.Name.Remote() {
		return o.node.putRemote(ctx, &bucket, key, st, &opt)
	}
	return o.node.commit(ctx, &bucket, key, st, &opt)
}

// early refuses a conditional write that has no chance before its body is read. A
// repeated attempt has one whatever is stored by now: it may be its own.
func (n *Node) early(ctx context.Context, bucket *core.Bucket, key string, opt *core.PutOptions) error {
	if opt.Conditions.IsZero() || !opt.Request.IsZero() && (!opt.Fresh || opt.Size >= 0 && opt.Size <= bucket.Policy.Inline) {
		return nil
	}
	rec, _, err := n.record(ctx, bucket.ID, key)
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return err
	}
	return opt.Conditions.CheckWrite(rec)
}

// commit writes the record of stored data. If an earlier call with the same
// request id has done so already, its object is the answer.
func (n *Node) commit(ctx context.Context, bucket *core.Bucket, key string, st *stored, opt *core.PutOptions) (core.ObjectInfo, error) {
	m := n.mutation(bucket, key, opt.Request)
	m.fresh = opt.Fresh
	if !opt.Conditions.IsZero() {
		m.checks = []check{{kind: checkConditions, row: objectKey(bucket.ID, key), conditions: opt.Conditions}}
	}
	st.rec.Modified = n.clock.Now().UTC()
	return n.writeObject(ctx, bucket, key, st, m)
}

// writeObject completes a mutation by an object's rows and carries it out.
// Unless the object may have been written, its shards go after an error.
func (n *Node) writeObject(ctx context.Context, bucket *core.Bucket, key string, st *stored, m *mutation) (core.ObjectInfo, error) {
	if len(st.rec.Extents) > 0 && n.clock.Boot().Sub(st.at) > commitWithin {
		n.garbage.discard(&st.rec)
		return core.ObjectInfo{}, fmt.Errorf("%q was stored more than %v ago and not committed: %w", key, commitWithin, core.ErrUnavailable)
	}
	brief := st.rec
	brief.Inline, brief.Extents = nil, nil
	m.entry.Answer = core.AppendRecord(nil, &brief)
	more := m.entry.Rows
	var out outcome
	err := n.writePlaced(ctx, bucket, key, &st.rec, func() (err error) {
		m.entry.Rows = append(objectRows(bucket.ID, key, st), more...)
		out, err = n.write(ctx, m)
		return err
	})
	if err != nil {
		if surelyRefused(err) {
			n.garbage.discard(&st.rec)
		}
		return core.ObjectInfo{}, err
	}
	if !bytes.Equal(out.answer, m.entry.Answer) {
		n.garbage.discard(&st.rec)
	}
	rec, err := core.DecodeRecord(out.answer)
	if err != nil {
		return core.ObjectInfo{}, fmt.Errorf("answer to the write of %q: %w", key, err)
	}
	return info(bucket, key, rec, out.version), nil
}

// writePlaced calls write, which commits a record, and puts shards somewhere
// else when the owner says that one of their disks is leaving.
func (n *Node) writePlaced(ctx context.Context, bucket *core.Bucket, key string, rec *core.Record, write func() error) error {
	const tries = 3
	for i := 0; ; i++ {
		err := write()
		if !errors.Is(err, errPlaceAgain) && !isPlaceAgain(err) || i == tries {
			return err
		}
		if err := n.placeAgain(ctx, bucket, key, rec); err != nil {
			return err
		}
	}
}

// surelyRefused says whether a write that ended in err did not take place and
// never will. After any other error, a client that went away included, the
// record may be committed yet, and what it names is left to the sweep.
func surelyRefused(err error) bool {
	_, refused := refusalOf(err)
	return refused && !isPlaceAgain(err) && !errors.Is(err, core.ErrUnknownOutcome) && !errors.Is(err, core.ErrUnavailable)
}

// isPlaceAgain recognises errPlaceAgain after it crossed the wire.
func isPlaceAgain(err error) bool {
	return err != nil && errors.Is(err, core.ErrConflict) && bytes.Contains([]byte(err.Error()), []byte("a disk that was chosen is leaving"))
}

// objectRows are the rows that an object consists of.
func objectRows(b core.BucketID, key string, st *stored) []core.Row {
	k := objectKey(b, key)
	rows := []core.Row{{RowKey: k, Value: core.AppendRecord(nil, &st.rec)}}
	if st.data != nil {
		rows = append(rows, core.Row{RowKey: dataKey(k), Value: st.data})
	}
	return rows
}

func objectKey(b core.BucketID, key string) core.RowKey {
	return core.RowKey{Bucket: b, Space: core.SpaceObject, Key: key}
}

// mutation begins a write of a key.
func (n *Node) mutation(bucket *core.Bucket, key string, id core.RequestID) *mutation {
	return &mutation{
		slot:  slotOf(n.driver.effect.Load(), bucket.ID, key),
		need:  needOf(bucket),
		entry: core.Entry{Request: id},
	}
}

// needOf says over how many failure domains a record of the bucket must be.
func needOf(b *core.Bucket) slot.Need {
	return slot.Need{Domains: b.Policy.Scheme.MinRecordDomains(), Domain: b.Policy.Domain}
}

// info describes a record to the outside.
func info(bucket *core.Bucket, key string, rec *core.Record, v core.Version) core.ObjectInfo {
	out := core.ObjectInfo{Bucket: bucket.Name, Key: key, Record: *rec, Version: v}
	out.Inline, out.Extents = nil, nil
	return out
}

// store takes a body in: small ones into memory, larger ones onto disks. After
// an error nothing is left behind.
func (n *Node) store(ctx context.Context, bucket *core.Bucket, key string, body io.Reader, opt *core.PutOptions, inline int64) (*stored, error) {
	in := newIngest(body, bucket, opt)
	defer in.close()
	head, whole, err := in.head(inline)
	if err != nil {
		return nil, err
	}
	st := &stored{rec: core.Record{Scheme: bucket.Policy.Scheme}}
	if whole {
		if err := in.finish(&st.rec); err != nil {
			return nil, err
		}
		if len(head) <= inlineInRecord {
			st.rec.Inline = head
		} else {
			st.data = head
		}
		return st, nil
	}
	ext, err := n.writeExtent(ctx, bucket, key, io.MultiReader(bytes.NewReader(head), in), opt)
	if err != nil {
		return nil, err
	}
	st.at = n.clock.Boot()
	if ext.Size > 0 {
		st.rec.Extents = []core.Extent{ext}
	}
	if err := in.finish(&st.rec); err != nil {
		n.garbage.discard(&st.rec)
		return nil, err
	}
	return st, nil
}

// writeExtent streams bytes onto the disks that the bucket's policy asks for.
func (n *Node) writeExtent(ctx context.Context, bucket *core.Bucket, key string, src io.Reader, opt *core.PutOptions) (core.Extent, error) {
	m := n.driver.effect.Load()
	p := n.placer(m)
	ids := p.Shards(bucket.ID, key, bucket.Policy)
	spec := core.WriteSpec{
		Meta: core.ShardMeta{Bucket: bucket.ID, Key: key, Request: opt.Request},
		Dst:  make([]core.Target, len(ids)),
		Min:  bucket.Policy.Scheme.MinWrite(),
		Size: opt.Size,
	}
	for i, id := range ids {
		spec.Dst[i] = n.target(m, id)
	}
	spec.Substitute = n.substitute(p, m, bucket, key, ids)
	ext, err := n.coder(bucket.Policy.Scheme).Write(ctx, spec, src)
	if err != nil {
		return ext, fmt.Errorf("data of %q: %w", key, err)
	}
	if ext.Size > 0 && ext.Missing() > 0 {
		n.healLater(bucket.ID, key)
	}
	return ext, nil
}

// substitute chooses the next disk in rendezvous order that keeps the rule of
// the failure domain.
func (n *Node) substitute(p *placement.Placer, m *core.Map, bucket *core.Bucket, key string, ids []core.DiskID) func(int, core.Target, error) (core.Target, bool) {
	places := append([]core.DiskID(nil), ids...)
	tried := append([]core.DiskID(nil), ids...)
	return func(shard int, failed core.Target, cause error) (core.Target, bool) {
		n.health.shardFailed(failed.Disk, cause)
		id, ok := p.Substitute(bucket.ID, key, bucket.Policy, places, shard, tried)
		if !ok {
			return core.Target{}, false
		}
		places[shard] = id
		tried = append(tried, id)
		return n.target(m, id), true
	}
}

// target is a disk with its store, or none for disk 0.
func (n *Node) target(m *core.Map, id core.DiskID) core.Target {
	node := m.NodeOf(id)
	if id == 0 || node == "" {
		return core.Target{}
	}
	return core.Target{Disk: id, Store: n.net.Store(node, id)}
}

// sources are the stores that have an extent's shards, nil where the map says
// that the disk is gone.
func (n *Node) sources(m *core.Map, e *core.Extent) []core.Store {
	src := make([]core.Store, len(e.Places))
	for i, p := range e.Places {
		d := m.Disk(p.Disk)
		if d == nil || d.State == core.DiskFailed || d.State == core.DiskDetached || m.Node(d.Node).State == core.NodeDown {
			continue
		}
		src[i] = n.net.Store(d.Node, p.Disk)
	}
	return src
}

// Head describes an object.
func (o *Objects) Head(ctx context.Context, bucket core.Bucket, key string, opt core.GetOptions) (core.ObjectInfo, error) {
	if err := core.ValidateKey(key); err != nil {
		return core.ObjectInfo{}, err
	}
	if bucket.Name.Remote() {
		return o.node.headRemote(ctx, &bucket, key, &opt)
	}
	rec, row, err := o.node.record(ctx, bucket.ID, key)
	if err != nil {
		return core.ObjectInfo{}, err
	}
	out := info(&bucket, key, rec, row.Version)
	if err := opt.Conditions.CheckRead(rec.ETag, rec.Modified); err != nil {
		return out, err
	}
	_, _, err = span(rec, &opt)
	return out, err
}

// Get opens an object.
func (o *Objects) Get(ctx context.Context, bucket core.Bucket, key string, opt core.GetOptions) (*core.Object, error) {
	if err := core.ValidateKey(key); err != nil {
		return nil, err
	}
	return o.node.open(ctx, &bucket, key, opt, (*core.Conditions).CheckRead)
}

// open opens an object once its conditions hold. If its shards are gone the
// record was replaced meanwhile, and is read again.
func (n *Node) open(ctx context.Context, bucket *core.Bucket, key string, opt core.GetOptions, checkCond func(*core.Conditions, string, time.Time) error) (*core.Object, error) {
	if bucket.Name.Remote() {
		return n.openRemote(ctx, bucket, key, opt, checkCond)
	}
	const tries = 5
	for i := 0; ; i++ {
		f, err := n.object(ctx, bucket.ID, key, true)
		if err != nil {
			return nil, err
		}
		obj := &core.Object{ObjectInfo: info(bucket, key, f.rec, f.row.Version)}
		if err = checkCond(&opt.Conditions, f.rec.ETag, f.rec.Modified); err == nil {
			obj.Start, obj.Length, err = span(f.rec, &opt)
		}
		if err != nil {
			f.data.free()
			return obj, err
		}
		obj.Body, err = n.body(ctx, bucket, key, &f, obj.Start, obj.Length, opt.SendFile)
		if err == nil {
			return obj, nil
		}
		_, again, err2 := n.record(ctx, bucket.ID, key)
		if err2 != nil || again.Version == f.row.Version || i == tries {
			return nil, fmt.Errorf("data of %q: %w", key, err)
		}
	}
}

// span says which bytes of the object a request asks for.
func span(rec *core.Record, opt *core.GetOptions) (start, length int64, err error) {
	switch {
	case opt.Part > 0:
		if len(rec.Parts) == 0 && opt.Part == 1 {
			return 0, rec.Size, nil
		}
		if opt.Part > len(rec.Parts) {
			return 0, 0, fmt.Errorf("part %d of %d: %w", opt.Part, max(len(rec.Parts), 1), core.ErrRange)
		}
		for _, s := range rec.Parts[:opt.Part-1] {
			start += s
		}
		return start, rec.Parts[opt.Part-1], nil
	case opt.Range != nil:
		return opt.Range.Resolve(rec.Size)
	}
	return 0, rec.Size, nil
}

// body opens the bytes of a record, and takes over its data.
func (n *Node) body(ctx context.Context, bucket *core.Bucket, key string, f *found, start, length int64, sendFile bool) (io.ReadCloser, error) {
	rec := f.rec
	if !hasDataRow(rec) && len(rec.Extents) > 0 && length > 0 {
		return n.openExtents(ctx, bucket.ID, key, rec.Extents, start, length, sendFile && bucket.Policy.Sendfile)
	}
	data := f.data.b
	if rec.Inline != nil {
		data = rec.Inline
	}
	if int64(len(data)) < start+length {
		f.data.free()
		return nil, fmt.Errorf("data of %q: %d of %d bytes: %w", key, len(data), rec.Size, core.ErrCorrupt)
	}
	return &memoryBody{Reader: *bytes.NewReader(data[start : start+length]), data: f.data}, nil
}

// memoryBody is a body that is in memory; it writes itself in one piece.
type memoryBody struct {
	bytes.Reader
	data blob
}

// Close is part of io.Closer.
func (b *memoryBody) Close() error {
	b.Reset(nil)
	b.data.free()
	return nil
}

// Delete removes an object.
func (o *Objects) Delete(ctx context.Context, bucket core.Bucket, key string, c core.Conditions, id core.RequestID) error {
	return o.remove(ctx, bucket, key, c, id, false)
}

// DeleteFirst implements [core.FirstDeleter].
func (o *Objects) DeleteFirst(ctx context.Context, bucket core.Bucket, key string, c core.Conditions, id core.RequestID) error {
	return o.remove(ctx, bucket, key, c, id, true)
}

func (o *Objects) remove(ctx context.Context, bucket core.Bucket, key string, c core.Conditions, id core.RequestID, fresh bool) error {
	if err := core.ValidateKey(key); err != nil {
		return err
	}
	if bucket.Name.Remote() {
		return o.node.deleteRemote(ctx, &bucket, key, c, id)
	}
	m := o.node.mutation(&bucket, key, id)
	m.fresh = fresh
	k := objectKey(bucket.ID, key)
	if !c.IsZero() {
		m.checks = []check{{kind: checkConditions, row: k, conditions: c}}
	}
	m.entry.Rows = []core.Row{{RowKey: k, Deleted: true}}
	_, err := o.node.write(ctx, m)
	return err
}

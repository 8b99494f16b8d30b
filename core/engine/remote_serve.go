package engine

import (
	"context"
	"fmt"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/slot"
)

// serveRemote answers the calls that are about remote objects.
func (n *Node) serveRemote(ctx context.Context, method uint16, req []byte) ([]byte, error) {
	switch method {
	case methodRemoteGet:
		return n.serveRemoteGet(ctx, req)
	case methodRemoteOpen:
		return n.serveRemoteOpen(ctx, req)
	case methodSettle:
		return n.serveSettle(ctx, req)
	}
	return n.serveFetch(ctx, req)
}

// serveFetch answers a fetchRequest.
func (n *Node) serveFetch(ctx context.Context, req []byte) ([]byte, error) {
	q, err := decodeFetch(req)
	if err != nil {
		return nil, err
	}
	s := n.remotes.numbered(q)
	if q.leave {
		if s != nil {
			s.leave(q.reader)
		}
		return nil, nil
	}
	if s == nil {
		if err := n.remotes.wrong(q); err != nil {
			return appendErrorAnswer(q.session, nil, err), nil
		}
		var answer []byte
		if s, answer, err = n.session(ctx, q); s == nil {
			return answer, err
		}
	}
	return s.serve(ctx, q)
}

// serve answers a request, see read.
func (s *fetchSession) serve(ctx context.Context, q *fetchRequest) ([]byte, error) {
	out, err := s.read(ctx, q)
	if ctx.Err() != nil {
		s.leave(q.reader) // it has gone, or comes again
	}
	return out, err
}

// serveRemoteOpen answers a read that begins: with the object's record, or, where
// nothing is present and no write under way, with the first bytes that are fetched.
func (n *Node) serveRemoteOpen(ctx context.Context, req []byte) ([]byte, error) {
	q, err := decodeFetch(req)
	if err != nil {
		return nil, err
	}
	f, g, err := n.getRemote(ctx, q.slot, objectName{q.bucket, q.key}, true)
	if err != nil {
		return nil, err
	}
	defer f.data.free()
	if f.rec != nil || f.unsettled {
		return appendRemoteFound([]byte{openFound}, q.slot, f), nil
	}
	b, err := n.remoteByID(ctx, q.bucket)
	if err != nil {
		return nil, err
	}
	s, err := n.remotes.join(q, b, g, nil) //nolint:contextcheck // a session outlives who asks
	if err != nil {
		return nil, err
	}
	answer, err := s.serve(ctx, q)
	if err != nil {
		return nil, err
	}
	return append(core.AppendVersion([]byte{openCold}, f.intent), answer...), nil
}

// openRow is remoteRow for a read that begins with q. What is cold its owner begins
// to fetch at once, and answers q, if that is another node and there are not too many
// calls for bytes under way.
func (n *Node) openRow(ctx context.Context, q *fetchRequest) (*remoteFound, *fetchAnswer, error) {
	if m := n.driver.effect.Load(); m != nil && int(q.slot) < len(m.Slots) && m.OwnerNode(q.slot) != n.id {
		select {
		case n.remotes.calls <- struct{}{}:
			resp, err := n.call(ctx, q.slot, methodRemoteOpen, q.append(nil))
			<-n.remotes.calls
			if err == nil || ctx.Err() != nil || retryable(err) {
				return decodeOpened(resp, err)
			}
			// It may be of an older version; else the same is said again.
		default:
		}
	}
	f, err := n.remoteRow(ctx, q.slot, objectName{q.bucket, q.key}, true)
	return f, nil, err
}

// session finds or begins the session for a request, or answers it otherwise.
func (n *Node) session(ctx context.Context, q *fetchRequest) (*fetchSession, []byte, error) {
	name := objectName{q.bucket, q.key}
	have, g, err := n.getRemote(ctx, q.slot, name, false)
	if err != nil {
		return nil, nil, err
	}
	base := have.rec
	switch {
	case have.unsettled && q.version == "":
		return nil, appendAnswer(nil, fetchUnsettled, 0, nil), nil
	case have.unsettled, !q.keep:
		q.keep, base = false, nil
	case base != nil && (q.version == "" || remoteVersion(base) == q.version && runEnd(base, q.off) > q.off):
		return nil, appendAnswer(nil, fetchPresent, 0, nil), nil
	case base != nil && remoteVersion(base) != q.version:
		// The reader began before that was present.
		q.keep, base = false, nil
	}
	b, err := n.remoteByID(ctx, q.bucket)
	if err != nil {
		return nil, nil, err
	}
	s, err := n.remotes.join(q, b, g, base) //nolint:contextcheck // a session outlives who asks
	return s, nil, err
}

// getRemote reads an object's record, whether a write of it is under way, and
// with data what a small object keeps in a row of its own, in a slot that this
// node owns. That there is no record is no error.
func (n *Node) getRemote(ctx context.Context, s core.SlotID, name objectName, data bool) (*remoteFound, slot.Reading, error) {
	defer n.heal.brake.enter()()
	g, _, err := n.reading(s)
	if err != nil {
		return nil, g, err
	}
	f := &remoteFound{}
	// The intent first: if there was none then, the record read after that is
	// what the remote had at that time, or later.
	intent, err := n.rowAt(ctx, s, intentKey(name), &g, nil)
	if err == nil {
		f.intent = intent.Version
		f.unsettled, err = pendingIntent(&intent)
		if f.unsettled {
			n.writers.task(name, s, nil)
		}
	}
	if err == nil || absent(err) {
		f.row, err = n.rowAt(ctx, s, objectKey(name.bucket, name.key), &g, nil)
	}
	if err == nil {
		if data {
			err = n.dataOf(ctx, s, &f.found, &g)
		} else if f.rec, err = core.DecodeRecord(f.row.Value); err != nil {
			err = fmt.Errorf("record of %q: %w", name.key, err)
		}
	}
	if absent(err) {
		err, f.rec = nil, nil
	}
	if err == nil {
		err = n.driver.answer(ctx, g)
	}
	if err != nil {
		f.data.free()
		return nil, g, err
	}
	if data {
		n.accesses.note(name.bucket, name.key)
	}
	return f, g, nil
}

// serveRemoteGet is getRemote for other nodes.
func (n *Node) serveRemoteGet(ctx context.Context, req []byte) ([]byte, error) {
	s, k, data, err := decodeGet(req)
	if err != nil {
		return nil, err
	}
	f, _, err := n.getRemote(ctx, s, objectName{k.Bucket, k.Key}, data)
	if err != nil {
		return nil, err
	}
	defer f.data.free()
	return appendRemoteFound(nil, s, f), nil
}

// remoteRow reads an object's record and state from its slot's owner.
func (n *Node) remoteRow(ctx context.Context, s core.SlotID, name objectName, data bool) (*remoteFound, error) {
	if m := n.driver.effect.Load(); n.driver.confirms == nil && m != nil && int(s) < len(m.Slots) && m.OwnerNode(s) == n.id {
		f, _, err := n.getRemote(ctx, s, name, data)
		if err == nil || !retryable(err) {
			return f, err
		}
	}
	resp, err := n.call(ctx, s, methodRemoteGet, appendGet(nil, s, objectKey(name.bucket, name.key), data))
	if err != nil {
		return nil, err
	}
	return decodeRemoteFound(resp)
}

// intentKey names the row of a write of a remote object that is under way.
func intentKey(name objectName) core.RowKey {
	return core.RowKey{Bucket: name.bucket, Space: core.SpaceIntent, Key: name.key}
}

package remote

import (
	"slices"

	"github.com/shoalstore/shoal/core"
)

const (
	// onePut is the most bytes that are sent as one request, where parts are
	// possible: beyond it, parts in parallel are faster.
	onePut = 32 << 20
	// usualPart is the size of parts, unless there would be too many.
	usualPart = 16 << 20
	// largestPart is S3's limit.
	largestPart = 5 << 30
)

// PlanParts returns the sizes of the parts in which an object is written to a backend;
// nil is one request. The client's own parts are kept where the backend takes them,
// so that the object gets the ETag that the client computes.
func PlanParts(r *core.Record, a core.RemoteAbilities) []int64 {
	if a.MaxParts <= 0 || r.Size == 0 {
		return nil
	}
	if takesParts(r, a) {
		return slices.Clone(r.Parts)
	}
	if r.Size <= onePut {
		return nil
	}
	const unit = 1 << 20
	most := (r.Size + a.MaxParts - 1) / a.MaxParts
	size := max(usualPart, a.PartSize, (most+unit-1)/unit*unit)
	var parts []int64
	for left := r.Size; left > 0; left -= size {
		parts = append(parts, min(size, left))
	}
	return parts
}

// takesParts says whether the backend takes the parts in which the object came.
func takesParts(r *core.Record, a core.RemoteAbilities) bool {
	if len(r.Parts) == 0 || int64(len(r.Parts)) > a.MaxParts {
		return false
	}
	var sum int64
	for i, n := range r.Parts {
		if n <= 0 || n > largestPart || n < a.PartSize && i < len(r.Parts)-1 {
			return false
		}
		sum += n
	}
	return sum == r.Size
}

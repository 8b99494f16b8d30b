package remote

import (
	"crypto/md5" //nolint:gosec // S3's ETag
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// algorithmMD5 is the name of an MD5 among an intent's sums.
const algorithmMD5 = "MD5"

// MD5Sum is the checksum that [Intent.Sums] holds for an MD5 of 16 bytes.
func MD5Sum(sum []byte) core.Checksum {
	return core.Checksum{Algorithm: algorithmMD5, Value: base64.StdEncoding.EncodeToString(sum)}
}

// ETagOfParts is the ETag that S3 gives an object that was uploaded in parts with
// these MD5s.
func ETagOfParts(md5s [][]byte) string {
	h := md5.New() //nolint:gosec // S3's ETag
	for _, s := range md5s {
		_, _ = h.Write(s)
	}
	return hex.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(md5s))
}

// wrote says whether an object at the remote is what the intent writes: size,
// content and the user's metadata. Where nothing can be compared the answer is no.
//
// A content is recognised by a checksum of whole objects, which must agree in every
// algorithm that both sides know, or by the ETag: that of one PUT is the MD5, that of
// parts the one which was computed when they were uploaded.
func (in *Intent) wrote(o *core.RemoteObject) bool {
	if in.Operation != Write || o.Size != in.Record.Size || !hasMeta(o.Meta, in.Record.Meta) {
		return false
	}
	ours := in.sums()
	theirs := []core.Checksum{o.Checksum}
	if len(o.MD5) > 0 {
		theirs = append(theirs, MD5Sum(o.MD5))
	}
	agreed := false
	for _, t := range theirs {
		for _, s := range ours {
			if t.Algorithm == "" || t.Composite || s.Composite || t.Algorithm != s.Algorithm {
				continue
			}
			if t.Value != s.Value {
				return false
			}
			agreed = true
		}
	}
	return agreed || in.expects(o.ETag)
}

// sums are all checksums of the whole content that are known.
func (in *Intent) sums() []core.Checksum {
	out := append([]core.Checksum{in.Record.Checksum}, in.Sums...)
	if m := plainMD5(in.Record.ETag); m != nil {
		out = append(out, MD5Sum(m))
	}
	for i := range in.Attempts {
		if a := &in.Attempts[i]; a.Request == in.Request && a.Sum.Algorithm != "" {
			out = append(out, a.Sum)
		}
	}
	return out
}

// expects says whether what the intent writes gets this ETag in S3.
func (in *Intent) expects(etag string) bool {
	if etag == "" || in.Operation != Write {
		return false
	}
	if etag == in.Record.ETag {
		return true
	}
	for i := range in.Attempts {
		if a := &in.Attempts[i]; a.Request == in.Request && a.ETag == etag {
			return true
		}
	}
	sum := plainMD5(etag)
	for _, s := range in.Sums {
		if sum != nil && s == MD5Sum(sum) {
			return true
		}
	}
	return false
}

// plainMD5 returns the MD5 that an ETag is, nil if it is none.
func plainMD5(etag string) []byte {
	sum, err := hex.DecodeString(etag)
	if err != nil || len(sum) != md5.Size {
		return nil
	}
	return sum
}

// hasMeta says whether all that was to be written is there.
func hasMeta(got, want map[string]string) bool {
	lower := make(map[string]string, len(got))
	for k, v := range got {
		lower[strings.ToLower(k)] = v
	}
	for k, v := range want {
		if g, ok := lower[strings.ToLower(k)]; !ok || g != v {
			return false
		}
	}
	return true
}

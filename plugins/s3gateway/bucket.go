package s3gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/s3gateway/sigv4"
)

func detail(name string, n int64) sigv4.Detail {
	return sigv4.Detail{Name: name, Value: strconv.FormatInt(n, 10)}
}

// listBuckets serves ListBuckets.
func (q *request) listBuckets(ctx context.Context) error {
	limit, err := q.limit("max-buckets", 10000, 10000)
	if err != nil {
		return err
	}
	after, err := q.token("continuation-token")
	if err != nil {
		return err
	}
	all, err := q.objects.Buckets(ctx)
	if err != nil {
		return err
	}
	prefix := q.query.Get("prefix")
	all = slices.DeleteFunc(slices.Clone(all), func(b core.Bucket) bool {
		return !strings.HasPrefix(b.Alias, prefix) || b.Alias <= after
	})
	slices.SortFunc(all, func(a, b core.Bucket) int { return strings.Compare(a.Alias, b.Alias) })
	x := newDocument("ListAllMyBucketsResult", true)
	x.owner("Owner")
	x.open("Buckets")
	for _, b := range all[:min(limit, len(all))] {
		x.open("Bucket")
		x.text("Name", b.Alias)
		x.time("CreationDate", b.Created)
		x.text("BucketRegion", q.region)
		x.close("Bucket")
	}
	x.close("Buckets")
	if limit > 0 && limit < len(all) {
		x.text("ContinuationToken", makeToken(all[limit-1].Alias))
	}
	if prefix != "" {
		x.text("Prefix", prefix)
	}
	return q.writeXML(http.StatusOK, x.end("ListAllMyBucketsResult"))
}

// limit reads a parameter that bounds a page.
func (q *request) limit(name string, missing, most int) (int, error) {
	v, ok := q.query.Lookup(name)
	if !ok || v == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil || n < 0 {
		return 0, errInvalidArgument(name, v, "Argument "+name+" must be an integer between 0 and 2147483647")
	}
	return min(int(n), most), nil
}

// makeToken hides where a listing goes on, so that nobody relies on its form.
func makeToken(after string) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{'1'}, after...))
}

// token reads such a token; "" if there is none.
func (q *request) token(name string) (string, error) {
	v, ok := q.query.Lookup(name)
	if !ok {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(v)
	if err != nil || len(b) < 2 || b[0] != '1' {
		return "", errInvalidArgument(name, v, "The continuation token provided is incorrect")
	}
	return string(b[1:]), nil
}

// createBucket serves CreateBucket.
func (q *request) createBucket(ctx context.Context) error {
	doc, err := q.readDocument(maxSmallDocument)
	if err != nil {
		return err
	}
	if len(doc) > 0 {
		place, err := parseLocation(doc)
		if err != nil {
			return err
		}
		if place != "" && place != q.region {
			return bad("IllegalLocationConstraintException", "The "+place+" location constraint is incompatible for the region specific endpoint this request was sent to.")
		}
	}
	// It is found again by that name, so it must be its alias, too.
	_, err = q.objects.CreateBucket(ctx, core.BucketName{Provider: core.Shoal, Name: q.alias}, nil, q.alias)
	if err != nil {
		return err
	}
	q.set("Location", "/"+q.alias)
	return q.status(http.StatusOK)
}

// headBucket serves HeadBucket.
func (q *request) headBucket() error {
	q.set("x-amz-bucket-region", q.region)
	q.set("Content-Type", "application/xml")
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// deleteBucket serves DeleteBucket. Nothing of a remote is ever removed by it,
// so it does not say that it was.
func (q *request) deleteBucket(ctx context.Context) error {
	if q.bucket.Name.Remote() {
		return refuse(http.StatusConflict, "InvalidBucketState", "This bucket is "+q.bucket.Name.String()+
			", which a remote keeps: it is not removed through this cluster. (shoal bucket rm makes the cluster forget it.)")
	}
	if err := q.objects.DeleteBucket(ctx, q.alias); err != nil {
		return err
	}
	return q.status(http.StatusNoContent)
}

// bucketLocation serves GetBucketLocation. us-east-1 has no name here.
func (q *request) bucketLocation() error {
	x := newDocument("LocationConstraint", true)
	if q.region != "us-east-1" {
		x.b = appendText(x.b, q.region)
	}
	return q.writeXML(http.StatusOK, x.end("LocationConstraint"))
}

// bucketVersioning serves GetBucketVersioning: it was never enabled.
func (q *request) bucketVersioning() error {
	return q.writeXML(http.StatusOK, newDocument("VersioningConfiguration", true).end("VersioningConfiguration"))
}

// writeACL serves GetBucketAcl: the owner may do everything, nobody else
// anything.
func (q *request) writeACL() error {
	x := newDocument("AccessControlPolicy", true)
	x.owner("Owner")
	x.open("AccessControlList")
	x.open("Grant")
	x.b = append(x.b, `<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">`...)
	x.text("ID", ownerID)
	x.text("DisplayName", ownerID)
	x.close("Grantee")
	x.text("Permission", "FULL_CONTROL")
	x.close("Grant")
	x.close("AccessControlList")
	return q.writeXML(http.StatusOK, x.end("AccessControlPolicy"))
}

// objectACL serves GetObjectAcl.
func (q *request) objectACL(ctx context.Context) error {
	if _, err := q.objects.Head(ctx, q.bucket, q.key, core.GetOptions{}); err != nil {
		return err
	}
	return q.writeACL()
}

// deleteObjects serves DeleteObjects.
func (q *request) deleteObjects(ctx context.Context) error {
	doc, err := q.readDocument(maxDeleteDocument)
	if err != nil {
		return err
	}
	req, err := parseDelete(doc)
	if err != nil {
		return err
	}
	errs := q.deleteAll(ctx, req.objects)
	x := newDocument("DeleteResult", true)
	for i, o := range req.objects {
		if errs[i] == nil {
			if !req.quiet {
				x.open("Deleted")
				x.text("Key", o.key)
				x.close("Deleted")
			}
			continue
		}
		e := q.describe(errs[i])
		x.open("Error")
		x.text("Key", o.key)
		x.text("Code", e.Code)
		x.text("Message", q.message(e))
		x.close("Error")
	}
	return q.writeXML(http.StatusOK, x.end("DeleteResult"))
}

// deleteWidth is how many removals of one request run at once.
const deleteWidth = 16

// deleteAll removes objects and returns what became of each.
func (q *request) deleteAll(ctx context.Context, list []deleteItem) []error {
	errs := make([]error, len(list))
	each(len(list), deleteWidth, func(i int) { errs[i] = q.deleteOne(ctx, list[i]) })
	return errs
}

func (q *request) deleteOne(ctx context.Context, o deleteItem) error {
	if o.version != "" && o.version != "null" {
		return refuse(http.StatusNotFound, "NoSuchVersion", "The specified version does not exist: versions are not kept.")
	}
	if o.key == "" {
		return errInvalidArgument("Key", "", "A key must not be empty")
	}
	if err := checkKey(o.key); err != nil {
		return err
	}
	var c core.Conditions
	if o.etag != "" {
		c.IfMatch = []string{unquote(o.etag)}
	}
	err := q.objects.Delete(ctx, q.bucket, o.key, c, core.NewRequestID())
	if errors.Is(err, core.ErrNotFound) && o.etag != "" {
		return refuse(http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	}
	return err
}

package api

import (
	"net/url"
	"strings"

	"github.com/shoalstore/shoal/core"
)

// Prefix begins every path of the interface.
const Prefix = "/-/api/v1"

// The probes and the metrics are not signed.
const (
	LivePath    = "/-/live"
	ReadyPath   = "/-/ready"
	MetricsPath = "/-/metrics"
)

// The paths of collections.
const (
	ClusterPath     = Prefix + "/cluster"
	NodesPath       = Prefix + "/nodes"
	DisksPath       = Prefix + "/disks"
	MapPath         = Prefix + "/map"
	BucketsPath     = Prefix + "/buckets"
	ResolvePath     = BucketsPath + "/resolve"
	JobsPath        = Prefix + "/jobs"
	JobKindsPath    = Prefix + "/jobs/kinds"
	PreviewPath     = Prefix + "/jobs/preview"
	PerformancePath = Prefix + "/performance"
	TransformsPath  = Prefix + "/transforms"
)

// NodePath is the path of a node.
func NodePath(n core.NodeID) string { return NodesPath + "/" + url.PathEscape(string(n)) }

// DiskPath is the path of the disk of that name on a node.
func DiskPath(n core.NodeID, disk string) string {
	return DisksPath + "/" + url.PathEscape(string(n)) + "/" + url.PathEscape(disk)
}

// BucketPath is the path of a bucket. Provider and name are segments of their
// own, so that no signer or proxy has to agree on how "://" is escaped.
func BucketPath(b core.BucketName) string {
	return BucketsPath + "/" + url.PathEscape(string(b.Provider)) + "/" + escapeName(b.Name)
}

// escapeName escapes a bucket's name as a signature wants it: the colon of an origin, too.
func escapeName(name string) string { return strings.ReplaceAll(url.PathEscape(name), ":", "%3A") }

// ObjectsPath is the path of a bucket's listing.
func ObjectsPath(b core.BucketName) string { return BucketPath(b) + "/objects" }

// SummaryPath is the path of a bucket's summary.
func SummaryPath(b core.BucketName) string { return BucketPath(b) + "/summary" }

// JobPath is the path of a job.
func JobPath(id string) string { return JobsPath + "/" + url.PathEscape(id) }

// TransformPath is the path of a transform.
func TransformPath(name string) string { return TransformsPath + "/" + url.PathEscape(name) }

// Package api is Shoal's own HTTP interface, served under /-/api/v1 on the
// client port: its paths, the JSON of its requests and answers, and its errors.
// Server and client share it. It does no I/O.
//
//	GET    /cluster[?healthy=true&wait=20s]              Cluster
//	GET    /nodes                                        Nodes
//	GET    /nodes/{node}                                 Node
//	PATCH  /nodes/{node}                 Placement       Node
//	POST   /nodes/{node}/{action}                        Node    maintenance-start, maintenance-stop, decommission
//	GET    /disks[?node=n1]                              Disks
//	GET    /disks/{node}/{disk}                          Disk
//	PATCH  /disks/{node}/{disk}          Placement       Disk
//	POST   /disks/{node}/{disk}/{action}                 Disk    detach, attach, format, rebuild
//	GET    /map                                          core.Map
//	GET    /buckets[?provider=s3&all=true]               Buckets
//	GET    /buckets/{provider}/{bucket}                  Bucket
//	PUT    /buckets/{provider}/{bucket}  CreateBucket    Bucket
//	PATCH  /buckets/{provider}/{bucket}  SetBucket       Bucket
//	DELETE /buckets/{provider}/{bucket}                  -
//	GET    /buckets/{provider}/{bucket}/summary[?presence&all]                       Summary, see also [SummaryPart]
//	GET    /buckets/{provider}/{bucket}/objects[?prefix&after&max&presence&names]     lines, see [ListWriter]
//	GET    /jobs[?kind&bucket&all=true]                  Jobs
//	POST   /jobs                         JobSpec         Job
//	GET    /jobs/kinds                                   JobKinds
//	GET    /jobs/{id}[?wait=20s]                         Job
//	POST   /jobs/{id}/stop                               Job
//	GET    /jobs/{id}/errors[?after&max]                 JobErrors
//	GET    /performance                                  Performance
//	GET    /transforms                                   Transforms
//	GET    /transforms/{name}                            Transform
//	PUT    /transforms/{name}            Transform       Transform
//	DELETE /transforms/{name}                            -
//	POST   /transforms/{name}/{action}                   Transform   start, stop
//	GET    /transforms/{name}/errors[?job]               JobErrors
//	GET    /transforms/{name}/logs                       TransformLogs
//
// Requests are signed with SigV4 for the service "s3", as S3 requests are.
// Every request may be repeated: whoever repeats one that has taken effect gets
// the same answer or, for a creation, "exists". Sizes are integers in bytes,
// times RFC 3339, durations in parameters as Go writes them ("20s").
//
// An error is an [Error] in an envelope, under the status that [Error.Status]
// gives:
//
//	{"error":{"code":"no_such_bucket","message":"shoal://b: no such bucket","hint":"shoal bucket create shoal://b"}}
package api

package core

import "errors"

// Errors that cross package borders. Wrap them with %w and match them with
// [errors.Is]; gateways turn them into status codes.
var (
	// ErrNotFound says that the thing is known not to exist. It is never
	// returned where existence could not be established; that is
	// ErrUnavailable.
	ErrNotFound = errors.New("not found")
	// ErrNoSuchBucket is ErrNotFound for a bucket.
	ErrNoSuchBucket = errors.New("no such bucket")
	// ErrNoSuchUpload is ErrNotFound for a multipart upload.
	ErrNoSuchUpload = errors.New("no such multipart upload")
	// ErrExists says that a name is taken.
	ErrExists = errors.New("already exists")
	// ErrNotEmpty refuses the removal of a bucket that holds objects.
	ErrNotEmpty = errors.New("bucket not empty")
	// ErrPrecondition says that a condition of a request does not hold.
	ErrPrecondition = errors.New("precondition failed")
	// ErrNotModified says that a conditional read has nothing new to return.
	ErrNotModified = errors.New("not modified")
	// ErrConflict says that a concurrent operation won; the caller may retry.
	ErrConflict = errors.New("conflict")
	// ErrInvalid refuses an argument.
	ErrInvalid = errors.New("invalid argument")
	// ErrRange says that a byte range lies outside the object.
	ErrRange = errors.New("range not satisfiable")
	// ErrUnavailable says that the cluster cannot answer now: too few nodes,
	// disks or voters, or no active owner. Nothing is known about the outcome
	// beyond what the message says; the caller may retry.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnknownOutcome is ErrUnavailable for a write that may or may not
	// take effect. It is settled before the key is read again.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrNotOwner says that this node does not own the slot; ask the owner.
	ErrNotOwner = errors.New("not the owner of the slot")
	// ErrCorrupt says that stored bytes do not match their checksum.
	ErrCorrupt = errors.New("corrupt data")
	// ErrNoSpace says that a disk is full.
	ErrNoSpace = errors.New("no space left on disk")
	// ErrDiskFailed says that a disk does not serve any more.
	ErrDiskFailed = errors.New("disk failed")
	// ErrUnformatted says that a directory carries no shoal.json.
	ErrUnformatted = errors.New("not a Shoal disk")
	// ErrLocked says that another process uses the disk.
	ErrLocked = errors.New("in use by another process")
	// ErrChecksum says that the bytes sent by a client do not match the
	// checksum that it declared.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrTooLarge refuses input beyond a limit.
	ErrTooLarge = errors.New("too large")
	// ErrInvalidPart says that a Complete names a part which was not uploaded,
	// or by another ETag or checksum.
	ErrInvalidPart = errors.New("invalid part")
	// ErrPartTooSmall says that a part which is not the last is smaller than
	// [MinPart].
	ErrPartTooSmall = errors.New("part too small")
	// ErrNewer says that stored data was made by a later version of Shoal, in
	// a form that this one does not know. It is left as it is.
	ErrNewer = errors.New("made by a newer version of Shoal")
	// ErrPermission refuses an operation to this caller.
	ErrPermission = errors.New("permission denied")
	// ErrThrottled says that a backend asks for fewer requests. It is
	// ErrUnavailable for a while, and what was asked was not done.
	ErrThrottled = errors.New("throttled")
	// ErrWrongRegion says that a bucket of a backend is in another region than
	// the one asked.
	ErrWrongRegion = errors.New("wrong region")
)
